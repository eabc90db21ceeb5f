// SPDX-License-Identifier: GPL-3.0-or-later
//! What commands and the server say in the same words.

use chrono::{DateTime, TimeDelta, Utc};
use signing::receipt::{Holder, Receipt};

/// Bytes as a person reads them.
#[must_use]
pub fn human(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// Until when metadata is fresh, or since when it is not.
#[must_use]
pub fn freshness(expires: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let past = expires <= now;
    let word = if past { "expired since" } else { "fresh until" };
    // A day is said in short; near its end the hour counts.
    let form = if (expires - now).abs() < TimeDelta::days(2) {
        "%Y-%m-%d %H:%M UTC"
    } else {
        "%Y-%m-%d"
    };
    format!("{word} {}", expires.format(form))
}

/// What a receipt says, in one line.
#[must_use]
pub fn receipt(receipt: &Receipt) -> String {
    let said = match &receipt.holder {
        Holder::Host(host) if host.healthy => format!("runs {}, healthy", host.version),
        Holder::Host(host) => format!("runs {}, NOT HEALTHY ({})", host.version, host.reasons),
        Holder::Gateway(gateway) => format!("holds {}", gateway.held()),
    };
    let at = receipt.at.format("%Y-%m-%d %H:%M UTC");
    format!("{said}; receipt {} of {at}", receipt.sequence)
}
