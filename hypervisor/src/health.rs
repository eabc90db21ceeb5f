// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether the host is healthy: what keeps a new release, and what sends it back.
//!
//! A check that could not be made is not passed: a release in which health cannot be seen is not kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::gpt::Table;
use crate::layout;
use crate::machine::{Machine, read_text};
use crate::probe::{self, Answer};

/// Seconds that a query may take.
const PATIENCE: u32 = 20;
/// Seconds that a site's own check may take.
const SITE_PATIENCE: u32 = 60;
/// Time between two looks while waiting.
const POLL: Duration = Duration::from_secs(1);
/// The unit that waits for health: its own job must not be what it waits for.
const OWN_UNIT: &str = "bastide-health.service";

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// Not as it should be.
    Fail,
    /// It could not be seen.
    CouldNotCheck,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What it found.
    pub verdict: Verdict,
    /// What it saw.
    pub detail: String,
}

impl Check {
    fn new(name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            verdict,
            detail: detail.into(),
        }
    }
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether every check passed.
    pub healthy: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Health {
    /// The sum of these checks.
    #[must_use]
    pub fn of(checks: Vec<Check>) -> Self {
        Self {
            healthy: checks.iter().all(|check| check.verdict == Verdict::Pass),
            checks,
        }
    }

    /// Why it is not healthy, in one line.
    #[must_use]
    pub fn reasons(&self) -> String {
        let reasons: Vec<String> = self
            .checks
            .iter()
            .filter(|check| check.verdict != Verdict::Pass)
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        if reasons.is_empty() {
            "healthy".into()
        } else {
            reasons.join("; ")
        }
    }
}

/// Looks once.
#[must_use]
pub fn examine(machine: &Machine) -> Health {
    let mut checks = vec![services(), xenstore(), domain0(), root(machine), slot(machine)];
    checks.extend(site_checks(&machine.health_checks));
    Health::of(checks)
}

/// Looks until all is well or the time is over, and returns the last look.
pub fn wait(limit: Duration, mut look: impl FnMut() -> Health) -> Health {
    let begin = Instant::now();
    loop {
        let health = look();
        if health.healthy || begin.elapsed() >= limit {
            return health;
        }
        std::thread::sleep(POLL.min(limit.saturating_sub(begin.elapsed())));
    }
}

fn services() -> Check {
    let name = "services";
    // It ends with a failure in every state but "running", and prints the state all the same.
    let state = match signing::process::Cmd::new("timeout")
        .args(["--kill-after=5", "20", "systemctl", "is-system-running"])
        .status()
    {
        Ok((_, out, _)) => String::from_utf8_lossy(&out).trim().to_owned(),
        Err(error) => return Check::new(name, Verdict::CouldNotCheck, error.to_string()),
    };
    match state.as_str() {
        "running" => Check::new(name, Verdict::Pass, "the system is running and no unit failed"),
        "degraded" => failed_units("the system is running and no other unit failed"),
        "starting" | "initializing" => starting(),
        "" => Check::new(name, Verdict::CouldNotCheck, "systemctl said nothing"),
        other => Check::new(name, Verdict::Fail, format!("the system is {other}")),
    }
}

/// While this very check is a job of the start, the system never is more than "starting".
fn starting() -> Check {
    let name = "services";
    let jobs = match probe::ask("systemctl", &["list-jobs", "--plain", "--no-legend"], PATIENCE) {
        Answer::Said(jobs) => jobs,
        Answer::Failed(why) | Answer::Missing(why) => return Check::new(name, Verdict::CouldNotCheck, why),
    };
    let waiting = running_jobs(&jobs);
    if !waiting.is_empty() {
        return Check::new(name, Verdict::Fail, format!("still starting: {}", waiting.join(" ")));
    }
    failed_units("all is started and no unit failed")
}

/// Our own unit's failure says that the host was not healthy at its start, and must not keep that alive.
fn failed_units(well: &str) -> Check {
    let name = "services";
    match probe::ask(
        "systemctl",
        &["list-units", "--failed", "--plain", "--no-legend"],
        PATIENCE,
    ) {
        Answer::Said(list) => {
            let failed = other_units(&list);
            if failed.is_empty() {
                Check::new(name, Verdict::Pass, well)
            } else {
                Check::new(name, Verdict::Fail, format!("failed units: {}", failed.join(" ")))
            }
        }
        Answer::Failed(why) | Answer::Missing(why) => Check::new(name, Verdict::CouldNotCheck, why),
    }
}

/// The units of a list, without our own.
fn other_units(list: &str) -> Vec<&str> {
    list.lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .filter(|unit| *unit != OWN_UNIT)
        .collect()
}

/// Units with a running job, without our own; jobs that only wait do so for these.
fn running_jobs(list: &str) -> Vec<String> {
    list.lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() == 4 && words[3] == "running" && words[1] != OWN_UNIT)
        .map(|words| words[1].to_owned())
        .collect()
}

fn xenstore() -> Check {
    match probe::ask("xenstore-list", &["/"], PATIENCE) {
        Answer::Said(_) => Check::new("xenstored", Verdict::Pass, "it answers"),
        Answer::Failed(why) => Check::new("xenstored", Verdict::Fail, why),
        Answer::Missing(why) => Check::new("xenstored", Verdict::CouldNotCheck, why),
    }
}

fn domain0() -> Check {
    match probe::ask("xl", &["list"], PATIENCE) {
        Answer::Said(list) if probe::domains(&list).iter().any(|name| name == "Domain-0") => {
            Check::new("xen", Verdict::Pass, "xl list shows Domain-0")
        }
        Answer::Said(_) => Check::new("xen", Verdict::Fail, "xl list does not show Domain-0"),
        Answer::Failed(why) => Check::new("xen", Verdict::Fail, why),
        Answer::Missing(why) => Check::new("xen", Verdict::CouldNotCheck, why),
    }
}

