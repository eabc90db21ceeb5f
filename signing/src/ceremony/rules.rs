// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether a root may follow another. A plan is held to it, and so is every request that a custodian is handed.

use std::collections::BTreeSet;

use anyhow::Result;

use super::custodian::check_name;
use super::refuse;
use super::state::{Reason, RoleName, RootState};
use crate::digest::Sha256;
use crate::tuf::author::SPEC_VERSION;

/// Checks a new root against the one before it, if there is one.
///
/// # Errors
/// A refusal that names the rule.
pub fn check(old: Option<&RootState>, new: &RootState) -> Result<()> {
    if new.version != old.map_or(Some(1), |old| old.version.checked_add(1)).unwrap_or(0) {
        return refuse(format!("version {} does not follow its predecessor's", new.version));
    }
    if new.expires <= new.signed_at {
        return refuse("the new root would be expired from the start: give it days to live");
    }
    if !new.consistent_snapshot || new.spec_version.split('.').next() != SPEC_VERSION.split('.').next() {
        return refuse("the new root follows another specification or has no consistent snapshots");
    }
    let Some(record) = &new.ceremony else {
        return refuse("the new root lacks the ceremony's record of custodians and removed keys");
    };
    if new.in_use() != new.keys.keys().copied().collect() {
        return refuse("the new root's keys are not those of its roles");
    }
    check_thresholds(new, record.ended)?;
    if new.openpgp_threshold == 0 {
        return refuse("no OpenPGP certificate would have to sign: one is the least");
    }
    for (keyid, removed) in &record.removed {
        if let Some((role, _)) = new.roles.iter().find(|(_, role)| role.keyids.contains(keyid)) {
            let was = match removed.why {
                Reason::Compromised { .. } => "compromised",
                _ => "removed",
            };
            let whose = removed.name.as_ref();
            let whose = whose.map_or_else(String::new, |name| format!(" of {name}"));
            return refuse(format!(
                "the {was} key {keyid}{whose} still counts in the role {role}: what was removed never comes back, make \
                 another key"
            ));
        }
    }
    check_names(old, new)?;
    match old {
        None => {
            if record.ended || !record.removed.is_empty() {
                return refuse("a first root has removed nothing and ends nothing");
            }
            Ok(())
        }
        Some(old) => check_succession(old, new),
    }
}

fn check_thresholds(new: &RootState, ended: bool) -> Result<()> {
    for (name, role) in &new.roles {
        let count = role.keyids.len() as u64;
        if ended && *name != RoleName::Root {
            if count != 0 {
                return refuse(format!("the repository is ended, and the role {name} still has a key"));
            }
        } else if role.threshold == 0 || role.threshold > count {
            return refuse(format!(
                "{} of {count} keys of the role {name} can never sign: the threshold cannot be met",
                role.threshold
            ));
        }
    }
    Ok(())
}

fn check_names(old: Option<&RootState>, new: &RootState) -> Result<()> {
    let record = new.record();
    let root = &new.role(RoleName::Root).keyids;
    let mut names = BTreeSet::new();
    for (keyid, custodian) in &record.custodians {
        check_name(&custodian.name)?;
        if let Some(openpgp) = &custodian.openpgp {
            check_fingerprint(openpgp)?;
        }
        if !root.contains(keyid) {
            return refuse(format!("{} holds no root key and is no custodian", custodian.name));
        }
        if !names.insert(custodian.name.to_lowercase()) {
            return refuse(format!(
                "two keys bear the name {}: one person has one key",
                custodian.name
            ));
        }
    }
    for keyid in root {
        let kept = old.filter(|old| old.role(RoleName::Root).keyids.contains(keyid));
        let before = kept.map(|old| old.record().custodians.get(keyid).cloned());
        let now = record.custodians.get(keyid);
        match before {
            Some(before) if before.as_ref() != now => {
                return refuse(format!("the key {keyid} is kept and its custodian's name is not"));
            }
            None if now.is_none() => return refuse(format!("the new root key {keyid} bears no custodian's name")),
            _ => {}
        }
    }
    Ok(())
}

/// Version 4 or 6, as OpenPGP programs print it.
pub(super) fn check_fingerprint(text: &str) -> Result<()> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    if digits && matches!(text.len(), 40 | 64) {
        return Ok(());
    }
    refuse("an OpenPGP fingerprint has 40 or 64 upper-case hexadecimal digits")
}

fn check_succession(old: &RootState, new: &RootState) -> Result<()> {
    let (before, record) = (old.record(), new.record());
    if before.ended {
        return refuse(format!(
            "the repository was ended by root {}: nothing follows it",
            old.version
        ));
    }
    if new.signed_at < old.signed_at {
        return refuse("the new root is dated before the old one: set the clock of the machine that plans");
    }
    if before
        .removed
        .iter()
        .any(|(keyid, was)| record.removed.get(keyid) != Some(was))
    {
        return refuse("the new root forgets a key that was removed earlier");
    }
    let gone: BTreeSet<Sha256> = old.in_use().difference(&new.in_use()).copied().collect();
    let told = record
        .removed
        .keys()
        .filter(|keyid| !before.removed.contains_key(*keyid));
    if gone != told.copied().collect() {
        return refuse("the keys that are gone and the keys that are named as removed differ");
    }
    for keyid in &gone {
        let removed = &record.removed[keyid];
        let named = before.custodians.get(keyid).map(|custodian| &custodian.name);
        if removed.version != new.version || removed.name.as_ref() != named {
            return refuse(format!("the removal of {keyid} bears another version or name"));
        }
        if removed.why == Reason::Ended && !record.ended {
            return refuse("a key is removed by an end that does not come");
        }
        if let Reason::Compromised { last_trusted_version } = removed.why
            && old.role(RoleName::Root).keyids.contains(keyid)
            && last_trusted_version > old.version
        {
            return refuse(format!(
                "the last trusted version of a compromised root key is at most the present {}",
                old.version
            ));
        }
    }
    let others = RoleName::OTHERS.iter().flat_map(|role| &new.role(*role).keyids);
    let root = |state: &RootState| state.role(RoleName::Root).keyids.clone();
    let left: BTreeSet<Sha256> = root(old).difference(&root(new)).copied().collect();
    if let Some(keyid) = others.into_iter().find(|keyid| left.contains(*keyid)) {
        return refuse(format!("the root key {keyid} is removed and stays in another role"));
    }
    let able = able(old, new);
    let need = old.role(RoleName::Root).threshold;
    if (able.len() as u64) < need {
        return refuse(format!(
            "{need} keys of the old root must sign and {} can: no client will ever follow. Make a new root with \
             `ceremony plan --create` and pin it anew",
            able.len()
        ));
    }
    Ok(())
}

/// The old root's keys whose signatures count: not the lost ones, and the compromised ones only where the threshold cannot
/// be met without them.
pub(super) fn able(old: &RootState, new: &RootState) -> BTreeSet<Sha256> {
    let record = new.record();
    let keys = &old.role(RoleName::Root).keyids;
    let without = |compromised: bool| -> BTreeSet<Sha256> {
        let out = |keyid: &Sha256| match record.removed.get(keyid).map(|removed| removed.why) {
            Some(Reason::Lost) => true,
            Some(Reason::Compromised { .. }) => compromised,
            _ => false,
        };
        keys.iter().filter(|keyid| !out(keyid)).copied().collect()
    };
    let honest = without(true);
    if honest.len() as u64 >= old.role(RoleName::Root).threshold {
        honest
    } else {
        without(false)
    }
}
