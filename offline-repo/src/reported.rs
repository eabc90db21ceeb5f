// SPDX-License-Identifier: GPL-3.0-or-later
//! What a gateway's receipt reports of bundles, and what their sender does about it: a volume that is missing or was refused
//! is made again by the command that made it.
//!
//! What is reported as received was read and verified for the receipt. The command is made of this repository's own log of
//! what it exported, never of words in the receipt: a receipt only names a set and numbers.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use signing::digest::Sha256;
use signing::receipt::{
    Exported, GatewayState, Holder, MOST_FILES, MOST_NUMBERS, MOST_TOLD, MOST_WRITTEN, Receipt, SetSeen, Verdict,
    Written, plain,
};

use crate::bundle::{MemberFacts, VolumeFacts};
use crate::export::{LOGS, Log};
use crate::medium::Past;
use crate::quarantine::{Held, Quarantine};
use crate::repository::Repository;

/// Adds to what a gateway holds the bundles that wait or were refused, and those that it exported.
///
/// # Errors
/// When something of it cannot be read.
pub fn add(repository: &Repository, state: &mut GatewayState) -> Result<()> {
    let mut room = MOST_NUMBERS;
    for held in Quarantine::of(repository.root()).list()? {
        let seen = seen(repository, held)?;
        let volumes = seen.received.len() + seen.missing.len();
        match state.sets.len() < MOST_TOLD && volumes <= room {
            true => {
                room -= volumes;
                state.sets.push(seen);
            }
            false => state.untold += 1,
        }
    }
    let mut room = MOST_WRITTEN;
    for log in logs(repository)? {
        match state.exports.len() < MOST_TOLD && log.volumes.len() <= room {
            true => {
                room -= log.volumes.len();
                state.exports.push(exported(log)?);
            }
            false => state.untold += 1,
        }
    }
    Ok(())
}

/// A bundle in quarantine, its volumes read once more.
fn seen(repository: &Repository, held: Held) -> Result<SetSeen> {
    let mut whole = BTreeSet::new();
    for list in Quarantine::of(repository.root()).recorded(held.set)? {
        if let Some(facts) = list.volume
            && is_here(repository, &facts)?
        {
            whole.insert(facts.number);
        }
    }
    let all: BTreeSet<u32> = held.received.union(&held.missing).copied().collect();
    Ok(SetSeen {
        set: held.set,
        releases: first(held.releases, MOST_TOLD),
        of: u32::try_from(all.len())?,
        received: whole.iter().copied().collect(),
        missing: all.difference(&whole).copied().collect(),
        refused: held.refused.map(|refused| Verdict {
            at: refused.at,
            volumes: refused
                .volumes
                .into_keys()
                .filter(|number| !whole.contains(number))
                .collect(),
            files: first(refused.files, MOST_FILES).iter().map(|file| name(file)).collect(),
            reason: plain(&refused.reason),
        }),
    })
}

fn first<T>(mut list: Vec<T>, most: usize) -> Vec<T> {
    list.truncate(most);
    list
}

fn name(file: &Path) -> String {
    plain(&file.file_name().unwrap_or_default().to_string_lossy())
}

