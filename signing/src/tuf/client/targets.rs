// SPDX-License-Identifier: GPL-3.0-or-later
//! 5.6 and 5.7: targets roles, the search for a target, and the target itself.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::super::datastore::role_name;
use super::super::error::TufError;
use super::super::hashes::{Check, Hashes};
use super::super::model::{MetaFile, Result, SignedFile, Target, Targets};
use super::super::names::{check_target_name, encode_role};
use super::super::role_keys::RoleKeys;
use super::super::source::{Source, SourceError};
use super::super::trail::Origin;
use super::checks::{check, content, exact_version, fetch, missing};
use super::{Client, Reached, TARGETS};
use crate::digest::{BLOCK, Sha256};

/// A target that a trusted role vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedTarget {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// The application's own object, as signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<Value>,
    /// The role that vouches for it.
    pub role: String,
    #[serde(skip)]
    hashes: Hashes,
}

impl VerifiedTarget {
    /// Starts to check bytes that are said to be this target.
    #[must_use]
    pub fn check(&self) -> Check {
        self.hashes.check()
    }
}

#[cfg(test)]
impl VerifiedTarget {
    /// A target that nobody verified.
    pub(crate) fn example(name: &str, length: u64, custom: Option<Value>) -> Self {
        let sha256 = Sha256::of(name.as_bytes());
        Self {
            name: name.to_owned(),
            length,
            sha256,
            custom,
            role: "host".to_owned(),
            hashes: Hashes::of(sha256),
        }
    }
}

/// A target as its role describes it, with any digest that we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// Its digests, all of which are checked.
    pub hashes: Hashes,
    /// The application's own object, as signed.
    pub custom: Option<Value>,
    /// The role that vouches for it.
    pub role: String,
}

/// A targets role in memory.
pub(super) struct Loaded {
    pub(super) targets: Targets,
    /// Which delegations it was verified for: a role that is trusted by one delegator is not trusted by another.
    verified_for: BTreeSet<String>,
}

/// A role that the search has to look at.
pub(super) struct Visit {
    role: String,
    keys: RoleKeys,
    named_by: String,
}

impl<S: Source> Client<S> {
    pub(super) fn top(&self) -> Visit {
        Visit {
            role: TARGETS.to_owned(),
            keys: self.root.targets.clone(),
            named_by: format!("root {}", self.root.header.version),
        }
    }

    /// 5.6 Update the targets role; delegated roles take the same way when the search reaches them.
    pub(super) fn load(&mut self, visit: &Visit) -> Result<Arc<Loaded>> {
        let role = visit.role.as_str();
        if let Some(loaded) = self.roles.get(role)
            && loaded.verified_for.contains(&visit.named_by)
        {
            return Ok(Arc::clone(loaded));
        }
        let file_name = format!("{}.json", encode_role(role));
        let meta = match &self.snapshot {
            // Python-tuf writes the role's name as it is into the snapshot, tough encodes it.
            Some(snapshot) => snapshot
                .meta
                .get(&format!("{role}.json"))
                .or_else(|| snapshot.meta.get(&file_name)),
            None => None,
        };
        let Some(meta) = meta.cloned() else {
            return Err(TufError::NotInSnapshot { role: role.to_owned() });
        };
        let name = self.metadata_name(&encode_role(role), meta.version);
        let place = role_name(role);
        let stored = match self.store.read(&place)? {
            Some(bytes) if content(role, &meta, &bytes).is_ok() => self
                .read_targets(visit, &meta, &name, &bytes)
                .ok()
                .map(|read| (read, bytes)),
            _ => None,
        };
        let ((targets, keyids), bytes, origin) = match stored {
            Some((read, bytes)) => (read, bytes, Origin::Datastore),
            None => {
                // 5.6.1: download at most the length in the snapshot, and never more than our own bound.
                let max = meta.length.unwrap_or(u64::MAX).min(self.limits.targets_bytes);
                let bytes = fetch(&mut self.source, &name, max)?.ok_or_else(|| missing(&name))?;
                // 5.6.2: check against the snapshot role's targets hash.
                content(&name, &meta, &bytes)?;
                (self.read_targets(visit, &meta, &name, &bytes)?, bytes, Origin::Source)
            }
        };
        // 5.6.5: check for a freeze attack.
        self.fresh(role, targets.header, &bytes)?;
        // 5.6.6: persist.
        if origin == Origin::Source {
            self.store.write(&place, &bytes)?;
        }
        let checks = vec![check(visit.named_by.clone(), &visit.keys, keyids)];
        let mut verified_for = BTreeSet::from([visit.named_by.clone()]);
        if let Some(before) = self.roles.get(role) {
            verified_for.extend(before.verified_for.iter().cloned());
        }
        self.record(role, name, targets.header, &bytes, origin, Reached::by(checks));
        let loaded = Arc::new(Loaded { targets, verified_for });
        self.roles.insert(role.to_owned(), Arc::clone(&loaded));
        Ok(loaded)
    }

