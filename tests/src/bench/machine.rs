// SPDX-License-Identifier: GPL-3.0-or-later
//! The host: how soon it is there after power-on, and how soon a new release is.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use signing::process::Cmd;

use super::{Measure, image, memory};
use crate::stick;
use crate::story::build::PATCHED;
use crate::story::host::{self, STICK, told};
use crate::story::install;
use crate::vm::{Machine, Plugged, Running};
use crate::workshop::Workshop;

/// Power-on until `xl list` shows Domain-0, against a stock Debian with the same Xen and kernel in the same machine. Both have
/// been started once before: what a first start makes (keys, journals) is not measured.
pub fn boot(shop: &Workshop) -> Result<Vec<Measure>> {
    let place = shop.at("vm/stock");
    let stock = Machine::bare(&place, 6, shop.accelerator)?;
    shop.program("bastide-repo")
        .arg("mirror")
        .arg(shop.source.join("tests/fixtures/stock.toml"))
        .arg("--store")
        .arg(shop.store())
        .run()?;
    let (sources, packages) = image::sources(shop, "stock")?;
    let raw = place.join("stock.raw");
    Cmd::new("sh")
        .arg(shop.source.join("tests/fixtures/stock-host"))
        .arg(sources)
        .arg(packages)
        .arg(shop.admin_key().with_extension("pub"))
        .arg(&raw)
        .arg(place.join("work"))
        .run()?;
    Cmd::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .arg(&raw)
        .arg(stock.disk())
        .run()?;
    fs::remove_file(&raw)?;
    // Where the real disk is to be seen, its boot loader is installed as an administrator would.
    let grub = "grub-install --target=x86_64-efi --removable --no-nvram && update-grub && grep -q 'menuentry.*Xen' /boot/grub/grub.cfg";
    probed(shop, &stock, |running| running.must(&shop.admin_key(), grub))?;
    let ours = install::installed(shop).branch(&shop.at("vm/bench"))?;
    probed(shop, &ours, |_| Ok(()))?;
    let (mut our_times, mut stock_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        our_times.push(until(&ours, XL)?);
        stock_times.push(until(&stock, XL)?);
    }
    Ok(vec![Measure::time(
        "power-on to xl list / stock Debian with Xen",
        median(our_times),
        median(stock_times),
        0.6,
    )])
}

/// How often a start is timed: one alone says little, for the kernel's part of it doubles from one start of a machine to
/// the next under emulation.
const ROUNDS: usize = 3;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// What a probed machine says on its console as soon as `xl list` shows Domain-0.
const XL: &str = "bench: xl list shows Domain-0";
/// What a probed host says as soon as it has looked after its own health, and confirmed a slot on trial.
const SETTLED: &str = "bench: health was looked at";

/// Starts a machine once, does something on it, and leaves two units on it that speak on Xen's console: a login over the
/// network would measure the login as well, and asking again and again would slow down what is measured.
fn probed<T>(shop: &Workshop, machine: &Machine, before: impl FnOnce(&Running) -> Result<T>) -> Result<T> {
    let key = shop.admin_key();
    let mut running = machine.power_on("probe", &Plugged::default())?;
    running.wait_for_ssh(&key, host::BOOT)?;
    let answer = before(&running)?;
    running.must(
        &key,
        &format!(
            "cd /etc/systemd/system && mkdir -p multi-user.target.wants
cat > bench-xl.service <<END
[Unit]
DefaultDependencies=no
After=xenstored.service xen.service
[Service]
ExecStart=/bin/sh -c 'until xl list | grep -q Domain-0; do sleep 0.2; done; echo {XL} > /dev/hvc0'
END
cat > bench-settled.service <<END
[Unit]
DefaultDependencies=no
After=bastide-health.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo {SETTLED} > /dev/hvc0'
END
ln -s ../bench-xl.service ../bench-settled.service multi-user.target.wants/ && sync"
        ),
    )?;
    // The connection may end before the answer comes.
    drop(running.ssh(&key, "systemctl poweroff"));
    running.wait_for_power_off(host::BOOT)?;
    Ok(answer)
}

/// The time from power-on until the console says `text`.
fn until(machine: &Machine, text: &str) -> Result<Duration> {
    let mut running = machine.power_on("bench", &Plugged::default())?;
    running.wait_for(text, host::BOOT)?;
    let elapsed = running.since.elapsed();
    running.cut_power()?;
    Ok(elapsed)
}

/// The second release, from the order until it is confirmed, against one boot of the same machine from power-on until
/// healthy; and the memory that the update and the host's audit take.
pub fn update(shop: &Workshop) -> Result<Vec<Measure>> {
    let key = shop.admin_key();
    let probing = install::installed(shop).branch(&shop.at("vm/bench-update"))?;
    // Before the units of the benchmark are on it: the audit finds them.
    let audit = probed(shop, &probing, |running| {
        host::healthy(running, &key)?;
        memory::on_host(running, &key, "bastide-audit host", "")
    })?;
    let (mut boots, mut updates, mut peak) = (Vec::new(), Vec::new(), 0);
    for round in 1..=ROUNDS {
        let machine = probing.branch(&shop.at(&format!("vm/bench-update-{round}")))?;
        let applied = apply(shop, &machine)?;
        boots.push(applied.one_boot);
        updates.push(applied.time);
        peak = peak.max(applied.peak);
        fs::remove_dir_all(shop.at(&format!("vm/bench-update-{round}")))?;
    }
    Ok(vec![
        memory::measure("bastide-audit host", audit),
        memory::measure("bastide-host update", peak),
        Measure::time("second release applied / one boot", median(updates), median(boots), 2.0),
    ])
}

struct Applied {
    one_boot: Duration,
    /// From the order until the release is confirmed.
    time: Duration,
    /// What the update took, in bytes.
    peak: u64,
}

fn apply(shop: &Workshop, machine: &Machine) -> Result<Applied> {
    let key = shop.admin_key();
    let courier = stick::courier(machine, &[("release.bundle", &shop.bundle(PATCHED.version))])?;
    let mut running = machine.power_on(
        "update",
        &Plugged {
            sticks: vec![&courier],
            ..Plugged::default()
        },
    )?;
    running.wait_for(SETTLED, host::BOOT)?;
    let one_boot = running.since.elapsed();
    running.wait_for_ssh(&key, host::BOOT)?;
    host::healthy(&running, &key)?;
    host::mount_stick(&running, &key)?;

    let start = Instant::now();
    let order = format!("bastide-host update {STICK}/release.bundle");
    let peak = memory::on_host(&running, &key, &order, "systemctl reboot --no-block")?;
    let written = start.elapsed();
    running.wait_for_times(SETTLED, 2, host::BOOT)?;
    let time = start.elapsed();
    let after = host::status(&running, &key)?;
    ensure!(
        told(&after, "running/version")? == PATCHED.version && told(&after, "running/state")? == "confirmed",
        "the new release does not run, or is not confirmed: {after}"
    );
    eprintln!(
        "one boot {:.1} s; the slot was written after {:.1} s of {:.1} s",
        one_boot.as_secs_f64(),
        written.as_secs_f64(),
        time.as_secs_f64()
    );
    running.cut_power()?;
    Ok(Applied { one_boot, time, peak })
}
