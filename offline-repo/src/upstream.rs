// SPDX-License-Identifier: GPL-3.0-or-later
//! The proof that packages are upstream's: signed `InRelease` → `Packages.xz` by hash → each package by hash.
//!
//! Attacks: a list signed by a key that is in the keyring but not allowed for this suite; a list of another suite or
//! archive with a good signature (the old stable, or `main` offered as security); text outside the signed part; an
//! index that is not the one the list names; a compressed index that unpacks without end or to other bytes than the list
//! promises; a package whose entry in the snapshot differs from upstream's; an entry twice with two hashes.
//! Defence: the caller's policy names the allowed keys by suite, and the list's own `Codename` must be the suite; only
//! what Sequoia returns as covered by the signature is parsed; each file is compared with size and digest before it is
//! unpacked, unpacking has a memory limit and ends at the promised size, and the unpacked digest is compared too.
//! Not defended here: freshness. An old list with a good signature proves a package of that day; [`crate::mirror`] refuses
//! lists that are expired or go back behind the last snapshot, and releases carry TUF's timestamps.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use liblzma::read::XzDecoder;
use liblzma::stream::Stream;
use serde::Serialize;
use signing::digest::{self, Hasher, Sha256};
use signing::openpgp;
use signing::output::Refused;

use crate::control::{IndexFile, Release, Stanza, Stanzas, safe_path};
use crate::snapshot::{Origin, Snapshot};
use crate::spec::{Spec, Suite};
use crate::tarindex::TarIndex;

/// The largest `InRelease`; Debian's is 140 kB.
pub const LARGEST_INRELEASE: u64 = 8 << 20;
/// The largest compressed `Packages`; Debian main's is 10 MB.
pub const LARGEST_INDEX: u64 = 256 << 20;
/// The largest unpacked `Packages`.
pub const LARGEST_UNPACKED: u64 = 2 << 30;
/// Memory that unpacking may use: a dictionary of `xz -9` and some.
const XZ_MEMORY: u64 = 128 << 20;

/// Who may sign what.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The pinned keyring.
    pub keyring: PathBuf,
    /// Allowed fingerprints by archive path and suite.
    pub signed_by: BTreeMap<(String, String), Vec<String>>,
}

impl Policy {
    /// The policy of a specification.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        let key = |suite: &Suite| (suite.path.clone(), suite.name.clone());
        Self {
            keyring: spec.keyring.clone(),
            signed_by: spec
                .suite
                .iter()
                .map(|suite| (key(suite), suite.signed_by.clone()))
                .collect(),
        }
    }

    /// The policy for Debian 13 that was compiled in, with its keyring. The file lives as long as the value.
    ///
    /// # Errors
    /// When the keyring cannot be written to a temporary file.
    pub fn debian_trixie() -> Result<(Self, tempfile::NamedTempFile)> {
        let mut file = tempfile::NamedTempFile::new().context("cannot make a temporary file for the pinned keyring")?;
        file.write_all(include_bytes!("../keyrings/debian-trixie.asc"))
            .context("cannot write the pinned keyring")?;
        let mut policy = Self::of(&Spec::parse(include_str!("../specs/patched.toml"))?);
        policy.keyring = file.path().to_path_buf();
        Ok((policy, file))
    }
}

/// A signed list, verified.
#[derive(Debug)]
pub struct SignedRelease {
    /// What the signature covers.
    pub release: Release,
    /// Fingerprints of the allowed keys that signed.
    pub signers: Vec<String>,
    /// The newest of the good signatures' dates.
    pub signed_at: DateTime<Utc>,
}

