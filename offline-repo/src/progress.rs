// SPDX-License-Identifier: GPL-3.0-or-later
//! Progress on a terminal's standard error; nothing where there is none, so that logs stay short.

use indicatif::{ProgressBar, ProgressStyle};

/// One line that changes: a message, and a bar while bytes move.
pub struct Screen {
    bar: ProgressBar,
}

impl Screen {
    /// A screen with nothing on it. indicatif itself is silent where standard error is no terminal.
    pub fn new() -> Self {
        Self {
            bar: ProgressBar::new_spinner(),
        }
    }

    /// Says what is being done.
    pub fn say(&self, message: String) {
        self.bar.set_message(message);
        self.bar.tick();
    }

    /// Shows how many bytes of how many have moved.
    pub fn bytes(&self, what: &str, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            let style =
                ProgressStyle::with_template("{msg:24} {wide_bar} {bytes:>10} / {total_bytes} {binary_bytes_per_sec}");
            if let Ok(style) = style {
                self.bar.set_style(style);
            }
        }
        self.bar.set_message(what.to_owned());
        self.bar.set_position(done);
    }

    /// Clears the line.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Bytes as a person reads them.
pub fn human(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}
