// SPDX-License-Identifier: GPL-3.0-or-later
//! The Update Framework, specification 1.0.34: writing a repository's metadata and following it.
//!
//! [`author`] builds and signs metadata, [`repository`] edits a repository on disk, [`client`] is the detailed client
//! workflow of section 5, [`multi`] two repositories that must agree with [`approval`] between them, [`datastore`] what a client remembers, [`source`] where the bytes come from, [`trail`] the record
//! of what was verified with which keys, [`time`] what time it is, [`beside`] the OpenPGP signatures beside all this, and [`root`] one root and its successor, apart from a repository. Types for keys and
//! for the metadata that is written are `tough`'s.

pub mod approval;
pub mod author;
pub mod beside;
pub mod client;
pub mod datastore;
pub mod error;
pub mod hashes;
pub(crate) mod json;
pub mod limits;
mod model;
pub mod multi;
pub mod names;
pub mod repository;
mod role_keys;
pub mod root;
pub mod source;
pub mod time;
pub mod trail;

pub use approval::{Approval, Approved, Seen};
pub use client::{Client, VerifiedTarget};
pub use datastore::{Datastore, Memory};
pub use error::TufError;
pub use limits::Limits;
pub use multi::{MultiClient, Offer, Stores, Trails};
pub use repository::Repository;
pub use source::{DirectorySource, Source, SourceError};
pub use time::{Time, Waiver};
pub use trail::Trail;

#[cfg(test)]
mod tests;