/// Verifies an `InRelease`: an allowed key signed it, and it is the list of that suite.
///
/// # Errors
/// [`Refused`] in the chain when it is not, else when the keyring cannot be read.
pub fn verify_inrelease(
    policy: &Policy,
    path: &str,
    suite: &str,
    bytes: &[u8],
    at: DateTime<Utc>,
) -> Result<SignedRelease> {
    let allowed = policy
        .signed_by
        .get(&(path.to_owned(), suite.to_owned()))
        .ok_or_else(|| anyhow!(Refused(format!("no key is trusted for the suite {suite} at {path}"))))?;
    let verified = openpgp::verify_cleartext(&policy.keyring, bytes, at)
        .with_context(|| format!("the InRelease of {suite} does not verify"))?;
    let signers: Vec<String> = verified
        .signers
        .into_iter()
        .filter(|signer| allowed.contains(signer))
        .collect();
    if signers.is_empty() {
        return Err(anyhow!(Refused(format!(
            "the InRelease of {suite} carries no signature of a key that is allowed for it ({})",
            allowed.join(", ")
        ))));
    }
    let release = Release::parse(&verified.body).with_context(|| format!("the InRelease of {suite} is malformed"))?;
    if release.get("Codename") != Some(suite) {
        return Err(anyhow!(Refused(format!(
            "the InRelease offered for {suite} is that of {:?}",
            release.get("Codename").unwrap_or("no codename")
        ))));
    }
    Ok(SignedRelease {
        release,
        signers,
        signed_at: verified.signed_at,
    })
}

/// What a list says of one component's `Packages.xz`.
#[derive(Debug, Clone)]
pub struct IndexPromise {
    /// Compressed.
    pub compressed: IndexFile,
    /// Unpacked, which bounds the unpacking.
    pub unpacked: IndexFile,
}

/// Looks up `Packages.xz` of a component.
///
/// # Errors
/// When the list does not name it, or its sizes are beyond all reason.
pub fn promise(release: &Release, component: &str, architecture: &str) -> Result<IndexPromise> {
    let name = format!("{component}/binary-{architecture}/Packages");
    let find = |name: &str| -> Result<IndexFile> {
        let file = release.file(name)?;
        file.ok_or_else(|| anyhow!("the signed list does not name {name}"))
    };
    let promise = IndexPromise {
        compressed: find(&format!("{name}.xz"))?,
        unpacked: find(&name)?,
    };
    if promise.compressed.size > LARGEST_INDEX || promise.unpacked.size > LARGEST_UNPACKED {
        bail!("the signed list gives {name} a size beyond {LARGEST_UNPACKED} bytes");
    }
    Ok(promise)
}

/// Unpacks a `Packages.xz` whose compressed digest has been compared, into `to`, and compares what comes out.
///
/// # Errors
/// [`Refused`] when it is not what the list promises, else when it cannot be unpacked or `to` fails.
pub fn unpack(compressed: &mut dyn Read, unpacked: &IndexFile, to: &mut dyn Write) -> Result<()> {
    let stream = Stream::new_stream_decoder(XZ_MEMORY, 0).context("cannot start xz")?;
    let mut decoder = XzDecoder::new_stream(BufReader::with_capacity(1 << 16, compressed), stream);
    // One byte beyond the promise is enough to know.
    let mut bounded = (&mut decoder as &mut dyn Read).take(unpacked.size + 1);
    let (found, length) = digest::copy(&mut bounded, to)?;
    if (found, length) == (unpacked.sha256, unpacked.size) {
        return Ok(());
    }
    Err(anyhow!(Refused(format!(
        "Packages.xz unpacks to {length} bytes with digest {found}, the signed list says {} bytes and {}",
        unpacked.size, unpacked.sha256
    ))))
}

/// Name, version and architecture: what apt installs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture.
    pub architecture: String,
}

/// What upstream says of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Source package.
    pub source: String,
    /// Version of the source package.
    pub source_version: String,
    /// Section.
    pub section: Option<String>,
    /// Path below the archive's directory.
    pub filename: String,
    /// Size.
    pub size: u64,
    /// Digest.
    pub sha256: Sha256,
}

impl Entry {
    fn parse(stanza: &Stanza) -> Result<(Identity, Self)> {
        let identity = Identity {
            name: stanza.need("Package")?.to_owned(),
            version: stanza.need("Version")?.to_owned(),
            architecture: stanza.need("Architecture")?.to_owned(),
        };
        // Debian Policy 5.6.1: `Source: name (version)`, each half given only where it differs.
        let (source, source_version) = match stanza.get("Source") {
            None => (identity.name.clone(), identity.version.clone()),
            Some(text) => match text.split_once('(') {
                None => (text.to_owned(), identity.version.clone()),
                Some((name, version)) => (name.trim().to_owned(), version.trim_end_matches(')').trim().to_owned()),
            },
        };
        let entry = Self {
            source,
            source_version,
            section: stanza.get("Section").map(str::to_owned),
            filename: safe_path(stanza.need("Filename")?)?.to_owned(),
            size: stanza.need("Size")?.parse().context("a package's Size is no number")?,
            sha256: stanza.need("SHA256")?.parse()?,
        };
        Ok((identity, entry))
    }
}

