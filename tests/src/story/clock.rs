// SPDX-License-Identifier: GPL-3.0-or-later
//! A host whose clock is wrong by years, both ways.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;
use signing::clock;

use super::build::PATCHED;
use super::host::{BOOT, STICK, healthy, mount_stick, told};
use super::install;
use super::refuse::refused;
use crate::ledger::Ledger;
use crate::stick;
use crate::vm::{Plugged, Running};
use crate::workshop::Workshop;

/// What an empty battery leaves.
const EMPTY: &str = "2012-01-01T00:00:00";

/// One start of the installed host, with an empty battery: it updates by the floor. Then its clock is set years ahead, and
/// put right again. At last stale metadata, without and with the custodians' waiver. The bundle `expired` is one of
/// the forged ones.
///
/// # Errors
/// When a step fails.
pub fn wrong_both_ways(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let good = shop.bundle(PATCHED.version);
    let stale = shop.bundle("expired");
    let inputs = shop.after("install-usb")?.file(&good)?.file(&stale)?;
    ledger.step("clock", "live with a clock that is wrong by years", inputs, &[], || {
        let machine = install::installed(shop).branch(&shop.at("vm/clock"))?;
        let waiver = machine.directory.join("waiver.json");
        sign_waiver(shop, &waiver)?;
        let files: [(&str, PathBuf); 3] = [
            ("release.bundle", good.clone()),
            ("stale.bundle", stale.clone()),
            ("waiver.json", waiver),
        ];
        let files: Vec<_> = files.iter().map(|(name, path)| (*name, path.as_path())).collect();
        let courier = stick::courier(&machine, &files)?;
        let plugged = Plugged {
            sticks: vec![&courier],
            ..Plugged::default()
        };
        let mut running = machine.power_on_at("clock", &plugged, EMPTY)?;
        let key = shop.admin_key();
        running.wait_for_ssh(&key, BOOT)?;
        healthy(&running, &key)?;
        mount_stick(&running, &key)?;
        both_ways(&running, &key)
    })
}

fn both_ways(running: &Running, key: &Path) -> Result<String> {
    let good = || running.must(key, &format!("bastide-host update --dry-run {STICK}/release.bundle"));
    let behind = time(running, key)?;
    ensure!(
        told(&behind, "state")? == "behind-floor",
        "the clock is believed: {behind}"
    );
    good()?;

    let now = clock::now();
    set_clock(running, key, now + TimeDelta::days(8 * 365))?;
    let ahead = time(running, key)?;
    ensure!(told(&ahead, "state")? == "far-ahead", "the clock is believed: {ahead}");
    let reason = refused(running, key, "release.bundle", "clock-far-ahead")?;
    ensure!(reason.contains("timedatectl set-time"), "no way out is told: {reason}");
    running.must(key, "bastide-host time --record")?;

    // What the refusal says to do.
    set_clock(running, key, now)?;
    let right = time(running, key)?;
    ensure!(told(&right, "state")? == "plausible", "the clock is right: {right}");
    let floor: DateTime<Utc> = told(&right, "floor")?.parse()?;
    ensure!(
        floor <= now + TimeDelta::hours(1),
        "the wrong clock left a trace: {right}"
    );
    good()?;

    refused(running, key, "stale.bundle", "expired")?;
    let said = running.ssh(
        key,
        &format!("bastide-host update --dry-run {STICK}/stale.bundle --waiver {STICK}/waiver.json"),
    )?;
    ensure!(
        said.code == 0 && said.stderr.contains("by a waiver of 2 root keys"),
        "the waiver lifts nothing: {}",
        said.stderr
    );
    Ok("years behind: updated by the floor; years ahead: named and refused; put right: good again".into())
}

/// `bastide-host time`, read.
fn time(running: &Running, key: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&running.must(key, "bastide-host time --json")?)?)
}

fn set_clock(running: &Running, key: &Path, to: DateTime<Utc>) -> Result<()> {
    let text = to.format("%Y-%m-%d %H:%M:%S");
    running.must(key, &format!("timedatectl set-time '{text}'")).map(drop)
}

/// The waiver of two custodians for what has expired.
fn sign_waiver(shop: &Workshop, place: &Path) -> Result<()> {
    let root = shop.site().join("trust/root.json");
    let until = (clock::now() + TimeDelta::days(60)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let waiver = |verb: &str| shop.program("bastide-sign").args(["waiver", verb, "--root"]).arg(&root);
    waiver("write")
        .arg(shop.at("repository/expired/metadata"))
        .args(["--until", &until, "--reason", "a story", "--out"])
        .arg(place)
        .run()?;
    waiver("sign")
        .arg(place)
        .arg("--key")
        .arg(shop.site().join("private/root-1.pem"))
        .arg("--key")
        .arg(shop.site().join("private/root-2.pem"))
        .arg("--passphrase-file")
        .arg(shop.passphrase())
        .run()
        .map_err(Into::into)
}
