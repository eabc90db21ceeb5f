// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-iso`: builds the host image and the bootable medium.

use std::process::ExitCode;

use clap::Parser;
use iso_build::cli::{self, Cli};
use signing::output;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::report_as("bastide-iso", &error, output::json_wanted()),
    }
}
