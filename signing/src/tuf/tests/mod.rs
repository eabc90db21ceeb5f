// SPDX-License-Identifier: GPL-3.0-or-later
//! Every attack has a test, and every tampered repository a recipe.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attacks;
mod delegations;
mod fixture;
mod freshness;
mod officers;
mod power_cut;
mod publishing;
mod signatures;
mod sovereigns;
mod time;
mod waivers;
