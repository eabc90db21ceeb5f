// SPDX-License-Identifier: GPL-3.0-or-later
//! Keys, signatures and the types that cross the air gap.
//!
//! Everything that is carried is signed, so the types that every other room shares live here, with the doors to
//! processes, to the clock and to durable files.

pub mod anchor;
pub mod ceremony;
pub mod clock;
pub mod digest;
pub mod durable;
pub mod guid;
pub mod keys;
pub mod openpgp;
pub mod output;
pub mod policy;
pub mod process;
pub mod receipt;
pub mod release;
pub mod secureboot;
pub mod site;
pub mod tuf;
