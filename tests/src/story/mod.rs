// SPDX-License-Identifier: GPL-3.0-or-later
//! The stories, each a chain of steps. What follows from another's product takes it as an input.

pub mod audit;
pub mod build;
pub mod clock;
pub mod host;
pub mod install;
pub mod recover;
pub mod refuse;
pub mod reproduce;
pub mod served;
pub mod sovereigns;
