// SPDX-License-Identifier: GPL-3.0-or-later
//! Files that a newer version replaced. No client reads them; an auditor wants to know that nobody hid something in them.

use super::super::error::TufError;
use super::super::limits::Limits;
use super::super::model::{Result, SignedFile};
use super::super::names::encode_role;
use super::super::role_keys::RoleKeys;
use super::super::source::Source;
use super::Client;
use super::checks::{fetch, missing};

impl<S: Source> Client<S> {
    /// Checks that an older version of a role's file is signed by the keys that the role has today. Says nothing about
    /// its age or content, and trusts nothing in it.
    ///
    /// # Errors
    /// When it is missing, malformed, of another version, or not signed by a threshold of these keys: keys that were
    /// replaced since then no longer count.
    pub fn check_superseded(&mut self, role: &str, version: u64) -> Result<()> {
        let keys = self
            .keys_of(role)
            .ok_or_else(|| TufError::NotInSnapshot { role: role.to_owned() })?;
        let name = format!("{version}.{}.json", encode_role(role));
        let max = bound(role, &self.limits);
        let bytes = fetch(&mut self.source, &name, max)?.ok_or_else(|| missing(&name))?;
        let file = SignedFile::read(&name, &bytes, &self.limits)?;
        file.verify(role, &keys)?;
        let signed: serde_json::Value = serde_json::from_slice(file.message()).unwrap_or_default();
        match signed.get("version").and_then(serde_json::Value::as_u64) {
            Some(offered) if offered == version => Ok(()),
            offered => Err(TufError::VersionMismatch {
                role: role.to_owned(),
                named: version,
                offered: offered.unwrap_or_default(),
            }),
        }
    }

    fn keys_of(&self, role: &str) -> Option<RoleKeys> {
        match role {
            "snapshot" => Some(self.root.snapshot.clone()),
            "targets" => Some(self.root.targets.clone()),
            role => self.roles.values().find_map(|loaded| {
                let delegation = loaded
                    .targets
                    .delegations
                    .iter()
                    .find(|delegation| delegation.name == role)?;
                Some(delegation.keys.clone())
            }),
        }
    }
}

fn bound(role: &str, limits: &Limits) -> u64 {
    if role == "snapshot" {
        limits.snapshot_bytes
    } else {
        limits.targets_bytes
    }
}
