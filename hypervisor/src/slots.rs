// SPDX-License-Identifier: GPL-3.0-or-later
//! What the slots hold, as a durable file on state.
//!
//! The file is a record and not a proof: what may be started is decided by the boot order and by dm-verity. It says what
//! was meant, so that a cut at any point can be told from a finished step.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use signing::digest::Sha256;
use signing::durable;
use signing::release::Version;

use crate::layout::Slot;
use crate::machine::read_text;

/// What a slot is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has run and was healthy.
    Confirmed,
    /// It is whole and gets one start to prove itself.
    Trial,
    /// It holds nothing, or the beginning of a write.
    Empty,
    /// It was tried and was not healthy.
    Bad,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Confirmed => "confirmed",
            Self::Trial => "trial",
            Self::Empty => "empty",
            Self::Bad => "bad",
        })
    }
}

/// What one slot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The release's version.
    #[serde(default)]
    pub version: Option<Version>,
    /// The release's root hash.
    #[serde(default)]
    pub root_hash: Option<Sha256>,
    /// What it is good for.
    pub state: State,
    /// Why it is bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Held {
    /// A slot that holds nothing.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            version: None,
            root_hash: None,
            state: State::Empty,
            reason: None,
        }
    }

    /// A slot that holds this release.
    #[must_use]
    pub const fn release(version: Version, root_hash: Sha256, state: State) -> Self {
        Self {
            version: Some(version),
            root_hash: Some(root_hash),
            state,
            reason: None,
        }
    }
}

/// What both slots hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Slot A.
    pub a: Held,
    /// Slot B.
    pub b: Held,
}

impl Slots {
    /// The record of a fresh install: slot A confirmed, slot B empty.
    #[must_use]
    pub const fn installed(version: Version, root_hash: Sha256) -> Self {
        Self {
            a: Held::release(version, root_hash, State::Confirmed),
            b: Held::empty(),
        }
    }

    /// What a slot holds.
    #[must_use]
    pub const fn get(&self, slot: Slot) -> &Held {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    /// What a slot holds, to be changed.
    pub const fn get_mut(&mut self, slot: Slot) -> &mut Held {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }

    /// Reads the record.
    ///
    /// # Errors
    /// When it is missing or cannot be understood.
    pub fn load(place: &Path) -> Result<Self> {
        let text = read_text(place)?;
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", place.display()))
    }

    /// Writes the record durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(&self, place: &Path) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        durable::write(place, &bytes).with_context(|| format!("cannot write {}", place.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("slots.json");
        let mut slots = Slots::installed("1.0.0".parse().unwrap(), Sha256::of(b"root"));
        slots.get_mut(Slot::B).state = State::Bad;
        slots.get_mut(Slot::B).reason = Some("xenstored is not running".into());
        slots.store(&place).unwrap();
        assert_eq!(Slots::load(&place).unwrap(), slots);
    }

    #[test]
    fn a_record_in_the_short_form_is_understood() {
        let slots: Slots = serde_json::from_str(r#"{"a":{"state":"confirmed"},"b":{"state":"empty"}}"#).unwrap();
        assert_eq!(slots.a.state, State::Confirmed);
        assert!(serde_json::from_str::<Slots>(r#"{"a":{"state":"fine"},"b":{"state":"empty"}}"#).is_err());
    }
}
