// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line of the installer.

use std::process::ExitCode;

use clap::Parser;
use installer::cli::Cli;
use signing::output;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::report_as("bastide-install", &error, output::json_wanted()),
    }
}