fn root(machine: &Machine) -> Check {
    let name = "root";
    let wanted = match machine.running_root_hash() {
        Ok(hash) => hash.to_string(),
        Err(error) => return Check::new(name, Verdict::CouldNotCheck, format!("{error:#}")),
    };
    match probe::ask("veritysetup", &["status", layout::ROOT_MAPPING], PATIENCE) {
        Answer::Said(text) => match probe::verity_status(&text) {
            (Some(status), Some(hash)) if status.starts_with("verified") && hash == wanted => {
                Check::new(name, Verdict::Pass, format!("dm-verity holds, root hash {hash}"))
            }
            (status, hash) => Check::new(
                name,
                Verdict::Fail,
                format!(
                    "dm-verity is {} with root hash {}, and the boot image wants {wanted}",
                    status.as_deref().unwrap_or("in an unknown state"),
                    hash.as_deref().unwrap_or("unknown"),
                ),
            ),
        },
        Answer::Failed(why) => Check::new(name, Verdict::Fail, why),
        Answer::Missing(why) => Check::new(name, Verdict::CouldNotCheck, why),
    }
}

fn slot(machine: &Machine) -> Check {
    let found =
        || -> anyhow::Result<_> { Table::read(&machine.boot_disk()?)?.slot_holding(&machine.running_root_hash()?) };
    match found() {
        Ok(slot) => Check::new("slot", Verdict::Pass, format!("slot {slot} runs")),
        Err(error) => Check::new("slot", Verdict::CouldNotCheck, format!("{error:#}")),
    }
}

/// The site's own checks: every file of the directory but hidden ones and editors' copies, in the order of their names.
fn site_checks(directory: &Path) -> Vec<Check> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let detail = format!("cannot read {}: {error}", directory.display());
            return vec![Check::new("site", Verdict::CouldNotCheck, detail)];
        }
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| site_check(path)).collect()
}

fn site_check(path: &Path) -> Option<Check> {
    let file = path.file_name()?.to_string_lossy().into_owned();
    if file.starts_with('.') || file.ends_with('~') {
        return None;
    }
    let name = format!("site/{file}");
    let executable = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if !executable {
        return Some(Check::new(
            name,
            Verdict::CouldNotCheck,
            format!("{} is not an executable file", path.display()),
        ));
    }
    Some(match probe::ask(path, &[], SITE_PATIENCE) {
        Answer::Said(text) => Check::new(
            name,
            Verdict::Pass,
            text.lines().next_back().unwrap_or("passed").to_owned(),
        ),
        Answer::Failed(why) => Check::new(name, Verdict::Fail, why),
        Answer::Missing(why) => Check::new(name, Verdict::CouldNotCheck, why),
    })
}

/// The site's settings of the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seconds that a release on trial has to become healthy.
    pub deadline_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { deadline_seconds: 300 }
    }
}

impl Config {
    /// Reads the settings. Wrong ones must not keep a bad release running, so they give the defaults and a complaint.
    #[must_use]
    pub fn load(place: &Path) -> (Self, Option<String>) {
        if !place.exists() {
            return (Self::default(), None);
        }
        let read = || -> anyhow::Result<Self> { Ok(toml::from_str(&read_text(place)?)?) };
        match read() {
            Ok(config) => (config, None),
            Err(error) => {
                let default = Self::default();
                let complaint = format!(
                    "cannot use {} ({:#}): the deadline is {} seconds",
                    place.display(),
                    error,
                    default.deadline_seconds
                );
                (default, Some(complaint))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(directory: &Path, name: &str, text: &str, mode: u32) {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn site_checks_pass_fail_or_could_not_be_made() {
        let directory = tempfile::tempdir().unwrap();
        script(directory.path(), "10-good", "#!/bin/sh\necho storage is there\n", 0o755);
        script(
            directory.path(),
            "20-bad",
            "#!/bin/sh\necho no array >&2\nexit 1\n",
            0o755,
        );
        script(directory.path(), "30-plain", "text", 0o644);
        script(directory.path(), ".hidden", "text", 0o644);
        let checks = site_checks(directory.path());
        let verdicts: Vec<_> = checks
            .iter()
            .map(|check| (check.name.as_str(), check.verdict))
            .collect();
        assert_eq!(
            verdicts,
            [
                ("site/10-good", Verdict::Pass),
                ("site/20-bad", Verdict::Fail),
                ("site/30-plain", Verdict::CouldNotCheck)
            ]
        );
        assert!(checks[1].detail.contains("no array"));
        let health = Health::of(checks);
        assert!(!health.healthy);
        assert!(health.reasons().starts_with("site/20-bad: "));
    }

    #[test]
    fn no_directory_of_site_checks_is_no_check() {
        assert!(site_checks(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn our_own_job_is_not_waited_for() {
        let jobs = "120 bastide-health.service start running\n121 multi-user.target start waiting\n\
                    99 xen.service start running\n";
        assert_eq!(running_jobs(jobs), ["xen.service"]);
        let failed = "bastide-health.service loaded failed failed Health\nssh.service loaded failed failed Shell\n";
        assert_eq!(other_units(failed), ["ssh.service"]);
    }

    #[test]
    fn wrong_settings_give_the_default_and_a_complaint() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("health.toml");
        assert_eq!(Config::load(&place), (Config::default(), None));
        fs::write(&place, "deadline_seconds = 20\n").unwrap();
        assert_eq!(Config::load(&place).0.deadline_seconds, 20);
        fs::write(&place, "deadline = 20\n").unwrap();
        let (config, complaint) = Config::load(&place);
        assert_eq!(config, Config::default());
        assert!(complaint.unwrap().contains("deadline"));
    }
}
