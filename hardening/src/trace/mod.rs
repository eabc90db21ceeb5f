// SPDX-License-Identifier: GPL-3.0-or-later
//! From every file to the key that vouches for it: file → target → role → keys and threshold → pinned root, and every
//! package → manifest → upstream's index → upstream's signed list → upstream's keys.

mod approval;
mod baked;
mod boot;
pub mod bundle;
mod files;
mod gateway;
mod history;
pub mod host;
pub mod iso;
mod memory;
mod packages;
mod receipts;
pub mod release;
pub mod repository;
mod sbom;
pub mod signed;
mod sovereigns;
mod stored;
pub mod trust;
mod tuf;
mod verity;
mod waivers;

use std::time::Duration;

use chrono::{DateTime, Utc};
use signing::output::is_refusal;
use signing::tuf::TufError;

use crate::medium::MediumError;
use crate::verdict::Verdict;

/// A file as a medium holds it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Its name, relative to the directory of metadata or of targets.
    pub name: String,
    /// Its length.
    pub length: u64,
}

/// Every file that a repository in any shape holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Files among the metadata.
    pub metadata: Vec<Held>,
    /// Files among the targets.
    pub targets: Vec<Held>,
}

/// The verdict on an error: a refusal fails, and what kept us from judging could not be checked.
pub(crate) fn of_tuf(error: &TufError) -> Verdict {
    if error.is_refusal() {
        Verdict::Fail(error.reason())
    } else {
        Verdict::CouldNotCheck(error.reason())
    }
}

/// As [`of_tuf`], for errors that carry a refusal where something was judged and refused.
pub(crate) fn of_chain(error: &anyhow::Error) -> Verdict {
    let text = format!("{error:#}");
    if is_refusal(error) {
        Verdict::Fail(text)
    } else {
        Verdict::CouldNotCheck(text)
    }
}

/// As [`of_chain`], for a plain error.
pub(crate) fn of_error(error: impl std::error::Error + Send + Sync + 'static) -> Verdict {
    of_chain(&anyhow::Error::new(error))
}

/// As [`of_tuf`], for what was read of an image.
pub(crate) fn of_medium(error: &MediumError) -> Verdict {
    match error {
        MediumError::Malformed(why) => Verdict::Fail(why.clone()),
        MediumError::Io(_) | MediumError::Tool(_) | MediumError::Unknown(_) => {
            Verdict::CouldNotCheck(error.to_string())
        }
    }
}

/// Days between two moments, in words.
pub(crate) fn left(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    let days = (then - now).to_std().unwrap_or(Duration::ZERO).as_secs() / 86_400;
    if days == 1 {
        "1 day".to_owned()
    } else {
        format!("{days} days")
    }
}

/// A date as people write it.
pub(crate) fn date(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// Bytes as people read them, and as they are.
pub(crate) fn bytes(count: u64) -> String {
    if count < 1024 {
        short_bytes(count)
    } else {
        format!("{} ({count} bytes)", short_bytes(count))
    }
}

/// Bytes as people read them.
pub(crate) fn short_bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = count;
    let mut rest = 0;
    while whole >= 1024 && unit < UNITS.len() - 1 {
        rest = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{whole} bytes")
    } else {
        format!("{whole}.{rest} {}", UNITS[unit])
    }
}
