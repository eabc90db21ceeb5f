// SPDX-License-Identifier: GPL-3.0-or-later
//! From a snapshot to a bootable medium, without a network: the host image, its boot images and the ISO.
//!
//! Every tool that touches the result runs in a builder root made from the same snapshot, so the machine leaves no trace
//! in it: the same snapshot and the same source give the same bits.

pub mod assemble;
pub mod baked;
pub mod bootimage;
pub mod build;
pub mod cli;
pub mod cpio;
pub mod crates;
pub mod guest;
pub mod image;
pub mod initrd;
pub mod inspect;
pub mod modules;
pub mod normalise;
pub mod policy;
pub mod programs;
pub mod progress;
pub mod rootimage;
pub mod roots;
pub mod sandbox;
pub mod sbom;
pub mod sign;
pub mod upstream;
pub mod work;
