// SPDX-License-Identifier: GPL-3.0-or-later
//! Why a plan is refused, in words that tell the operator what to change.

use crate::inventory::human_size;

/// A reason why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No disk is as the answer says.
    #[error("no disk matches the answer ({wanted}). The machine has: {present}. Correct [disk] in the answer")]
    NoDisk {
        /// What the answer asks for.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// Several disks are as the answer says.
    #[error("{} disks match the answer ({wanted}): {}. Name one by disk.serial", .matching.len(), .matching.join(", "))]
    ManyDisks {
        /// What the answer asks for.
        wanted: String,
        /// Those that match.
        matching: Vec<String>,
    },
    /// The installer runs from it.
    #[error("{0} is a medium of this installation and is never written. Choose another disk")]
    Medium(String),
    /// It is mounted or used as swap.
    #[error("{disk} is in use: {} is mounted from it. Unmount it or choose another disk", .mounted.join(", "))]
    InUse {
        /// The disk.
        disk: String,
        /// Where.
        mounted: Vec<String>,
    },
    /// It cannot be written.
    #[error("{0} is read-only. Remove its write protection or choose another disk")]
    ReadOnly(String),
    /// It cannot be looked into.
    #[error("{disk} cannot be looked into ({why}), so nobody knows what would be lost. Choose another disk")]
    Unreadable {
        /// The disk.
        disk: String,
        /// Why.
        why: String,
    },
    /// It is too small.
    #[error("{disk} is too small: {} are needed. Choose a larger disk", human_size(*.need))]
    TooSmall {
        /// The disk.
        disk: String,
        /// Bytes needed.
        need: u64,
    },
    /// Its sectors are of a size that the layout does not serve.
    #[error("{disk} has sectors of {sector} bytes: 512 and 4096 are supported. Choose another disk")]
    Sectors {
        /// The disk.
        disk: String,
        /// Its sector size.
        sector: u64,
    },
    /// It holds data and the answer does not allow to wipe it.
    #[error(
        "{disk} holds data: {}. If all of it may be destroyed, write {allow} below [disk] in the answer",
        .contents.join("; ")
    )]
    HoldsData {
        /// The disk.
        disk: String,
        /// What it holds.
        contents: Vec<String>,
        /// The line that allows it.
        allow: String,
    },
    /// The answer allows to wipe another disk.
    #[error("disk.wipe is {wipe}, but the disk that matches is {disk}. Nothing is wiped: correct disk.wipe")]
    OtherWipe {
        /// The disk that matches.
        disk: String,
        /// The serial number in the answer.
        wipe: String,
    },
    /// It has no serial number and holds data.
    #[error("{0} holds data and has no serial number, so the answer cannot allow to wipe it. Empty it by hand first")]
    Nameless(String),
    /// A card that the answer names is not there.
    #[error("no network card is {wanted}. The machine has: {present}. Correct {key} in the answer")]
    NoCard {
        /// The key.
        key: String,
        /// Its value.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// The machine does not start by UEFI.
    #[error("this machine was not started by UEFI. Switch its firmware from BIOS or CSM to UEFI and start again")]
    NoUefi,
    /// Secure Boot will not be enforced.
    #[error("secure_boot.require is set, but {0}")]
    NoSecureBoot(&'static str),
    /// The release does not fit into a slot.
    #[error("the release's {part} has {size} bytes and its place on the disk {room}: this medium needs a newer layout")]
    Release {
        /// The part's file name.
        part: &'static str,
        /// Its size.
        size: u64,
        /// The room for it.
        room: u64,
    },
    /// The release lacks a part.
    #[error("the release on the medium has no {0}: the medium is not whole")]
    NoPart(&'static str),
}
