// SPDX-License-Identifier: GPL-3.0-or-later
//! Whose trust directory a build's root file system carries.
//!
//! Attack faced: a build that was made for another site, or handed over altered, and would be signed by this one: its hosts
//! would boot and then believe somebody else's releases. Defence: the image must have the digest of the build's facts, and
//! hold every file of the site's trust directory, byte for byte, where its host looks for it. Defence not made: who can make
//! such a build can change its programs as well.

use std::path::Path;

use anyhow::{Context, Result, bail};
use hardening::medium::Image;
use hardening::medium::erofs::Erofs;
use signing::digest::{self, Sha256};
use signing::output::Refused;
use signing::release::{Part, Release};
use signing::site::{MAX_FILE, Site, TRUST_DIRECTORY, Trust};

/// Verifies that the build's root file system is whole, and carries the site's own trust directory.
///
/// # Errors
/// [`Refused`] when it is another site's, or the image is not that of the build's facts; else when a file cannot be read.
pub fn check(build: &Path, release: &Release, site: &Site) -> Result<()> {
    let place = build.join(Part::Root.file());
    let read = || format!("cannot read {}", place.display());
    let Some(part) = release.parts.iter().find(|part| part.part == Part::Root) else {
        bail!("{} lists no {}: build again", build.display(), Part::Root.file());
    };
    if Sha256::of_file(&place).with_context(read)? != (part.sha256, part.size) {
        bail!(Refused(format!(
            "{} is not what release.json says: the build was altered, so build again",
            place.display()
        )));
    }
    let image = Image::open(&place).with_context(read)?;
    let erofs = Erofs::open(&image).with_context(read)?;
    for name in Trust::FILES {
        let path = site.trust_dir().join(name);
        let ours = digest::read_bounded(&path, MAX_FILE).with_context(|| format!("cannot read {}", path.display()))?;
        let baked = erofs
            .read(&format!("{TRUST_DIRECTORY}/{name}"), MAX_FILE)
            .with_context(read)?;
        if baked != Some(ours) {
            bail!(Refused(format!(
                "{} carries another trust directory than that of the site {} (its {name} is not in it): build again with --trust {}",
                place.display(),
                site.facts().name,
                site.trust_dir().display()
            )));
        }
    }
    Ok(())
}
