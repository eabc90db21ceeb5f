// SPDX-License-Identifier: GPL-3.0-or-later
//! Keeping a release, or going back.
//!
//! A release on trial was started once by BootNext, and the firmware cleared that before it started the image: whatever
//! goes wrong, the next start is the old slot. Only [`confirm`] changes the boot order, and only when the host is healthy.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use signing::durable::Lock;
use signing::output::Refused;
use signing::process::Cmd;

use crate::bootentries::Firmware;
use crate::esp::Esp;
use crate::gpt::Table;
use crate::health::{self, Health};
use crate::layout::{FALLBACK_IMAGE, Slot};
use crate::machine::Machine;
use crate::slots::{Held, Slots, State};

/// Which slot runs, with all that says so.
struct Here {
    table: Table,
    slot: Slot,
    slots: Slots,
}

fn here(machine: &Machine) -> Result<Here> {
    let table = Table::read(&machine.boot_disk()?)?;
    let slot = table.slot_holding(&machine.running_root_hash()?)?;
    let slots = Slots::load(&machine.slots_file())?;
    Ok(Here { table, slot, slots })
}

/// What was confirmed or found.
#[derive(Debug, Serialize)]
pub struct Confirmed {
    /// The running slot.
    pub slot: Slot,
    /// Whether it was on trial until now.
    pub was_on_trial: bool,
    /// How the host is.
    pub health: Health,
}

/// Keeps the running release: waits until the host is healthy, then makes its slot the one that starts.
///
/// On a slot that is confirmed already it repairs what an interrupted run left undone.
///
/// # Errors
/// A refusal with the reasons when the host does not become healthy in time; else when a step fails.
pub fn confirm(machine: &Machine, limit: Duration, look: impl FnMut() -> Health) -> Result<Confirmed> {
    let slot = here(machine)?.slot;
    // Nothing is locked while waiting.
    let health = health::wait(limit, look);
    let _lock = patient_lock(machine)?;
    let here = here(machine)?;
    let was_on_trial = here.slots.get(slot).state != State::Confirmed;
    if here.slots.get(slot).state == State::Bad {
        bail!(Refused(format!(
            "slot {slot} was found bad and is not kept: update again or roll back"
        )));
    }
    if !health.healthy {
        bail!(Refused(format!("slot {slot} is not healthy: {}", health.reasons())));
    }
    keep(machine, &here)?;
    Ok(Confirmed {
        slot,
        was_on_trial,
        health,
    })
}

/// Makes the running slot the one that starts. Every step can be repeated, and a cut between two leaves the slot on
/// trial: it is then judged again at its next start.
fn keep(machine: &Machine, here: &Here) -> Result<()> {
    let slot = here.slot;
    put_first(machine, &here.table, slot)?;
    let mut slots = here.slots.clone();
    let held = slots.get_mut(slot);
    if held.state != State::Confirmed || held.version.is_none() {
        let release = machine.image_release()?;
        *held = Held::release(release.version, machine.running_root_hash()?, State::Confirmed);
        slots.store(&machine.slots_file())?;
    }
    Ok(())
}

/// Boot order and fallback image.
pub(crate) fn put_first(machine: &Machine, table: &Table, slot: Slot) -> Result<()> {
    Firmware::new(&machine.efibootmgr).put_first(table, slot)?;
    let esp = Esp::writable(machine, table)?;
    let image = esp.read(slot.boot_image())?;
    if esp.holds(FALLBACK_IMAGE, &image) {
        return Ok(());
    }
    esp.write(FALLBACK_IMAGE, &image)
}

/// What the guard did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Guarded {
    /// The running slot is confirmed: the guard only looked.
    Looked {
        /// The running slot.
        slot: Slot,
        /// The other slot, when its trial start was found to have failed.
        other_failed: Option<Slot>,
        /// How the host is.
        health: Health,
    },
    /// The release on trial is kept.
    Kept {
        /// The running slot.
        slot: Slot,
    },
    /// The release on trial is not kept: the machine must be restarted now, and starts the old slot.
    GoBack {
        /// The running slot.
        slot: Slot,
        /// Why.
        reason: String,
    },
}

