// SPDX-License-Identifier: GPL-3.0-or-later
//! The offline repository: snapshots of upstream packages on the low side, signed releases on both sides of the gap.
//!
//! On the left of the first signature stand [`spec`], [`mirror`], [`store`], [`snapshot`] and [`upstream`]: a pinned set
//! of Debian packages, fetched by apt, proved here, kept by content and looked after by [`verify`]. On its right stand [`repository`], [`publish`], [`export`], [`import`] and [`approve`], and [`bundle`]
//! between them, which a host reads as well. `serve` gives a repository to a network.

pub mod approve;
pub mod apt;
pub mod aptview;
pub mod bundle;
pub mod control;
pub mod export;
pub mod import;
pub mod mirror;
mod office;
pub mod publish;
pub mod receipts;
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
