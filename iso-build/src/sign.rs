// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-iso sign`: the boot images of a build, signed with a site's Secure Boot `db` key.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use signing::digest::Sha256;
use signing::durable;
use signing::keys::Passphrase;
use signing::release::{Part, PartFile, Release};
use signing::secureboot::sign_pe;
use signing::site::Site;

use crate::build::{read_release, write_release};
use crate::image::{INSTALLER_UNSIGNED, XEN_UNSIGNED};

/// Signs both boot images and completes the build's facts with them. Signing again gives the same bytes.
///
/// # Errors
/// When the build is not whole, or the key cannot be used.
pub fn sign(build: &Path, site: &Site, passphrase: &Passphrase) -> Result<Release> {
    let mut release = read_release(build)?;
    let identity = site.db_key(passphrase)?;
    for (unsigned, part) in [(XEN_UNSIGNED, Part::Xen), (INSTALLER_UNSIGNED, Part::Installer)] {
        let from = build.join(unsigned);
        let image = fs::read(&from).with_context(|| format!("cannot read {}: build again", from.display()))?;
        let signed = sign_pe(&image, &identity).with_context(|| format!("cannot sign {}", from.display()))?;
        let to = build.join(part.file());
        durable::write(&to, &signed).with_context(|| format!("cannot write {}", to.display()))?;
        release.parts.retain(|one| one.part != part);
        release.parts.push(PartFile {
            part,
            size: signed.len() as u64,
            sha256: Sha256::of(&signed),
        });
    }
    release.parts.sort_by_key(|one| one.part);
    write_release(build, &release)?;
    Ok(release)
}
