// SPDX-License-Identifier: GPL-3.0-or-later
//! The harness itself: a bare machine starts its firmware, finds nothing, and says so on the serial console.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use journey::accel::Accelerator;
use journey::vm::{Machine, Plugged};

#[test]
fn a_bare_machine_has_nothing_to_boot() {
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::bare(&directory.path().join("bare"), 1, Accelerator::detect().unwrap()).unwrap();
    let mut running = machine.power_on("boot", &Plugged::default()).unwrap();
    running.wait_for_nothing_to_boot(Duration::from_secs(120)).unwrap();
    running.cut_power().unwrap();
    let branch = machine.branch(&directory.path().join("branch")).unwrap();
    assert!(branch.disk().exists());
}
