// SPDX-License-Identifier: GPL-3.0-or-later
//! The packages of snapshots as an apt archive that the site signs, for guests that run plain apt. `serve` gives it away;
//! it is made and signed here, so that the server holds no key.
//!
//! ```text
//! REPO/apt/site.asc                                 the site's OpenPGP certificate, for `signed-by`
//! REPO/apt/dists/SUITE/InRelease, Release, Release.gpg
//! REPO/apt/dists/SUITE/main/binary-ARCH/Packages.xz, by-hash/SHA256/<sha256>
//! REPO/apt/pool/ab/<sha256>.deb
//! ```
//!
//! A suite is one directory, exchanged for the old one in one step: apt sees the old lists or the new ones. The list before
//! stays under its hash, for who has just read the old `InRelease`. Packages are named by their content and never change.
//!
//! # Attacks faced
//! A store that was altered on its way: upstream's own proof is repeated by pinned keys before anything is signed, and each
//! package is read and hashed as it comes in. What upstream says of a package is copied from its signed list, and nothing
//! of it names a file here. A clock that was set back: a list that is older than the standing one is not signed.
//!
//! # Defence not made
//! apt takes one signature of the certificate: of the officers' further ones that a root may demand it knows nothing. It
//! takes an older list as long as that is fresh, where it has not seen a newer one.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use liblzma::write::XzEncoder;
use serde::Serialize;
use signing::clock;
use signing::digest::{self, Sha256};
use signing::durable;
use signing::keys::Passphrase;
use signing::openpgp;
use signing::output::Refused;
use signing::site::{Site, Trust};

use crate::control::{Release, Stanza};
use crate::repository::Repository;
use crate::snapshot::{Snapshot, SnapshotPackage};
use crate::spec::is_name;
use crate::store::{self, Store, link_or_copy};
use crate::upstream::{self, Directory, Identity, Policy};

/// The archive's directory in a repository.
pub const ARCHIVE: &str = "apt";
/// The site's certificate in it.
pub const CERTIFICATE: &str = "site.asc";
/// The one component of a suite.
pub const COMPONENT: &str = "main";
/// The largest `InRelease`; ours is two kilobytes.
const LARGEST_INRELEASE: u64 = 1 << 20;
/// Fields of upstream's stanza that are another here, or that apt does not ask where it has a SHA-256.
const REPLACED: [&str; 4] = ["Filename", "MD5sum", "SHA1", "SHA512"];

/// What to publish.
pub struct Options<'a> {
    /// The site that signs.
    pub site: &'a Site,
    /// Opens its release key.
    pub passphrase: &'a Passphrase,
    /// By which keys the packages are upstream's.
    pub policy: &'a Policy,
    /// The suite's name, by which guests ask for it.
    pub suite: &'a str,
    /// Until when apt takes it.
    pub expires: DateTime<Utc>,
    /// The time now.
    pub now: DateTime<Utc>,
    /// Whether to write.
    pub mode: Mode,
}

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Copy, sign, write.
    Write,
    /// Repeat the proof and read the packages only; no key is opened.
    DryRun,
}

/// What happened.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The suite.
    pub suite: String,
    /// The snapshot whose packages it has.
    pub snapshot: String,
    /// How many.
    pub packages: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// How many of them were not in the archive yet.
    pub new_packages: usize,
    /// Until when apt takes it.
    pub expires: DateTime<Utc>,
    /// The fingerprint of the site's certificate.
    pub fingerprint: String,
}