    fn read_targets(&self, visit: &Visit, meta: &MetaFile, name: &str, bytes: &[u8]) -> Result<(Targets, Vec<String>)> {
        let file = SignedFile::read(name, bytes, &self.limits)?;
        // 5.6.3: check for an arbitrary software attack, with the keys that this very delegation names.
        let keyids = file.verify(&visit.role, &visit.keys)?;
        let targets = Targets::read(&file)?;
        // 5.6.4: check against the snapshot role's targets version.
        exact_version(&visit.role, meta.version, targets.header)?;
        Ok((targets, keyids))
    }

    /// 5.6.7: the first role in a pre-order depth-first search that names the target and may speak for it.
    fn find(&mut self, name: &str) -> Result<Option<(Target, String)>> {
        if self.snapshot.is_none() {
            self.refresh()?;
        }
        let mut visited = BTreeSet::new();
        let mut stack = vec![self.top()];
        while let Some(visit) = stack.pop() {
            // 5.6.7.1: a role is visited once, and only so many are.
            if visited.contains(&visit.role) {
                continue;
            }
            if visited.len() >= self.limits.roles {
                return Err(TufError::TooMany {
                    what: "roles searched for a target",
                    limit: self.limits.roles as u64,
                });
            }
            let loaded = self.load(&visit)?;
            if let Some(target) = loaded.targets.targets.get(name) {
                return Ok(Some((target.clone(), visit.role)));
            }
            // 5.6.7.2: its delegations in order of appearance; after a terminating one nothing else is searched.
            let mut children = Vec::new();
            for delegation in &loaded.targets.delegations {
                if !delegation.paths.cover(name) {
                    continue;
                }
                children.push(Visit {
                    role: delegation.name.clone(),
                    keys: delegation.keys.clone(),
                    named_by: format!("{} {}", visit.role, loaded.targets.header.version),
                });
                if delegation.terminating {
                    stack.clear();
                    break;
                }
            }
            visited.insert(visit.role);
            stack.extend(children.into_iter().rev());
        }
        Ok(None)
    }

    /// The target of this name as the specification alone would have it: see [`Client::target`] for what we install.
    ///
    /// # Errors
    /// When a role on the way cannot be verified, or the name is not allowed.
    pub fn locate(&mut self, name: &str) -> Result<Option<Located>> {
        check_target_name(name).map_err(|error| TufError::Malformed {
            what: "the request".to_owned(),
            why: error.to_string(),
        })?;
        let Some((target, role)) = self.find(name)? else {
            return Ok(None);
        };
        if target.length > self.limits.target_bytes {
            return Err(TufError::Length {
                what: format!("target {name:?}"),
                detail: format!("at most {} bytes are allowed", self.limits.target_bytes),
            });
        }
        Ok(Some(Located {
            name: name.to_owned(),
            length: target.length,
            hashes: target.hashes,
            custom: target.custom,
            role,
        }))
    }

    /// The target of this name, if a trusted role vouches for it. Refreshes first when that was not done yet.
    ///
    /// # Errors
    /// When a role on the way cannot be verified, the name is not allowed, or no SHA-256 digest is named.
    pub fn target(&mut self, name: &str) -> Result<Option<VerifiedTarget>> {
        let Some(located) = self.locate(name)? else {
            return Ok(None);
        };
        let sha256 = located.hashes.sha256().ok_or_else(|| TufError::Malformed {
            what: format!("target {name:?}"),
            why: "no SHA-256 digest is named".to_owned(),
        })?;
        Ok(Some(VerifiedTarget {
            name: located.name,
            length: located.length,
            sha256,
            custom: located.custom,
            role: located.role,
            hashes: located.hashes,
        }))
    }

