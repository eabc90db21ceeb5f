// SPDX-License-Identifier: GPL-3.0-or-later
//! What time it is, on a machine whose clock anybody can set and nobody corrects. No other place decides that.
//!
//! Attacks: a clock set back, so that old metadata looks current; a clock set ahead and put right again, to lock the
//! machine out for good; a stolen online key that signs in the far future, for the same end; an old waiver with an old
//! bundle.
//!
//! Defence: a floor that only rises, below which no clock is believed. What raises it cannot be set by hand: the build time
//! of the verified image, the times of signing in verified metadata, and the time that the machine has run since these were
//! recorded ([`floor`]). The clock itself raises nothing, so setting it ahead does no lasting harm. What the online roles
//! say counts only as long as root names their keys, and only to the end of that root. Stale metadata needs a [`Waiver`].
//!
//! Not defended: while a machine is off, only its clock knows how long. Somebody who holds the bundle that was the newest
//! when it was switched off, and sets the clock back before it is switched on, can offer that bundle once more.

pub mod floor;
pub mod waiver;

use chrono::{DateTime, Duration, Utc};
use serde::Serialize;

use super::author::seconds;
use super::error::TufError;

pub use floor::Floor;
pub use waiver::{Due, Used, Waiver};

/// How far a clock may be off before it is called wrong: a clock that runs in local time is 14 hours off.
pub const TOLERANCE: Duration = Duration::days(1);

/// How far a clock may be ahead of everything that was ever signed or counted before it is doubted.
pub const FAR: Duration = Duration::days(365);

/// What a piece of metadata is, by the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has not expired.
    Fresh,
    /// It has expired, and is authentic all the same: refused without a waiver.
    Stale,
    /// It was signed later than the clock says, and nothing shows that the clock is wrong: refused.
    NotYetValid,
    /// The clock is behind the floor and not believed. By the floor it has not expired: taken.
    ClockBehindFloor,
    /// It has expired by the clock alone, and the clock is so far ahead of the floor that the clock is doubted: refused,
    /// with another way out than for what is stale.
    ClockFarAhead,
}

/// What a clock is, by the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockState {
    /// Nothing speaks against it.
    Plausible,
    /// It is behind the floor: the floor is used in its place.
    BehindFloor,
    /// It is far ahead of the floor: wrong, or the machine was off or without updates for long.
    FarAhead,
}

/// The time of one update, fixed when it starts (5.1).
#[derive(Debug, Clone)]
pub struct Time {
    now: DateTime<Utc>,
    judged: Option<Judged>,
    waiver: Option<Waiver>,
}

/// A clock and what it was judged by.
#[derive(Debug, Clone)]
struct Judged {
    clock: DateTime<Utc>,
    floor: Floor,
}

impl From<DateTime<Utc>> for Time {
    /// A moment that the caller names, as an auditor does who asks about a day: there is no clock to doubt, so expiry
    /// alone is judged.
    fn from(now: DateTime<Utc>) -> Self {
        Self {
            now,
            judged: None,
            waiver: None,
        }
    }
}

impl Time {
    fn judged(clock: DateTime<Utc>, floor: Floor) -> Self {
        Self {
            now: clock.max(floor.time()),
            judged: Some(Judged { clock, floor }),
            waiver: None,
        }
    }

    /// Takes a waiver along, which the client verifies as soon as it knows the root.
    #[must_use]
    pub fn with_waiver(self, waiver: Option<Waiver>) -> Self {
        Self { waiver, ..self }
    }

    /// Raises the floor to another's, whose own datastore records it.
    #[must_use]
    pub fn beside(mut self, other: &Self) -> Self {
        if let (Some(judged), Some(floor)) = (&mut self.judged, other.floor()) {
            judged.floor.stand_beside(floor.time());
            self.now = judged.clock.max(judged.floor.time());
        }
        self
    }

    /// The time to reckon with: the clock, raised to the floor.
    #[must_use]
    pub const fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// What the machine's clock says, where it was asked.
    #[must_use]
    pub fn clock(&self) -> Option<DateTime<Utc>> {
        self.judged.as_ref().map(|judged| judged.clock)
    }

