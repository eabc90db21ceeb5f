// SPDX-License-Identifier: GPL-3.0-or-later
//! The installed host: Xen under enforced Secure Boot, a guest, and a real patch of the hypervisor.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use signing::release::Release;

use super::build::{self, BASE, Edition, PATCHED};
use super::{install, refuse};
use crate::ledger::Ledger;
use crate::stick;
use crate::vm::{Machine, Plugged, Running};
use crate::workshop::Workshop;

/// How long a boot may take under emulation before it counts as stuck.
pub const BOOT: Duration = Duration::from_secs(600);

/// Between two questions over ssh: the host's packet filter takes thirty new connections a minute.
pub const POLL: Duration = Duration::from_millis(2500);

/// Where the courier's stick is mounted on the host.
pub const STICK: &str = "/run/courier";

/// The machine after the update to the patched release.
#[must_use]
pub fn patched(shop: &Workshop) -> Machine {
    Machine {
        directory: shop.at("vm/patched"),
        memory: 4096,
        accelerator: shop.accelerator,
    }
}

/// `bastide-host status --json`, read.
///
/// # Errors
/// When the command fails or does not speak JSON.
pub fn status(running: &Running, key: &Path) -> Result<Value> {
    let text = running.must(key, "bastide-host status --json")?;
    serde_json::from_str(&text).with_context(|| format!("status is not JSON: {text}"))
}

