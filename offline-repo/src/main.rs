// SPDX-License-Identifier: GPL-3.0-or-later
//! bastide-repo
fn main() {}
