// SPDX-License-Identifier: GPL-3.0-or-later
//! The one door to processes.
//!
//! A program is started with an argument vector (never through a shell), with the environment that it needs and no more,
//! and an error carries the whole command line and the end of what the program said.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// How much of a program's complaint is quoted in an error.
const COMPLAINT: usize = 4096;

/// A process that could not be started or that failed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not there or may not be run.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// The command line.
        command: String,
        /// Why the system refused.
        source: io::Error,
    },
    /// The program ended with a failure.
    #[error("`{command}` failed ({status}): {complaint}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        complaint: String,
    },
}

/// A command line to be run.
pub struct Cmd {
    command: Command,
    input: Option<Vec<u8>>,
}

impl Cmd {
    /// A program, found through `PATH`, with a clean environment but for `PATH`, `LC_ALL=C` and `TZ=UTC`.
    #[allow(clippy::disallowed_methods)]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC");
        // Administrators' tools live in sbin, which a user's PATH may lack.
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
        let mut full = path;
        full.push(":/usr/sbin:/sbin");
        command.env("PATH", full);
        Self { command, input: None }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable. Never a secret: `/proc` shows it.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Gives bytes on standard input. The place for secrets.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Runs to the end and returns standard output, which the caller knows to be small.
    ///
    /// # Errors
    /// When it cannot be started or ends with a failure.
    pub fn output(mut self) -> Result<Vec<u8>, ProcessError> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (line, child) = self.start()?;
        let output = child.wait_with_output().map_err(|source| ProcessError::Start {
            command: line.clone(),
            source,
        })?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(failed(line, output.status, &output.stderr))
        }
    }

    /// Runs to the end, standard output ignored.
    ///
    /// # Errors
    /// As [`Cmd::output`].
    pub fn run(self) -> Result<(), ProcessError> {
        self.output().map(|_| ())
    }

    /// Runs to the end with both outputs into a log file, whose end is quoted when it fails.
    ///
    /// # Errors
    /// As [`Cmd::output`].
    pub fn run_logged(mut self, log: &Path) -> Result<(), ProcessError> {
        let line = self.to_string();
        let start = |source| ProcessError::Start {
            command: line.clone(),
            source,
        };
        let file = File::options().create(true).append(true).open(log).map_err(start)?;
        self.command.stdout(file.try_clone().map_err(start)?).stderr(file);
        let (line, mut child) = self.start()?;
        let status = child.wait().map_err(|source| ProcessError::Start {
            command: line.clone(),
            source,
        })?;
        if status.success() {
            return Ok(());
        }
        Err(failed(
            format!("{line} (log: {})", log.display()),
            status,
            &std::fs::read(log).unwrap_or_default(),
        ))
    }

    /// Runs to the end and returns how it ended with both outputs; only a failure to start is an error.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn status(mut self) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), ProcessError> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (line, child) = self.start()?;
        let output = child
            .wait_with_output()
            .map_err(|source| ProcessError::Start { command: line, source })?;
        Ok((output.status, output.stdout, output.stderr))
    }

    /// Starts it with the given outputs and leaves the waiting to the caller.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut self, stdout: Stdio, stderr: Stdio) -> Result<Child, ProcessError> {
        self.command.stdout(stdout).stderr(stderr);
        self.start().map(|(_, child)| child)
    }

    fn start(mut self) -> Result<(String, Child), ProcessError> {
        let line = self.to_string();
        self.command.stdin(if self.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        let mut child = self.command.spawn().map_err(|source| ProcessError::Start {
            command: line.clone(),
            source,
        })?;
        if let (Some(bytes), Some(mut pipe)) = (self.input, child.stdin.take()) {
            // Written from a thread, so that a program that speaks before it listens cannot stop both. One that ends
            // without reading makes a broken pipe here and says why in its status.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        Ok((line, child))
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.command.get_program().to_string_lossy())?;
        self.command
            .get_args()
            .try_for_each(|arg| write!(f, " {}", arg.to_string_lossy()))
    }
}

fn failed(command: String, status: ExitStatus, said: &[u8]) -> ProcessError {
    let end = &said[said.len().saturating_sub(COMPLAINT)..];
    let complaint = String::from_utf8_lossy(end).trim().to_owned();
    ProcessError::Failed {
        command,
        status,
        complaint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_command_line_and_the_complaint() {
        let error = Cmd::new("sh")
            .args(["-c", "echo no such luck >&2; exit 7"])
            .run()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sh -c") && error.contains("no such luck") && error.contains('7'),
            "{error}"
        );
    }

    #[test]
    fn a_program_sees_only_the_environment_it_is_given() {
        let seen = String::from_utf8(Cmd::new("env").env("ONE", "1").output().unwrap()).unwrap();
        let mut names: Vec<_> = seen.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["LC_ALL", "ONE", "PATH", "TZ"]);
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(Cmd::new("cat").input("hello").output().unwrap(), b"hello");
    }
}
