// SPDX-License-Identifier: GPL-3.0-or-later
//! The floor of the host's time, which only rises.
//!
//! The clock of a machine without a network is a claim. Setting it back must not make expired metadata fresh, so the
//! time of the last verified metadata is kept. Setting it forward must not lock anybody out for good: the floor rises
//! only when a whole set of metadata was found unexpired at that time, so it never passes a date that the site's own
//! keys have signed as an expiry, and newer metadata with later expiries is accepted again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use signing::durable;

use crate::machine::read_text;

#[derive(Serialize, Deserialize)]
struct Floor {
    floor: DateTime<Utc>,
}

fn place(state: &Path) -> PathBuf {
    state.join("time-floor.json")
}

/// The recorded floor, if there is one.
///
/// # Errors
/// When it is there and cannot be understood.
pub fn load(state: &Path) -> Result<Option<DateTime<Utc>>> {
    let place = place(state);
    if !place.exists() {
        return Ok(None);
    }
    let floor: Floor = serde_json::from_str(&read_text(&place)?)
        .with_context(|| format!("cannot understand {}: it was altered by hand", place.display()))?;
    Ok(Some(floor.floor))
}

/// Raises the floor to the time at which verified metadata was fresh.
///
/// # Errors
/// When it cannot be written durably.
pub fn raise(state: &Path, verified_at: DateTime<Utc>) -> Result<()> {
    if load(state)?.is_some_and(|floor| floor >= verified_at) {
        return Ok(());
    }
    let mut bytes = serde_json::to_vec(&Floor { floor: verified_at })?;
    bytes.push(b'\n');
    durable::write(&place(state), &bytes).with_context(|| format!("cannot record the time in {}", state.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rises() {
        let state = tempfile::tempdir().unwrap();
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        assert_eq!(load(state.path()).unwrap(), None);
        raise(state.path(), at(1000)).unwrap();
        raise(state.path(), at(500)).unwrap();
        assert_eq!(load(state.path()).unwrap(), Some(at(1000)));
        raise(state.path(), at(1500)).unwrap();
        assert_eq!(load(state.path()).unwrap(), Some(at(1500)));
    }

    #[test]
    fn an_altered_floor_is_an_error_and_not_no_floor() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(place(state.path()), "{}").unwrap();
        assert!(load(state.path()).is_err());
    }
}
