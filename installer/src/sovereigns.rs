// SPDX-License-Identifier: GPL-3.0-or-later
//! The trust policy of the new host: the vendor alone, or the site beside it, whose root comes with the answer.
//!
//! Attacks faced: another site's root on the stick; the site's root without its officers' OpenPGP signature; the vendor's
//! own root as the site's. Defence: the root must have the digest that the answer's writer was told, be signed by its own
//! threshold and by the certificate, and be another one than the vendor's; the plan shows the digest before anything is
//! written, and the signed record keeps it. Defence not made: the release on the medium is judged by the vendor's root
//! alone, so the medium is to be taken from where the officers checked it.

use anyhow::{Context, Result, bail};
use hypervisor::layout;
use signing::clock;
use signing::digest::Sha256;
use signing::output::Refused;
use signing::policy::{POLICY, Policy, SITE, SiteFiles};
use signing::tuf::Datastore;

use crate::answer::Loaded;
use crate::disk::State;

/// Writes the policy into the new host's state, with the site's files and the memory of its repository.
///
/// # Errors
/// A refusal when the site cannot be pinned; else when a file cannot be written.
pub fn pin(state: &mut State, answer: &Loaded, vendor: Sha256) -> Result<Policy> {
    let policy = match answer.answer.trust.site_root {
        None => Policy::Vendor,
        Some(wanted) => {
            let site = answer.site.as_ref().context("the files of the site are not there")?;
            check(site, wanted, vendor)?;
            for (name, bytes) in site.files() {
                state.file(&format!("{}/{SITE}/{name}", layout::TRUST_POLICY), bytes, 0o644)?;
            }
            let memory = state.directory(layout::SITE_DATASTORE, 0o755)?;
            Datastore::create(&memory, site.root())?;
            Policy::VendorAndSite { site: site.pinned() }
        }
    };
    let place = format!("{}/{POLICY}", layout::TRUST_POLICY);
    state.file(&place, &policy.to_file()?, 0o644)?;
    Ok(policy)
}

fn check(site: &SiteFiles, wanted: Sha256, vendor: Sha256) -> Result<()> {
    let found = site.pinned().root_sha256;
    if found != wanted {
        bail!(Refused(format!(
            "the site's root beside the answer has the digest {found}, and the answer names {wanted}: ask its officers"
        )));
    }
    if found == vendor {
        bail!(Refused(
            "the site's root is the vendor's: an approval is worth something only under a root of its own".into()
        ));
    }
    site.verify(clock::now())
}
