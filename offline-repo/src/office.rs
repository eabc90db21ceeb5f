// SPDX-License-Identifier: GPL-3.0-or-later
//! The roots of a site on the way into a repository, before a vendor's release or an officer's approval is signed in it.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use signing::digest;
use signing::openpgp;
use signing::site::{Site, Trust};
use signing::tuf::beside;
use signing::tuf::repository::Repository as Editor;

use crate::repository::{LARGEST_ROOT, Repository};

/// A root of the site with its OpenPGP signature.
pub(crate) struct SiteRoot {
    name: String,
    content: Vec<u8>,
    signature: Vec<u8>,
}

/// How many OpenPGP certificates sign each timestamp under the newest of these roots.
pub(crate) fn certificates(roots: &[SiteRoot]) -> Result<u64> {
    let newest = roots.last().context("the site has no root")?;
    Ok(beside::over_timestamp(&newest.content)?)
}

/// The site's roots, oldest first, each with its OpenPGP signatures verified: hosts and gateways refuse a root without them.
pub(crate) fn site_roots(site: &Site, trust: &Trust, now: DateTime<Utc>) -> Result<Vec<SiteRoot>> {
    let read = |name: &str| {
        let path = site.metadata_dir().join(name);
        digest::read_bounded(&path, LARGEST_ROOT).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut roots: Vec<SiteRoot> = Vec::new();
    let certs = openpgp::read_keyring(&trust.release_keyring())?;
    for version in 1.. {
        let name = format!("{version}.root.json");
        if version > 1 && !site.metadata_dir().join(&name).exists() {
            break;
        }
        let (content, signature) = (read(&name)?, read(&format!("{name}.asc"))?);
        let before = roots.last().map(|root| root.content.as_slice());
        let need = beside::over_root(before, &content).with_context(|| format!("the site's {name}"))?;
        openpgp::verify_threshold(&certs, content.as_slice(), &signature, need, now)
            .with_context(|| format!("the OpenPGP signature of the site's {name}"))?;
        roots.push(SiteRoot {
            name,
            content,
            signature,
        });
    }
    Ok(roots)
}

/// Opens the repository for editing and takes over the site's new roots with the OpenPGP signatures of all.
pub(crate) fn open(repository: &Repository, pinned: &[u8], roots: &[SiteRoot]) -> Result<Editor> {
    let first = roots.first().context("the site has no root")?;
    let mut editor = if repository.metadata(&first.name).exists() {
        Editor::open(repository.root(), pinned)?
    } else {
        Editor::create(repository.root(), &first.content)?
    };
    for (version, root) in (1..).zip(roots) {
        repository.write_metadata(&format!("{}.asc", root.name), &root.signature)?;
        if version > editor.root_version() {
            editor.add_root(&root.content)?;
        }
    }
    Ok(editor)
}
