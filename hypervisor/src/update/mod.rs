// SPDX-License-Identifier: GPL-3.0-or-later
//! An update: a verified release into the idle slot, and one start to prove itself.
//!
//! Attacks faced: an altered, truncated or foreign repository; one that the vendor alone or the site alone vouches for, where
//! the host's policy demands both; one signed by too few keys; an older one; a stale one; a
//! mixture of the parts of several releases; a boot image that the firmware would refuse, or that names another root; a
//! disk that does not keep what it is given; and a power cut at any moment.
//!
//! Defence: nothing is written before the metadata, the choice, the boot image's signature, the bases of deltas and the sizes
//! are good. The
//! idle slot is made unusable durably before its first byte changes, and it becomes usable only by the last steps, after
//! all of it was read back from the device. The running slot stays first in the boot order throughout. An interrupted
//! update is simply begun again.
//!
//! Defence not made: the kernel's own drivers read a stick's file system before anything of it is verified, and a disk
//! that lies about both its writes and its reads is found out only by dm-verity while it runs.

mod bases;
pub mod server;
mod stick;
mod write;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use offline_repo::bundle::BundleSource;
use offline_repo::repository;
use serde::Serialize;
use signing::digest::{Sha256, read_bounded};
use signing::output::{Refused, chain};
use signing::policy::{Sovereign, Sovereigns};
use signing::release::{self, MAX_BOOT_IMAGE, Offered, Part, Version};
use signing::secureboot;
use signing::site::check_boot_image;
use signing::tuf::{
    Approved, Client, Datastore, Limits, Memory, MultiClient, Offer, Source, SourceError, Stores, TufError,
    VerifiedTarget, Waiver,
};

use crate::bootentries::Firmware;
use crate::confirm;
use crate::esp::Esp;
use crate::events::{Event, Phase, Watch};
use crate::gpt::{self, SlotPartitions, Table};
use crate::layout::{self, Slot};
use crate::machine::Machine;
use crate::policy;
use crate::slots::{Held, Slots, State};
use crate::timekeeping;

use self::bases::Running;
use server::Patience;

pub use stick::{Origin, Stick};

/// What is said when the host has no TUF datastore.
const MEMORY_LOST: &str = "the host's memory of signed metadata was missing; began anew from the pinned root";
/// What a host needs of a release.
const NEEDED: [Part; 3] = [Part::Root, Part::Verity, Part::Xen];

/// The steps of an update, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The repository's metadata is verified.
    Verify,
    /// The newest release of the host's channel is chosen.
    Choose,
    /// The boot image is verified as the firmware will verify it.
    CheckBootImage,
    /// Sizes are compared with the slot and the EFI system partition.
    CheckSlot,
    /// The idle slot is made unusable. Nothing was written before this.
    Invalidate,
    /// The root file system is written.
    WriteRoot,
    /// Its hash tree is written.
    WriteVerity,
    /// Both are read back from the device.
    ReadBack,
    /// The partitions get the GUIDs that the root hash gives them.
    SetGuids,
    /// The boot image is written.
    WriteBootImage,
    /// The firmware's entry is made and ordered for the next start, once.
    OrderTrial,
    /// The trial is recorded.
    Record,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verify => "verify metadata",
            Self::Choose => "choose release",
            Self::CheckBootImage => "check boot image",
            Self::CheckSlot => "check slot",
            Self::Invalidate => "invalidate slot",
            Self::WriteRoot => "write root",
            Self::WriteVerity => "write verity",
            Self::ReadBack => "read back",
            Self::SetGuids => "set partition GUIDs",
            Self::WriteBootImage => "write boot image",
            Self::OrderTrial => "order trial start",
            Self::Record => "record trial",
        })
    }
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Everything is verified and nothing is written, the TUF client's memory included.
    VerifyOnly,
    /// The update is made.
    Install,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Order {
    /// How far to go.
    pub depth: Depth,
    /// The site's waiver for stale metadata.
    pub waiver: Option<Waiver>,
}

