// SPDX-License-Identifier: GPL-3.0-or-later
//! The offline repository: snapshots of upstream packages on the low side, signed releases on both sides of the gap.
//!
//! On the left of the first signature stand [`spec`], [`mirror`], [`store`], [`snapshot`] and [`upstream`]: a pinned set
//! of Debian packages, fetched by apt, proved here and kept by content. [`verify`], [`repair`] and [`prune`] look after them,
//! [`diff`] says what is new in them. On its right stand [`repository`], [`publish`], [`export`], [`import`] and [`approve`],
//! and [`bundle`] between them, which a host reads as well; a target may be in it as a [`delta`]. `serve` gives a repository
//! to a network, and with it what [`archive`] makes of a snapshot for guests that run apt.

pub mod acknowledged;
pub mod approve;
pub mod apt;
pub mod aptview;
pub mod archive;
pub mod bundle;
pub mod changelog;
pub mod control;
pub mod deb;
pub mod debversion;
pub mod delta;
pub mod diff;
pub mod export;
pub mod import;
pub mod medium;
pub mod mirror;
mod office;
pub mod prune;
pub mod publish;
pub mod quarantine;
pub mod receipts;
pub mod repair;
pub mod reported;
pub mod repository;
#[cfg(feature = "serve")]
pub mod serve;
pub mod snapshot;
pub mod spec;
pub mod store;
pub mod tarindex;
pub mod upstream;
pub mod verify;
pub mod words;
