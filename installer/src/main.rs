// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line of the installer.

use std::process::ExitCode;

use clap::Parser;
use installer::cli::{self, Cli};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::end(&error),
    }
}