impl From<Depth> for Order {
    fn from(depth: Depth) -> Self {
        Self { depth, waiver: None }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// The newest release is the running one.
    UpToDate {
        /// The running release.
        version: Version,
    },
    /// It would be installed.
    Verified {
        /// The offered release.
        version: Version,
        /// Its root hash.
        root_hash: Sha256,
        /// The slot that it would go to.
        slot: Slot,
    },
    /// It is installed and starts next, once.
    OnTrial {
        /// The installed release.
        version: Version,
        /// Its root hash.
        root_hash: Sha256,
        /// Its slot.
        slot: Slot,
    },
}

/// What a medium offers, whatever its form.
pub type Carried = Offer<Box<dyn Source>>;

/// A repository to update from, with the stick that it lies on, if it lies on one.
///
/// # Errors
/// When there is none, the server cannot be asked, or it is neither a bundle nor a repository's directory.
pub fn open(machine: &Machine, origin: &Origin) -> Result<(Carried, Option<Stick>)> {
    let (path, stick) = match origin {
        Origin::File(path) => (path.clone(), None),
        Origin::Server { address, certificate } => {
            return Ok((boxed(server::offer(address, certificate, Patience::default())?), None));
        }
        Origin::Device(device) => {
            let stick = Stick::mount(&machine.run, device)?;
            (stick.bundle()?, Some(stick))
        }
        Origin::Search => {
            let stick = Stick::mount(&machine.run, &stick::labelled()?)?;
            (stick.bundle()?, Some(stick))
        }
    };
    if path.is_dir() {
        return Ok((boxed(repository::offer(&path)), stick));
    }
    let mut offer = BundleSource::offer(&path)?;
    offer.vendor = offer.vendor.with_bases(Box::new(Running::new(machine)));
    Ok((boxed(offer), stick))
}

fn boxed<S: Source + 'static>(offer: Offer<S>) -> Carried {
    let boxed = |source: S| Box::new(source) as Box<dyn Source>;
    Offer {
        vendor: boxed(offer.vendor),
        site: offer.site.map(boxed),
    }
}

/// Where an update goes.
struct Target {
    table: Table,
    running: Slot,
    idle: Slot,
    partitions: SlotPartitions,
}

/// Updates the host from a repository.
///
/// # Errors
/// A refusal in one line where verification or policy says no; else what failed, and at what.
pub fn update<S: Source>(
    machine: &Machine,
    offer: Offer<S>,
    order: impl Into<Order>,
    watch: &mut dyn Watch<Step>,
) -> Result<Outcome> {
    let Order { depth, waiver } = order.into();
    let _lock = confirm::lock(machine)?;
    let target = target(machine)?;
    let (mut client, targets) = step(watch, Step::Verify, |watch| {
        verify(machine, offer, depth, waiver, watch)
    })?;
    let Some(release) = step(watch, Step::Choose, |_| choose(machine, &targets))? else {
        return Ok(Outcome::UpToDate {
            version: machine.image_release()?.version,
        });
    };
    let boot_image = step(watch, Step::CheckBootImage, |_| {
        boot_image(machine, &mut client, &release)
    })?;
    step(watch, Step::CheckSlot, |_| {
        // What runs must be what a delta was made to, and that before the idle slot is given up.
        for part in NEEDED {
            client.ready(release.part(part)?).map_err(judged)?;
        }
        check_slot(machine, &target, &release, &boot_image)
    })?;
    let (version, root_hash, slot) = (release.version, release.root_hash, target.idle);
    if depth == Depth::VerifyOnly {
        return Ok(Outcome::Verified {
            version,
            root_hash,
            slot,
        });
    }
    step(watch, Step::Invalidate, |_| invalidate(machine, &target))?;
    let parts = [
        (Step::WriteRoot, &target.partitions.root, release.part(Part::Root)?),
        (
            Step::WriteVerity,
            &target.partitions.verity,
            release.part(Part::Verity)?,
        ),
    ];
    let mut written = Vec::new();
    for (name, partition, part) in &parts {
        let back = step(watch, *name, |watch| {
            let back = write::stream(&mut client, part, partition, *name, watch)?;
            Ok((
                back,
                format!(
                    "{} MiB into {}",
                    part.length.div_ceil(1 << 20),
                    partition.node.display()
                ),
            ))
        })?;
        written.push((back, part.length));
    }
    step(watch, Step::ReadBack, |watch| {
        let total = written.iter().map(|(_, length)| length).sum();
        let mut before = 0;
        for (back, length) in written {
            back.finish(&mut client, watch, before, total)?;
            before += length;
        }
        Ok(((), "the device holds what was signed".into()))
    })?;
    step(watch, Step::SetGuids, |_| {
        // The root's comes last: a half-set pair is no slot.
        gpt::set_guid(
            &target.table.disk,
            &target.partitions.verity,
            layout::verity_guid(&root_hash),
        )?;
        gpt::set_guid(
            &target.table.disk,
            &target.partitions.root,
            layout::root_guid(&root_hash),
        )?;
        Ok(((), format!("root hash {root_hash}")))
    })?;
    step(watch, Step::WriteBootImage, |_| {
        Esp::writable(machine, &target.table)?.write(slot.boot_image(), &boot_image)?;
        Ok(((), slot.boot_image().into()))
    })?;
    step(watch, Step::OrderTrial, |_| order_trial(machine, &target))?;
    step(watch, Step::Record, |_| {
        let mut slots = Slots::load(&machine.slots_file())?;
        *slots.get_mut(slot) = Held::release(version, root_hash, State::Trial);
        slots.store(&machine.slots_file())?;
        Ok(((), format!("{version} in slot {slot} starts next, once")))
    })?;
    Ok(Outcome::OnTrial {
        version,
        root_hash,
        slot,
    })
}

