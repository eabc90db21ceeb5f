// SPDX-License-Identifier: GPL-3.0-or-later
//! The journey: the stories across all rooms, told with the commands that a user types and with virtual machines.

pub mod accel;
pub mod bench;
pub mod bridge;
pub mod cli;
pub mod ledger;
pub mod stick;
pub mod story;
pub mod tamper;
pub mod vm;
pub mod workshop;
