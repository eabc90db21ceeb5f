// SPDX-License-Identifier: GPL-3.0-or-later
//! The installer's medium: verified whole, from the medium itself, before any disk is touched.
//!
//! Attacks faced: an altered, mixed or stale repository; a medium whose bytes change between two reads or that is faulty; a
//! verification that only reads back what memory still holds. Defence: metadata is followed by the TUF client from the
//! root that lies under the running image's verity; each root version on the medium also needs its OpenPGP signature; all
//! targets of the release are read and hashed with every cache dropped before; and every part is hashed once more while
//! it is written and again when it is read back from the disk.
//! Not defended: a drive whose own electronics answers from its own memory, and a running image that is itself not
//! genuine: that is Secure Boot's part, and without it the operator must check the medium elsewhere.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use hypervisor::layout::{self, ImageRelease};
use signing::digest::{self, Sha256};
use signing::openpgp::{self, Cert};
use signing::output::Refused;
use signing::release::{self, Part, PartFile, Version};
use signing::site::TRUST_DIRECTORY;
use signing::tuf::{Client, Datastore, DirectorySource, Limits, Trail, VerifiedTarget};
use signing::{anchor, clock, output};

use crate::disk;
use crate::inventory;
use crate::plan::ReleaseFacts;
use crate::steps::Running;

/// A detached OpenPGP signature is a few hundred bytes.
const SIGNATURE_LIMIT: u64 = 64 * 1024;
/// What the image says of itself is a few lines.
const RELEASE_LIMIT: u64 = 64 * 1024;

/// Where the medium and the trust are.
#[derive(Debug, Clone)]
pub struct Medium {
    /// The mounted medium, with `bastide/metadata`.
    pub mount: PathBuf,
    /// The mounted targets of the medium.
    pub targets: PathBuf,
    /// The trust directory.
    pub trust: PathBuf,
    /// What the running image says of itself; the medium's release of that version is installed.
    pub release: PathBuf,
}

impl Default for Medium {
    fn default() -> Self {
        Self {
            mount: layout::MEDIUM_MOUNT.into(),
            targets: layout::TARGETS_MOUNT.into(),
            trust: TRUST_DIRECTORY.into(),
            release: layout::RELEASE_FILE.into(),
        }
    }
}

/// A medium whose metadata is verified.
pub struct Verified {
    client: Client<DirectorySource>,
    targets: Vec<(Part, VerifiedTarget)>,
    pinned_root: Sha256,
    /// The release that the medium carries.
    pub release: ReleaseFacts,
    /// Who signed its OpenPGP part: the fingerprints.
    pub signers: Vec<String>,
}

impl Medium {
    /// Verifies the medium's metadata and finds its release. Reads no target.
    ///
    /// `memory` is where the host's trusted metadata is to lie; without it, nothing is kept.
    ///
    /// # Errors
    /// When anything is not signed as it must be, is stale, or cannot be read.
    pub fn metadata(&self, memory: Option<&Path>) -> Result<Verified> {
        let metadata = self.mount.join("bastide/metadata");
        if !metadata.is_dir() {
            bail!(
                "no medium of Bastide is mounted at {}: it holds no bastide/metadata",
                self.mount.display()
            );
        }
        let place = self.trust.join("root.json");
        let root = digest::read_bounded(&place, Limits::default().root_bytes)
            .with_context(|| format!("cannot read the pinned root {}", place.display()))?;
        let store = match memory {
            Some(directory) => Datastore::create(directory, &root)?,
            None => Datastore::ephemeral(&root)?,
        };
        let image = self.image_release()?;
        let built = image
            .as_ref()
            .and_then(|image| DateTime::from_timestamp(i64::try_from(image.built).ok()?, 0));
        let release = openpgp::read_keyring(&self.trust.join("release.asc"))?;
        let store = store.demanding(release.clone());
        let time = store.time(&clock::read(), built)?;
        let now = time.now();
        let source = DirectorySource::new(&metadata, &self.targets);
        let mut client = Client::open(store, source, Limits::default(), time)?;
        client.refresh().context("cannot trust the medium's metadata")?;
        let signers = root_signers(&metadata, &release, client.trail(), now)?;
        let anchor = anchor::fingerprint(&self.trust)
            .with_context(|| format!("cannot read the trust directory {}", self.trust.display()))?;
        let (release, targets) = find_release(&mut client, image.map(|image| image.version), anchor)?;
        Ok(Verified {
            client,
            targets,
            pinned_root: Sha256::of(&root),
            release,
            signers,
        })
    }

    /// What the running image says of itself; nothing on a machine that does not run one.
    fn image_release(&self) -> Result<Option<ImageRelease>> {
        let place = &self.release;
        match digest::read_bounded(place, RELEASE_LIMIT) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("cannot understand {}", place.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", place.display())),
        }
    }

    /// Drops what memory holds of the medium, so that the next read asks the medium.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget(&self) -> Result<()> {
        for mount in [&self.targets, &self.mount] {
            for node in inventory::devices_of_mount(mount)? {
                disk::forget(&node)?;
            }
        }
        // Files have a cache of their own above that of the device.
        OpenOptions::new()
            .write(true)
            .open("/proc/sys/vm/drop_caches")
            .and_then(|mut file| file.write_all(b"3"))
            .context("cannot drop the page cache, and a medium that was read from memory is not verified")
    }

    /// Verifies all of it: metadata, then every byte of every target of the release, read from the medium.
    ///
    /// # Errors
    /// As [`Medium::metadata`], and when a target is missing, altered or cannot be read.
    pub fn verify(&self, memory: Option<&Path>, running: &mut Running<'_>) -> Result<Verified> {
        self.forget()?;
        let mut verified = self.metadata(memory)?;
        let total = verified.targets.iter().map(|(_, target)| target.length).sum();
        let mut before = 0;
        for (part, target) in verified.targets.clone() {
            let mut sink = Counting {
                inner: io::sink(),
                told: |done| running.progress(before + done, total),
                done: 0,
            };
            verified
                .client
                .fetch(&target, &mut sink)
                .with_context(|| format!("cannot trust the medium's {}", part.file()))?;
            before += target.length;
        }
        running.detail(format!(
            "release {} is authentic and whole: {} parts, {} bytes, root signed by {}",
            verified.release.version,
            verified.targets.len(),
            total,
            verified.signers.join(" ")
        ));
        Ok(verified)
    }
}

