// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-sign`: parses the command line and calls the library.

mod commands;

use std::process::ExitCode;

use clap::Parser;
use signing::output;

fn main() -> ExitCode {
    match commands::run(&commands::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::report_as("bastide-sign", &error, output::json_wanted()),
    }
}
