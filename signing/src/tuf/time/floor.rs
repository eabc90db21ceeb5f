// SPDX-License-Identifier: GPL-3.0-or-later
//! The floor of time, and the record from which it goes on rising.
//!
//! Two floors are kept apart. What the image and the custodians vouch for lasts. What the online roles say is as good as
//! their keys: it ends just before the root that names them, and is dropped with the keys when a newer root replaces them,
//! so that whoever steals one cannot push the floor so far that the root which revokes it would be refused.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::super::datastore::{Datastore, damaged, snapshot_name, timestamp_name};
use super::super::error::TufError;
use super::super::json;
use super::super::limits::Limits;
use super::super::model::{Result, Root, SignedFile, Snapshot, Timestamp};
use super::Time;
use super::later;
use crate::clock::{Reading, Uptime};

/// The record in the datastore.
pub const RECORD: &str = "time.json";
const FORMAT: u32 = 1;

/// Below this no clock is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    lasting: DateTime<Utc>,
    online: Online,
    uptime: Option<Uptime>,
    /// What another datastore knows, and records by itself.
    beside: Option<DateTime<Utc>>,
}

/// What the online roles say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Online {
    /// Stands for the keys that said it.
    keys: String,
    time: DateTime<Utc>,
}

/// The floor when it was last kept. Written durably; read strictly.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    lasting: DateTime<Utc>,
    online: Online,
    /// The start of the machine in which it was kept, and the seconds that it had run.
    boot: Option<String>,
    uptime: u64,
}

impl Floor {
    /// The floor itself.
    #[must_use]
    pub fn time(&self) -> DateTime<Utc> {
        self.lasting
            .max(self.online.time)
            .max(self.beside.unwrap_or(DateTime::UNIX_EPOCH))
    }

    pub(super) fn stand_beside(&mut self, floor: DateTime<Utc>) {
        self.beside = Some(floor);
    }

    pub(super) fn raise(&mut self, to: DateTime<Utc>) {
        self.lasting = self.lasting.max(to);
    }
}

impl Record {
    /// How long the machine has run since: counted within one start only, for a datastore may come to another machine.
    fn counted(&self, uptime: Option<&Uptime>) -> Duration {
        let same = uptime.filter(|now| self.boot.as_ref() == Some(&now.boot));
        let seconds = same.map_or(0, |now| now.since.as_secs().saturating_sub(self.uptime));
        i64::try_from(seconds)
            .ok()
            .and_then(Duration::try_seconds)
            .unwrap_or_default()
    }
}

impl Datastore {
    /// Decides what time it is, from what the machine says, the build time of its image, and what this datastore trusts
    /// and has recorded. Nothing is written.
    ///
    /// # Errors
    /// When the datastore cannot be read or is damaged.
    pub fn time(&self, reading: &Reading, built: Option<DateTime<Utc>>) -> Result<Time> {
        let (_, root) = self.root()?;
        let record = self.time_record()?;
        let counted = record
            .as_ref()
            .map_or(Duration::zero(), |record| record.counted(reading.uptime.as_ref()));
        let cap = root.header.expires - Duration::seconds(1);
        let keys = root.online_keys();
        let mut lasting = [built, root.header.signed_at]
            .into_iter()
            .flatten()
            .fold(DateTime::UNIX_EPOCH, DateTime::max);
        let mut online = self
            .online_times(&root)?
            .into_iter()
            .fold(DateTime::UNIX_EPOCH, DateTime::max);
        if let Some(record) = record {
            lasting = lasting.max(later(record.lasting, counted));
            if record.online.keys == keys {
                online = online.max(later(record.online.time, counted));
            }
        }
        let floor = Floor {
            lasting,
            online: Online {
                keys,
                time: online.min(cap),
            },
            uptime: reading.uptime.clone(),
            beside: None,
        };
        Ok(Time::judged(reading.clock, floor))
    }

    /// Keeps the floor durably. The clock is not in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_time(&mut self, time: &Time) -> Result<()> {
        let Some(floor) = time.floor() else { return Ok(()) };
        let record = Record {
            format: FORMAT,
            lasting: floor.lasting,
            online: floor.online.clone(),
            boot: floor.uptime.as_ref().map(|uptime| uptime.boot.clone()),
            uptime: floor.uptime.as_ref().map_or(0, |uptime| uptime.since.as_secs()),
        };
        self.write(RECORD, &super::waiver::printed(&record)?)
    }

    fn time_record(&self) -> Result<Option<Record>> {
        let Some(bytes) = self.read(RECORD)? else {
            return Ok(None);
        };
        let record: Record = json::parse_default(&bytes)
            .and_then(serde_json::from_value)
            .map_err(|error| TufError::DatastoreDamaged {
                why: format!("{RECORD}: {error}"),
            })?;
        if record.format != FORMAT {
            return Err(TufError::DatastoreDamaged {
                why: format!("{RECORD} has the unknown format {}", record.format),
            });
        }
        Ok(Some(record))
    }

    /// When the trusted timestamp and snapshot were signed.
    fn online_times(&self, root: &Root) -> Result<Vec<DateTime<Utc>>> {
        let limits = Limits::default();
        let mut times = Vec::new();
        if let Some(bytes) = self.read(&timestamp_name(root))? {
            let file = damaged(SignedFile::read("the stored timestamp", &bytes, &limits))?;
            damaged(file.verify("timestamp", &root.timestamp))?;
            times.extend(damaged(Timestamp::read(&file))?.header.signed_at);
        }
        if let Some(bytes) = self.read(&snapshot_name(root))? {
            let file = damaged(SignedFile::read("the stored snapshot", &bytes, &limits))?;
            damaged(file.verify("snapshot", &root.snapshot))?;
            times.extend(damaged(Snapshot::read(&file, &limits))?.header.signed_at);
        }
        Ok(times)
    }
}