impl Verified {
    /// Streams a part into a sink, bounded and hashed. The sink's content is worth nothing when this fails.
    ///
    /// # Errors
    /// When the part is missing, altered, cannot be read, or the sink fails.
    pub fn fetch(&mut self, part: Part, sink: &mut dyn Write, progress: impl FnMut(u64)) -> Result<PartFile> {
        let file = self.release.part(part)?.clone();
        let target = self
            .targets
            .iter()
            .find_map(|(own, target)| (*own == part).then(|| target.clone()))
            .with_context(|| format!("the release has no {}", part.file()))?;
        let mut sink = Counting {
            inner: sink,
            told: progress,
            done: 0,
        };
        self.client
            .fetch(&target, &mut sink)
            .with_context(|| format!("cannot copy the medium's {}", part.file()))?;
        Ok(file)
    }

    /// The digest of the vendor's root, from the running image.
    #[must_use]
    pub const fn pinned_root(&self) -> Sha256 {
        self.pinned_root
    }

    /// What was verified with which keys.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        self.client.trail()
    }
}

/// Passes bytes on and tells how many there were.
struct Counting<W, F> {
    inner: W,
    told: F,
    done: u64,
}

impl<W: Write, F: FnMut(u64)> Write for Counting<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.done += count as u64;
        (self.told)(self.done);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The second signature: each root version is signed with OpenPGP too, so that it can be checked without TUF.
fn root_signers(metadata: &Path, release: &[Cert], trail: &Trail, now: DateTime<Utc>) -> Result<Vec<String>> {
    let mut signers = Vec::new();
    let names = trail
        .files
        .iter()
        .filter(|file| file.role == "root")
        .map(|file| &file.file);
    let mut checked = 0;
    for name in names {
        let file = metadata.join(name);
        let place = metadata.join(format!("{name}.asc"));
        let bytes = digest::read_bounded(&file, Limits::default().root_bytes)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let signature = digest::read_bounded(&place, SIGNATURE_LIMIT).map_err(|error| {
            refuse(format!(
                "the OpenPGP signature {} cannot be read: {error}",
                place.display()
            ))
        })?;
        let found = openpgp::verify_detached_by(release, bytes.as_slice(), &signature, now).map_err(|error| {
            refuse(format!(
                "the OpenPGP signature of {name} is refused: {:#}",
                anyhow!(error)
            ))
        })?;
        signers.extend(found.into_iter().map(|signer| signer.fingerprint));
        checked += 1;
    }
    if checked == 0 {
        return Err(refuse(
            "the medium has no root that carries an OpenPGP signature".into(),
        ));
    }
    signers.sort();
    signers.dedup();
    Ok(signers)
}

/// The release of this version, or the newest where no version is asked for.
fn find_release(
    client: &mut Client<DirectorySource>,
    version: Option<Version>,
    anchor: String,
) -> Result<(ReleaseFacts, Vec<(Part, VerifiedTarget)>)> {
    let mut releases = release::offered(&client.targets()?)?;
    let found = match version {
        Some(version) => releases
            .into_iter()
            .find(|release| release.version == version)
            .ok_or_else(|| {
                refuse(format!(
                    "the medium does not carry release {version}, which this installer belongs to"
                ))
            })?,
        None => releases
            .pop()
            .ok_or_else(|| refuse("the medium carries no release".into()))?,
    };
    found.require(&Part::ALL)?;
    let file = |(part, target): (&Part, &VerifiedTarget)| PartFile {
        part: *part,
        size: target.length,
        sha256: target.sha256,
    };
    let facts = ReleaseFacts {
        version: found.version,
        channel: found.channel,
        root_hash: found.root_hash,
        parts: found.parts.iter().map(file).collect(),
        anchor,
    };
    Ok((facts, found.parts.into_iter().collect()))
}

fn refuse(why: String) -> anyhow::Error {
    anyhow::Error::new(Refused(why))
}

/// Prints the result of a verification.
///
/// # Errors
/// When standard output is closed.
pub fn print(verified: &Verified, json: bool) -> io::Result<()> {
    if json {
        return output::json(&serde_json::json!({
            "release": verified.release,
            "openpgp_signers": verified.signers,
            "trail": verified.trail(),
        }));
    }
    output::line(&format!(
        "release {} ({}) is authentic and whole",
        verified.release.version, verified.release.channel
    ))?;
    output::line(&format!("  {}: {}", anchor::COMPARE, verified.release.anchor))?;
    for file in &verified.trail().files {
        let keys: Vec<String> = file
            .checks
            .iter()
            .map(|check| format!("{} of {} keys", check.signed_by.len(), check.threshold))
            .collect();
        output::line(&format!("  {:<20} {}", file.file, keys.join(", ")))?;
    }
    for signer in &verified.signers {
        output::line(&format!("  OpenPGP {signer}"))?;
    }
    Ok(())
}
