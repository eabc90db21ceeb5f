// SPDX-License-Identifier: GPL-3.0-or-later
//! The Update Framework, specification 1.0.34: writing a repository's metadata and following it.
//!
//! [`author`] builds and signs metadata. Types for keys and for the metadata that is written are `tough`'s.

pub mod author;
mod json;
pub mod limits;
pub mod names;