/// The value at a path such as `slots/a/version`, as text.
///
/// # Errors
/// When it is not there.
pub fn told(status: &Value, path: &str) -> Result<String> {
    let value = status
        .pointer(&format!("/{path}"))
        .with_context(|| format!("status tells no {path}: {status}"))?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Mounts the courier's stick on the host.
///
/// # Errors
/// When it is not found.
pub fn mount_stick(running: &Running, key: &Path) -> Result<()> {
    let disk = format!("/dev/disk/by-label/{}", stick::COURIER);
    running.must(
        key,
        &format!(
            "mkdir -p {STICK} && for i in $(seq 30); do [ -e {disk} ] && break; sleep 1; done; \
             mountpoint -q {STICK} || mount -o ro,nodev,nosuid,noexec {disk} {STICK}"
        ),
    )?;
    Ok(())
}

/// Restarts the host and waits until its next boot answers.
///
/// # Errors
/// When it does not come back.
pub fn restart(running: &mut Running, key: &Path) -> Result<()> {
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let before = running.must(key, boot)?;
    // The connection may end before the answer comes.
    drop(running.ssh(key, "systemctl reboot"));
    let start = Instant::now();
    while !running
        .ssh(key, boot)
        .is_ok_and(|answer| answer.code == 0 && answer.stdout != before)
    {
        ensure!(start.elapsed() < BOOT, "the host did not come back: {}", running.end());
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Waits until the running slot is confirmed.
///
/// # Errors
/// When it is not in time.
pub fn confirmed(running: &Running, key: &Path) -> Result<Value> {
    let start = Instant::now();
    loop {
        let now = healthy(running, key)?;
        if told(&now, "running/state")? == "confirmed" {
            return Ok(now);
        }
        ensure!(start.elapsed() < BOOT, "the new slot was not confirmed: {now}");
        std::thread::sleep(POLL);
    }
}

/// Waits until the host reports itself healthy.
///
/// # Errors
/// When it does not in time.
pub fn healthy(running: &Running, key: &Path) -> Result<Value> {
    let start = Instant::now();
    loop {
        let now = status(running, key)?;
        if now.pointer("/health/healthy") == Some(&Value::Bool(true)) {
            return Ok(now);
        }
        ensure!(start.elapsed() < BOOT, "the host did not become healthy: {now}");
        std::thread::sleep(POLL);
    }
}

/// First boot of the installed host.
///
/// # Errors
/// When the step fails.
pub fn first(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let key = shop.admin_key();
    let inputs = shop.after("install-usb")?;
    ledger.step("host-boot", "boot the host", inputs, &[], || {
        let machine = install::installed(shop).branch(&shop.at("vm/boot"))?;
        let mut running = machine.power_on("boot", &Plugged::default())?;
        let proved = first_boot(shop, &mut running, &key)?;
        Ok(proved)
    })
}

/// A guest on the installed host, and the audit of the host.
///
/// # Errors
/// When the step fails.
pub fn guest(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let inputs = shop.after("install-usb")?;
    ledger.step("host-guest", "start a guest, audit the host", inputs, &[], || {
        let key = &shop.admin_key();
        let machine = install::installed(shop).branch(&shop.at("vm/guest"))?;
        let mut running = machine.power_on("guest", &Plugged::default())?;
        running.wait_for_ssh(key, BOOT)?;
        healthy(&running, key)?;
        running.must(key, "bastide-host guest run probe")?;
        let start = Instant::now();
        loop {
            let said = running.must(key, "xl list && bastide-host guest log probe")?;
            if said.contains("probe") && said.contains("bastide guest: up") {
                break;
            }
            ensure!(
                start.elapsed() < Duration::from_secs(180),
                "the guest was not heard: {said}"
            );
            std::thread::sleep(POLL);
        }
        running.must(key, "bastide-host guest stop probe")?;
        crate::story::audit::host(shop, &running)?;
        Ok("seen by xl list, heard on its console; every check of the profile passes".into())
    })
}

/// The power cut and the update to the patched Xen.
///
/// # Errors
/// When a step fails.
pub fn patch(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let key = shop.admin_key();
    let inputs = shop.after("install-usb")?.file(&shop.bundle(PATCHED.version))?;
    let product = patched(shop);
    ledger.step(
        "host-update",
        "carry the patch over the gap",
        inputs,
        &[&product.disk()],
        || {
            let machine = install::installed(shop).branch(&shop.at("vm/patched"))?;
            update(shop, &machine, &key)
        },
    )
}

/// Demands that a host's status tells the release of this edition, and the very root that was built for it.
///
/// # Errors
/// When something else runs.
pub fn runs(shop: &Workshop, edition: Edition, status: &Value) -> Result<()> {
    ensure!(
        told(status, "running/version")? == edition.version,
        "{} does not run: {status}",
        edition.version
    );
    let facts = shop.build(edition.version).join("release.json");
    let built: Release = serde_json::from_slice(&fs::read(&facts)?)?;
    ensure!(
        told(status, "running/root_hash")? == built.root_hash.to_string(),
        "another root runs than was built: {status}"
    );
    Ok(())
}

/// Demands that the running hypervisor is the one of this Debian package. `xl info` tells the next release's name of a
/// stable branch (`4.20.4-pre`); the banner tells the package.
fn runs_xen(running: &Running, key: &Path, package: &str) -> Result<()> {
    let banner = running.must(key, "xl dmesg | grep -m 1 'Xen version'")?;
    ensure!(
        banner.contains(&format!("(Debian {package})")),
        "Xen is not of the package {package}: {banner}"
    );
    Ok(())
}

fn first_boot(shop: &Workshop, running: &mut Running, key: &Path) -> Result<String> {
    running.wait_for_ssh(key, BOOT)?;
    let until_ssh = running.since.elapsed();
    let xl = running.must(key, "xl list")?;
    ensure!(xl.contains("Domain-0"), "xl does not list Domain-0: {xl}");
    let status = healthy(running, key)?;
    ensure!(
        told(&status, "secure_boot/enforced")? == "true",
        "Secure Boot is not enforced: {status}"
    );
    let xen = build::xen(shop, BASE)?;
    runs_xen(running, key, &xen)?;
    let lockdown = running.must(key, "cat /sys/kernel/security/lockdown")?;
    ensure!(
        lockdown.contains("[integrity]") || lockdown.contains("[confidentiality]"),
        "no lockdown: {lockdown}"
    );
    let etc = running.must(key, "findmnt -n -o FSTYPE /etc")?;
    ensure!(etc == "overlay", "/etc is {etc} and not an overlay");
    let failed = running.must(key, "systemctl --failed --plain --no-legend")?;
    ensure!(failed.is_empty(), "units failed: {failed}");
    running.must(key, "bastide-install verify-record")?;
    Ok(format!(
        "Secure Boot enforced, lockdown, Xen {xen}; ssh after {} s",
        until_ssh.as_secs()
    ))
}

fn update(shop: &Workshop, machine: &Machine, key: &Path) -> Result<String> {
    let deltas = build::export_deltas(shop, PATCHED, BASE)?;
    let courier = stick::courier(
        machine,
        &[("release.bundle", &deltas), ("old.bundle", &shop.bundle(BASE.version))],
    )?;
    let plugged = Plugged {
        sticks: vec![&courier],
        ..Plugged::default()
    };
    let mut running = machine.power_on("cut", &plugged)?;
    running.wait_for_ssh(key, BOOT)?;
    let before = healthy(&running, key)?;
    let slot = told(&before, "running/slot")?;
    running.must(
        key,
        "echo survived > /etc/bastide-story && echo survived > /var/lib/bastide-story && sync",
    )?;
    mount_stick(&running, key)?;

    // The power fails while the idle slot is being written.
    running.must(
        key,
        &format!("systemd-run --unit=story-update bastide-host update --json {STICK}/release.bundle"),
    )?;
    // One connection that waits: the host's packet filter limits new ones, and the writing is over in seconds.
    let writing = "for i in $(seq 1500); do journalctl -o cat -u story-update | grep '\"write-root\"' | grep -q '\"progress\"' \
                   && exit 0; sleep 0.2; done; exit 1";
    running
        .must(key, writing)
        .context("the update did not reach the slot")?;
    running.cut_power()?;

    let mut running = machine.power_on("update", &plugged)?;
    running.wait_for_ssh(key, BOOT)?;
    let after_cut = healthy(&running, key)?;
    ensure!(
        told(&after_cut, "running/slot")? == slot,
        "the power cut moved the host to another slot: {after_cut}"
    );
    mount_stick(&running, key)?;
    running.must(key, &format!("bastide-host update {STICK}/release.bundle"))?;
    restart(&mut running, key)?;
    let after = confirmed(&running, key)?;
    runs(shop, PATCHED, &after)?;
    ensure!(told(&after, "running/slot")? != slot, "the same slot runs: {after}");
    let (old, new) = (build::xen(shop, BASE)?, build::xen(shop, PATCHED)?);
    runs_xen(&running, key, &new)?;
    let state = running.must(key, "cat /etc/bastide-story /var/lib/bastide-story")?;
    ensure!(state == "survived\nsurvived", "the state did not survive: {state}");
    mount_stick(&running, key)?;
    refuse::refused(&running, key, "old.bundle", "rollback")?;
    running.must(key, "systemctl poweroff").ok();
    running.wait_for_power_off(Duration::from_secs(180))?;
    let patch = if old == new {
        format!("Xen {new} in both: upstream has no patch today")
    } else {
        format!("Xen {old} to {new}")
    };
    let kilobytes = |file: &Path| Ok::<_, anyhow::Error>(fs::metadata(file)?.len() / 1000);
    Ok(format!(
        "{patch}; deltas of {} KB in place of {}; power cut survived, state kept, rollback refused",
        kilobytes(&deltas)?,
        kilobytes(&shop.bundle(PATCHED.version))?
    ))
}
