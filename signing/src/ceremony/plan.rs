// SPDX-License-Identifier: GPL-3.0-or-later
//! From what is wanted to the new root.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use chrono::{DateTime, Timelike, Utc};

use super::state::{Reason, Removed, RoleKeys, RoleName, RootState, TrustedRoot};
use super::{CustodianFile, Request, refuse};
use crate::digest::Sha256;
use crate::output::Usage;

/// The fewest digits by which a key is named.
const MIN_PREFIX: usize = 8;

/// A root key or a role's key that goes.
#[derive(Debug, Clone)]
pub struct Removal {
    /// The custodian's name, or the first digits of the key's identifier.
    pub key: String,
    /// Why.
    pub why: Reason,
}

/// A new threshold.
#[derive(Debug, Clone, Copy)]
pub struct ThresholdChange {
    /// Of which role.
    pub role: RoleName,
    /// How many must sign.
    pub count: u64,
}

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Custodians to take in.
    pub add: Vec<CustodianFile>,
    /// Keys to take out.
    pub remove: Vec<Removal>,
    /// Roles and all the keys that they have from now on.
    pub roles: BTreeMap<RoleName, Vec<CustodianFile>>,
    /// New thresholds.
    pub thresholds: Vec<ThresholdChange>,
    /// How many OpenPGP certificates must sign; as many as before without it.
    pub openpgp_threshold: Option<u64>,
    /// The new expiry; the old one stays without it.
    pub expires: Option<DateTime<Utc>>,
    /// Whether the repository ends.
    pub end: bool,
}

impl Plan {
    /// Makes the signing request. Without an old root it is for the first one.
    ///
    /// # Errors
    /// A refusal when the new root would break a rule.
    pub fn request(&self, old: Option<&TrustedRoot>, now: DateTime<Utc>) -> Result<Request> {
        // Metadata counts whole seconds.
        let whole = |time: DateTime<Utc>| time.with_nanosecond(0).unwrap_or(time);
        let now = whole(now);
        let mut new = match (old, self.expires.map(whole)) {
            (Some(old), expires) => RootState {
                version: old.state.version.saturating_add(1),
                signed_at: now,
                expires: expires.unwrap_or(old.state.expires),
                ceremony: Some(old.state.record()),
                ..old.state.clone()
            },
            (None, Some(expires)) => RootState::empty(1, now, expires),
            (None, None) => return Err(Usage("a first root needs an expiry".to_owned()).into()),
        };
        let removals = self.removals(old)?;
        for file in &self.add {
            let keyid = file.keyid()?;
            if !new.role_mut(RoleName::Root).keyids.insert(keyid) {
                return refuse(format!("{} holds a root key already, or is given twice", file.name));
            }
            new.keys.insert(keyid, file.key.clone());
            record(&mut new).custodians.insert(keyid, file.custodian());
        }
        for (role, files) in &self.roles {
            let mut keyids = BTreeSet::new();
            for file in files {
                let keyid = file.keyid()?;
                keyids.insert(keyid);
                new.keys.insert(keyid, file.key.clone());
            }
            new.role_mut(*role).keyids = keyids;
        }
        // A role that was given keys by name has them: one that is to go as well is for the rules to refuse.
        for (role, RoleKeys { keyids, .. }) in &mut new.roles {
            if !self.roles.contains_key(role) {
                keyids.retain(|keyid| !removals.contains_key(keyid));
            }
        }
        for change in &self.thresholds {
            new.role_mut(change.role).threshold = change.count;
        }
        if let Some(count) = self.openpgp_threshold {
            new.openpgp_threshold = count;
        }
        if self.end {
            for role in RoleName::OTHERS {
                new.role_mut(role).keyids.clear();
            }
            record(&mut new).ended = true;
        }
        note_removed(old.map(|old| &old.state), &mut new, &removals, self.end);
        Request::new(old, &new)
    }

    /// The keys to take out, each once.
    fn removals(&self, old: Option<&TrustedRoot>) -> Result<BTreeMap<Sha256, Reason>> {
        let mut found = BTreeMap::new();
        for removal in &self.remove {
            let Some(old) = old else {
                return Err(Usage("a first root has no keys to remove".to_owned()).into());
            };
            let keyid = find(&old.state, &removal.key)?;
            if found.insert(keyid, removal.why).is_some() {
                return Err(Usage(format!("{:?} is to be removed twice", removal.key)).into());
            }
        }
        Ok(found)
    }
}

fn record(state: &mut RootState) -> &mut super::Record {
    state.ceremony.get_or_insert_default()
}

/// Writes down which keys are gone, and why; takes what is gone out of the rest.
fn note_removed(old: Option<&RootState>, new: &mut RootState, removals: &BTreeMap<Sha256, Reason>, end: bool) {
    let in_use = new.in_use();
    new.keys.retain(|keyid, _| in_use.contains(keyid));
    let version = new.version;
    let record = record(new);
    let before = old.map(RootState::in_use).unwrap_or_default();
    let usual = if end { Reason::Ended } else { Reason::Replaced };
    // What is to be removed and still counts is noted too, so that the rules can name it.
    let gone = before.difference(&in_use).chain(removals.keys());
    for keyid in gone.copied().collect::<BTreeSet<_>>() {
        let custodian = record.custodians.remove(&keyid);
        record.removed.insert(
            keyid,
            Removed {
                name: custodian.map(|custodian| custodian.name),
                version,
                why: removals.get(&keyid).copied().unwrap_or(usual),
            },
        );
    }
}

/// The key that is meant by a custodian's name or the first digits of an identifier.
fn find(state: &RootState, text: &str) -> Result<Sha256> {
    let custodians = state.record().custodians;
    let named = custodians.iter().filter(|(_, custodian)| custodian.name == text);
    let mut found: BTreeSet<Sha256> = named.map(|(keyid, _)| *keyid).collect();
    let digits = text.replace(' ', "").to_ascii_lowercase();
    if digits.len() >= MIN_PREFIX {
        let keys = state.in_use().into_iter();
        found.extend(keys.filter(|keyid| keyid.to_string().starts_with(&digits)));
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let keyids = state.role(RoleName::Root).keyids.iter();
            let mut keys: Vec<String> = keyids
                .map(|keyid| match custodians.get(keyid) {
                    Some(custodian) => custodian.name.clone(),
                    None => keyid.to_string()[..MIN_PREFIX].to_owned(),
                })
                .collect();
            keys.sort();
            Err(Usage(format!(
                "the old root has no key of {text:?}: give a custodian's name or {MIN_PREFIX} or more digits of a key; its custodians' are {}",
                keys.join(", ")
            ))
            .into())
        }
        (Some(_), Some(_)) => Err(Usage(format!("{text:?} is more than one key: give more digits")).into()),
    }
}
