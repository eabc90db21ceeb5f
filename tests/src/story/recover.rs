// SPDX-License-Identifier: GPL-3.0-or-later
//! A release that boots and never becomes healthy: the host comes back by itself.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::build::{BROKEN, PATCHED};
use super::host::{self, BOOT, POLL, STICK, healthy, mount_stick, told};
use crate::ledger::Ledger;
use crate::stick;
use crate::vm::Plugged;
use crate::workshop::Workshop;

/// Updates to the broken release and waits for the old slot.
///
/// # Errors
/// When the step fails.
pub fn by_itself(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let key = shop.admin_key();
    let inputs = shop.after("host-update")?.file(&shop.bundle(BROKEN.version))?;
    ledger.step(
        "recover",
        "come back from a release that is never healthy",
        inputs,
        &[],
        || {
            let machine = host::patched(shop).branch(&shop.at("vm/recover"))?;
            let courier = stick::courier(&machine, &[("release.bundle", &shop.bundle(BROKEN.version))])?;
            let mut running = machine.power_on(
                "recover",
                &Plugged {
                    sticks: vec![&courier],
                    ..Plugged::default()
                },
            )?;
            running.wait_for_ssh(&key, BOOT)?;
            let before = healthy(&running, &key)?;
            // A short deadline, so that the story is: the default gives slow hardware time.
            running.must(
                &key,
                "mkdir -p /etc/bastide && echo 'deadline_seconds = 60' > /etc/bastide/health.toml && sync",
            )?;
            mount_stick(&running, &key)?;
            running.must(&key, &format!("bastide-host update {STICK}/release.bundle"))?;
            drop(running.ssh(&key, "systemctl reboot"));
            let start = Instant::now();
            // The new release may answer while it is on trial; it is over when the old one runs and knows the new one as bad.
            let over = |status: &serde_json::Value| {
                ["a", "b"]
                    .iter()
                    .any(|slot| told(status, &format!("slots/{slot}/state")).is_ok_and(|state| state == "bad"))
                    && told(status, "running/version").is_ok_and(|version| version == PATCHED.version)
            };
            while !host::status(&running, &key).is_ok_and(|status| over(&status)) {
                ensure!(start.elapsed() < 2 * BOOT, "the host did not come back by itself");
                std::thread::sleep(POLL);
            }
            let after = healthy(&running, &key)?;
            for fact in ["running/slot", "running/version"] {
                ensure!(told(&after, fact)? == told(&before, fact)?, "{fact} changed: {after}");
            }
            Ok(format!(
                "release {} tried once, {} runs again",
                BROKEN.version, PATCHED.version
            ))
        },
    )
}
