// SPDX-License-Identifier: GPL-3.0-or-later
//! What every command does at its end: print, and turn an error into an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::tuf::TufError;

/// The exit codes of all commands. `2` is a wrong command line, and belongs to clap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; everything that was checked holds.
    Done = 0,
    /// The operation failed.
    Failed = 1,
    /// A verification or the policy says no.
    Refused = 3,
    /// Something could not be checked, and nothing that was checked is wrong.
    CouldNotCheck = 4,
}

/// A refusal: the error chain of a command carries it where verification or policy said no.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// The exit code when the reader of the output went away: what a shell gives to a program that died of SIGPIPE. Never 0,
/// since nobody knows whether the verdict had been printed.
const READER_GONE: u8 = 141;

/// Prints an error chain once on standard error and gives the exit code: 3 where a [`Refused`] or a refusal of the
/// trust code is in the chain, else 1.
#[must_use]
pub fn report(program: &str, error: &anyhow::Error) -> ExitCode {
    let broken_pipe = error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    });
    if broken_pipe {
        return ExitCode::from(READER_GONE);
    }
    let refused = error
        .chain()
        .any(|cause| cause.is::<Refused>() || cause.downcast_ref::<TufError>().is_some_and(TufError::is_refusal));
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(
        io::stderr(),
        "{program}: {}{}",
        if refused { "refused: " } else { "" },
        chain(error)
    ));
    ExitCode::from(if refused { Exit::Refused } else { Exit::Failed } as u8)
}

/// An error with its causes, in one line. A cause that the text before it already tells is not told again.
#[must_use]
pub fn chain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut told, cause| {
        let cause = cause.to_string();
        if !told.ends_with(&cause) {
            if !told.is_empty() {
                told += ": ";
            }
            told += &cause;
        }
        told
    })
}

/// Prints one line on standard output.
///
/// # Errors
/// When standard output is closed; [`report`] ends quietly on it.
pub fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// Prints a value as indented JSON on standard output.
///
/// # Errors
/// As [`line`].
pub fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_that_is_already_told_is_not_told_again() {
        let inner = io::Error::other("no such luck");
        let error = Err::<(), _>(inner)
            .context("cannot read x: no such luck")
            .context("cannot begin")
            .unwrap_err();
        assert_eq!(chain(&error), "cannot begin: cannot read x: no such luck");
    }
}
