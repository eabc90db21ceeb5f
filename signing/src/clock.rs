// SPDX-License-Identifier: GPL-3.0-or-later
//! The one door to the wall clock.

use std::fs;
use std::time::Duration;

use chrono::{DateTime, Utc};

/// The time now, in UTC, as the machine's clock gives it.
///
/// On a host behind the gap the clock is a claim, not a fact: callers that decide on expiry let [`crate::tuf::time`] judge it.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// A time that a person typed.
///
/// # Errors
/// What such a time looks like.
pub fn parse(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(Into::into)
        .map_err(|_| "a time looks like 2026-11-22T12:00:00Z".to_owned())
}

/// What a machine can say of the time by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock: anybody at the machine can set it.
    pub clock: DateTime<Utc>,
    /// How long the machine has run: nobody can set that.
    pub uptime: Option<Uptime>,
}

/// The time since one start of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uptime {
    /// The kernel's identifier of this start.
    pub boot: String,
    /// The time since then.
    pub since: Duration,
}

impl From<DateTime<Utc>> for Reading {
    /// A clock alone, on a machine that cannot say how long it has run.
    fn from(clock: DateTime<Utc>) -> Self {
        Self { clock, uptime: None }
    }
}

/// Reads the clock and the time since the start.
#[must_use]
pub fn read() -> Reading {
    Reading {
        clock: now(),
        uptime: uptime(),
    }
}

/// Nothing on a machine whose kernel does not say: then nothing is counted.
fn uptime() -> Option<Uptime> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds = text.split('.').next()?.parse().ok()?;
    Some(Uptime {
        boot: boot.trim().to_owned(),
        since: Duration::from_secs(seconds),
    })
}
