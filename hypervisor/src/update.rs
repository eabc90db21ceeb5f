// SPDX-License-Identifier: GPL-3.0-or-later
//! Updates.

/// The longest boot image that is read into memory.
pub const MAX_BOOT_IMAGE: u64 = 160 << 20;
