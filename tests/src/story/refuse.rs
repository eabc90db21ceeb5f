// SPDX-License-Identifier: GPL-3.0-or-later
//! What a host must refuse, with its reason in one line and no harm.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::build::{self, BROKEN, PATCHED};
use super::host::{BOOT, STICK, healthy, mount_stick, restart, status, told};
use super::install;
use crate::ledger::Ledger;
use crate::stick;
use crate::tamper;
use crate::vm::{Plugged, Running};
use crate::workshop::Workshop;

/// The forged bundles, each by its recipe, with a word of the reason that the host must give. The host remembers what
/// was signed as it must be: so the last two come last, with a newer timestamp each, or it would refuse two contents of
/// one version instead.
const FORGED: [(&str, &str); 5] = [
    ("unsigned", "threshold"),
    ("root", "threshold"),
    ("expired", "expired"),
    ("flipped", "hash"),
    ("foreign", "db"),
];

/// Offers a bundle on the stick and demands a refusal of one line that contains `reason`.
///
/// # Errors
/// When the host takes it, or refuses it for another reason.
pub fn refused(running: &Running, key: &Path, bundle: &str, reason: &str) -> Result<String> {
    let answer = running.ssh(key, &format!("bastide-host update {STICK}/{bundle}"))?;
    ensure!(
        answer.code == 3,
        "{bundle} ended with {} and not with a refusal: {}",
        answer.code,
        answer.stderr
    );
    let line = answer.stderr.lines().last().unwrap_or_default().to_owned();
    ensure!(
        line.to_lowercase().contains(reason),
        "{bundle} was refused for another reason than {reason}: {line}"
    );
    Ok(line)
}

/// The refusals before any update: the host stays in its slot, its other slot stays empty.
///
/// # Errors
/// When a step fails.
pub fn before_update(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let good = shop.bundle(PATCHED.version);
    let places: Vec<_> = FORGED.iter().map(|(name, _)| shop.bundle(name)).collect();
    let outputs: Vec<_> = places.iter().map(std::path::PathBuf::as_path).collect();
    let inputs = shop.story()?.file(&good)?.file(&shop.bundle(BROKEN.version))?;
    ledger.step("forge", "forge bundles", inputs, &outputs, || {
        tamper::flipped_bit(&good, &shop.bundle("flipped"))?;
        tamper::unsigned_timestamp(&good, &shop.bundle("unsigned"))?;
        tamper::root_below_threshold(&good, &shop.bundle("root"), &shop.site(), &shop.passphrase())?;
        let repository = shop.at("repository/expired");
        let expired = ["--expires", "2026-01-01T00:00:00Z", "--allow-expired"];
        build::publish(shop, PATCHED.after, &shop.build(PATCHED.version), &repository, &expired)?;
        build::export(shop, &repository, &shop.bundle("expired"))?;
        let foreign = shop.at("build/foreign");
        let honest = shop.build(BROKEN.version);
        tamper::foreign_boot_image(&honest, &foreign, &shop.at("stranger"), &shop.passphrase())?;
        let repository = shop.at("repository/foreign");
        build::continued(shop, BROKEN.after, &repository)?;
        tamper::published_by_an_insider(&repository, &foreign, &shop.site(), &shop.passphrase())?;
        build::export(shop, &repository, &shop.bundle("foreign"))?;
        Ok(format!("{} bundles, each by its recipe", FORGED.len()))
    })?;
    let mut inputs = shop.after("install-usb")?;
    for place in &places {
        inputs = inputs.file(place)?;
    }
    ledger.step(
        "refusals",
        "refuse forged bundles and a foreign boot image",
        inputs,
        &[],
        || refusals(shop),
    )
}

fn refusals(shop: &Workshop) -> Result<String> {
    let key = shop.admin_key();
    let machine = install::installed(shop).branch(&shop.at("vm/refusals"))?;
    let names: Vec<_> = FORGED
        .iter()
        .map(|(name, _)| (format!("{name}.bundle"), shop.bundle(name)))
        .collect();
    let foreign = shop.at("build/foreign/xen.efi");
    let mut files: Vec<_> = names
        .iter()
        .map(|(name, place)| (name.as_str(), place.as_path()))
        .collect();
    files.push(("foreign.efi", &foreign));
    let courier = stick::courier(&machine, &files)?;
    let plugged = Plugged {
        sticks: vec![&courier],
        ..Plugged::default()
    };
    let mut running = machine.power_on("refusals", &plugged)?;
    running.wait_for_ssh(&key, BOOT)?;
    let before = healthy(&running, &key)?;
    mount_stick(&running, &key)?;
    let mut reasons = Vec::new();
    for (name, reason) in FORGED {
        reasons.push(refused(&running, &key, &format!("{name}.bundle"), reason)?);
        let now = status(&running, &key)?;
        for fact in ["running/slot", "running/version", "health/healthy"] {
            ensure!(
                told(&now, fact)? == told(&before, fact)?,
                "{name} changed {fact}: {now}"
            );
        }
    }
    std::fs::write(machine.directory.join("reasons.txt"), reasons.join("\n"))?;

    // Somebody with the running of the machine puts a foreign image on the ESP: the firmware refuses it and starts the next.
    running.must(
        &key,
        &format!(
            "set -e; mount -o remount,rw /boot/efi; \
             cp {STICK}/foreign.efi /boot/efi/EFI/bastide/foreign.efi; sync; mount -o remount,ro /boot/efi; \
             disk=/dev/$(lsblk -ndo PKNAME /dev/disk/by-partlabel/bastide-esp); \
             efibootmgr -q -C -d $disk -p 1 -L Foreign -l '\\EFI\\bastide\\foreign.efi'; \
             efibootmgr -q -n $(efibootmgr | sed -n 's/^Boot\\([0-9A-F]*\\).*Foreign.*/\\1/p')"
        ),
    )?;
    restart(&mut running, &key)?;
    let console = running.console()?;
    console
        .lines()
        .find(|line| {
            line.contains("Foreign") && (line.contains("Access Denied") || line.contains("Security Violation"))
        })
        .context("the firmware did not say that it denies the foreign image")?;
    let after = healthy(&running, &key)?;
    ensure!(
        told(&after, "running/slot")? == told(&before, "running/slot")?,
        "another slot runs: {after}"
    );
    Ok(format!(
        "{} forged bundles refused, foreign image denied by the firmware, host unharmed",
        FORGED.len()
    ))
}