    /// The floor, where there is a clock to be judged by it.
    #[must_use]
    pub fn floor(&self) -> Option<&Floor> {
        self.judged.as_ref().map(|judged| &judged.floor)
    }

    /// What the clock is.
    #[must_use]
    pub fn clock_state(&self) -> ClockState {
        match &self.judged {
            Some(Judged { clock, floor }) if behind(*clock, floor.time()) => ClockState::BehindFloor,
            Some(Judged { clock, floor }) if *clock > later(floor.time(), FAR) => ClockState::FarAhead,
            _ => ClockState::Plausible,
        }
    }

    /// What a person should know of the clock, and do about it; nothing where it is plausible.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let (Some(clock), Some(floor)) = (self.clock(), self.floor()) else {
            return None;
        };
        let (clock, floor) = (seconds(clock), seconds(floor.time()));
        match self.clock_state() {
            ClockState::Plausible => None,
            ClockState::BehindFloor => Some(format!(
                "the clock says {clock} and is wrong: it is {floor} at least, which is reckoned with in its place. Set the \
                 clock right (`timedatectl set-time`)"
            )),
            ClockState::FarAhead => Some(format!(
                "the clock says {clock}, and nothing shows that it is later than {floor}: if it is wrong, set it right \
                 (`timedatectl set-time`), for what is current will look expired; nothing of it lasts"
            )),
        }
    }

    pub(super) fn waiver(&self) -> Option<&Waiver> {
        self.waiver.as_ref()
    }

    /// The custodians' signature under a waiver shows, as that under a root does, that its time of signing has come.
    pub(super) fn raise(&mut self, signed_at: DateTime<Utc>) {
        if let Some(judged) = &mut self.judged {
            judged.floor.raise(signed_at);
        }
    }

    /// Refuses what was signed in the future of a clock that nothing speaks against.
    ///
    /// # Errors
    /// [`TufError::NotYetValid`].
    pub(super) fn not_ahead(&self, what: &str, signed_at: Option<DateTime<Utc>>) -> Result<(), TufError> {
        let believed = self.judged.is_some() && self.clock_state() != ClockState::BehindFloor;
        match signed_at {
            Some(signed_at) if believed && ahead(self.now, Some(signed_at)) => Err(TufError::NotYetValid {
                role: what.to_owned(),
                signed_at,
                now: self.now,
            }),
            _ => Ok(()),
        }
    }

    /// What metadata with these times is.
    #[must_use]
    pub fn judge(&self, signed_at: Option<DateTime<Utc>>, expires: DateTime<Utc>) -> State {
        match &self.judged {
            Some(Judged { clock, floor }) => judge(*clock, floor.time(), signed_at, expires),
            None if expires > self.now => State::Fresh,
            None => State::Stale,
        }
    }
}

/// The table of states, in the order in which they are found.
fn judge(
    clock: DateTime<Utc>,
    floor: DateTime<Utc>,
    signed_at: Option<DateTime<Utc>>,
    expires: DateTime<Utc>,
) -> State {
    // The floor proves it, whatever the clock says. 5.x: the expiration must be higher than the fixed start time.
    if expires <= floor {
        return State::Stale;
    }
    // Nothing can be said of the time but that the floor has come: a later signature is no surprise.
    if behind(clock, floor) {
        return State::ClockBehindFloor;
    }
    let now = clock.max(floor);
    if ahead(now, signed_at) {
        return State::NotYetValid;
    }
    if expires > now {
        return State::Fresh;
    }
    // The signature is verified before this is asked, so its time is as good as the floor here.
    let proven = signed_at.map_or(floor, |signed_at| signed_at.max(floor));
    if now > later(proven, FAR) {
        return State::ClockFarAhead;
    }
    State::Stale
}

fn ahead(now: DateTime<Utc>, signed_at: Option<DateTime<Utc>>) -> bool {
    signed_at.is_some_and(|signed_at| signed_at > later(now, TOLERANCE))
}

fn behind(clock: DateTime<Utc>, floor: DateTime<Utc>) -> bool {
    later(clock, TOLERANCE) < floor
}

fn later(time: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    time.checked_add_signed(by).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
