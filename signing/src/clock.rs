// SPDX-License-Identifier: GPL-3.0-or-later
//! The one door to the wall clock.

use chrono::{DateTime, Utc};

/// The time now, in UTC, as the machine's clock gives it.
///
/// On a host behind the gap the clock is a claim, not a fact: callers that decide on expiry raise it to their floor.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
