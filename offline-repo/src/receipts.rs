// SPDX-License-Identifier: GPL-3.0-or-later
//! What hosts and gateways acknowledge: receipts that came back over the gap, kept beside the repository that they are about.
//!
//! ```text
//! REPO/receipts/NAME/key.pem   the key that was enrolled for this holder
//! REPO/receipts/NAME/N.json    its receipts, by their number
//! REPO/receipts/own.json       how many receipts this repository has given itself
//! ```
//!
//! # Attacks faced
//! - A forged or altered receipt: its signature, by the key of this very holder.
//! - A foreign one: its key must have been enrolled, by a person who compared its fingerprint.
//! - A replayed one: numbers only rise. The same bytes again change nothing, another receipt of an old number is refused.
//! - Names that lead out of the directory: lower-case letters, digits, `-` and `.`, and none of them first but the former two.
//!
//! # Defence not made
//! Whoever may write the repository may enrol keys, and take receipts away. A holder's own word is all that a receipt is.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use signing::digest::{Sha256, read_regular};
use signing::durable;
use signing::keys::{PublicKey, SigningKey};
use signing::output::Refused;
use signing::receipt::{GatewayState, Holder, MAX_RECEIPT, Receipt, ReleaseHeld, Signed, next_number};
use signing::tuf::{Client, Datastore, DirectorySource, Limits, Seen, VerifiedTarget};

use crate::reported;
use crate::repository::{Repository, releases};

const DIRECTORY: &str = "receipts";
const KEY: &str = "key.pem";
const OWN: &str = "own.json";
const MAX_NAME: usize = 63;
/// A public key is some hundred bytes.
const MAX_KEY: u64 = 64 << 10;
/// The fewest digits of a fingerprint that a person compares: 80 bits.
const MIN_DIGITS: usize = 20;

/// The name under which a holder is enrolled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Name(String);

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if begins && text.len() <= MAX_NAME && text.chars().all(fits) && text != OWN {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "a name has 1 to {MAX_NAME} lower-case letters, digits, - and ., begins with one of the first two, and is not {OWN}"
        ))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who is enrolled, and what came last.
#[derive(Debug, Clone, Serialize)]
pub struct Enrolled {
    /// The name.
    pub name: Name,
    /// The fingerprint of the key.
    pub fingerprint: Sha256,
    /// The newest receipt.
    pub newest: Option<Receipt>,
}

/// What became of a receipt.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Received {
    /// It was new.
    Taken {
        /// From whom.
        name: Name,
        /// What it says.
        receipt: Box<Receipt>,
    },
    /// It was here already, byte for byte.
    Known {
        /// From whom.
        name: Name,
        /// Its number.
        sequence: u64,
    },
}

/// Enrols the key of a receipt under a name, and takes the receipt. `fingerprint` is what a person compared, at least its first
/// digits.
///
/// # Errors
/// [`Refused`] when the fingerprint is another's, or name or key are enrolled already; else when it cannot be written.
pub fn enrol(repository: &Repository, signed: &Signed, name: &Name, fingerprint: &str) -> Result<Received> {
    let _lock = repository.lock()?;
    let digits: String = fingerprint.chars().filter(|c| !c.is_whitespace()).collect();
    if digits.len() < MIN_DIGITS || !signed.fingerprint.to_string().starts_with(&digits.to_ascii_lowercase()) {
        bail!(Refused(format!(
            "the receipt is signed with the key {}, and not with {fingerprint}: compare at least {MIN_DIGITS} digits with what the \
             installer showed",
            signed.fingerprint
        )));
    }
    for enrolled in inventory(repository)? {
        if enrolled.name == *name || enrolled.fingerprint == signed.fingerprint {
            bail!(Refused(format!(
                "the key {} is enrolled as {}: a host that was installed anew gets a new name, or its old directory in {} goes",
                enrolled.fingerprint,
                enrolled.name,
                repository.root().join(DIRECTORY).display()
            )));
        }
    }
    let place = place(repository, name);
    let make = || {
        fs::create_dir_all(&place)?;
        durable::sync_directory(&repository.root().join(DIRECTORY))?;
        durable::sync_directory(repository.root())
    };
    make().with_context(|| format!("cannot make {}", place.display()))?;
    let key = place.join(KEY);
    durable::write(&key, signed.receipt.key.as_bytes()).with_context(|| format!("cannot write {}", key.display()))?;
    take(repository, signed)
}

/// Takes a receipt of a holder that is enrolled.
///
/// # Errors
/// [`Refused`] when its key is not, or it is older than what was received; else when it cannot be written.
pub fn receive(repository: &Repository, signed: &Signed) -> Result<Received> {
    let _lock = repository.lock()?;
    take(repository, signed)
}

fn take(repository: &Repository, signed: &Signed) -> Result<Received> {
    let mut inventory = inventory(repository)?.into_iter();
    let Some(holder) = inventory.find(|holder| holder.fingerprint == signed.fingerprint) else {
        bail!(Refused(format!(
            "the receipt of {:?} is signed with the key {}, which is not enrolled here: compare that fingerprint with what its \
             installer showed, and type `bastide-repo enrol`",
            signed.receipt.name, signed.fingerprint
        )));
    };
    let sequence = signed.receipt.sequence;
    let place = place(repository, &holder.name).join(format!("{sequence}.json"));
    if let Some(newest) = holder.newest.filter(|newest| newest.sequence >= sequence) {
        let standing = read_regular(&place, MAX_RECEIPT);
        if standing.is_ok_and(|standing| standing == signed.bytes) {
            return Ok(Received::Known {
                name: holder.name,
                sequence,
            });
        }
        bail!(Refused(format!(
            "receipt {sequence} of {} comes after its receipt {}: an old one was put back, or two machines have one key",
            holder.name, newest.sequence
        )));
    }
    durable::write(&place, &signed.bytes).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(Received::Taken {
        name: holder.name,
        receipt: Box::new(signed.receipt.clone()),
    })
}

