// SPDX-License-Identifier: GPL-3.0-or-later
//! Steps as events, of updates and of installations. The steps emit them; screens and records only render them and decide
//! nothing.

use std::fmt;

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};
use signing::clock;

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It begins.
    Start,
    /// It has done a part.
    Progress,
    /// It goes on, and somebody should know of what `detail` says.
    Warning,
    /// It is done.
    Done,
    /// It failed; `detail` says why.
    Failed,
}

/// One event of one step, one JSON line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event<S> {
    /// When, by the machine's clock; written to the second.
    #[serde(serialize_with = "seconds")]
    pub time: DateTime<Utc>,
    /// Which step.
    pub step: S,
    /// Where it stands.
    pub state: Phase,
    /// Bytes or pieces done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What a person may want to know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

fn seconds<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

impl<S> Event<S> {
    /// An event of now.
    pub fn now(step: S, state: Phase, detail: impl Into<String>) -> Self {
        Self {
            time: clock::now(),
            step,
            state,
            done: None,
            total: None,
            detail: detail.into(),
        }
    }

    /// A progress event of now.
    pub fn progress(step: S, done: u64, total: u64) -> Self {
        Self {
            done: Some(done),
            total: Some(total),
            ..Self::now(step, Phase::Progress, "")
        }
    }
}

impl<S: fmt::Display> fmt::Display for Event<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state, self.done, self.total) {
            (Phase::Progress, Some(done), Some(total)) => {
                write!(f, "{}: {} of {} MiB", self.step, done >> 20, total.div_ceil(1 << 20))
            }
            (Phase::Warning, ..) => write!(f, "{}: warning: {}", self.step, self.detail),
            (Phase::Failed, ..) => write!(f, "{}: failed: {}", self.step, self.detail),
            _ if self.detail.is_empty() => write!(f, "{}", self.step),
            _ => write!(f, "{}: {}", self.step, self.detail),
        }
    }
}

/// Who is told of events. An error stops the steps where they stand, without any tidying: for a screen that is gone, and
/// for the tests that cut the power there.
pub trait Watch<S> {
    /// Takes an event.
    ///
    /// # Errors
    /// To stop the work at this very point.
    fn event(&mut self, event: Event<S>) -> Result<()>;
}

impl<S, F: FnMut(Event<S>) -> Result<()>> Watch<S> for F {
    fn event(&mut self, event: Event<S>) -> Result<()> {
        self(event)
    }
}
