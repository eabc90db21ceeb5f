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
use crate::vm::{Machine, Plugged};
use crate::workshop::Workshop;

/// Power-on until `xl list` shows Domain-0, against a stock Debian with the same packages in the same machine.
pub fn boot(shop: &Workshop) -> Result<Vec<Measure>> {
    let place = shop.at("vm/stock");
    let stock = Machine::bare(&place, 6, shop.accelerator)?;
    let raw = place.join("stock.raw");
    Cmd::new("sh")
        .arg(shop.source.join("tests/fixtures/stock-host"))
        .arg(image::sources(shop)?)
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
    let peer = until_xl(shop, &stock)?;
    let ours = until_xl(shop, &install::installed(shop).branch(&shop.at("vm/bench"))?)?;
    Ok(vec![Measure::time(
        "power-on to xl list / stock Debian with Xen",
        ours,
        peer,
        0.6,
    )])
}

fn until_xl(shop: &Workshop, machine: &Machine) -> Result<Duration> {
    let key = shop.admin_key();
    let mut running = machine.power_on("bench", &Plugged::default())?;
    running.wait_for_ssh(&key, host::BOOT)?;
    loop {
        if running
            .ssh(&key, "xl list")
            .is_ok_and(|answer| answer.stdout.contains("Domain-0"))
        {
            let elapsed = running.since.elapsed();
            running.cut_power()?;
            return Ok(elapsed);
        }
        ensure!(running.since.elapsed() < host::BOOT, "xl never listed Domain-0");
        std::thread::sleep(host::POLL);
    }
}

/// The second release, from the order until it is confirmed, against one boot from power-on until healthy; and the memory
/// that the update and the host's audit take.
pub fn update(shop: &Workshop) -> Result<Vec<Measure>> {
    let key = shop.admin_key();
    let machine = install::installed(shop).branch(&shop.at("vm/bench-update"))?;
    let courier = stick::courier(&machine, &[("release.bundle", &shop.bundle(PATCHED.version))])?;
    let mut running = machine.power_on(
        "bench",
        &Plugged {
            medium: None,
            sticks: vec![&courier],
        },
    )?;
    running.wait_for_ssh(&key, host::BOOT)?;
    host::healthy(&running, &key)?;
    let one_boot = running.since.elapsed();
    host::mount_stick(&running, &key)?;
    let mut measures = Vec::new();
    let audit = memory::on_host(&running, &key, "bastide-audit host")?;
    measures.push(memory::measure("bastide-audit host", audit));

    let start = Instant::now();
    let update = memory::on_host(&running, &key, &format!("bastide-host update {STICK}/release.bundle"))?;
    host::restart(&mut running, &key)?;
    let after = host::confirmed(&running, &key)?;
    let applied = start.elapsed();
    ensure!(
        told(&after, "running/version")? == PATCHED.version,
        "the new release does not run: {after}"
    );
    measures.push(memory::measure("bastide-host update", update));
    measures.push(Measure::time(
        "second release applied / one boot",
        applied,
        one_boot,
        2.0,
    ));
    running.cut_power()?;
    Ok(measures)
}