/// Everybody who is enrolled, by name, each newest receipt verified once more.
///
/// # Errors
/// When something cannot be read; [`Refused`] when a receipt here is not what its holder signed.
pub fn inventory(repository: &Repository) -> Result<Vec<Enrolled>> {
    let directory = repository.root().join(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == OWN || name.starts_with('.') {
            continue;
        }
        let name: Name = name
            .parse()
            .map_err(|why| Refused(format!("{} has no place there: {why}", entry.path().display())))?;
        // Without a key nobody was enrolled: it was cut off.
        if entry.path().join(KEY).exists() {
            all.push(enrolled(&entry.path(), name)?);
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

fn enrolled(place: &Path, name: Name) -> Result<Enrolled> {
    let reading = || format!("cannot read {}", place.display());
    let pem = read_regular(&place.join(KEY), MAX_KEY).with_context(reading)?;
    let fingerprint = PublicKey::from_pem("the enrolled key", &pem)
        .with_context(reading)?
        .fingerprint();
    let numbers: io::Result<Vec<Option<u64>>> = fs::read_dir(place)
        .with_context(reading)?
        .map(|entry| {
            let name = entry?.file_name();
            Ok(name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok()))
        })
        .collect();
    let newest = match numbers.with_context(reading)?.into_iter().flatten().max() {
        None => None,
        Some(number) => {
            let file = place.join(format!("{number}.json"));
            let signed = Signed::load(&file)?;
            if signed.fingerprint != fingerprint || signed.receipt.sequence != number {
                bail!(Refused(format!(
                    "{} is another holder's receipt, or has another number",
                    file.display()
                )));
            }
            Some(signed.receipt)
        }
    };
    Ok(Enrolled {
        name,
        fingerprint,
        newest,
    })
}

fn place(repository: &Repository, name: &Name) -> PathBuf {
    repository.root().join(DIRECTORY).join(&name.0)
}

/// How this repository gives a receipt itself.
pub struct Own<'a> {
    /// The pinned root of the vendor; nothing where nothing was ever visible.
    pub vendor: Option<&'a [u8]>,
    /// The pinned root of the site, where its officers approve.
    pub site: Option<&'a [u8]>,
    /// What the gateway is called.
    pub name: &'a str,
    /// Its key.
    pub key: &'a dyn SigningKey,
    /// The time now.
    pub now: DateTime<Utc>,
}

/// Reads every part of every whole release and of what waits, and gives a receipt of them. `tell` is called with bytes read and bytes in all.
///
/// # Errors
/// [`Refused`] or a refusal of the TUF client in the chain when something is not as signed; else when it cannot be read, signed
/// or counted.
pub fn give(repository: &Repository, own: &Own<'_>, tell: &mut dyn FnMut(u64, u64)) -> Result<Signed> {
    let _lock = repository.lock()?;
    let mut gateway = GatewayState::default();
    let mut vendor = Vec::new();
    if let Some(root) = own.vendor {
        (gateway.releases, vendor) = held(repository, root, tell)?;
    }
    reported::add(repository, &mut gateway)?;
    let mut receipt = Receipt::new(own.name, 1, own.now, Holder::Gateway(gateway));
    receipt.vendor = vendor;
    if let Some(root) = own.site {
        let (mut client, _) = follow(DirectorySource::below(&repository.site()), root)?;
        client.refresh()?;
        receipt.site = client.trail().files.iter().map(Seen::from).collect();
    }
    let directory = repository.root().join(DIRECTORY);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    receipt.sequence = next_number(&directory.join(OWN))?;
    receipt.sign(own.key)
}

/// Verifies the metadata of a source whatever the date; gives the client and the targets.
pub(crate) fn follow(source: DirectorySource, root: &[u8]) -> Result<(Client<DirectorySource>, Vec<VerifiedTarget>)> {
    // At the beginning of time nothing has expired: what is held is told whatever its age.
    let mut client = Client::open(
        Datastore::ephemeral(root)?,
        source,
        Limits::default(),
        DateTime::UNIX_EPOCH,
    )?;
    let targets = client.targets()?;
    Ok((client, targets))
}

fn held(repository: &Repository, root: &[u8], tell: &mut dyn FnMut(u64, u64)) -> Result<(Vec<ReleaseHeld>, Vec<Seen>)> {
    let (mut client, targets) = follow(repository.source(), root)?;
    let present = |target: &VerifiedTarget| repository.target(&client.path(target)).is_file();
    let whole: Vec<_> = releases(&targets, &present)?
        .into_iter()
        .filter(crate::repository::Published::complete)
        .collect();
    let (total, mut done) = (whole.iter().map(|release| release.size()).sum(), 0);
    let mut held = Vec::new();
    for release in whole {
        let mut objects = Vec::new();
        for part in &release.parts {
            let target = targets.iter().find(|target| target.name == part.target);
            let target = target.with_context(|| format!("{} is not signed", part.target))?;
            client
                .fetch(target, &mut io::sink())
                .with_context(|| format!("{} is not acknowledged", part.target))?;
            done += part.size;
            tell(done, total);
            objects.push(part.sha256);
        }
        held.push(ReleaseHeld {
            version: release.version,
            root_hash: release.root_hash,
            objects,
        });
    }
    Ok((held, client.trail().files.iter().map(Seen::from).collect()))
}
