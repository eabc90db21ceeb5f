// SPDX-License-Identifier: GPL-3.0-or-later
//! The installer: lays a verified release down on a bare machine's disk, or leaves a disk that does not boot.
//!
//! [`answer`] and [`inventory`] are parsed at the edge, [`plan`] is pure, and only the steps behind it act.

pub mod answer;
pub mod cli;
pub mod disk;
pub mod firmware;
pub mod inventory;
pub mod medium;
pub mod network;
pub mod plan;
pub mod record;
pub mod run;
pub mod service;
pub mod sovereigns;
pub mod steps;
pub mod tui;
pub mod volume;
