// SPDX-License-Identifier: GPL-3.0-or-later
//! The host's receipt: what it runs and holds and has seen, signed with the key that was made at its installation.
//!
//! Attacks: two receipts under one number, after a power cut or from two runs at once. Defence: the number is counted up
//! durably under a lock before the receipt is signed, so one may be missing, and none comes twice.
//!
//! Not defended: the key lies on the state partition, and who has root on the host signs what he likes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use signing::digest::{Sha256, read_bounded};
use signing::durable::{self, Lock};
use signing::keys::{self, PrivateKey};
use signing::output::Refused;
use signing::receipt::{Holder, HostState, Receipt, Signed, SlotHeld, next_number, plain};
use signing::tuf::{Datastore, Seen};
use sysinfo::System;

use crate::health;
use crate::machine::Machine;
use crate::policy::MAX_RECORD;
use crate::slots::{Held, Slots};
use crate::timekeeping::TimeStatus;

/// A key is some hundred bytes.
const MAX_KEY: u64 = 64 << 10;
/// Where the count is kept, below the host's state.
const DIRECTORY: &str = "receipts";
const COUNT: &str = "count.json";

/// What was written.
#[derive(Debug, Serialize)]
pub struct Given {
    /// The receipt's file.
    pub file: PathBuf,
    /// The fingerprint of the host's key, as the installer showed it.
    pub host_key: Sha256,
    /// What was signed.
    pub receipt: Receipt,
}

impl Given {
    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        let receipt = &self.receipt;
        let runs = receipt
            .newest()
            .map_or_else(String::new, |version| format!(", {version} runs"));
        format!(
            "{}: receipt {} of {}{runs}\nhost key {}",
            self.file.display(),
            receipt.sequence,
            receipt.name,
            self.host_key
        )
    }
}

/// Writes a receipt.
///
/// # Errors
/// [`Refused`] when the place is taken; else when something that a receipt tells cannot be read, or it cannot be written.
pub fn give(machine: &Machine, out: &Path) -> Result<Given> {
    if out.symlink_metadata().is_ok() {
        bail!(Refused(format!("{} exists: name another --out", out.display())));
    }
    let place = machine.state.join("host-key.pem");
    let read = || format!("cannot sign a receipt: reading the host's key {}", place.display());
    let pem = keys::read_private(&place, MAX_KEY).with_context(read)?;
    let key = PrivateKey::from_unencrypted_pem("the host's key", &pem).with_context(read)?;
    let mut receipt = state(machine).context("cannot give a receipt")?;
    let count = machine.state.join(DIRECTORY);
    let counting = || format!("cannot count the receipt in {}", count.display());
    fs::create_dir_all(&count).with_context(counting)?;
    let lock = Lock::take(&count).with_context(counting)?;
    receipt.sequence = next_number(&count.join(COUNT))?;
    drop(lock);
    let Signed {
        receipt,
        fingerprint,
        bytes,
    } = receipt.sign(&key)?;
    durable::write(out, &bytes).with_context(|| format!("cannot write the receipt {}", out.display()))?;
    Ok(Given {
        file: out.to_path_buf(),
        host_key: fingerprint,
        receipt,
    })
}

/// What the host is, as a receipt without its number.
fn state(machine: &Machine) -> Result<Receipt> {
    let Slots { a, b } = Slots::load(&machine.slots_file())?;
    let health = health::examine(machine);
    let record = machine.state.join("install-record.json");
    let record = read_bounded(&record, MAX_RECORD).with_context(|| format!("cannot read {}", record.display()))?;
    let host = HostState {
        version: machine.image_release()?.version,
        root_hash: machine.running_root_hash()?,
        slots: vec![held("a", a), held("b", b)],
        healthy: health.healthy,
        reasons: plain(&health.reasons()),
        install_record: Sha256::of(&record),
    };
    let at = TimeStatus::read(machine)?.now;
    let name = System::host_name().context("this machine has no name")?;
    let mut receipt = Receipt::new(&name, 1, at, Holder::Host(host));
    receipt.vendor = seen(&machine.datastore())?;
    receipt.site = seen(&machine.site_datastore())?;
    Ok(receipt)
}

fn held(slot: &str, held: Held) -> SlotHeld {
    SlotHeld {
        slot: slot.to_owned(),
        state: held.state.to_string(),
        version: held.version,
        root_hash: held.root_hash,
    }
}

/// What a datastore remembers; nothing, where there is none.
fn seen(place: &Path) -> Result<Vec<Seen>> {
    if !place.join("root.json").exists() {
        return Ok(Vec::new());
    }
    Ok(Datastore::look(place)?.seen()?)
}
