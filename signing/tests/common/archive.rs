// SPDX-License-Identifier: GPL-3.0-or-later
//! The key of an upstream archive, and its signatures, for the crates that verify upstream.

use std::io::Write;
use std::time::SystemTime;

use chrono::Duration;
use sequoia_openpgp as openpgp;
use sequoia_openpgp::serialize::stream::{Message, Signer};
use signing::clock::now;

/// A key that was made a month ago.
pub fn key() -> openpgp::Cert {
    let builder = openpgp::cert::CertBuilder::new()
        .add_userid("Test archive")
        .add_signing_subkey()
        .set_creation_time(SystemTime::from(now() - Duration::days(30)));
    builder.generate().unwrap().0
}

/// A message signed in the clear, as `InRelease` is.
pub fn sign(key: &openpgp::Cert, text: &str) -> Vec<u8> {
    let policy = openpgp::policy::StandardPolicy::new();
    let keys = key.keys().with_policy(&policy, None);
    let key = keys.for_signing().secret().next().unwrap();
    let pair = key.key().clone().into_keypair().unwrap();
    let mut signed = Vec::new();
    let signer = Signer::new(Message::new(&mut signed), pair).unwrap().cleartext();
    let mut message = signer.build().unwrap();
    message.write_all(text.as_bytes()).unwrap();
    message.finalize().unwrap();
    signed
}
