// SPDX-License-Identifier: GPL-3.0-or-later
//! A site's root in the hands of several people: what they do, and what is done to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../common/mod.rs"]
mod common;

mod command_line;
mod forged_requests;
mod founding;
mod fragments;
mod officers;
mod people;
mod stories;
mod transcripts;
