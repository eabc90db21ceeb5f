// SPDX-License-Identifier: GPL-3.0-or-later
//! `journey`: the stories as a program, for the demonstration and for the tests.

use std::process::ExitCode;

use clap::Parser;
use journey::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => signing::output::report("journey", &error),
    }
}
