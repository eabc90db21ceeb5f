// SPDX-License-Identifier: GPL-3.0-or-later
//! Private keys at rest, and the passphrases that open them.

mod passphrase;

pub use passphrase::{Passphrase, PassphraseError};