/// The guard at every start. The caller restarts the machine on [`Guarded::GoBack`].
///
/// # Errors
/// When it cannot be told what runs, or the record cannot be written. A release on trial is then not confirmed either.
pub fn guard(machine: &Machine, deadline: Duration, look: impl FnMut() -> Health) -> Result<Guarded> {
    let lock = patient_lock(machine)?;
    let at_start = here(machine)?;
    let slot = at_start.slot;
    if matches!(at_start.slots.get(slot).state, State::Confirmed | State::Bad) {
        let other_failed = note_failed_trial(machine, &at_start)?;
        drop(lock);
        return Ok(Guarded::Looked {
            slot,
            other_failed,
            health: health::wait(deadline, look),
        });
    }
    // On trial; or "empty", which an update leaves that was cut between the order for the next start and its record.
    drop(lock);
    let health = health::wait(deadline, look);
    let _lock = patient_lock(machine)?;
    let here = here(machine)?;
    let reason = if health.healthy {
        match keep(machine, &here) {
            Ok(()) => return Ok(Guarded::Kept { slot }),
            Err(error) => format!("it is healthy and could not be kept: {error:#}"),
        }
    } else {
        health.reasons()
    };
    give_up(machine, &here, &reason)?;
    Ok(Guarded::GoBack { slot, reason })
}

/// A release on trial that the old slot finds at its start, with no start of it ordered any more, did not come up.
fn note_failed_trial(machine: &Machine, here: &Here) -> Result<Option<Slot>> {
    let other = here.slot.other();
    if here.slots.get(other).state != State::Trial {
        return Ok(None);
    }
    let entries = Firmware::new(&machine.efibootmgr).read()?;
    let entry = entries.of(other, &here.table.esp()?.guid.to_string());
    if entry.is_some() && entries.next == entry {
        return Ok(None);
    }
    mark_bad(machine, &here.slots, other, "its trial start did not come up")?;
    Ok(Some(other))
}

fn mark_bad(machine: &Machine, slots: &Slots, slot: Slot, reason: &str) -> Result<()> {
    let mut slots = slots.clone();
    let held = slots.get_mut(slot);
    held.state = State::Bad;
    held.reason = Some(reason.chars().take(500).collect());
    slots.store(&machine.slots_file())
}

fn give_up(machine: &Machine, here: &Here, reason: &str) -> Result<()> {
    let old = here.slot.other();
    mark_bad(machine, &here.slots, here.slot, reason)?;
    if here.slots.get(old).state != State::Confirmed {
        return Err(Refused(format!(
            "slot {} is not healthy and slot {old} cannot take over: {reason}",
            here.slot
        ))
        .into());
    }
    // The order still names the old slot first unless keeping this one failed half-way.
    Firmware::new(&machine.efibootmgr).put_first(&here.table, old)
}

/// What a rollback chose.
#[derive(Debug, Serialize)]
pub struct RolledBack {
    /// The slot that starts from now on.
    pub slot: Slot,
    /// What it holds.
    pub held: Held,
}

/// Chooses the other confirmed slot for all coming starts.
///
/// # Errors
/// A refusal when the other slot holds no release that was confirmed; else when a step fails.
pub fn rollback(machine: &Machine) -> Result<RolledBack> {
    let _lock = lock(machine)?;
    let here = here(machine)?;
    let chosen = other_confirmed(&here)?;
    put_first(machine, &here.table, chosen.slot)?;
    Ok(chosen)
}

/// What [`rollback`] would choose; nothing is changed.
///
/// # Errors
/// As [`rollback`].
pub fn rehearse_rollback(machine: &Machine) -> Result<RolledBack> {
    let _lock = lock(machine)?;
    other_confirmed(&here(machine)?)
}

fn other_confirmed(here: &Here) -> Result<RolledBack> {
    let slot = here.slot.other();
    let held = here.slots.get(slot).clone();
    let refuse = |why: String| Err(Refused(format!("cannot roll back to slot {slot}: {why}")));
    if held.state != State::Confirmed {
        return Ok(refuse(format!(
            "it is {}, and only a release that has been healthy here is started again",
            held.state
        ))?);
    }
    let Some(hash) = held.root_hash else {
        return Ok(refuse("the record does not say what it holds".into())?);
    };
    if !here.table.slot(slot)?.hold(&hash) {
        return Ok(refuse("its partitions are not those of the record".into())?);
    }
    Ok(RolledBack { slot, held })
}

/// Restarts the machine. Services get no say: this is for releases that are not healthy, and for updates asked to.
///
/// # Errors
/// When neither the service manager nor the kernel obeys.
pub fn restart() -> Result<()> {
    if Cmd::new("timeout").args(["60", "systemctl", "reboot"]).run().is_ok() {
        return Ok(());
    }
    nix::unistd::sync();
    nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT).context("cannot restart the machine")?;
    Ok(())
}

/// The lock, waited for: an administrator's command ends soon.
fn patient_lock(machine: &Machine) -> Result<Lock> {
    for _ in 0..30 {
        match lock(machine) {
            Err(error) if is_held(&error) => {}
            other => return other,
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    lock(machine)
}

fn is_held(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// The lock of whatever changes slots.
///
/// # Errors
/// When another command holds it.
pub fn lock(machine: &Machine) -> Result<Lock> {
    Lock::take(&machine.state).with_context(|| format!("cannot work on the slots in {}", machine.state.display()))
}
