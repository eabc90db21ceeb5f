// SPDX-License-Identifier: GPL-3.0-or-later
//! Questions to the running system, each bounded in time: with a dead xenstored whatever reads it waits for ever.

use std::fs;
use std::path::Path;

use serde::Serialize;
use signing::process::{Cmd, ProcessError};

/// What a question to a program gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It ended well and printed this.
    Said(String),
    /// It ended with a failure, or did not end in time; the end of its complaint.
    Failed(String),
    /// It could not be started.
    Missing(String),
}

/// Asks a program, for at most so many seconds.
#[must_use]
pub fn ask(program: impl AsRef<std::ffi::OsStr>, args: &[&str], seconds: u32) -> Answer {
    let name = program.as_ref().to_string_lossy().into_owned();
    let cmd = Cmd::new("timeout")
        .args(["--kill-after=5", &seconds.to_string()])
        .arg(program)
        .args(args);
    match cmd.status() {
        Ok((status, out, err)) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            match status.code() {
                Some(0) => Answer::Said(text(&out)),
                Some(124 | 137) => Answer::Failed(format!("`{name}` gave no answer in {seconds} seconds")),
                Some(126 | 127) => Answer::Missing(format!("`{name}` cannot be started: {}", last_line(&text(&err)))),
                _ => {
                    let said = if err.is_empty() { text(&out) } else { text(&err) };
                    Answer::Failed(format!("`{name}` failed ({status}): {}", last_line(&said)))
                }
            }
        }
        Err(error @ (ProcessError::Start { .. } | ProcessError::Failed { .. })) => Answer::Missing(error.to_string()),
        Err(error @ ProcessError::TooMuch { .. }) => Answer::Failed(error.to_string()),
    }
}

fn last_line(text: &str) -> String {
    text.lines()
        .next_back()
        .unwrap_or("it said nothing")
        .chars()
        .take(200)
        .collect()
}

/// What Xen says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Xen {
    /// The hypervisor's version, as in `4.20.3`.
    pub version: Option<String>,
    /// Its command line.
    pub command_line: Option<String>,
    /// What kinds of guests the machine can run.
    pub capabilities: Option<String>,
    /// The machine's memory in MiB.
    pub total_memory_mib: Option<u64>,
    /// Memory that no domain has, in MiB.
    pub free_memory_mib: Option<u64>,
}

impl Xen {
    /// Understands `xl info`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        let number = |name: &str| value(name).and_then(|text| text.parse().ok());
        let version = value("xen_version").or_else(|| {
            let (major, minor) = (value("xen_major")?, value("xen_minor")?);
            Some(format!("{major}.{minor}{}", value("xen_extra").unwrap_or_default()))
        });
        Self {
            version,
            command_line: value("xen_commandline"),
            capabilities: value("virt_caps"),
            total_memory_mib: number("total_memory"),
            free_memory_mib: number("free_memory"),
        }
    }
}

/// The domains that `xl list` names.
#[must_use]
pub fn domains(list: &str) -> Vec<String> {
    list.lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// What the firmware says of Secure Boot. A variable that is not there is `None` and not "off".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SecureBoot {
    /// Whether it is enforced.
    pub enforced: Option<bool>,
    /// Whether keys can be enrolled without a signature.
    pub setup_mode: Option<bool>,
}

impl SecureBoot {
    /// Reads the two global variables.
    #[must_use]
    pub fn read(efivars: &Path) -> Self {
        const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
        let flag = |name: &str| {
            // Four bytes of attributes stand before the value.
            let bytes = fs::read(efivars.join(format!("{name}-{GLOBAL}"))).ok()?;
            match bytes.as_slice() {
                [_, _, _, _, 0] => Some(false),
                [_, _, _, _, 1] => Some(true),
                _ => None,
            }
        };
        Self {
            enforced: flag("SecureBoot"),
            setup_mode: flag("SetupMode"),
        }
    }
}

/// The mode in brackets in `/sys/kernel/security/lockdown`.
#[must_use]
pub fn lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}

/// The state and the root hash that `veritysetup status` printed.
#[must_use]
pub fn verity_status(text: &str) -> (Option<String>, Option<String>) {
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().to_owned())
    };
    (value("status"), value("root hash"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_a_recorded_xl_info() {
        let xen = Xen::parse(include_str!("../tests/fixtures/xl-info.txt"));
        assert_eq!(xen.version.as_deref(), Some("4.20.3"));
        assert_eq!(xen.total_memory_mib, Some(4095));
        assert!(xen.command_line.unwrap().contains("dom0_mem"));
    }

    #[test]
    fn understands_a_recorded_xl_list() {
        let list = "Name                                        ID   Mem VCPUs\tState\tTime(s)\n\
                    Domain-0                                     0   749     1     r-----     101.6\n\
                    tiny                                         1   128     1     -b----       3.0\n";
        assert_eq!(domains(list), ["Domain-0", "tiny"]);
        assert!(domains("").is_empty());
    }

    #[test]
    fn an_absent_variable_is_not_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");
        fs::write(path, [6, 0, 0, 0, 1]).unwrap();
        let state = SecureBoot::read(directory.path());
        assert_eq!((state.enforced, state.setup_mode), (Some(true), None));
    }

    #[test]
    fn understands_lockdown_and_verity() {
        assert_eq!(
            lockdown("none [integrity] confidentiality\n").as_deref(),
            Some("integrity")
        );
        let text = "/dev/mapper/bastide-root is active and is in use.\n  type:        VERITY\n  status:      verified\n  \
                    hash type:   1\n  root hash:   00ff\n";
        assert_eq!(verity_status(text), (Some("verified".into()), Some("00ff".into())));
    }

    #[test]
    fn a_silent_program_is_a_failure_and_an_absent_one_is_missing() {
        assert!(matches!(ask("sleep", &["30"], 1), Answer::Failed(_)));
        assert!(matches!(ask("no-such-program-here", &[], 5), Answer::Missing(_)));
        assert_eq!(ask("echo", &["hello"], 5), Answer::Said("hello".into()));
    }
}
