// SPDX-License-Identifier: GPL-3.0-or-later
//! What time the host reckons with, as [`signing::tuf::time`] decides it, and the waivers that were used.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use signing::tuf::author::seconds;
use signing::tuf::time::{ClockState, Floor, Used};
use signing::tuf::{Datastore, Time, TufError};

use crate::machine::Machine;

/// The host's time.
#[derive(Debug, Clone, Serialize)]
pub struct TimeStatus {
    /// What the clock says.
    pub clock: DateTime<Utc>,
    /// The floor, below which no clock is believed.
    pub floor: DateTime<Utc>,
    /// What is reckoned with.
    pub now: DateTime<Utc>,
    /// What the clock is by the floor.
    pub state: ClockState,
    /// What is wrong with the clock and what to do.
    pub complaint: Option<String>,
    /// The waivers that were used, the oldest first.
    pub waivers: Vec<WaiverUse>,
}

/// One use of a waiver.
#[derive(Debug, Clone, Serialize)]
pub struct WaiverUse {
    /// When, by the time that was reckoned with.
    pub at: DateTime<Utc>,
    /// The roles whose stale metadata was taken, with their versions.
    pub lifted: Vec<String>,
    /// From when it lifts nothing.
    pub until: DateTime<Utc>,
    /// The custodians' reason.
    pub reason: String,
    /// The identifiers of the root keys that signed it.
    pub signed_by: Vec<String>,
}

impl WaiverUse {
    /// What a record says.
    ///
    /// # Errors
    /// When the record holds no waiver.
    pub fn of(used: &Used) -> Result<Self> {
        let waiver = used.waiver()?;
        let lifted = used.lifted.iter();
        Ok(Self {
            at: used.at,
            lifted: lifted.map(|(role, due)| format!("{role} {}", due.version)).collect(),
            until: waiver.until,
            reason: waiver.reason,
            signed_by: used.signed_by.clone(),
        })
    }

    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "stale metadata was taken at {} by a waiver of {} until {}: {} ({})",
            seconds(self.at),
            signing::output::count(self.signed_by.len(), "root key"),
            seconds(self.until),
            self.lifted.join(", "),
            self.reason
        )
    }
}

impl TimeStatus {
    /// Looks, and writes nothing.
    ///
    /// # Errors
    /// When a datastore or the image's build time cannot be read.
    pub fn read(machine: &Machine) -> Result<Self> {
        let stores = places(machine);
        let stores = stores.iter().map(|place| Ok(Datastore::look(place)?));
        Self::of(&stores.collect::<Result<Vec<_>>>()?, machine)
    }

    /// Records how far the time has come, so that a clock which is set back later does not matter. An update that is
    /// going on records it itself.
    ///
    /// # Errors
    /// As [`TimeStatus::read`], and when the record cannot be written.
    pub fn record(machine: &Machine) -> Result<Self> {
        for place in places(machine) {
            let mut store = match Datastore::open(&place) {
                Err(TufError::DatastoreIo { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => continue,
                store => store?,
            };
            let time = store.time(&(machine.clock)(), Some(machine.build_time()?))?;
            store.keep_time(&time)?;
        }
        Self::read(machine)
    }

    fn of(stores: &[Datastore], machine: &Machine) -> Result<Self> {
        let reading = (machine.clock)();
        let built = Some(machine.build_time()?);
        let mut time: Option<Time> = None;
        let mut waivers = Vec::new();
        for store in stores {
            let own = store.time(&reading, built)?;
            time = Some(match &time {
                Some(other) => own.beside(other),
                None => own,
            });
            waivers.extend(store.used_waivers()?);
        }
        let time = time.context("the host has no memory of signed metadata")?;
        Ok(Self {
            clock: reading.clock,
            floor: time.floor().map_or(reading.clock, Floor::time),
            now: time.now(),
            state: time.clock_state(),
            complaint: time.complaint(),
            waivers: waivers.iter().map(WaiverUse::of).collect::<Result<_>>()?,
        })
    }

    /// For a person, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let clock = seconds(self.clock);
        let first = self.complaint.clone().unwrap_or_else(|| {
            format!(
                "the clock says {clock} and is plausible: it is {} at least",
                seconds(self.floor)
            )
        });
        let waivers = self.waivers.iter().map(WaiverUse::text);
        [first].into_iter().chain(waivers).collect()
    }
}

/// The datastores of all whom the host believes; the site's is there where there is one.
fn places(machine: &Machine) -> Vec<PathBuf> {
    let site = machine.site_datastore();
    let site = site.exists().then_some(site);
    [machine.datastore()].into_iter().chain(site).collect()
}
