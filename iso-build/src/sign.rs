// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-iso sign`: the boot images of a build, signed with a site's Secure Boot `db` key.
//!
//! A signature says that the site's hosts may start this. So nothing is signed that carries another site's trust directory,
//! that is not the build of its facts, or that starts another root file system than the build's.

use std::path::Path;

use anyhow::{Context, Result};
use signing::digest;
use signing::durable;
use signing::keys::Passphrase;
use signing::release::{MAX_BOOT_IMAGE, Part, PartFile, Release};
use signing::secureboot::sign_pe;
use signing::site::{Site, Trust};

use crate::baked;
use crate::build::{read_release, write_release};
use crate::image::{INSTALLER_UNSIGNED, XEN_UNSIGNED};
use crate::progress::Progress;

/// Signs both boot images and completes the build's facts with them. Signing again gives the same bytes.
///
/// # Errors
/// [`signing::output::Refused`] in the chain when the build is another site's or was altered; else when it is not whole, or
/// the key cannot be used. The build then stays as it was.
pub fn sign(build: &Path, site: &Site, passphrase: &Passphrase, progress: &mut Progress) -> Result<Release> {
    let mut release = read_release(build)?;
    let identity = site.db_key(passphrase)?;
    let trust = Trust::open(&site.trust_dir())?;
    progress.step("root image and its trust directory, checked", || {
        baked::check(build, &release, site).map(|()| ((), false))
    })?;
    let mut images = Vec::new();
    for (unsigned, part) in [(XEN_UNSIGNED, Part::Xen), (INSTALLER_UNSIGNED, Part::Installer)] {
        let from = build.join(unsigned);
        let image = digest::read_bounded(&from, MAX_BOOT_IMAGE)
            .with_context(|| format!("cannot read {}: build again", from.display()))?;
        let signed = progress.step(&format!("{}, signed", part.file()), || {
            let signed = sign_pe(&image, &identity)?;
            // A signature that does not verify must not leave the vault.
            trust.check_boot_image(part, &signed, &release.root_hash)?;
            anyhow::Ok((signed, false))
        });
        images.push((part, signed.with_context(|| format!("cannot sign {}", from.display()))?));
    }
    for (part, signed) in images {
        let to = build.join(part.file());
        durable::write(&to, &signed).with_context(|| format!("cannot write {}", to.display()))?;
        release.parts.retain(|one| one.part != part);
        release.parts.push(PartFile::of(part, &signed));
    }
    release.parts.sort_by_key(|one| one.part);
    write_release(build, &release)?;
    Ok(release)
}
