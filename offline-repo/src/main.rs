// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-repo`: parses the command line and calls the library.

mod commands;
mod progress;

use std::process::ExitCode;

use clap::Parser;
use signing::output;

fn main() -> ExitCode {
    match commands::run(&commands::Cli::parse()) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => output::report_as("bastide-repo", &error, output::json_wanted()),
    }
}
