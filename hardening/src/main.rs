// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-audit`: parses the command line and calls the library.

use std::process::ExitCode;

use clap::Parser;
use hardening::cli::Cli;

fn main() -> ExitCode {
    match hardening::cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => signing::output::report("bastide-audit", &error),
    }
}