/// Makes a suite of a snapshot. `tell` is called with bytes of packages read and bytes in all.
///
/// # Errors
/// [`Refused`] in the chain when the snapshot is not upstream's, a package is altered, or the archive another site's; else when
/// something could not be done. apt sees the suite as it was, or the whole new one.
pub fn publish(
    repository: &Repository,
    store: &Store,
    name: &str,
    options: &Options<'_>,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    if !is_name(options.suite) {
        bail!("{:?} is no plain name for a suite", options.suite);
    }
    let mut said: HashMap<(Identity, Sha256), String> = HashMap::new();
    let files = store.snapshot_directory(name)?;
    let proof = upstream::verify_told(
        options.policy,
        &mut Directory(&files),
        &mut |identity, entry, stanza| {
            let own = || describe(stanza, &entry.sha256);
            said.entry((identity.clone(), entry.sha256)).or_insert_with(own);
        },
    )
    .with_context(|| format!("the snapshot {name} is not proved to be upstream's"))?;
    let snapshot = proof.snapshot;
    let archive = repository.root().join(ARCHIVE);
    let own = Certificate::of(options.site)?;
    let _lock = match options.mode {
        Mode::Write => Some(repository.lock()?),
        Mode::DryRun => None,
    };
    own.judge(&archive, options)?;
    let mut summary = Summary {
        suite: options.suite.to_owned(),
        snapshot: snapshot.name.clone(),
        packages: snapshot.packages.len(),
        bytes: snapshot.packages.iter().map(|package| package.size).sum(),
        new_packages: 0,
        expires: options.expires,
        fingerprint: own.fingerprint.clone(),
    };
    let mut done = 0;
    for package in &snapshot.packages {
        summary.new_packages += usize::from(take(store, package, &archive, options.mode)?);
        done += package.size;
        tell(done, summary.bytes);
    }
    if options.mode == Mode::DryRun {
        return Ok(summary);
    }
    let list = list(&snapshot, &said)?;
    let release = release(&snapshot, options, &list)?;
    put(&archive, &snapshot.architecture, options, &own, &list, &release)
        .with_context(|| format!("cannot write the suite {} in {}", options.suite, archive.display()))?;
    Ok(summary)
}

/// The stanza of a package as this archive gives it.
fn describe(stanza: &Stanza, sha256: &Sha256) -> String {
    let mut text = String::new();
    for (name, value) in stanza.fields() {
        if !REPLACED.iter().any(|other| name.eq_ignore_ascii_case(other)) {
            text += &format!("{name}:{value}");
        }
    }
    text + &format!("Filename: {}\n\n", pool_path(sha256))
}

fn pool_path(sha256: &Sha256) -> String {
    let name = sha256.to_string();
    format!("pool/{}/{name}.deb", &name[..2])
}

/// Puts a package in its place, and gives whether it was not there; in a dry run it is only read.
fn take(store: &Store, package: &SnapshotPackage, archive: &Path, mode: Mode) -> Result<bool> {
    let place = archive.join(pool_path(&package.sha256));
    if fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_file() && meta.len() == package.size) {
        return Ok(false);
    }
    store
        .check(&package.sha256, package.size)
        .with_context(|| format!("cannot take {} {}", package.name, package.version))?;
    if mode == Mode::Write {
        let directory = place.parent().unwrap_or(archive);
        let put = || -> std::io::Result<()> {
            durable::make_directories(directory)?;
            link_or_copy(&store.object(&package.sha256), &place)?;
            durable::sync_directory(directory)
        };
        put().with_context(|| format!("cannot write {}", place.display()))?;
    }
    Ok(true)
}

/// The list of the packages, unpacked and packed.
struct List {
    unpacked: Vec<u8>,
    packed: Vec<u8>,
}

fn list(snapshot: &Snapshot, said: &HashMap<(Identity, Sha256), String>) -> Result<List> {
    let mut unpacked = Vec::new();
    for package in &snapshot.packages {
        let identity = Identity {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
        };
        let text = said.get(&(identity, package.sha256));
        let text = text.with_context(|| format!("upstream says nothing of {} {}", package.name, package.version))?;
        unpacked.extend_from_slice(text.as_bytes());
    }
    let mut encoder = XzEncoder::new(Vec::new(), 6);
    encoder.write_all(&unpacked).context("cannot pack the list")?;
    let packed = encoder.finish().context("cannot pack the list")?;
    Ok(List { unpacked, packed })
}

