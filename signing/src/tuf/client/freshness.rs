// SPDX-License-Identifier: GPL-3.0-or-later
//! The check for a freeze attack (5.3.10, 5.4.4, 5.5.6, 5.6.5), by the time that [`super::super::time`] decided.
//!
//! Deviations from the specification: what was signed in the future of a clock that nothing speaks against is refused; what
//! has expired is taken with a waiver of the root keys, and only so.

use super::super::error::TufError;
use super::super::model::{Header, Result};
use super::super::source::Source;
use super::super::time::{Due, State};
use super::Client;
use crate::digest::Sha256;

impl<S: Source> Client<S> {
    /// A waiver must hold before anything is taken, whether it will be needed or not: a forged one means an attack.
    pub(super) fn check_waiver(&mut self) -> Result<()> {
        let Some(waiver) = self.time.waiver() else {
            return Ok(());
        };
        let root = self.trail.newest("root");
        let sha256 = root.map_or_else(|| Sha256::of(b""), |file| file.sha256);
        let signed_by = waiver.verify_for(&self.root, sha256)?;
        self.time.not_ahead("the waiver", Some(waiver.signed_at))?;
        self.offered = Some(waiver.used(&self.time, signed_by)?);
        Ok(())
    }

    /// The expiration must be higher than the fixed start time, for what no waiver can lift.
    pub(super) fn current(&self, role: &str, header: Header) -> Result<()> {
        let (role, now) = (role.to_owned(), self.time.now());
        let Header { expires, signed_at, .. } = header;
        match (self.time.judge(signed_at, expires), self.time.floor()) {
            (State::Fresh | State::ClockBehindFloor, _) => Ok(()),
            (State::NotYetValid, _) => self.time.not_ahead(&role, signed_at),
            (State::ClockFarAhead, Some(floor)) => Err(TufError::ClockFarAhead {
                role,
                expires,
                now,
                floor: floor.time(),
            }),
            (State::Stale | State::ClockFarAhead, _) => Err(TufError::Expired { role, expires, now }),
        }
    }

    /// As [`Client::current`], unless a waiver lifts this very file; its use is recorded before the file is trusted.
    pub(super) fn fresh(&mut self, role: &str, header: Header, bytes: &[u8]) -> Result<()> {
        let refused = match self.current(role, header) {
            Err(error @ (TufError::Expired { .. } | TufError::ClockFarAhead { .. })) => error,
            judged => return judged,
        };
        let (Some(waiver), Some(mut used)) = (self.time.waiver(), self.offered.clone()) else {
            return Err(refused);
        };
        let due = Due {
            version: header.version,
            sha256: Sha256::of(bytes),
        };
        waiver.lifts(role, due, self.time.now())?;
        let signed_at = waiver.signed_at;
        used.lifted.insert(role.to_owned(), due);
        self.store.record_use(&used)?;
        self.offered = Some(used);
        // The custodians signed it, as they sign root: it has come to that day for good.
        self.time.raise(signed_at);
        self.store.keep_time(&self.time)
    }
}
