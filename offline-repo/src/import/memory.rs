// SPDX-License-Identifier: GPL-3.0-or-later
//! What a gateway remembers of those whom it believes, and what it serves already: neither becomes older.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};
use signing::anchor;
use signing::clock::Reading;
use signing::digest::Sha256;
use signing::openpgp::{self, Cert};
use signing::output::Refused;
use signing::site::Trust;
use signing::tuf::beside::Signatures;
use signing::tuf::{Client, Datastore, DirectorySource, Limits, Memory, Offer, Source, Stores, Time, TufError};

use super::{Believed, DATASTORE, Mode};
use crate::bundle::BundleSource;
use crate::repository::{LARGEST_ROOT, Repository};

/// The gateway's memory of one sovereign.
struct Remembered {
    place: PathBuf,
    root: Vec<u8>,
    release: Vec<Cert>,
    rehearsal: Datastore,
    /// The fingerprint of the trust directory, where nothing was remembered before.
    anchor: Option<String>,
}

/// The gateway's memory of all that it believes, and the time by which it judges.
pub(super) struct Opened {
    pub(super) stores: Stores,
    pub(super) signatures: Signatures,
    pub(super) time: Time,
    pub(super) anchor: Option<String>,
    pub(super) site_anchor: Option<String>,
}

impl Remembered {
    fn rehearse(place: PathBuf, trust: &Trust) -> Result<Self> {
        let root = trust.root()?;
        let release = openpgp::read_keyring(&trust.release_keyring())?;
        let (rehearsal, memory) = Datastore::rehearse(&place, &root)?;
        let anchor = match memory {
            Memory::Anew => Some(
                anchor::fingerprint(trust.directory())
                    .with_context(|| format!("cannot read {}", trust.directory().display()))?,
            ),
            Memory::Kept => None,
        };
        Ok(Self {
            place,
            root,
            release,
            rehearsal,
            anchor,
        })
    }

    fn open(self, mode: Mode) -> Result<Datastore> {
        Ok(match mode {
            // A gateway's first import begins with the pinned root, so that is nothing to speak of here.
            Mode::Write => Datastore::open_or_create(&self.place, &self.root)?.0,
            // A rehearsal must not teach the gateway anything.
            Mode::DryRun => self.rehearsal,
        }
        .demanding(self.release))
    }
}

/// Opens what the gateway remembers, once the OpenPGP keys have vouched for the roots: a trust directory given by mistake
/// would pin its root for good.
pub(super) fn stores(
    repository: &Repository,
    believed: &Believed,
    offer: &mut Offer<BundleSource>,
    clock: &Reading,
    mode: Mode,
) -> Result<Opened> {
    let mut signatures = Signatures::new();
    let mut vendor = Remembered::rehearse(repository.root().join(DATASTORE), &believed.vendor)?;
    let mut now = vendor.rehearsal.time(clock, None)?.now();
    let mut site = match &believed.site {
        None => None,
        Some(trust) => {
            let site = Remembered::rehearse(repository.site().join(DATASTORE), trust)?;
            now = now.max(site.rehearsal.time(clock, None)?.now());
            let offered = offer.site.as_mut().ok_or(TufError::NoSite)?;
            signatures.append(&mut check_roots(offered, &site.release, now)?);
            Some(site)
        }
    };
    signatures.append(&mut check_roots(&mut offer.vendor, &vendor.release, now)?);
    let (anchor, site_anchor) = (vendor.anchor.take(), site.as_mut().and_then(|site| site.anchor.take()));
    let vendor = vendor.open(mode)?;
    let mut stores = match site {
        None => Stores::Vendor(vendor),
        Some(site) => Stores::Both {
            vendor,
            site: site.open(mode)?,
        },
    };
    let time = stores.time(clock, None)?;
    Ok(Opened {
        stores,
        signatures,
        time,
        anchor,
        site_anchor,
    })
}

/// What the repository serves already must not become older, even where its memory was lost or somebody else wrote it: it is
/// followed as if it were the memory. So a root that replaces stolen keys also undoes what they signed (5.3.11).
pub(super) fn not_older<S: Source>(repository: &Repository, trust: &Trust, bundle: &mut S, time: Time) -> Result<()> {
    let served = DirectorySource::below(repository.root());
    let memory = Datastore::ephemeral(&trust.root()?)?;
    // At the beginning of time nothing has expired.
    let mut client = Client::open(memory, served, Limits::default(), DateTime::UNIX_EPOCH)?;
    match client.refresh() {
        // What does not verify is no version that anybody could have taken; what was verified before it is held on to.
        Err(error) if !error.is_refusal() => return Err(error.into()),
        _ => {}
    }
    let mut client = Client::open(client.into_datastore(), bundle, Limits::default(), time)?;
    client.refresh().with_context(|| {
        let place = repository.root().display();
        format!("the repository {place} serves something else")
    })
}

/// Every root that is carried has the site's OpenPGP signature, before any of them may be trusted.
fn check_roots(source: &mut BundleSource, release: &[Cert], now: DateTime<Utc>) -> Result<Signatures> {
    let names: Vec<String> = source
        .metadata_names()
        .filter(|name| name.ends_with(".root.json"))
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        return Err(anyhow!(Refused(
            "the bundle carries no root, so nothing ties it to the trust directory".into()
        )));
    }
    let mut signatures = Signatures::new();
    for name in names {
        let missing = || anyhow!(Refused(format!("{name} has no OpenPGP signature of the site")));
        let mut read = |name: &str| source.metadata(name, LARGEST_ROOT).map_err(TufError::from);
        let root = read(&name)?.ok_or_else(missing)?;
        let signature = read(&format!("{name}.asc"))?.ok_or_else(missing)?;
        openpgp::verify_detached_by(release, root.as_slice(), &signature, now)
            .with_context(|| format!("the OpenPGP signature of {name}"))?;
        signatures.insert(Sha256::of(&root), signature);
    }
    Ok(signatures)
}