/// Is called with each entry that a proof reads, and with upstream's own words for it, before the whole proof stands.
pub type Told<'a> = dyn FnMut(&Identity, &Entry, &Stanza) + 'a;

/// Unpacks and reads a `Packages.xz` as [`unpack`] and returns the entries that `wanted` names; memory does not grow with
/// the index.
///
/// # Errors
/// As [`unpack`]; also when a wanted package stands there twice with different contents.
pub fn read_index(
    compressed: &mut dyn Read,
    unpacked: &IndexFile,
    wanted: &dyn Fn(&str) -> bool,
    told: &mut Told<'_>,
) -> Result<HashMap<Identity, Entry>> {
    let mut found: HashMap<Identity, Entry> = HashMap::new();
    let mut sink = Stanzas::new(|stanza: &Stanza| {
        if !wanted(stanza.need("Package")?) {
            return Ok(());
        }
        let (identity, entry) = Entry::parse(stanza)?;
        if let Some(other) = found.get(&identity)
            && *other != entry
        {
            bail!(
                "{} {} is listed twice, with different contents",
                identity.name,
                identity.version
            );
        }
        told(&identity, &entry, stanza);
        found.insert(identity, entry);
        Ok(())
    });
    unpack(compressed, unpacked, &mut sink)?;
    sink.finish()?;
    Ok(found)
}

/// The files of a proof: a snapshot's directory, or an `upstream.tar`.
pub trait ProofFiles {
    /// Opens a file by its path below the snapshot's directory, such as `snapshot.json`.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    fn open(&mut self, file: &str) -> io::Result<Box<dyn Read + '_>>;
}

/// A snapshot's directory.
pub struct Directory<'a>(pub &'a Path);

impl ProofFiles for Directory<'_> {
    fn open(&mut self, file: &str) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(signing::digest::open_regular(&self.0.join(file))?))
    }
}

/// An `upstream.tar`, which holds a snapshot's directory.
impl<R: Read + io::Seek> ProofFiles for TarIndex<R> {
    fn open(&mut self, file: &str) -> io::Result<Box<dyn Read + '_>> {
        match self.read(file)? {
            Some(reader) => Ok(Box::new(reader)),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the archive does not hold it")),
        }
    }
}

/// One suite's part of a proof, for a report.
#[derive(Debug, Clone, Serialize)]
pub struct ProvedSuite {
    /// The suite.
    pub suite: String,
    /// Archive path.
    pub path: String,
    /// Allowed keys that signed.
    pub signers: Vec<String>,
    /// Date of the list.
    pub date: DateTime<Utc>,
    /// Digest of the `InRelease`.
    pub inrelease: Sha256,
    /// Digest of each `Packages.xz`, by component.
    pub indexes: BTreeMap<String, Sha256>,
    /// How many of the snapshot's packages it lists.
    pub packages: usize,
}

/// A proof that was repeated: every package of the manifest is listed as it stands there by a list that is signed.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The manifest, now to be believed.
    pub snapshot: Snapshot,
    /// The suites.
    pub suites: Vec<ProvedSuite>,
}

/// Repeats the proof of a snapshot from upstream's kept files. Package files are not read: see
/// [`crate::store::Store::check`].
///
/// Signatures are judged at the date of signing that they bear, for a proof must hold as long as the release is kept.
///
/// # Errors
/// [`Refused`] in the chain when something is not as signed; other errors when a file could not be read.
pub fn verify(policy: &Policy, files: &mut dyn ProofFiles) -> Result<Proof> {
    verify_told(policy, files, &mut |_, _, _| ())
}

