// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-host`: parses the command line and calls the library.

use std::process::ExitCode;

use clap::Parser;
use hypervisor::cli::{self, Args};
use signing::output;

fn main() -> ExitCode {
    match cli::run(Args::parse()) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => output::report_as("bastide-host", &error, output::json_wanted()),
    }
}
