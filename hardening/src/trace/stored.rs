// SPDX-License-Identifier: GPL-3.0-or-later
//! A client's memory as a repository, so that the client verifies it again from the auditor's pinned root.

use signing::digest::read_to_limit;
use signing::tuf::{Source, SourceError};

use super::tuf::{Roots, root_name, version_of};

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