    /// Every target that [`Client::target`] would find, sorted by name. Loads every role.
    ///
    /// # Errors
    /// When any role cannot be verified, or there are more targets than allowed.
    pub fn targets(&mut self) -> Result<Vec<VerifiedTarget>> {
        if self.snapshot.is_none() {
            self.refresh()?;
        }
        let mut names = BTreeSet::new();
        let mut visited = BTreeSet::new();
        let mut stack = vec![self.top()];
        while let Some(visit) = stack.pop() {
            if !visited.insert(visit.role.clone()) {
                continue;
            }
            if visited.len() > self.limits.roles {
                return Err(TufError::TooMany {
                    what: "roles",
                    limit: self.limits.roles as u64,
                });
            }
            let loaded = self.load(&visit)?;
            names.extend(loaded.targets.targets.keys().cloned());
            if names.len() > self.limits.targets {
                return Err(TufError::TooMany {
                    what: "targets",
                    limit: self.limits.targets as u64,
                });
            }
            stack.extend(loaded.targets.delegations.iter().rev().map(|delegation| Visit {
                role: delegation.name.clone(),
                keys: delegation.keys.clone(),
                named_by: format!("{} {}", visit.role, loaded.targets.header.version),
            }));
        }
        // A role may name targets for which it does not speak: only the search decides.
        let mut found = Vec::new();
        for name in names {
            found.extend(self.target(&name)?);
        }
        Ok(found)
    }

    /// Where a target lies in the repository's directory of targets.
    #[must_use]
    pub fn path(&self, target: &VerifiedTarget) -> String {
        self.place(&target.name, &target.hashes)
    }

    fn place(&self, name: &str, hashes: &Hashes) -> String {
        if self.root.consistent_snapshot {
            consistent_path(name, &hashes.in_name())
        } else {
            name.to_owned()
        }
    }

    /// That everything is here which a target is made of, as far as its source has it: see [`Source::ready`].
    ///
    /// # Errors
    /// When it is not, or the source cannot be read.
    pub fn ready(&mut self, target: &VerifiedTarget) -> Result<()> {
        let path = self.path(target);
        Ok(self.source.ready(&path)?)
    }

    /// 5.7 Fetch target: streams it into `sink`, at most its length, and checks length and digests at the end.
    ///
    /// # Errors
    /// When it is missing, longer, shorter or different. What `sink` received then is not verified and must not be used.
    pub fn fetch(&mut self, target: &VerifiedTarget, sink: &mut dyn Write) -> Result<()> {
        let check = target.hashes.check();
        self.stream(&target.name, target.length, &target.hashes, Some(check), sink)
    }

    /// As [`Client::fetch`], but the digests are left to a caller who reads what `sink` kept again in any case. It is not verified
    /// until [`VerifiedTarget::check`] holds over all of it.
    ///
    /// # Errors
    /// When it is missing, longer or shorter.
    pub fn fetch_unchecked(&mut self, target: &VerifiedTarget, sink: &mut dyn Write) -> Result<()> {
        self.stream(&target.name, target.length, &target.hashes, None, sink)
    }

    /// As [`Client::fetch`], for a target that [`Client::locate`] found.
    ///
    /// # Errors
    /// As [`Client::fetch`].
    pub fn fetch_located(&mut self, target: &Located, sink: &mut dyn Write) -> Result<()> {
        let check = target.hashes.check();
        self.stream(&target.name, target.length, &target.hashes, Some(check), sink)
    }

    fn stream(
        &mut self,
        name: &str,
        length: u64,
        hashes: &Hashes,
        mut check: Option<Check>,
        sink: &mut dyn Write,
    ) -> Result<()> {
        let path = self.place(name, hashes);
        let what = format!("target {name:?}");
        let mut reader = self.source.target(&path)?.ok_or_else(|| missing(&path))?;
        let mut block = vec![0; BLOCK];
        let mut taken = 0;
        loop {
            let count = match reader.read(&mut block) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(SourceError::of_read(&path, source).into()),
            };
            taken += count as u64;
            // 5.7.3: at most the number of bytes that the targets metadata names.
            if taken > length {
                return Err(TufError::Length {
                    what,
                    detail: format!("it is longer than the {length} bytes that are signed"),
                });
            }
            if let Some(check) = &mut check {
                check.update(&block[..count]);
            }
            sink.write_all(&block[..count]).map_err(|source| TufError::Sink {
                name: name.to_owned(),
                source,
            })?;
        }
        if taken != length {
            return Err(TufError::Length {
                what,
                detail: format!("{taken} bytes where {length} are signed"),
            });
        }
        // 5.7.3: verify that its hashes match the targets metadata.
        if check.is_none_or(Check::holds) {
            Ok(())
        } else {
            Err(TufError::HashMismatch { what })
        }
    }
}

/// `dir/HASH.file` for `dir/file`.
#[must_use]
pub fn consistent_path(name: &str, digest: &str) -> String {
    match name.rsplit_once('/') {
        Some((directory, file)) => format!("{directory}/{digest}.{file}"),
        None => format!("{digest}.{name}"),
    }
}
