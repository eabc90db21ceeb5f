// SPDX-License-Identifier: GPL-3.0-or-later
//! The one door to processes.
//!
//! A program is started with an argument vector (never through a shell), with the environment that it needs and no more,
//! and an error carries the whole command line and the end of what the program said. What it says is read into memory up to
//! a limit: a program that reads foreign bytes could be made to talk without end.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

/// How much of a program's complaint is quoted in an error.
const COMPLAINT: usize = 2048;
/// How many characters of one argument are quoted in an error: a list of packages can be thousands.
const ARGUMENT: usize = 120;
/// How much a program may say on each of its outputs, unless the caller says otherwise.
const LIMIT: u64 = 64 << 20;

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
    /// The program said more than anybody wants to hold in memory, and was stopped.
    #[error("`{command}` printed more than {limit} bytes and was stopped: look at what it was given")]
    TooMuch {
        /// The command line.
        command: String,
        /// What one output may hold.
        limit: u64,
    },
}

/// A command line to be run.
pub struct Cmd {
    command: Command,
    input: Option<Vec<u8>>,
    limit: u64,
}

/// How a program ended, and what it said.
struct Ended {
    line: String,
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
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
        Self {
            command,
            input: None,
            limit: LIMIT,
        }
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

    /// Bounds what the program may say on each output, instead of 64 MiB. One that says more is stopped.
    #[must_use]
    pub const fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Runs to the end and returns standard output.
    ///
    /// # Errors
    /// When it cannot be started, ends with a failure or says more than its limit.
    pub fn output(self) -> Result<Vec<u8>, ProcessError> {
        let ended = self.finish()?;
        if ended.status.success() {
            Ok(ended.stdout)
        } else {
            Err(failed(ended.line, ended.status, &ended.stderr))
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
            &end_of(log).unwrap_or_default(),
        ))
    }

    /// Runs to the end and returns how it ended with both outputs; that it failed is no error.
    ///
    /// # Errors
    /// When it cannot be started or says more than its limit.
    pub fn status(self) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), ProcessError> {
        let ended = self.finish()?;
        Ok((ended.status, ended.stdout, ended.stderr))
    }

    /// Runs to the end with both outputs in memory, each up to the limit.
    fn finish(mut self) -> Result<Ended, ProcessError> {
        let limit = self.limit;
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (line, mut child) = self.start()?;
        let said = listen(&mut child, limit);
        if said.is_err() {
            // Its end is waited for below. What a program of its own goes on saying meets closed pipes.
            drop(child.kill());
        }
        let ended = child.wait();
        let io = |source| ProcessError::Start {
            command: line.clone(),
            source,
        };
        let (stdout, stderr) = match said {
            Ok(said) => said,
            Err(None) => return Err(ProcessError::TooMuch { command: line, limit }),
            Err(Some(source)) => return Err(io(source)),
        };
        let status = ended.map_err(io)?;
        Ok(Ended {
            line,
            status,
            stdout,
            stderr,
        })
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
        for arg in self.command.get_args() {
            let arg = arg.to_string_lossy();
            match arg.char_indices().nth(ARGUMENT) {
                Some((end, _)) => write!(f, " {}...", &arg[..end])?,
                None => write!(f, " {arg}")?,
            }
        }
        Ok(())
    }
}

/// Reads both outputs at once, as a program may fill either pipe while nobody reads it. An error without a cause means that
/// one of them went over the limit; the other is then not waited for.
fn listen(child: &mut Child, limit: u64) -> Result<(Vec<u8>, Vec<u8>), Option<io::Error>> {
    let (tell, told) = mpsc::channel();
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    for (index, pipe) in outputs.into_iter().enumerate() {
        let (Some(pipe), tell) = (pipe, tell.clone()) else {
            continue;
        };
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = pipe.take(limit.saturating_add(1)).read_to_end(&mut bytes);
            // Nobody listens any more when the other output was too long.
            drop(tell.send((index, read.map(|_| bytes))));
        });
    }
    drop(tell);
    let mut said = [Vec::new(), Vec::new()];
    for (index, bytes) in told {
        let bytes = bytes.map_err(Some)?;
        if bytes.len() as u64 > limit {
            return Err(None);
        }
        said[index] = bytes;
    }
    let [stdout, stderr] = said;
    Ok((stdout, stderr))
}

/// The end of a log, as much of it as an error quotes.
fn end_of(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(COMPLAINT as u64)))?;
    let mut end = Vec::new();
    file.take(COMPLAINT as u64).read_to_end(&mut end)?;
    Ok(end)
}

fn failed(command: String, status: ExitStatus, said: &[u8]) -> ProcessError {
    let mut end = &said[said.len().saturating_sub(COMPLAINT)..];
    if end.len() < said.len()
        && let Some(line) = end.iter().position(|byte| *byte == b'\n')
    {
        end = &end[line..];
    }
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
    fn a_long_argument_and_a_long_complaint_are_cut_and_their_ends_are_clean() {
        let error = Cmd::new("sh")
            .args(["-c", "seq 1000 9999 >&2; exit 1", &"é".repeat(5000)])
            .run()
            .unwrap_err()
            .to_string();
        assert!(
            error.len() < 3000 && error.contains("é...`") && error.ends_with("\n9999"),
            "{error}"
        );
        assert!(error.lines().skip(1).all(|line| line.len() == 4), "{error}");
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

    #[test]
    fn an_error_quotes_the_end_of_a_long_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let error = Cmd::new("sh")
            .args(["-c", "yes early | head -c 100000; echo the end; exit 1"])
            .run_logged(&log)
            .unwrap_err();
        assert!(error.to_string().ends_with("the end"), "{error}");
        assert!(error.to_string().len() < 2 * COMPLAINT);
    }

    #[test]
    fn a_program_that_talks_without_end_is_stopped() {
        for output in ["", " >&2"] {
            let error = Cmd::new("sh")
                .arg("-c")
                .arg(format!("while :; do echo more; done{output}"))
                .limit(100_000)
                .status()
                .unwrap_err();
            assert!(matches!(error, ProcessError::TooMuch { limit: 100_000, .. }), "{error}");
            assert!(error.to_string().contains("sh -c while"), "{error}");
        }
        let exact = Cmd::new("sh").args(["-c", "echo 1234; echo 567 >&2"]).limit(5);
        assert_eq!(exact.output().unwrap(), b"1234\n");
        assert!(Cmd::new("echo").arg("12345").limit(5).output().is_err());
    }
}
