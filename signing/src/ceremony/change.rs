// SPDX-License-Identifier: GPL-3.0-or-later
//! What changes from one root to the next, as a typed list that is computed and never believed.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::state::{Custodian, Reason, RoleName, RootState};
use crate::digest::Sha256;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// The first root.
    CreateRoot {
        /// Who holds its keys.
        custodians: BTreeMap<Sha256, Custodian>,
    },
    /// A root key is taken out.
    RemoveCustodian {
        /// The key.
        keyid: Sha256,
        /// Whose it was.
        name: String,
        /// Why.
        why: Reason,
    },
    /// A root key is taken in.
    AddCustodian {
        /// The key.
        keyid: Sha256,
        /// Who holds it.
        custodian: Custodian,
    },
    /// A role gets other keys.
    RotateRole {
        /// The role.
        role: RoleName,
        /// Keys that may no longer sign it, and why.
        removed: BTreeMap<Sha256, Reason>,
        /// Keys that may from now on.
        added: BTreeSet<Sha256>,
    },
    /// Another number of keys must sign.
    SetThreshold {
        /// The role.
        role: RoleName,
        /// The number until now.
        from: u64,
        /// The number from now on.
        to: u64,
    },
    /// Another number of OpenPGP certificates must sign.
    SetOpenpgpThreshold {
        /// The number until now.
        from: u64,
        /// The number from now on.
        to: u64,
    },
    /// Another expiry.
    Renew {
        /// The expiry until now.
        from: DateTime<Utc>,
        /// The expiry from now on.
        to: DateTime<Utc>,
    },
    /// The repository is ended: nobody can sign anything for it any more.
    End {},
}

/// What changes between two roots. Both must have passed [`super::check`].
#[must_use]
pub fn diff(old: Option<&RootState>, new: &RootState) -> Vec<Change> {
    let record = new.record();
    let Some(old) = old else {
        return vec![Change::CreateRoot {
            custodians: record.custodians,
        }];
    };
    let mut changes = Vec::new();
    let why = |keyid: &Sha256| {
        record
            .removed
            .get(keyid)
            .map_or(Reason::Replaced, |removed| removed.why)
    };
    let (before, after) = (&old.role(RoleName::Root).keyids, &new.role(RoleName::Root).keyids);
    changes.extend(before.difference(after).map(|keyid| Change::RemoveCustodian {
        keyid: *keyid,
        name: old.name_of(keyid),
        why: why(keyid),
    }));
    changes.extend(after.difference(before).map(|keyid| Change::AddCustodian {
        keyid: *keyid,
        custodian: record.custodians.get(keyid).cloned().unwrap_or(Custodian {
            name: new.name_of(keyid),
            openpgp: None,
        }),
    }));
    for role in RoleName::OTHERS.into_iter().filter(|_| !record.ended) {
        let (before, after) = (&old.role(role).keyids, &new.role(role).keyids);
        if before != after {
            changes.push(Change::RotateRole {
                role,
                removed: before.difference(after).map(|keyid| (*keyid, why(keyid))).collect(),
                added: after.difference(before).copied().collect(),
            });
        }
    }
    for role in RoleName::ALL {
        let (from, to) = (old.role(role).threshold, new.role(role).threshold);
        if from != to {
            changes.push(Change::SetThreshold { role, from, to });
        }
    }
    if old.openpgp_threshold != new.openpgp_threshold {
        changes.push(Change::SetOpenpgpThreshold {
            from: old.openpgp_threshold,
            to: new.openpgp_threshold,
        });
    }
    if old.expires != new.expires {
        changes.push(Change::Renew {
            from: old.expires,
            to: new.expires,
        });
    }
    if record.ended {
        changes.push(Change::End {});
    }
    changes
}
