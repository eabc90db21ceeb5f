// SPDX-License-Identifier: GPL-3.0-or-later
//! The audit: signatures from every file to the pinned root and from every package to upstream's keys, and hardening
//! profiles. It ends in a report that a machine can keep and a person can read.

pub mod check;
pub mod cli;
pub mod facts;
pub mod medium;
pub mod profile;
pub mod recipe;
pub mod report;
pub mod trace;
pub mod verdict;
