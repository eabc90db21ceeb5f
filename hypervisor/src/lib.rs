// SPDX-License-Identifier: GPL-3.0-or-later
//! The host: its disk's layout, its boot slots, updates, health, status and guests.

pub mod bootentries;
pub mod cli;
pub mod confirm;
pub mod esp;
pub mod events;
pub mod gpt;
pub mod guest;
pub mod health;
pub mod init;
pub mod layout;
pub mod machine;
pub mod policy;
pub mod probe;
pub mod receipt;
pub mod record;
pub mod slots;
pub mod status;
pub mod timekeeping;
pub mod update;
