// SPDX-License-Identifier: GPL-3.0-or-later
//! The host: its disk's layout, its boot slots, updates, health, status and guests.

pub mod layout;