/// Whether all that a volume carried is here, and is what it was. What is in the repository was judged with its release.
fn is_here(repository: &Repository, facts: &VolumeFacts) -> Result<bool> {
    let quarantine = Quarantine::of(repository.root());
    let mut loose = quarantine.loose(facts)?;
    for member in &facts.members {
        let Some(path) = member.target() else { continue };
        if repository.target(path).is_file() {
            continue;
        }
        let object = quarantine.object(path);
        let whole = match Sha256::of_file(&object) {
            Ok((found, _)) => path_names(path, found),
            Err(error) if error.kind() == ErrorKind::NotFound => piece(member, &mut loose),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", object.display())),
        };
        if !whole {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the path of a target has its digest in it, as TUF's consistent snapshots do (section 6.2).
fn path_names(path: &str, digest: Sha256) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.starts_with(&format!("{digest}."))
}

fn piece(member: &MemberFacts, loose: &mut [crate::bundle::Loose<fs::File>]) -> bool {
    let is = |loose: &&mut crate::bundle::Loose<fs::File>| {
        Some(loose.path.as_str()) == member.target() && Some(loose.piece) == member.piece
    };
    let found = loose.iter_mut().find(is);
    found.is_some_and(|loose| member.check(&mut loose.reader).is_ok())
}

/// What was exported, the newest first. A log that nobody can read is none.
fn logs(repository: &Repository) -> Result<Vec<Log>> {
    let directory = repository.root().join(LOGS);
    let read = || format!("cannot read {}", directory.display());
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries
            .with_context(read)?
            .collect::<io::Result<Vec<_>>>()
            .with_context(read)?,
    };
    let set = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok();
    let found = entries.into_iter().filter_map(set);
    let mut logs: Vec<Log> = found.filter_map(|set| Log::find(repository, set)).collect();
    logs.sort_by_key(|log| (log.volumes.values().map(|entry| entry.at).max(), log.set));
    logs.reverse();
    Ok(logs)
}

fn exported(log: Log) -> Result<Exported> {
    let volumes = log.volumes.into_iter().map(|(number, entry)| {
        let device = entry.read_back.device;
        let words = device.map(|device| {
            [Some(device.name), device.serial]
                .map(Option::unwrap_or_default)
                .join(" ")
        });
        Written {
            number,
            sha256: entry.read_back.sha256,
            size: entry.read_back.size,
            at: entry.at,
            past_cache: match entry.read_back.past_cache {
                Past::Direct => "direct".to_owned(),
                Past::Dropped => "dropped".to_owned(),
            },
            device: plain(words.unwrap_or_default().trim()),
        }
    });
    Ok(Exported {
        set: log.set,
        releases: first(log.releases, MOST_TOLD),
        of: u32::try_from(log.of)?,
        volumes: volumes.collect(),
    })
}

/// Stands for the directory of the site that signs volumes, which a log does not know.
const SITE: &str = "SITE";

/// What the sender of a bundle does where a gateway still waits.
#[derive(Debug, Clone, Serialize)]
pub struct Again {
    /// The bundle.
    pub set: Sha256,
    /// The volumes that are to be made again.
    pub volumes: Vec<u32>,
    /// The arguments of `bastide-repo` that make them, with `SITE` for the site's directory; nothing where this repository has
    /// no log of that export.
    pub command: Option<Vec<String>>,
}

/// What is to be made again after a receipt, by the logs of this repository. `missing` only says that a volume did not come: it
/// may still be on its way.
#[must_use]
pub fn again(repository: &Repository, receipt: &Receipt) -> Vec<Again> {
    let Holder::Gateway(gateway) = &receipt.holder else {
        return Vec::new();
    };
    let sets = gateway.sets.iter();
    sets.map(|seen| {
        let log = Log::find(repository, seen.set);
        Again {
            set: seen.set,
            volumes: seen.missing.clone(),
            command: log.and_then(|log| command(repository, seen, &log)),
        }
    })
    .collect()
}

fn command(repository: &Repository, seen: &SetSeen, log: &Log) -> Option<Vec<String>> {
    let (size, level) = (log.volume_size?, log.level?);
    let missing = seen.missing.iter().filter(|number| **number as usize <= log.of);
    let volumes: Vec<String> = missing
        .flat_map(|number| ["--volume".to_owned(), number.to_string()])
        .collect();
    if volumes.is_empty() {
        return None;
    }
    // Behind the bundle's name stands the volume's number.
    let out = log.volumes.values().next()?.file.with_extension("");
    let mut words = vec!["export".to_owned()];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--repo", repository.root().display().to_string());
    option("--out", out.display().to_string());
    match log.base {
        Some(base) => option("--since", base.to_string()),
        None => log
            .releases
            .iter()
            .for_each(|version| option("--version", version.to_string())),
    }
    option("--level", level.to_string());
    option("--volume-size", size.to_string());
    option("--set", log.set.to_string());
    option("--site", SITE.to_owned());
    words.extend(volumes);
    Some(words)
}
