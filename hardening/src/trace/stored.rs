// SPDX-License-Identifier: GPL-3.0-or-later
//! A client's memory as a repository, so that the client verifies it again from the auditor's pinned root.

use chrono::{DateTime, Utc};
use signing::digest::read_to_limit;
use signing::tuf::time::waiver::USES;
use signing::tuf::{Source, SourceError};

use super::trust::Trust;
use super::tuf::{Followed, Roots, root_name, version_of};
use super::{history, waivers};
use crate::report::Finding;

/// A file's content, nothing, or why it cannot be read.
pub(super) type Answer = Result<Option<Vec<u8>>, String>;

/// The metadata that a client stored.
pub(super) struct Stored<'a> {
    /// The names of the files in its datastore.
    pub(super) names: Vec<String>,
    /// Reads one of them, or says why it cannot be read.
    pub(super) read: &'a dyn Fn(&str) -> Answer,
    /// Roots from elsewhere: the memory keeps the newest alone, and these lead to it.
    pub(super) roots: &'a Roots,
}

impl Stored<'_> {
    /// What is said of a memory that was followed from `trust`: its signatures, whether they are fresh `at` that time, whether
    /// it is `whose` and older than the pinned root, and what waivers lifted. `leaves` gives what hangs from a role.
    pub(super) fn findings<S>(
        &self,
        followed: &Followed<S>,
        (whose, trust): (&str, &Trust),
        at: DateTime<Utc>,
        leaves: &mut dyn FnMut(&str) -> Vec<Finding>,
    ) -> Vec<Finding> {
        let mut findings = vec![followed.tree(leaves), followed.freshness(at, false)];
        let kept = (self.read)("root.json").ok().flatten();
        findings.extend(kept.and_then(|kept| history::behind(whose, &kept, &trust.root, &Roots::new())));
        // Of a record that is not listed nobody need be asked.
        let record = self.names.iter().find(|name| *name == USES);
        let record = record.map_or(Ok(None), |name| (self.read)(name));
        let roots = followed.roots(&trust.root, (self.read)("root.json"));
        findings.extend(waivers::findings(record, &roots));
        findings
    }

    fn file(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        (self.read)(name).map_err(|why| SourceError::Io {
            name: name.to_owned(),
            source: std::io::Error::other(why),
        })
    }

    /// The datastore keeps timestamp and snapshot under names that say which keys they were trusted with.
    fn online(&self, role: &str) -> Result<Option<Vec<u8>>, SourceError> {
        match self
            .names
            .iter()
            .find(|name| name.starts_with(&format!("{role}.")) && name.ends_with(".json"))
        {
            Some(name) => self.file(name),
            None => Ok(None),
        }
    }

    /// The root that is kept stands for its own version, and none is newer. Whether it follows from the pinned one, the
    /// client judges.
    fn root(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(version) = root_name(name) else {
            return Ok(None);
        };
        let kept = self.file("root.json")?;
        Ok(match kept.as_deref().and_then(version_of) {
            Some(newest) if newest == version => kept,
            Some(newest) if newest > version => self.roots.get(&version).cloned(),
            _ => None,
        })
    }
}

impl Source for Stored<'_> {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let role = match name.strip_suffix(".json").and_then(|name| name.split_once('.')) {
            Some((_, role)) => role,
            None => name.trim_end_matches(".json"),
        };
        let bytes = match role {
            "root" => self.root(name)?,
            "timestamp" | "snapshot" => self.online(role)?,
            "targets" => self.file("targets.json")?,
            role => self.file(&format!("role.{role}.json"))?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        read_to_limit(&mut &bytes[..], max)
            .map(Some)
            .map_err(|_| SourceError::TooLong {
                name: name.to_owned(),
                limit: max,
            })
    }

    fn target(&mut self, _: &str) -> Result<Option<Box<dyn std::io::Read + '_>>, SourceError> {
        Ok(None)
    }
}