/// As [`verify`], and tells what upstream says of packages of the names in the manifest. Only what the proof's manifest names
/// is proved.
///
/// # Errors
/// As [`verify`].
pub fn verify_told(policy: &Policy, files: &mut dyn ProofFiles, told: &mut Told<'_>) -> Result<Proof> {
    let bytes = read(files, "snapshot.json", crate::snapshot::LARGEST)?;
    let snapshot = Snapshot::parse(&bytes).map_err(|error| anyhow!(Refused(format!("snapshot.json: {error:#}"))))?;
    let mut suites = Vec::new();
    for origin in &snapshot.created_from {
        suites.push(verify_origin(policy, files, &snapshot, origin, told)?);
    }
    // A package of a suite or component without a signed list would have slipped through above.
    if suites.iter().map(|suite| suite.packages).sum::<usize>() != snapshot.packages.len() {
        return Err(anyhow!(Refused(
            "the manifest names packages of a suite or component of which no signed list is kept".into()
        )));
    }
    Ok(Proof { snapshot, suites })
}

fn verify_origin(
    policy: &Policy,
    files: &mut dyn ProofFiles,
    snapshot: &Snapshot,
    origin: &Origin,
    told: &mut Told<'_>,
) -> Result<ProvedSuite> {
    let suite = origin.suite.as_str();
    let no = |why: String| anyhow!(Refused(why));
    let bytes = read(files, &origin.inrelease.file, LARGEST_INRELEASE)?;
    let inrelease = Sha256::of(&bytes);
    if (inrelease, bytes.len() as u64) != (origin.inrelease.sha256, origin.inrelease.size) {
        return Err(no(format!(
            "the kept InRelease of {suite} is not the one that the manifest names"
        )));
    }
    let signed = verify_inrelease(policy, &origin.path, suite, &bytes, origin.signed_at)?;
    let said = (origin.date, origin.signed_at, &origin.signers);
    if (signed.release.date, signed.signed_at, &signed.signers) != said {
        return Err(no(format!("dates or signers of {suite} are not those in the manifest")));
    }
    let mut proved = ProvedSuite {
        suite: suite.to_owned(),
        path: origin.path.clone(),
        signers: signed.signers,
        date: origin.date,
        inrelease,
        indexes: BTreeMap::new(),
        packages: 0,
    };
    for index in &origin.packages {
        let promise = promise(&signed.release, &index.component, &snapshot.architecture)
            .map_err(|e| no(format!("{suite}: {e:#}")))?;
        if (index.sha256, index.size) != (promise.compressed.sha256, promise.compressed.size) {
            return Err(no(format!(
                "the manifest's {} is not the one that {suite} signs",
                index.file
            )));
        }
        // Compared whole before a byte is unpacked, and held by the same bytes while it is.
        let compressed = read(files, &index.file, promise.compressed.size)?;
        let mut hasher = Hasher::new();
        hasher.update(&compressed);
        if hasher.finish() != (promise.compressed.sha256, promise.compressed.size) {
            return Err(no(format!("the kept {} is not the one that {suite} signs", index.file)));
        }
        let here: Vec<_> = snapshot
            .packages
            .iter()
            .filter(|package| package.suite == suite && package.component == index.component)
            .collect();
        let names: std::collections::HashSet<&str> = here.iter().map(|package| package.name.as_str()).collect();
        let wanted = |name: &str| names.contains(name);
        let entries = read_index(&mut compressed.as_slice(), &promise.unpacked, &wanted, told)?;
        for package in here {
            let identity = Identity {
                name: package.name.clone(),
                version: package.version.clone(),
                architecture: package.architecture.clone(),
            };
            let entry = Entry {
                source: package.source.clone(),
                source_version: package.source_version.clone(),
                section: package.section.clone(),
                filename: package.filename.clone(),
                size: package.size,
                sha256: package.sha256,
            };
            match entries.get(&identity) {
                Some(signed) if *signed == entry => proved.packages += 1,
                Some(_) => {
                    return Err(no(format!(
                        "{} {} is listed by {suite} with other contents than in the manifest",
                        package.name, package.version
                    )));
                }
                None => {
                    return Err(no(format!(
                        "{suite} does not list {} {}",
                        package.name, package.version
                    )));
                }
            }
        }
        proved.indexes.insert(index.component.clone(), index.sha256);
    }
    Ok(proved)
}

fn read(files: &mut dyn ProofFiles, file: &str, limit: u64) -> Result<Vec<u8>> {
    let mut reader = files
        .open(file)
        .with_context(|| format!("cannot read the kept file {file}"))?;
    digest::read_to_limit(&mut reader, limit).with_context(|| format!("cannot read the kept file {file}"))
}
