// SPDX-License-Identifier: GPL-3.0-or-later
//! What a ceremony hands to a new site: the root that its custodians signed, and the keys of the roles that it names.
//!
//! # Attacks faced
//! A root that its own threshold did not sign; the key of a role that the root does not name, by mistake or not.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Role;
use super::init::private;
use crate::ceremony::{MAX_FILE, RoleName, TrustedRoot};
use crate::digest::read_bounded;
use crate::keys::{self, MetadataKey, Passphrase};
use crate::output::Refused;
use crate::tuf::author::{Signer as _, key_id};

/// The roles that a root names and a site signs for.
pub(super) const ROLES: [(Role, RoleName); 3] = [
    (Role::Targets, RoleName::Targets),
    (Role::Snapshot, RoleName::Snapshot),
    (Role::Timestamp, RoleName::Timestamp),
];

/// Reads the root, which must hold against itself.
pub(super) fn root(file: &Path) -> Result<TrustedRoot> {
    let reading = || format!("making the site: reading the root {}", file.display());
    let bytes = read_bounded(file, 2 * MAX_FILE).with_context(reading)?;
    let root = TrustedRoot::read(&bytes).with_context(reading)?;
    if root.state.version != 1 {
        return Err(Refused(format!(
            "{} is root {}: a site is made on the first one, and the later ones go into its metadata",
            file.display(),
            root.state.version
        ))
        .into());
    }
    Ok(root)
}

/// Where the key of a role lies, and its name in the site.
pub(super) fn name(directory: &Path, (role, _): (Role, RoleName)) -> Result<(PathBuf, String)> {
    let place = keys::place(directory, &role.to_string(), "key.pem")?;
    ensure!(
        place.is_file(),
        "making the site: {} is missing: it is made by `ceremony keygen --name {role} --no-openpgp --dir {}`",
        place.display(),
        directory.display()
    );
    let ending = if keys::is_token(&place) { "uri" } else { "pem" };
    Ok((place, format!("{role}.{ending}")))
}

/// Opens the keys, holds them against the root, and copies their files as they are.
pub(super) fn keys(
    root: &TrustedRoot,
    directory: &Path,
    passphrase: &Passphrase,
    to: &Path,
) -> Result<Vec<(Role, MetadataKey)>> {
    let mut found = Vec::new();
    for pair @ (role, named) in ROLES {
        let (place, name) = name(directory, pair)?;
        let key = MetadataKey::of(keys::open_file(&place, passphrase)?)?;
        let allowed = root.state.role(named);
        if allowed.threshold != 1 {
            return Err(Refused(format!(
                "the root wants {} keys to sign {role}: a site signs with one",
                allowed.threshold
            ))
            .into());
        }
        let keyid = key_id(&key.public())?;
        if !allowed.keyids.iter().any(|one| one.to_string() == keyid) {
            return Err(Refused(format!(
                "{} is not the key that the root names for {role}: bring the one that was given to `ceremony plan`",
                place.display()
            ))
            .into());
        }
        let bytes = read_bounded(&place, MAX_FILE).with_context(|| format!("cannot read {}", place.display()))?;
        private(&to.join(name), &bytes)?;
        found.push((role, key));
    }
    Ok(found)
}