fn release(snapshot: &Snapshot, options: &Options<'_>, list: &List) -> Result<String> {
    let stamp = |time: DateTime<Utc>| time.format("%a, %d %b %Y %H:%M:%S UTC");
    let file = format!("{COMPONENT}/binary-{}/Packages", snapshot.architecture);
    let line = |bytes: &[u8], end: &str| format!(" {} {} {file}{end}\n", Sha256::of(bytes), bytes.len());
    Ok(format!(
        "Origin: Bastide\nLabel: {}\nSuite: {suite}\nCodename: {suite}\nDate: {}\nValid-Until: {}\nAcquire-By-Hash: yes\n\
         Architectures: {}\nComponents: {COMPONENT}\nDescription: {} of the snapshot {}\nSHA256:\n{}{}",
        options.site.facts().name,
        stamp(options.now),
        stamp(options.expires),
        snapshot.architecture,
        signing::output::count(snapshot.packages.len(), "package"),
        snapshot.name,
        line(&list.unpacked, ""),
        line(&list.packed, ".xz"),
        suite = options.suite,
    ))
}

/// Signs and writes a suite, and exchanges it for the old one.
fn put(
    archive: &Path,
    architecture: &str,
    options: &Options<'_>,
    own: &Certificate,
    list: &List,
    release: &str,
) -> Result<()> {
    let key = options.site.release_key(options.passphrase)?;
    let inrelease = key.sign_cleartext(release)?;
    let signature = key.sign_detached(release.as_bytes())?;
    let dists = archive.join("dists");
    durable::make_directories(&dists)?;
    store::sweep(&dists)?;
    let place = dists.join(options.suite);
    let fresh = tempfile::Builder::new().prefix(store::TEMPORARY).tempdir_in(&dists)?;
    let below = format!("{COMPONENT}/binary-{architecture}");
    let by_hash = fresh.path().join(&below).join("by-hash/SHA256");
    durable::make_directories(&by_hash)?;
    let standing = place.join(&below).join("Packages.xz");
    if standing.is_file() {
        let (sha256, _) = Sha256::of_file(&standing)?;
        link_or_copy(&standing, &by_hash.join(sha256.to_string()))?;
    }
    let packed = by_hash.join(Sha256::of(&list.packed).to_string());
    durable::write(&packed, &list.packed)?;
    link_or_copy(&packed, &fresh.path().join(&below).join("Packages.xz"))?;
    for (name, text) in [
        ("InRelease", &inrelease),
        ("Release", &release.to_owned()),
        ("Release.gpg", &signature),
    ] {
        durable::write(&fresh.path().join(name), text.as_bytes())?;
    }
    durable::write(&archive.join(CERTIFICATE), own.armored.as_bytes())?;
    // A key in a token may be another than the certificate's: nothing is shown that apt would refuse.
    openpgp::verify_cleartext(&archive.join(CERTIFICATE), inrelease.as_bytes(), clock::now())
        .context("what the site's key signed does not verify by its certificate")?;
    durable::sync_directory(&fresh.path().join(&below))?;
    store::exchange(fresh, &place)?;
    Ok(())
}

/// The site's certificate: the release key's, and not the officers'.
struct Certificate {
    fingerprint: String,
    armored: String,
}

impl Certificate {
    fn of(site: &Site) -> Result<Self> {
        let fingerprint = site.facts().release_openpgp.clone();
        let keyring = Trust::open(&site.trust_dir())?.release_keyring();
        let mut certs = openpgp::read_keyring(&keyring)?;
        certs.retain(|cert| cert.fingerprint().to_hex() == fingerprint);
        if certs.is_empty() {
            bail!(
                "{} does not hold the certificate {fingerprint} of site.json",
                keyring.display()
            );
        }
        Ok(Self {
            armored: openpgp::armored(&certs)?,
            fingerprint,
        })
    }

