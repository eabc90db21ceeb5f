// SPDX-License-Identifier: GPL-3.0-or-later
//! bastide-iso
fn main() {}
