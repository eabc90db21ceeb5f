// SPDX-License-Identifier: GPL-3.0-or-later
//! The care of a pool: whether `verify` takes longer for an object of a large pool than for one of a small pool.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use offline_repo::snapshot::{FORMAT, Snapshot, SnapshotPackage};
use offline_repo::spec::Role;
use offline_repo::store::Store;
use offline_repo::verify;
use signing::digest::Sha256;
use signing::output::Exit;

use super::{Measure, Unit};
use crate::workshop::Workshop;

/// The pool that the others are measured beside.
const SMALL: u32 = 1_000;
const LARGER: [u32; 2] = [10_000, 50_000];
/// Bytes in an object: so few that what is measured is the way to it.
const SIZE: usize = 4096;
/// Packages that one snapshot names, as Bastide's own do and some more.
const NAMED: u32 = 1_000;
/// Each pool is verified so often, and the median counts.
const ROUNDS: usize = 5;

/// The time for each object of larger pools, all of it named by snapshots, beside that of a small one. The objects have just
/// been written, and come from memory.
pub fn verify(shop: &Workshop) -> Result<Vec<Measure>> {
    let place = shop.at("bench/pool");
    let peer = each(&place, SMALL)?;
    let mut measures = Vec::new();
    for number in LARGER {
        let what = format!("verify, an object of {number} / of {SMALL}");
        measures.push(Measure::new(
            &what,
            Unit::Microseconds,
            each(&place, number)?,
            peer,
            1.2,
        ));
    }
    Ok(measures)
}

/// Microseconds for each object of a pool of so many.
fn each(place: &Path, number: u32) -> Result<f64> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    let store = fill(place, number)?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let report = verify::verify(&store, false, &mut |_| ())?;
        times.push(start.elapsed());
        ensure!(
            report.exit() == Exit::Done && report.objects == u64::from(number),
            "the pool for the measure is not whole: {report:?}"
        );
    }
    times.sort();
    let median: Duration = times[ROUNDS / 2];
    fs::remove_dir_all(place)?;
    Ok(median.as_secs_f64() * 1e6 / f64::from(number))
}

/// Objects and snapshots by the dozen, not synced as [`Store::ingest`] would: that would take longer than the measure.
fn fill(place: &Path, number: u32) -> Result<Store> {
    let store = Store::create(place)?;
    let mut packages = Vec::new();
    for index in 0..number {
        let content = format!("{index:0SIZE$}").into_bytes();
        let sha256 = Sha256::of(&content);
        let object = store.object(&sha256);
        if let Some(shard) = object.parent() {
            fs::create_dir_all(shard)?;
        }
        fs::write(object, &content)?;
        packages.push(SnapshotPackage {
            name: format!("p{index}"),
            version: "1.0-1".into(),
            architecture: "amd64".into(),
            source: format!("p{index}"),
            source_version: "1.0-1".into(),
            section: None,
            filename: format!("pool/main/p{index}.deb"),
            size: content.len() as u64,
            sha256,
            suite: "trixie".into(),
            component: "main".into(),
            roles: BTreeSet::from([Role::Host]),
        });
        if packages.len() as u32 == NAMED.min(number) {
            let snapshot = Snapshot {
                format: FORMAT,
                name: format!("s{index}"),
                architecture: "amd64".into(),
                created_from: Vec::new(),
                packages: std::mem::take(&mut packages),
            };
            let directory = store.snapshot_directory(&snapshot.name)?;
            fs::create_dir(&directory)?;
            fs::write(directory.join("snapshot.json"), snapshot.to_bytes()?)?;
        }
    }
    Ok(store)
}
