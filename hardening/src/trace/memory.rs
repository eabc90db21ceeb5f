// SPDX-License-Identifier: GPL-3.0-or-later
//! A gateway's memory: the metadata that its imports have trusted, which is what makes it refuse an older bundle.
//!
//! The attacks: a memory of another site, which would refuse the site's own bundles and take a stranger's; a repository
//! that was put back to an older state, while the memory was not, or the other way round; a file hidden among the memory.
//! The defence: the memory is followed from the auditor's pinned root as the repository was, and must have come to the
//! same versions of the same metadata. Nothing is locked or written here, unlike by who uses it.

use std::fs;
use std::io;
use std::path::Path;

use signing::digest::{Sha256, read_regular};
use signing::tuf::time::{floor::RECORD as TIME, waiver::USES};
use signing::tuf::trail::TrailFile;

use super::history::{Way, way};
use super::release::{Audited, Question};
use super::stored::Stored;
use super::tuf::{follow, leads, version_of};
use super::{bytes, of_tuf, waivers};
use crate::report::{Finding, Section};
use crate::verdict::Verdict;

/// The largest file of a memory.
const LIMIT: u64 = 256 << 20;
const ROOT: &str = "root.json";

/// Audits the memory in a directory beside the repository that was audited.
pub(super) fn section(directory: &Path, audited: &Audited, question: Question<'_>) -> Section {
    let findings = match names(directory) {
        Ok((names, mut strangers)) => {
            let mut findings = judge(directory, names, audited, question);
            findings.append(&mut strangers);
            findings
        }
        Err(error) => vec![Finding::unknown(
            "memory",
            "The gateway's memory",
            format!("cannot list {}: {error}", directory.display()),
        )],
    };
    Section::new(
        "memory",
        "Memory: what this gateway's imports have trusted",
        "A gateway remembers the newest metadata that it imported, and refuses what is older. Its memory must come from the \
         pinned root and agree with what the repository serves.",
        findings,
    )
}

/// The names of a datastore's files, and what has no place among them.
fn names(directory: &Path) -> io::Result<(Vec<String>, Vec<Finding>)> {
    let (mut names, mut strangers) = (Vec::new(), Vec::new());
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let data = entry.path().symlink_metadata()?;
        let role = name.ends_with(".json")
            && ["role.", "timestamp.", "snapshot."]
                .iter()
                .any(|start| name.starts_with(start));
        match name.as_str() {
            ".lock" if data.is_file() && data.len() == 0 => {}
            ROOT | "targets.json" | TIME | USES if data.is_file() => names.push(name),
            _ if role && data.is_file() => names.push(name),
            _ => strangers.push(Finding::fail(
                format!("memory.stranger.{name}"),
                format!("datastore/{name}"),
                format!("{}; no import writes it: it has no place here", bytes(data.len())),
            )),
        }
    }
    Ok((names, strangers))
}

