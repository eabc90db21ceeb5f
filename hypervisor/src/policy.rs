// SPDX-License-Identifier: GPL-3.0-or-later
//! Which roots this host follows: the policy that the installer wrote, held against the signed record of the installation.
//!
//! Attacks faced: a policy or a site's root that was exchanged, and one that was lost, so that the vendor's word alone would
//! do. Defence: the policy stands twice, in its own file and in the install record, whose signature is checked; what is
//! missing or differs is refused, and nothing is assumed. Defence not made: see [`signing::policy`].

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use signing::digest::read_bounded;
use signing::output::Refused;
use signing::policy::{MAX_FILE, Policy, Sovereign, Sovereigns};

use crate::machine::Machine;
use crate::record;

/// An inventory of a large machine and all events of its installation are some hundred kilobytes.
pub(crate) const MAX_RECORD: u64 = 16 << 20;

/// What the policy needs of the install record.
#[derive(Deserialize)]
struct Record {
    host_key: String,
    policy: Policy,
}

/// The policy of this host.
///
/// # Errors
/// A refusal when record and policy are not what the installer left; else when they cannot be read.
pub fn policy(machine: &Machine) -> Result<Policy> {
    let recorded = recorded(&machine.state)?;
    let policy = Policy::read(&machine.policy())?;
    if policy != recorded {
        bail!(Refused(format!(
            "the trust policy in {} is not the one of the install record: restore it, or install the host anew",
            machine.policy().display()
        )));
    }
    Ok(policy)
}

/// Whom this host follows.
///
/// # Errors
/// As [`policy`], and when a root or a certificate cannot be read or is not the pinned one.
pub fn sovereigns(machine: &Machine) -> Result<Sovereigns> {
    let policy = policy(machine)?;
    let read = |name: &str| {
        let path = machine.trust.join(name);
        read_bounded(&path, MAX_FILE)
            .with_context(|| format!("cannot tell whom this host believes: cannot read {}", path.display()))
    };
    let vendor = Sovereign {
        root: read("root.json")?,
        certificate: read("release.asc")?,
    };
    policy.sovereigns(&machine.policy(), vendor)
}

fn recorded(state: &Path) -> Result<Policy> {
    let place = state.join("install-record.json");
    let read = |name: &str| {
        let path = state.join(name);
        read_bounded(&path, MAX_RECORD)
            .with_context(|| format!("cannot tell whom this host believes: cannot read {}", path.display()))
    };
    let (bytes, signature) = (read("install-record.json")?, read("install-record.json.sig")?);
    let (record, _) = record::signed(&bytes, &signature, |record: &Record| &record.host_key)
        .with_context(|| format!("the install record {} is refused", place.display()))?;
    Ok(record.policy)
}
