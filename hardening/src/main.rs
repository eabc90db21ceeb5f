// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-audit`: parses the command line and calls the library.

use std::process::ExitCode;

use clap::Parser;
use hardening::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let as_json = cli.answers_json();
    match hardening::cli::run(cli) {
        Ok(code) => code,
        Err(error) => signing::output::report_as("bastide-audit", &error, as_json),
    }
}
