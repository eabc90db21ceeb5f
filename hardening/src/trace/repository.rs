// SPDX-License-Identifier: GPL-3.0-or-later
//! A repository in a directory: a publisher's, or a gateway's, which also has a memory.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Result, anyhow};
use signing::output::Refused;
use signing::tuf::DirectorySource;

use super::release::{Audited, Question, audit};
use super::{Held, Inventory, approval, gateway, memory, receipts};
use crate::report::{Finding, Section};

/// Where a gateway remembers what it trusted.
const DATASTORE: &str = "datastore";
/// Where it keeps what the site's officers approved.
const SITE: &str = "site";
/// Where the receipts of hosts and gateways lie.
const RECEIPTS: &str = "receipts";
/// What commands keep for themselves there (logs of exports, imports that wait or were refused, unfinished work), which is
/// offered to nobody, and packages for guests, which apt verifies. Nothing is decided by it, and it is not looked into.
const ASIDE: [&str; 4] = ["apt", "exports", "quarantine", "work"];
const ENTRIES: usize = 1_000_000;

/// Looks whether a directory is a repository at all.
///
/// # Errors
/// [`Refused`] when it is none.
pub(crate) fn recognise(directory: &Path) -> Result<()> {
    if directory.join("metadata").is_dir() {
        return Ok(());
    }
    let why = "it is no repository: it has no directory metadata";
    Err(anyhow!(Refused(why.to_owned())))
}

/// Audits the repository in a directory.
///
/// # Errors
/// [`Refused`] when it is no repository at all; else when it cannot be listed.
pub fn repository(directory: &Path, mut question: Question<'_>) -> Result<Audited> {
    let entries = sorted(directory)?;
    recognise(directory)?;
    let (mut gateway, mut approved, mut receipts) = (false, false, false);
    let mut inventory = Inventory::default();
    let mut strange = Vec::new();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let list = match name.as_str() {
            "metadata" => &mut inventory.metadata,
            "targets" => &mut inventory.targets,
            // Taken by whoever writes the repository; it is empty.
            ".lock" if entry.metadata()?.len() == 0 => continue,
            SITE if entry.file_type()?.is_dir() => {
                approved = true;
                continue;
            }
            DATASTORE if entry.file_type()?.is_dir() => {
                gateway = true;
                // Its bundles carried some releases, and it holds those.
                question.complete = false;
                continue;
            }
            name if ASIDE.contains(&name) && entry.file_type()?.is_dir() => continue,
            RECEIPTS if entry.file_type()?.is_dir() => {
                receipts = true;
                continue;
            }
            _ => {
                strange.push(name);
                continue;
            }
        };
        files(&entry.path(), "", list, &mut strange, &name)?;
    }
    let mut served = DirectorySource::below(directory);
    let judged = match question.site {
        Some(site) => Some(gateway::approvals(directory, site, question)?),
        None => None,
    };
    let as_of = judged.as_ref().and_then(|(judged, _)| judged.as_of(&mut served));
    let mut audited = audit(served, &inventory, question, as_of);
    match judged {
        Some((judged, memory)) => {
            audited.sections.push(approval::section(judged.findings));
            audited.sections.extend(memory);
        }
        None if approved => audited.sections.push(approval::section(vec![approval::unasked()])),
        None => {}
    }
    if gateway {
        let memory = memory::section(&directory.join(DATASTORE), &audited, question);
        audited.sections.push(memory);
    }
    if receipts {
        let receipts = receipts::section(&directory.join(RECEIPTS), &audited);
        audited.sections.push(receipts);
    }
    if !strange.is_empty() {
        let findings = strange.iter().map(|name| {
            Finding::fail(
                format!("file.{name}"),
                name,
                "neither metadata nor a target, or no regular file: it has no place here",
            )
        });
        audited.sections.push(Section::new(
            "strange",
            "Strangers",
            "What lies beside the repository's own files.",
            findings.collect(),
        ));
    }
    Ok(audited)
}

pub(super) fn sorted(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

pub(super) fn files(
    directory: &Path,
    below: &str,
    list: &mut Vec<Held>,
    strange: &mut Vec<String>,
    top: &str,
) -> io::Result<()> {
    for entry in sorted(directory)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let full = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let kind = entry.file_type()?;
        if list.len() + strange.len() >= ENTRIES {
            return Err(io::Error::other(format!("more than {ENTRIES} files")));
        }
        if kind.is_dir() {
            files(&entry.path(), &full, list, strange, top)?;
        } else if kind.is_file() {
            list.push(Held {
                name: full,
                length: entry.metadata()?.len(),
            });
        } else {
            strange.push(format!("{top}/{full}"));
        }
    }
    Ok(())
}