fn judge(directory: &Path, names: Vec<String>, audited: &Audited, question: Question<'_>) -> Vec<Finding> {
    let read = |name: &str| match read_regular(&directory.join(name), LIMIT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", directory.join(name).display())),
    };
    let (id, title) = ("memory.root", "Its root follows from the auditor's");
    let foreign = |verdict| {
        vec![Finding::new(id, title, verdict).guide(
            "A gateway takes what the root in its memory vouches for, and nothing else.",
            &["TUF 1.0.34, section 5.2"],
            "Compare the auditor's root.json with what was handed over. If it is right, make the gateway anew: an empty directory, \
             and `bastide-repo import` with the site's trust directory.",
        )]
    };
    let kept = match read(ROOT) {
        Ok(Some(kept)) => kept,
        Ok(None) => return foreign(Verdict::Fail(format!("there is no {ROOT} in it"))),
        Err(why) => return foreign(Verdict::CouldNotCheck(why)),
    };
    let pinned = &question.trust.root;
    // A gateway whose last import is older than the auditor's root: followed from where it stands.
    let older = leads(&kept, pinned, &audited.roots);
    let stored = Stored {
        names: names.clone(),
        read: &read,
        roots: &audited.roots,
    };
    let followed = follow(stored, if older { &kept } else { pinned });
    let remembered = &followed.trail.files;
    let newest = remembered.iter().rev().find(|file| file.role == "root");
    if newest.is_none_or(|root| root.sha256 != Sha256::of(&kept)) {
        return foreign(match (&followed.error, newest) {
            (Some(error), None) => of_tuf(error),
            _ if way(&kept, pinned, &audited.roots) == Way::Gap => Verdict::CouldNotCheck(format!(
                "{ROOT} is another version than the auditor's, and versions between them are not here"
            )),
            _ => Verdict::Fail(format!(
                "{ROOT} has sha256 {}: another root than the auditor's, and nothing leads from that one to it",
                Sha256::of(&kept)
            )),
        });
    }
    let version = version_of(&kept).unwrap_or_default();
    let mut findings =
        vec![Finding::pass(id, title, format!("root {version}, by signatures")).fact("sha256", Sha256::of(&kept))];
    if let Some(error) = &followed.error {
        findings.push(
            Finding::new("memory.stopped", "It reads as what was once verified", of_tuf(error)).guide(
                "A memory that does not read refuses every bundle, or forgets what is too old.",
                &["TUF 1.0.34, section 5.2"],
                "Find out what changed it. Make the gateway anew from the newest bundle, and compare its versions with the \
                 publisher's.",
            ),
        );
    }
    findings.extend(
        newest_of_each(&audited.verified)
            .into_iter()
            .filter(|served| {
                // The pinned root need not be served: the repository may be from before it.
                served.role != "root" || served.version >= version && audited.roots.contains_key(&served.version)
            })
            .map(|served| compare(served, remembered, followed.error.is_some())),
    );
    findings.extend(waivers::findings(
        read(USES),
        &followed.roots(pinned, Ok(Some(kept.clone()))),
    ));
    findings
}

fn newest_of_each(files: &[TrailFile]) -> Vec<&TrailFile> {
    let mut newest: Vec<&TrailFile> = Vec::new();
    for file in files {
        newest.retain(|known| known.role != file.role);
        newest.push(file);
    }
    newest
}

/// What the repository serves of a role, against what is remembered.
fn compare(served: &TrailFile, remembered: &[TrailFile], broken: bool) -> Finding {
    let role = &served.role;
    let of_role = remembered.iter().rev().find(|file| file.role == *role);
    let verdict = match of_role {
        None if broken => Verdict::CouldNotCheck("the memory could not be followed so far".to_owned()),
        None => Verdict::Fail(format!("it remembers none, and {role} {} is served", served.version)),
        Some(kept) if kept.version > served.version => Verdict::Fail(format!(
            "it remembers {role} {}, and {role} {} is served: an older state was put back, or an import did not end",
            kept.version, served.version
        )),
        Some(kept) if kept.version < served.version => Verdict::Fail(format!(
            "it remembers {role} {}, and {role} {} is served: no import brought that",
            kept.version, served.version
        )),
        Some(kept) if kept.sha256 != served.sha256 => Verdict::Fail(format!(
            "{role} {} as it is remembered and as it is served are two different files",
            served.version
        )),
        Some(_) => Verdict::Pass(format!("{role} {}, the same as is served", served.version)),
    };
    Finding::new(
        format!("memory.{role}"),
        format!("It remembers the {role} that the repository serves"),
        verdict,
    )
    .guide(
        "What is remembered and what is served are written by one import; where they differ, something else wrote one of them.",
        &["TUF 1.0.34, section 5.4.3 and 5.5.5"],
        "Import the newest bundle once more with `bastide-repo import`. If it is refused as older, what is served was put back.",
    )
}
