// SPDX-License-Identifier: GPL-3.0-or-later
//! Times, sizes and memory as ratios beside a peer or a limit, measured in the same minutes on the same machine.

mod conditions;
mod delta;
mod fetch;
mod image;
mod machine;
mod memory;
mod mirror;
mod pool;
mod transport;

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;
use signing::durable;

use self::conditions::Conditions;
use crate::story::install;
use crate::workshop::Workshop;

/// What a number counts.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Seconds,
    Microseconds,
    Megabytes,
}

/// One measure: ours beside the peer's time or the limit, and the ratio that is aimed at.
#[derive(Debug, Clone, Serialize)]
struct Measure {
    what: String,
    unit: Unit,
    ours: f64,
    peer: f64,
    ratio: f64,
    target: f64,
    met: bool,
}

impl Measure {
    fn new(what: &str, unit: Unit, ours: f64, peer: f64, target: f64) -> Self {
        let ratio = ours / peer;
        Self {
            what: what.into(),
            unit,
            ours,
            peer,
            ratio,
            target,
            met: ratio <= target,
        }
    }

    fn time(what: &str, ours: Duration, peer: Duration, target: f64) -> Self {
        Self::new(what, Unit::Seconds, ours.as_secs_f64(), peer.as_secs_f64(), target)
    }

    /// Bytes against a limit in megabytes (10^6 bytes).
    fn size(what: &str, bytes: u64, limit: f64) -> Self {
        Self::bytes(what, bytes, limit, 1.0)
    }

    /// Bytes against a peer's megabytes.
    #[allow(clippy::cast_precision_loss)]
    fn bytes(what: &str, bytes: u64, peer: f64, target: f64) -> Self {
        Self::new(what, Unit::Megabytes, bytes as f64 / 1e6, peer, target)
    }

    /// Bytes at a large work against those at a small one.
    #[allow(clippy::cast_precision_loss)]
    fn growth(what: &str, large: u64, small: u64, target: f64) -> Self {
        Self::new(what, Unit::Megabytes, large as f64 / 1e6, small as f64 / 1e6, target)
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Seconds => "s",
            Unit::Microseconds => "us",
            Unit::Megabytes => "MB",
        };
        write!(
            f,
            "{:<48} {:>6.0} {unit:<2} beside {:>6.0} {unit:<2} ratio {:.2}  target {:.2}  {}",
            self.what,
            self.ours,
            self.peer,
            self.ratio,
            self.target,
            if self.met { "met" } else { "MISSED" }
        )
    }
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// The medium's size
    Size,
    /// The time to make image and medium
    Build,
    /// The peak memory of each program
    Memory,
    /// The peak memory of export and import at 1 and 8 GiB, in volumes
    Carry,
    /// The bytes of a bundle of deltas to a release with another kernel, and the time
    /// to make and apply them
    Delta,
    /// The time to fetch and verify the targets of a TUF repository; needs nothing else
    Tuf,
    /// The time to mirror the packages from this machine and publish them for apt, at
    /// first and with nothing new
    Mirror,
    /// The time from power-on until Xen's toolstack answers
    Boot,
    /// The time to apply the second release
    Update,
    /// The time to verify a pool of 4 GiB, and an object of pools of three sizes;
    /// needs nothing else
    Pool,
}

impl Subject {
    fn measure(self, shop: &Workshop) -> Result<Vec<Measure>> {
        match self {
            Self::Size => image::size(shop),
            Self::Build => image::build(shop),
            Self::Memory => memory::peaks(shop),
            Self::Pool => Ok([transport::pool(shop)?, pool::verify(shop)?].concat()),
            Self::Carry => transport::carry(shop),
            Self::Delta => delta::delta(shop),
            Self::Tuf => fetch::tuf(shop),
            Self::Mirror => mirror::mirror(shop),
            Self::Boot => machine::boot(shop),
            Self::Update => machine::update(shop),
        }
    }
}

/// Measures these subjects, or all, prints the machine and each line as it is known, and leaves them in `bench.json`.
///
/// # Errors
/// When what is measured is not there (run the demonstration first) or does not work. A missed target is no error.
pub fn run(shop: &Workshop, subjects: &[Subject]) -> Result<()> {
    let subjects = if subjects.is_empty() {
        Subject::value_variants()
    } else {
        subjects
    };
    // These make what they measure; everything else looks at what the demonstration made.
    let alone = |subject: &Subject| matches!(subject, Subject::Pool | Subject::Tuf);
    ensure!(
        subjects.iter().all(alone) || install::installed(shop).disk().exists(),
        "there is no installed host: run `make demo` first"
    );
    let conditions = Conditions::now()?;
    println!("{conditions}");
    let mut measures = Vec::new();
    for subject in subjects {
        for measure in subject.measure(shop)? {
            println!("{measure}");
            measures.push(measure);
        }
    }
    let all = json!({ "conditions": conditions, "measures": measures });
    durable::write(&shop.at("bench.json"), &serde_json::to_vec_pretty(&all)?)?;
    Ok(())
}