    /// Whether this site goes on with the archive, and time with the suite.
    fn judge(&self, archive: &Path, options: &Options<'_>) -> Result<()> {
        let Some(standing) = standing(archive)? else {
            return Ok(());
        };
        let refuse = |why: String| Err(anyhow!(Refused(why)));
        if standing != self.fingerprint {
            return refuse(format!(
                "{} is signed with the key {}, and the site's is {}: guests would refuse it (for a new start remove the directory)",
                archive.display(),
                standing,
                self.fingerprint
            ));
        }
        // Whatever stands there is no reason not to write it anew, but for its date: it is read without its signature.
        let path = archive.join("dists").join(options.suite).join("Release");
        let standing = digest::read_regular(&path, LARGEST_INRELEASE).ok();
        match standing.and_then(|bytes| Release::parse(&bytes).ok()) {
            Some(release) if release.date > options.now => refuse(format!(
                "the suite {} was signed at {}, and the clock says {}: set it, for apt takes no list that is older than its own",
                options.suite, release.date, options.now
            )),
            _ => Ok(()),
        }
    }
}

/// An archive that is there.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// The fingerprint of its certificate, upper-case hexadecimal.
    pub fingerprint: String,
    /// Its suites, by name.
    pub suites: Vec<FoundSuite>,
    /// What could not be read, or does not verify by that certificate.
    #[serde(skip)]
    pub problems: Vec<String>,
}

/// A suite of it, whose signature holds.
#[derive(Debug, Clone, Serialize)]
pub struct FoundSuite {
    /// Its name.
    pub suite: String,
    /// What it says it has.
    pub description: String,
    /// When it was signed.
    pub date: DateTime<Utc>,
    /// Until when apt takes it.
    pub expires: DateTime<Utc>,
    /// Whether that is past.
    pub expired: bool,
}

/// Looks at the archive of a repository; nothing where there is none.
///
/// # Errors
/// When its certificate or the list of its suites cannot be read.
pub fn look(repository: &Path, now: DateTime<Utc>) -> Result<Option<Found>> {
    let archive = repository.join(ARCHIVE);
    let Some(fingerprint) = standing(&archive)? else {
        return Ok(None);
    };
    let certificate = archive.join(CERTIFICATE);
    let mut found = Found {
        fingerprint,
        suites: Vec::new(),
        problems: Vec::new(),
    };
    let dists = archive.join("dists");
    let listed = || format!("cannot read {}", dists.display());
    for entry in fs::read_dir(&dists).with_context(listed)? {
        let name = entry.with_context(listed)?.file_name().to_string_lossy().into_owned();
        if !is_name(&name) {
            continue;
        }
        match suite(&dists.join(&name).join("InRelease"), &certificate, &name, now) {
            Ok(suite) => found.suites.push(suite),
            Err(error) => found.problems.push(format!("the suite {name} for apt: {error:#}")),
        }
    }
    found.suites.sort_by(|one, other| one.suite.cmp(&other.suite));
    Ok(Some(found))
}

/// The fingerprint of an archive's certificate; nothing where there is no archive.
fn standing(archive: &Path) -> Result<Option<String>> {
    let certificate = archive.join(CERTIFICATE);
    if !certificate.exists() {
        return Ok(None);
    }
    match &openpgp::read_keyring(&certificate)?[..] {
        [cert] => Ok(Some(cert.fingerprint().to_hex())),
        several => bail!(
            "{} holds {} certificates, not one",
            certificate.display(),
            several.len()
        ),
    }
}

fn suite(path: &Path, certificate: &Path, name: &str, now: DateTime<Utc>) -> Result<FoundSuite> {
    let bytes =
        digest::read_regular(path, LARGEST_INRELEASE).with_context(|| format!("cannot read {}", path.display()))?;
    let verified = openpgp::verify_cleartext(certificate, &bytes, now)?;
    let release = Release::parse(&verified.body)?;
    if release.get("Codename") != Some(name) {
        bail!("{} is that of another suite", path.display());
    }
    let expires = release.valid_until.context("it has no Valid-Until")?;
    Ok(FoundSuite {
        suite: name.to_owned(),
        description: release.get("Description").unwrap_or_default().to_owned(),
        date: release.date,
        expires,
        expired: expires <= now,
    })
}
