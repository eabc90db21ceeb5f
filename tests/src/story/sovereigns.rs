// SPDX-License-Identifier: GPL-3.0-or-later
//! Two sovereigns: a host that demands the officers' approval beside the vendor's signature.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::build::{BASE, PATCHED};
use super::host::{BOOT, STICK, healthy, mount_stick, status, told};
use super::install;
use super::refuse::refused;
use crate::ledger::Ledger;
use crate::stick;
use crate::vm::{Plugged, Running};
use crate::workshop::Workshop;

/// A vendor-only update is refused, and the same release with the officers' approval is good.
///
/// # Errors
/// When a step fails.
pub fn demand_both(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let vendors = shop.bundle(PATCHED.version);
    let approved = shop.bundle("approved");
    let root = shop.office().join("trust/root.json");
    let inputs = shop.story()?.file(&vendors)?.file(&root)?;
    ledger.step(
        "approve",
        "approve the patch at a gateway",
        inputs,
        &[&approved],
        || approve(shop, &vendors, &approved),
    )?;
    let inputs = shop.after("install-cd")?.file(&vendors)?.file(&approved)?;
    ledger.step(
        "two-sovereigns",
        "refuse what the vendor alone signed",
        inputs,
        &[],
        || both(shop),
    )
}

fn approve(shop: &Workshop, vendors: &PathBuf, approved: &PathBuf) -> Result<String> {
    let gateway = shop.at("gateway");
    if gateway.exists() {
        fs::remove_dir_all(&gateway)?;
    }
    let trust = shop.site().join("trust");
    let repo = |command: &str| shop.program("bastide-repo").arg(command);
    repo("import")
        .arg(vendors)
        .arg("--repo")
        .arg(&gateway)
        .arg("--trust")
        .arg(&trust)
        .run()?;
    repo("approve")
        .arg(PATCHED.version)
        .arg("--repo")
        .arg(&gateway)
        .arg("--trust")
        .arg(&trust)
        .arg("--site")
        .arg(shop.office())
        .arg("--passphrase-file")
        .arg(shop.passphrase())
        .run()?;
    repo("export")
        .arg("--repo")
        .arg(&gateway)
        .arg("--out")
        .arg(approved)
        .run()?;
    Ok(format!("release {} carries both signatures", PATCHED.version))
}

fn both(shop: &Workshop) -> Result<String> {
    let key = shop.admin_key();
    let machine = install::of_two_sovereigns(shop).branch(&shop.at("vm/two-sovereigns"))?;
    let trust = shop.office().join("trust");
    let office = ["root.json", "release.asc", "db.der"].map(|name| (format!("office/{name}"), trust.join(name)));
    let (vendors, approved) = (shop.bundle(PATCHED.version), shop.bundle("approved"));
    let mut carried: Vec<(&str, &Path)> = vec![("vendor.bundle", &vendors), ("approved.bundle", &approved)];
    carried.extend(office.iter().map(|(name, file)| (name.as_str(), file.as_path())));
    let courier = stick::courier(&machine, &carried)?;
    let plugged = Plugged {
        sticks: vec![&courier],
        ..Plugged::default()
    };
    let mut running = machine.power_on("two-sovereigns", &plugged)?;
    running.wait_for_ssh(&key, BOOT)?;
    let before = healthy(&running, &key)?;
    mount_stick(&running, &key)?;
    let reason = refused(&running, &key, "vendor.bundle", "not-approved")?;
    let after = status(&running, &key)?;
    ensure!(
        told(&after, "slots")? == told(&before, "slots")?,
        "the refused update changed the slots: {after}"
    );
    let said = running.must(&key, &format!("bastide-host update --dry-run {STICK}/approved.bundle"))?;
    ensure!(said.contains("is good"), "the approved release is not taken: {said}");
    // As JSON, whose lines are not broken.
    let audit = format!("bastide-audit verify --site-trust {STICK}/office --json -");
    let said = running.must(&key, &audit)?;
    ensure!(
        said.contains("it demands the vendor's and the site's word"),
        "the audit does not tell the policy: {said}"
    );
    acknowledge(shop, &running, &key)?;
    running.cut_power()?;
    Ok(format!(
        "{reason}; with the officers' approval it is good; its receipt names what the next bundle carries"
    ))
}

/// The host's receipt goes back to the gateway, which makes the next bundle by it.
fn acknowledge(shop: &Workshop, running: &Running, key: &Path) -> Result<()> {
    let gateway = shop.at("gateway");
    let (file, bundle) = (shop.at("vm/two-sovereigns/receipt.json"), shop.bundle("since"));
    let receipts = gateway.join("receipts");
    if receipts.exists() {
        fs::remove_dir_all(&receipts)?;
    }
    let record = running.must(key, "bastide-install verify-record")?;
    let fingerprint = record
        .split("host key ")
        .nth(1)
        .and_then(|said| said.split_whitespace().next());
    let fingerprint = fingerprint.with_context(|| format!("the record tells no key: {record}"))?;
    let receipt = running.must(
        key,
        "bastide-host receipt --out /run/receipt.json >&2 && cat /run/receipt.json",
    )?;
    fs::write(&file, receipt)?;
    let repo = |command: &str| shop.program("bastide-repo").arg(command);
    repo("enrol")
        .arg(&file)
        .arg("--repo")
        .arg(&gateway)
        .args(["--name", "rack4", "--fingerprint", fingerprint])
        .run()?;
    let said = repo("receipts").arg("--repo").arg(&gateway).output()?;
    let said = String::from_utf8(said)?;
    ensure!(
        said.contains(&format!("rack4: runs {}, healthy; receipt 1 of", BASE.version)),
        "the receipt does not tell what runs: {said}"
    );
    repo("export")
        .arg("--repo")
        .arg(&gateway)
        .arg("--out")
        .arg(&bundle)
        .arg("--since")
        .arg(&file)
        .run()?;
    Ok(())
}
