// SPDX-License-Identifier: GPL-3.0-or-later
//! Units, sockets, mounts and permissions.

use super::offenders;
use crate::facts::{Facts, Found, Kind, Known, Unknown, Walk};
use crate::verdict::Verdict;

pub(super) fn unit(facts: &dyn Facts, unit: &str, runs: bool) -> Known<Verdict> {
    let command = [
        "systemctl",
        "show",
        "--no-pager",
        "-p",
        "LoadState,ActiveState,SubState,UnitFileState,WantedBy",
        unit,
    ];
    let text = facts.output(&command)?;
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == key)
            .map_or("", |(_, value)| value.trim())
    };
    let (load, active, file) = (value("LoadState"), value("ActiveState"), value("UnitFileState"));
    if load.is_empty() {
        return Err(Unknown(format!("systemd says nothing about {unit}")));
    }
    // A link in `wants` starts a unit even when it has no [Install] section and is called `static`.
    let wanted = !value("WantedBy").is_empty();
    let starts = matches!(file, "enabled" | "alias")
        || (matches!(file, "static" | "indirect" | "generated" | "linked") && wanted);
    let seen = format!(
        "{unit} is {active} ({}), its file {}",
        value("SubState"),
        if file.is_empty() { load } else { file }
    );
    Ok(if runs {
        match (active, starts) {
            ("active", true) => Verdict::Pass(format!("{seen}{}", if wanted { ", started at boot" } else { "" })),
            ("active", false) => Verdict::Fail(format!("{seen}: it runs now but nothing starts it at the next boot")),
            _ => Verdict::Fail(format!("{seen}: it must run")),
        }
    } else {
        match (load, active) {
            ("not-found", _) => Verdict::Pass(format!("{unit} is not installed")),
            (_, "active" | "activating" | "reloading") => Verdict::Fail(format!("{seen}: it must not run")),
            ("masked", _) => Verdict::Pass(format!("{unit} is masked")),
            _ if starts => Verdict::Fail(format!("{seen}: it does not run now but starts at the next boot")),
            _ => Verdict::Pass(seen),
        }
    })
}

pub(super) fn no_failed_units(facts: &dyn Facts) -> Known<Verdict> {
    let text = facts.output(&[
        "systemctl",
        "list-units",
        "--failed",
        "--plain",
        "--no-legend",
        "--no-pager",
    ])?;
    let bad: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    Ok(offenders("no unit has failed", "failed", &bad))
}

pub(super) fn sockets(facts: &dyn Facts, allowed: &[String]) -> Known<Verdict> {
    let text = facts.output(&["ss", "-H", "-l", "-n", "-t", "-u", "-p"])?;
    let mut seen = Vec::new();
    let mut bad = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [protocol, _, _, _, local, ..] = words[..] else {
            return Err(Unknown(format!("a line of `ss` does not read: {line}")));
        };
        let (address, port) = local.rsplit_once(':').unwrap_or((local, "?"));
        let program = line
            .split("((\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap_or("?");
        let place = format!("{protocol}/{port} {program}");
        if allowed.contains(&place) {
            if !seen.contains(&place) {
                seen.push(place);
            }
        } else {
            bad.push(format!("{place} on {address}"));
        }
    }
    let good = if seen.is_empty() {
        "nothing listens".to_owned()
    } else {
        format!("only {} listens", seen.join(", "))
    };
    Ok(offenders(good, "listening without leave", &bad))
}