/// Runs one step between its events.
fn step<T>(
    watch: &mut dyn Watch<Step>,
    name: Step,
    work: impl FnOnce(&mut dyn Watch<Step>) -> Result<(T, String)>,
) -> Result<T> {
    watch.event(Event::now(name, Phase::Start, ""))?;
    match work(watch) {
        Ok((value, detail)) => {
            watch.event(Event::now(name, Phase::Done, detail))?;
            Ok(value)
        }
        Err(error) => {
            // The error itself matters more than a screen that is gone.
            drop(watch.event(Event::now(name, Phase::Failed, chain(&error))));
            Err(error)
        }
    }
}

/// A judgement of the TUF client as a refusal that begins with its code; what is no judgement stays a failure.
fn judged(error: TufError) -> anyhow::Error {
    // A bundle for another host is refused, though nothing is wrong with it.
    let unfit = matches!(error, TufError::Source(SourceError::NoBase { .. }));
    if unfit || error.is_refusal() {
        return Refused(format!("{}: {}", error.code(), error.reason())).into();
    }
    error.into()
}

fn target(machine: &Machine) -> Result<Target> {
    let table = Table::read(&machine.boot_disk()?)?;
    let running = table.slot_holding(&machine.running_root_hash()?)?;
    let slots = Slots::load(&machine.slots_file())?;
    let state = slots.get(running).state;
    if state != State::Confirmed {
        // The idle slot is what this one falls back to.
        bail!(Refused(format!(
            "slot {running} runs and is {state}: confirm it or restart into the other slot, then update"
        )));
    }
    let idle = running.other();
    let partitions = table.slot(idle)?;
    Ok(Target {
        table,
        running,
        idle,
        partitions,
    })
}

/// The client that fetches, and what all whom the host believes agree on.
type Agreed<S> = (Client<Approved<S>>, Vec<VerifiedTarget>);

fn verify<S: Source>(
    machine: &Machine,
    offer: Offer<S>,
    depth: Depth,
    waiver: Option<Waiver>,
    watch: &mut dyn Watch<Step>,
) -> Result<(Agreed<S>, String)> {
    let mut remembered = |directory: PathBuf, whom: &Sovereign| -> Result<Datastore> {
        let (datastore, memory) = match depth {
            Depth::VerifyOnly => Datastore::rehearse(&directory, &whom.root)?,
            Depth::Install => Datastore::open_or_create(&directory, &whom.root)?,
        };
        if memory == Memory::Anew {
            // The installer makes it, so a host without it has lost it, or somebody took it away to offer an old repository.
            watch.event(Event::now(Step::Verify, Phase::Warning, MEMORY_LOST))?;
        }
        Ok(datastore.demanding(whom.release()?))
    };
    let mut stores = match policy::sovereigns(machine)? {
        Sovereigns::Vendor(vendor) => Stores::Vendor(remembered(machine.datastore(), &vendor)?),
        Sovereigns::Both { vendor, site } => Stores::Both {
            vendor: remembered(machine.datastore(), &vendor)?,
            site: remembered(machine.site_datastore(), &site)?,
        },
    };
    let time = stores.time(&(machine.clock)(), Some(machine.build_time()?))?;
    if let Some(complaint) = time.complaint() {
        watch.event(Event::now(Step::Verify, Phase::Warning, complaint))?;
    }
    let now = time.now();
    let time = time.with_waiver(waiver);
    let mut client = MultiClient::open(stores, offer, Limits::default(), time).map_err(judged)?;
    client.refresh().map_err(judged)?;
    let targets = client.targets().map_err(judged)?;
    if let Some(used) = client.waived() {
        let detail = timekeeping::WaiverUse::of(used)?.text();
        watch.event(Event::now(Step::Verify, Phase::Warning, detail))?;
    }
    let age = if client.waived().is_some() { "stale" } else { "fresh" };
    let day = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M UTC");
    let said = match client.trails().site {
        None => format!("authentic, and {age} at {}", day(now)),
        Some((_, approval)) => format!(
            "approved by the site at {}, its approval {age} at {}",
            day(approval.at),
            day(now)
        ),
    };
    Ok(((client.into_vendor(), targets), said))
}

