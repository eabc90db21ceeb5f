// SPDX-License-Identifier: GPL-3.0-or-later
//! The first process of the initrd: finds the verified root file system and starts it.

fn main() {
    hypervisor::init::main();
}