pub(super) fn mount(facts: &dyn Facts, point: &str, types: &[String], options: &[String]) -> Known<Verdict> {
    // ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELDS...] - TYPE SOURCE SUPER-OPTIONS (proc_pid_mountinfo(5))
    let text = facts.need("/proc/self/mountinfo")?;
    let mut found = None;
    for line in text.lines() {
        let Some((front, back)) = line.split_once(" - ") else {
            continue;
        };
        let front: Vec<&str> = front.split(' ').collect();
        let back: Vec<&str> = back.split(' ').collect();
        if let (Some(&at), Some(&set), Some(&kind)) = (front.get(4), front.get(5), back.first())
            && at == point
        {
            // The last mount hides those before it.
            found = Some((
                kind.to_owned(),
                format!("{set},{}", back.get(2).copied().unwrap_or_default()),
            ));
        }
    }
    let Some((kind, set)) = found else {
        return Ok(Verdict::Fail(format!("{point} is not a mount of its own")));
    };
    let mut bad = Vec::new();
    if !types.is_empty() && !types.contains(&kind) {
        bad.push(format!("type {kind}, not {}", types.join(" or ")));
    }
    bad.extend(
        options
            .iter()
            .filter(|option| !set.split(',').any(|has| has == *option))
            .map(|option| format!("no {option}")),
    );
    if !bad.is_empty() {
        return Ok(Verdict::Fail(format!("{point} ({kind}, {set}): {}", bad.join(", "))));
    }
    // After a reboot the same hands mount it again: the signed initrd, systemd itself or a unit. Only a unit or a line in
    // fstab can say something else.
    if let Some(fstab) = facts.text("/etc/fstab")? {
        for line in fstab.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [_, at, _, wanted, ..] = words[..]
                && at == point
                && let Some(lost) = options
                    .iter()
                    .find(|option| !wanted.split(',').any(|has| has == *option))
            {
                return Ok(Verdict::Fail(format!(
                    "{point} has {lost} now, but its line in /etc/fstab has not"
                )));
            }
        }
    }
    Ok(Verdict::Pass(format!("{point} is {kind} with {}", options.join(","))))
}

pub(super) fn permission(facts: &dyn Facts, path: &str, uid: u32, at_most: &str, optional: bool) -> Known<Verdict> {
    let Some(found) = facts.stat(path)? else {
        return Ok(if optional {
            Verdict::NotApplicable(format!("{path} is not there"))
        } else {
            Verdict::Fail(format!("{path} is not there"))
        });
    };
    let limit = u32::from_str_radix(at_most, 8).map_err(|_| Unknown(format!("{at_most:?} is not octal")))?;
    let seen = format!("{path} belongs to user {} and has {:04o}", found.uid, found.mode);
    Ok(if found.kind == Kind::Link {
        Verdict::Fail(format!("{path} is a link, and links can be turned"))
    } else if found.uid != uid {
        Verdict::Fail(format!("{seen}; it must belong to user {uid}"))
    } else if found.mode & !limit != 0 {
        Verdict::Fail(format!("{seen}; at most {at_most}"))
    } else {
        Verdict::Pass(seen)
    })
}

fn special(facts: &dyn Facts) -> Known<Vec<Found>> {
    let mut all = Vec::new();
    // The image and what grows over it. /proc, /sys and /dev are other file systems and not walked.
    for tree in ["/", "/etc", "/var", "/state", "/root"] {
        for entry in facts.walk(tree, Walk::Special)?.unwrap_or_default() {
            if !all.iter().any(|known: &Found| known.path == entry.path) {
                all.push(entry);
            }
        }
    }
    Ok(all)
}

pub(super) fn setuid(facts: &dyn Facts, allowed: &[String]) -> Known<Verdict> {
    let all = special(facts)?;
    let files: Vec<&Found> = all
        .iter()
        .filter(|entry| entry.kind == Kind::File && entry.mode & 0o6000 != 0)
        .collect();
    let bad: Vec<String> = files
        .iter()
        .filter(|entry| !allowed.contains(&entry.path))
        .map(|entry| {
            format!(
                "{} ({:04o}, user {}, group {})",
                entry.path, entry.mode, entry.uid, entry.gid
            )
        })
        .collect();
    Ok(offenders(
        match files.len() {
            0 => "there is none".to_owned(),
            number => format!("{number} files, all in the profile's list"),
        },
        "setuid or setgid without leave",
        &bad,
    ))
}

pub(super) fn world_writable(facts: &dyn Facts, allowed: &[String]) -> Known<Verdict> {
    let bad: Vec<String> = special(facts)?
        .iter()
        .filter(|entry| entry.mode & 0o002 != 0)
        .filter(|entry| {
            let sticky = entry.kind == Kind::Directory && entry.mode & 0o1000 != 0;
            !(sticky
                && allowed
                    .iter()
                    .any(|pattern| crate::profile::matches(pattern, &entry.path)))
        })
        .map(|entry| format!("{} ({:04o})", entry.path, entry.mode))
        .collect();
    Ok(offenders(
        "only the sticky directories of the profile's list",
        "everybody may write",
        &bad,
    ))
}
