// SPDX-License-Identifier: GPL-3.0-or-later
//! Kernel settings and modules: what holds now, and what would hold after a reboot.

use std::collections::BTreeMap;

use super::{offenders, shown, verdict};
use crate::facts::{Facts, Known, Unknown};
use crate::profile::{Expect, matches};
use crate::verdict::Verdict;

/// Where systemd-sysctl looks, the more important directory first (sysctl.d(5)). `/run` does not survive a reboot, and
/// `/etc/sysctl.conf` is no longer read: a fix written there holds until the next boot only.
const SYSCTL_DIRECTORIES: [&str; 3] = ["/etc/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];

/// Where modprobe looks.
const MODPROBE_DIRECTORIES: [&str; 3] = ["/etc/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d"];

pub(super) fn sysctl(facts: &dyn Facts, key: &str, expect: &Expect) -> Known<Verdict> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    let text = facts.text(&path)?;
    let value = text
        .as_deref()
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let Some(value) = value else {
        return Ok(Verdict::NotApplicable(format!("this kernel has no setting {key}")));
    };
    if !expect.holds(Some(&value)) {
        return Ok(verdict(false, format!("{key} = {value}"), expect));
    }
    Ok(match persistent(facts, key)? {
        Some((stays, source)) if expect.holds(Some(&stays)) => {
            Verdict::Pass(format!("{key} = {value}, and {source} sets it at boot"))
        }
        Some((stays, source)) => Verdict::Fail(format!(
            "{key} = {value} now, but {source} sets {stays} at the next boot"
        )),
        None => Verdict::Fail(format!("{key} = {value} now, but nothing sets it at the next boot")),
    })
}

/// What the files in sysctl.d give a key, and which file does: of files of one name the one in the more important
/// directory counts, then all are read in the order of their names, and the last assignment wins.
fn persistent(facts: &dyn Facts, key: &str) -> Known<Option<(String, String)>> {
    let mut result = None;
    let mut by_pattern = None;
    for path in drop_ins(facts, &SYSCTL_DIRECTORIES)? {
        for line in facts.need(&path)?.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                continue;
            };
            let name = name.trim().trim_start_matches('-').replace('/', ".");
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            if name == key {
                result = Some((value, path.clone()));
            } else if name.contains('*') && matches(&name, key) {
                by_pattern = Some((value, path.clone()));
            }
        }
    }
    // An explicit assignment wins over a pattern, wherever it stands.
    Ok(result.or(by_pattern))
}

/// The files of drop-in directories in the order in which they are read.
fn drop_ins(facts: &dyn Facts, directories: &[&str]) -> Known<Vec<String>> {
    let mut files = BTreeMap::new();
    for directory in directories {
        for name in facts.list(directory)?.unwrap_or_default() {
            if name.ends_with(".conf") {
                files
                    .entry(name.clone())
                    .or_insert_with(|| format!("{directory}/{name}"));
            }
        }
    }
    Ok(files.into_values().collect())
}

pub(super) fn modules_absent(facts: &dyn Facts, modules: &[String]) -> Known<Verdict> {
    let plain = |name: &str| name.replace('-', "_");
    let loaded: Vec<String> = facts
        .need("/proc/modules")?
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    let release = facts.need("/proc/sys/kernel/osrelease")?;
    let release = release.trim();
    // Absent from the image is the best way not to be loadable; a line in modprobe.d is the second best.
    let tree = ["/usr/lib/modules", "/lib/modules"];
    let mut index = None;
    for base in tree {
        index = index.or(facts.text(&format!("{base}/{release}/modules.dep"))?);
    }
    let index = index.ok_or_else(|| Unknown(format!("there is no modules.dep for kernel {release}")))?;
    let present: Vec<String> = index
        .lines()
        .filter_map(|line| line.split(':').next())
        .filter_map(|path| path.rsplit('/').next())
        .map(|file| plain(file.split(".ko").next().unwrap_or(file)))
        .collect();
    let mut barred = Vec::new();
    for path in drop_ins(facts, &MODPROBE_DIRECTORIES)? {
        for line in facts.need(&path)?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            // `blacklist` only stops aliases; an explicit request would still load the module.
            if let [
                "install",
                module,
                "/bin/false" | "/usr/bin/false" | "/bin/true" | "/usr/bin/true",
                ..,
            ] = words[..]
            {
                barred.push(plain(module));
            }
        }
    }
    let bad: Vec<String> = modules
        .iter()
        .map(|module| plain(module))
        .filter_map(|module| {
            if loaded.contains(&module) {
                Some(format!("{module} is loaded"))
            } else if present.contains(&module) && !barred.contains(&module) {
                Some(format!("{module} can be loaded"))
            } else {
                None
            }
        })
        .collect();
    let missing = modules
        .iter()
        .filter(|module| !present.contains(&plain(module)))
        .count();
    let good = format!(
        "none is loaded; {missing} of {} are not in the image, the others are barred in modprobe.d",
        modules.len()
    );
    Ok(offenders(good, "not kept out", &bad))
}

/// A parameter's value in a command line: `None` when absent, empty when it has no value. The last one counts.
pub(super) fn argument<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().rev().find_map(|word| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        // The kernel takes `-` and `_` for the same in names.
        (key.replace('-', "_") == name.replace('-', "_")).then_some(value)
    })
}

/// A parameter in words.
fn set(value: Option<&str>) -> String {
    match value {
        None => "is not set".to_owned(),
        Some("") => "is set".to_owned(),
        value => shown(value),
    }
}

/// Judges a parameter in the running line and in the signed one.
pub(super) fn argument_verdict(name: &str, running: &str, signed: Known<String>, expect: &Expect) -> Known<Verdict> {
    let value = argument(running, name);
    if !expect.holds(value) {
        return Ok(verdict(
            false,
            format!("{name} {} on the running command line", set(value)),
            expect,
        ));
    }
    let signed = signed.map_err(|Unknown(why)| {
        Unknown(format!(
            "{name} {} now, but whether it is in the signed boot image cannot be told: {why}",
            set(value)
        ))
    })?;
    let stays = argument(&signed, name);
    Ok(if expect.holds(stays) {
        Verdict::Pass(format!(
            "{name} {}, and so it stands in the signed boot image",
            set(value)
        ))
    } else {
        Verdict::Fail(format!(
            "{name} {} now, but in the boot image on the disk it {}",
            set(value),
            set(stays)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_argument_counts_and_dashes_are_underscores() {
        assert_eq!(argument("a=1 quiet a=2", "a"), Some("2"));
        assert_eq!(argument("a=1 quiet", "quiet"), Some(""));
        assert_eq!(argument("spec-ctrl=no", "spec_ctrl"), Some("no"));
        assert_eq!(argument("aa=1", "a"), None);
    }
}
