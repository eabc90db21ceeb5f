// SPDX-License-Identifier: GPL-3.0-or-later
//! `export`: from a repository to a bundle. Every target is verified against its signed digest while it is compressed, so
//! what is not signed or was altered cannot be exported.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use signing::digest;
use signing::durable;
use signing::output::Refused;
use signing::release::Version;
use signing::tuf::beside;
use signing::tuf::trail::TrailFile;
use signing::tuf::{Datastore, DirectorySource, Limits, MultiClient, Stores, Trail, VerifiedTarget};

use crate::bundle::BundleWriter;
use crate::repository::{Published, Repository, expires, kept, offer, releases};

/// The compression level that pays for a stick: about 1/4 of the size at 50 MB/s a core.
pub const LEVEL: i32 = 9;

/// Which releases are carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The newest one.
    Newest,
    /// Those that are newer than this one.
    Since(Version),
    /// Those that are not among these.
    Lacking(Vec<Version>),
    /// Exactly these.
    Only(Vec<Version>),
}

/// What was exported.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The releases.
    pub releases: Vec<Version>,
    /// Bytes of their parts.
    pub bytes: u64,
    /// Bytes of the bundle.
    pub bundle_bytes: u64,
    /// When the first role of the carried metadata expires.
    pub expires: Option<DateTime<Utc>>,
}

/// The roots from which a repository is verified: pinned ones, or its own where nobody pins one.
#[derive(Debug, Clone)]
pub struct Roots {
    /// The vendor's.
    pub vendor: Vec<u8>,
    /// The site's, where its officers approve in the repository.
    pub site: Option<Vec<u8>>,
}

impl Roots {
    /// Of a repository where nobody approves.
    #[must_use]
    pub const fn vendor(vendor: Vec<u8>) -> Self {
        Self { vendor, site: None }
    }
}

/// Exports. From a gateway whose officers approve, only approved releases are carried, with the vendor's metadata as of the
/// approval and the site's beside them. `tell` is called with bytes read and bytes in all.
///
/// # Errors
/// [`Refused`] in the chain when something is not as signed; the place of the bundle then stays as it was.
pub fn export(
    repository: &Repository,
    roots: &Roots,
    selection: &Selection,
    level: i32,
    out: &Path,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let (mut client, targets) = follow(repository, roots)?;
    let trails = client.trails();
    let client = client.vendor();
    let all = releases(&targets, &|target| repository.target(&client.path(target)).is_file())?;
    let chosen = choose(&all, selection)?;
    let versions: Vec<Version> = chosen.iter().map(|release| release.version).collect();
    let total: u64 = chosen.iter().map(|release| release.size()).sum();
    let write = || format!("cannot write the bundle {}", out.display());
    durable::clear_stale(out).with_context(write)?;
    let file = durable::Writer::new(out, 0o644).with_context(write)?;
    let mut writer = BundleWriter::new(Counted { inner: file, count: 0 }, repository.root(), versions.clone())?;
    let approved = trails.site.is_some();
    for file in &trails.vendor.files {
        let place = |name: &str| match approved {
            false => repository.metadata(name),
            true if name == file.file => repository.approved(&kept(file)),
            true => repository.approved(name),
        };
        for name in with_signature(file) {
            writer.metadata(&name, &read(&place(&name))?).with_context(write)?;
        }
    }
    let expires = match &trails.site {
        None => expires(&trails.vendor),
        Some((trail, _)) => {
            for name in trail.files.iter().flat_map(with_signature) {
                let bytes = read(&repository.site().join("metadata").join(&name))?;
                writer.site_metadata(&name, &bytes).with_context(write)?;
            }
            expires(trail)
        }
    };
    let mut done = 0;
    for part in chosen.iter().flat_map(|release| &release.parts) {
        let target = targets
            .iter()
            .find(|target| target.name == part.target)
            .ok_or_else(|| anyhow!(Refused(format!("{} is not signed any more", part.target))))?;
        let path = client.path(target);
        writer.target(&path, level, |to| {
            let mut sink = Told {
                inner: to,
                done: &mut done,
                total,
                tell,
            };
            client
                .fetch(target, &mut sink)
                .with_context(|| format!("cannot export {}", target.name))
        })?;
    }
    let mut counted = writer.finish().with_context(write)?;
    counted.flush().with_context(write)?;
    counted.inner.commit().with_context(write)?;
    Ok(Summary {
        releases: versions,
        bytes: total,
        bundle_bytes: counted.count,
        expires: expires.map(|(_, expires)| expires),
    })
}

/// The releases that a selection names, each of them whole.
fn choose<'a>(releases: &'a [Published], selection: &Selection) -> Result<Vec<&'a Published>> {
    let known = || {
        let versions: Vec<_> = releases.iter().map(|release| release.version.to_string()).collect();
        if versions.is_empty() {
            "none".to_owned()
        } else {
            versions.join(", ")
        }
    };
    let chosen: Vec<&Published> = match selection {
        Selection::Newest => releases.last().into_iter().collect(),
        Selection::Since(base) => releases.iter().filter(|release| release.version > *base).collect(),
        Selection::Lacking(held) => {
            let all = releases.iter();
            all.filter(|release| !held.contains(&release.version)).collect()
        }
        Selection::Only(versions) => {
            let find = |version: &Version| {
                let found = releases.iter().find(|release| release.version == *version);
                found.with_context(|| format!("there is no release {version} (there are: {})", known()))
            };
            versions.iter().map(find).collect::<Result<_>>()?
        }
    };
    if chosen.is_empty() {
        bail!("there is no release to export (there are: {})", known());
    }
    if let Some(partial) = chosen.iter().find(|release| !release.complete()) {
        bail!(
            "release {} is not whole in this repository, so it cannot be exported",
            partial.version
        );
    }
    Ok(chosen)
}

/// Verifies what the repository offers, whatever the date.
fn follow(repository: &Repository, roots: &Roots) -> Result<(MultiClient<DirectorySource>, Vec<VerifiedTarget>)> {
    let what = || format!("cannot use the repository {}", repository.root().display());
    let vendor = Datastore::ephemeral(&roots.vendor).with_context(what)?;
    let stores = match &roots.site {
        None => Stores::Vendor(vendor),
        Some(site) => Stores::Both {
            vendor,
            site: Datastore::ephemeral(site).with_context(what)?,
        },
    };
    let offer = offer(repository.root());
    // At the beginning of time nothing has expired.
    let mut client = MultiClient::open(stores, offer, Limits::default(), DateTime::UNIX_EPOCH).with_context(what)?;
    client.refresh().with_context(what)?;
    let targets = client.targets().with_context(what)?;
    Ok((client, targets))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    digest::read_bounded(path, 64 << 20).with_context(|| format!("cannot read {}", path.display()))
}

/// The metadata files that a client needs, roots and the timestamp with their OpenPGP signatures, in a fixed order.
#[must_use]
pub fn metadata_names(trail: &Trail) -> Vec<String> {
    trail.files.iter().flat_map(with_signature).collect()
}

fn with_signature(file: &TrailFile) -> Vec<String> {
    let mut names = vec![file.file.clone()];
    names.extend(beside::signature_of(file));
    names
}

struct Counted<W> {
    inner: W,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Told<'a> {
    inner: &'a mut dyn Write,
    done: &'a mut u64,
    total: u64,
    tell: &'a mut dyn FnMut(u64, u64),
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        *self.done += count as u64;
        (self.tell)(*self.done, self.total);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
