// SPDX-License-Identifier: GPL-3.0-or-later
//! What the init says: through the kernel's log, which reaches every console and stays readable after the boot.

use std::fs::OpenOptions;
use std::io::Write;

/// Says something that a person must read.
pub fn error(text: &str) {
    say(3, text);
}

/// Notes something for the log.
pub fn note(text: &str) {
    say(6, text);
}

fn say(level: u8, text: &str) {
    // One record a line, and no more than the kernel takes.
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(800)
        .collect();
    let written = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut log| log.write_all(format!("<{level}>bastide-init: {line}\n").as_bytes()));
    if written.is_err() {
        eprintln!("bastide-init: {line}");
    }
}
