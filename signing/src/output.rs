// SPDX-License-Identifier: GPL-3.0-or-later
//! What every command does at its end: print, and turn an error into an exit code.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::openpgp::Fault;
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

/// A command line that clap takes and that cannot be meant: it ends with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The exit code of a wrong command line, as clap has it.
const WRONG_USAGE: u8 = 2;

/// Whether a value was printed as JSON: one command prints one.
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// The exit code when the reader of the output went away: what a shell gives to a program that died of SIGPIPE. Never 0,
/// since nobody knows whether the verdict had been printed.
const READER_GONE: u8 = 141;

/// What an error is to the caller of a program: the word and the exit code.
fn kind(error: &anyhow::Error) -> (&'static str, u8) {
    if is_refusal(error) {
        ("refused", Exit::Refused as u8)
    } else if error.chain().any(|cause| cause.is::<Usage>()) {
        ("usage", WRONG_USAGE)
    } else {
        ("failed", Exit::Failed as u8)
    }
}

/// Whether verification or policy said no, by whichever type it was said.
#[must_use]
pub fn is_refusal(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.is::<Refused>() || cause.is::<Fault>() || tuf(cause).is_some_and(TufError::is_refusal))
}

fn code(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    tuf(cause)
        .map(TufError::code)
        .or_else(|| cause.downcast_ref().map(Fault::code))
}

fn tuf<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a TufError> {
    cause.downcast_ref()
}

/// What a program that was asked for JSON says of its failure.
#[derive(Debug, Serialize)]
struct Failure<'a> {
    error: String,
    kind: &'a str,
    /// Where the TUF client or OpenPGP refused: its word for why.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    exit: u8,
}

impl Failure<'_> {
    fn of(error: &anyhow::Error) -> Self {
        let (kind, exit) = kind(error);
        Self {
            error: chain(error),
            kind,
            code: error.chain().find_map(code),
            exit,
        }
    }
}

/// Prints an error chain once on standard error and gives the exit code: 3 where a [`Refused`] or a refusal of the
/// trust code is in the chain, 2 where a [`Usage`] is, else 1.
#[must_use]
pub fn report(program: &str, error: &anyhow::Error) -> ExitCode {
    report_as(program, error, false)
}

/// As [`report`], and where `as_json` says that the caller reads JSON, the error and its kind on standard output too:
/// `{"error", "kind": "refused" | "failed" | "usage", "exit"}`, and `code` where the TUF client or OpenPGP judged. A command that has
/// printed its JSON already does not print a second one.
#[must_use]
pub fn report_as(program: &str, error: &anyhow::Error, as_json: bool) -> ExitCode {
    if broken_pipe(error) {
        return ExitCode::from(READER_GONE);
    }
    let failure = Failure::of(error);
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(
        io::stderr(),
        "{program}: {}{}",
        if failure.kind == "refused" { "refused: " } else { "" },
        failure.error
    ));
    // One line, which is a JSON value of its own and also the last of a command that prints JSON lines.
    if as_json && !ANSWERED.load(Ordering::Relaxed) {
        // The exit code says the same to whom nobody reads to.
        drop(serde_json::to_string(&failure).map(|failure| line(&failure)));
    }
    ExitCode::from(failure.exit)
}

/// The width that a terminal has at least.
const WIDTH: usize = 80;

/// A text in lines of at most 80 columns, broken between words; the first begins with `first`, the others with `indent`
/// blanks. A word that is too long for a line, such as a path, is not broken: it is there to be copied.
#[must_use]
pub fn fold(first: &str, indent: usize, text: &str) -> String {
    let mut folded = first.to_owned();
    let mut column = first.chars().count();
    let mut empty = true;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if !empty && column + 1 + length > WIDTH {
            folded += &format!("\n{:indent$}", "");
            column = indent;
            empty = true;
        }
        if !empty {
            folded.push(' ');
            column += 1;
        }
        folded += word;
        column += length;
        empty = false;
    }
    folded
}

/// A word of a command line that a person types into a shell, in quotes where it needs them.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Whether this process was called with the plain word `--json`. clap takes no such word for the value of another
/// option, and what follows `--` is no option.
#[must_use]
pub fn json_wanted() -> bool {
    asks_for_json(std::env::args_os())
}

fn asks_for_json(arguments: impl Iterator<Item = OsString>) -> bool {
    arguments
        .skip(1)
        .take_while(|word| word != "--")
        .any(|word| word == "--json")
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

/// A number and what is counted: `1 package`, `2 packages`.
#[must_use]
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Prints one line on standard output.
///
/// # Errors
/// When standard output is closed; [`report`] ends quietly on it.
pub fn line(text: &str) -> io::Result<()> {
    // The kind stays, by which a reader that went away is known.
    writeln!(io::stdout(), "{text}")
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write the output: {error}")))
}

/// Prints a value as indented JSON on standard output.
///
/// # Errors
/// As [`line`].
pub fn json(value: &impl Serialize) -> io::Result<()> {
    ANSWERED.store(true, Ordering::Relaxed);
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

    #[test]
    fn the_kind_of_an_error_is_told_with_its_exit_code() {
        let judged = |error: anyhow::Error| serde_json::to_value(Failure::of(&error.context("cannot x"))).unwrap();
        assert_eq!(
            judged(Refused("no".into()).into()),
            serde_json::json!({"error": "cannot x: no", "kind": "refused", "exit": 3})
        );
        assert_eq!(judged(Usage("no".into()).into())["exit"], 2);
        assert_eq!(judged(anyhow::anyhow!("no"))["kind"], "failed");
        let rollback = TufError::RoleRemoved { role: "x".into() };
        let told = judged(rollback.into());
        assert_eq!((&told["kind"], &told["code"]), (&"refused".into(), &"rollback".into()));
    }

    #[test]
    fn json_is_asked_for_by_its_own_word_only() {
        let asks = |line: &str| asks_for_json(line.split(' ').map(OsString::from));
        assert!(asks("program list --json") && asks("program --json list"));
        assert!(!asks("program list") && !asks("program list -- --json") && !asks("--json list"));
        assert!(!asks("program list --jsonx"));
    }

    #[test]
    fn a_word_is_one_word_of_the_shell() {
        assert_eq!(shell_word("/a/b-1.0.iso"), "/a/b-1.0.iso");
        assert_eq!(shell_word("/a b/$(c)"), "'/a b/$(c)'");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
