// SPDX-License-Identifier: GPL-3.0-or-later
//! Progress on a terminal's standard error; where there is none, one line a phase, so that logs stay short.

use std::cell::RefCell;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};
use offline_repo::words::human;

/// One line that changes: a message, and a bar while bytes move.
pub struct Screen {
    bar: ProgressBar,
    phases: bool,
    told: RefCell<String>,
}

impl Screen {
    /// A screen with nothing on it. indicatif itself is silent where standard error is no terminal: `phases` says whether
    /// each phase is then a line.
    pub fn new(phases: bool) -> Self {
        Self {
            bar: ProgressBar::new_spinner(),
            phases,
            told: RefCell::default(),
        }
    }

    fn phase(&self, line: &str) {
        if self.phases && self.bar.is_hidden() && *self.told.borrow() != line {
            // Nobody is left to tell when standard error is closed.
            drop(writeln!(io::stderr(), "  {line}"));
            line.clone_into(&mut self.told.borrow_mut());
        }
    }

    /// Says what is being done.
    pub fn say(&self, message: String) {
        self.phase(&message);
        self.bar.set_message(message);
        self.bar.tick();
    }

    /// Shows how many bytes of how many have moved.
    pub fn bytes(&self, what: &str, done: u64, total: u64) {
        self.phase(&format!("{what}: {}", human(total)));
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            let style = ProgressStyle::with_template(
                "{msg:24} {wide_bar} {decimal_bytes:>10} / {decimal_total_bytes} {decimal_bytes_per_sec}",
            );
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