fn choose(machine: &Machine, targets: &[VerifiedTarget]) -> Result<(Option<Offered>, String)> {
    let running = machine.image_release()?;
    let releases = release::offered(targets)?;
    let Some(offered) = release::newest(releases, &running.channel) else {
        bail!(Refused(format!(
            "nothing is offered for the channel {:?} that this host follows",
            running.channel
        )));
    };
    offered.require(&NEEDED)?;
    let running_hash = machine.running_root_hash()?;
    let (offer, now) = (offered.version, running.version);
    if offer < now {
        bail!(Refused(format!(
            "the newest release offered is {offer}, older than {now} that runs: a rollback is refused"
        )));
    }
    if offer > now {
        return Ok((Some(offered), format!("{offer} after {now}")));
    }
    if offered.root_hash != running_hash {
        bail!(Refused(format!(
            "release {offer} is offered with another root hash than the one that runs under this version"
        )));
    }
    Ok((None, format!("{now} runs and is the newest")))
}

fn boot_image<S: Source>(machine: &Machine, client: &mut Client<S>, release: &Offered) -> Result<(Vec<u8>, String)> {
    let part = release.part(Part::Xen)?;
    if part.length > MAX_BOOT_IMAGE {
        bail!(Refused(format!(
            "{} is longer than the {} MiB of a boot image",
            part.name,
            MAX_BOOT_IMAGE >> 20
        )));
    }
    let mut image = Vec::with_capacity(usize::try_from(part.length)?);
    client.fetch(part, &mut image).map_err(judged)?;
    let place = machine.trust.join("db.der");
    let certificate =
        read_bounded(&place, 64 << 10).with_context(|| format!("cannot read the certificate {}", place.display()))?;
    check_boot_image(&certificate, Part::Xen, &image, &release.root_hash)?;
    Ok((image, "signed with the site's Secure Boot key".into()))
}

fn check_slot(machine: &Machine, target: &Target, release: &Offered, boot_image: &[u8]) -> Result<((), String)> {
    for (part, partition) in [
        (Part::Root, &target.partitions.root),
        (Part::Verity, &target.partitions.verity),
    ] {
        let length = release.part(part)?.length;
        if length > partition.size {
            bail!(Refused(format!(
                "{} of release {} has {} MiB and {} has {} MiB: this host must be installed anew for it",
                part.file(),
                release.version,
                length.div_ceil(1 << 20),
                partition.node.display(),
                partition.size >> 20
            )));
        }
    }
    // Once as the slot's image, and once more when it becomes the fallback.
    let esp = Esp::writable(machine, &target.table)?;
    esp.require_room(2 * boot_image.len() as u64, target.idle.boot_image())?;
    Ok(((), format!("slot {} has room", target.idle)))
}

fn invalidate(machine: &Machine, target: &Target) -> Result<((), String)> {
    // A rollback that was ordered and not started yet would start the slot that is about to be overwritten.
    confirm::put_first(machine, &target.table, target.running)?;
    let mut slots = Slots::load(&machine.slots_file())?;
    *slots.get_mut(target.idle) = Held::empty();
    slots.store(&machine.slots_file())?;
    Firmware::new(&machine.efibootmgr).remove(target.idle)?;
    Esp::writable(machine, &target.table)?.remove(target.idle.boot_image())?;
    for partition in [&target.partitions.root, &target.partitions.verity] {
        gpt::set_guid(&target.table.disk, partition, secureboot::random_guid()?)?;
    }
    Ok(((), format!("slot {} holds nothing now", target.idle)))
}

fn order_trial(machine: &Machine, target: &Target) -> Result<((), String)> {
    let firmware = Firmware::new(&machine.efibootmgr);
    let number = firmware.create(&target.table, target.idle)?;
    firmware.set_next(number)?;
    if firmware.read()?.next != Some(number) {
        bail!(
            "the firmware did not keep BootNext: start {:?} once from its menu",
            target.idle.boot_label()
        );
    }
    Ok(((), format!("Boot{number:04X} {:?}", target.idle.boot_label())))
}
