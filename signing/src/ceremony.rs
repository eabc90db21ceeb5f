// SPDX-License-Identifier: GPL-3.0-or-later
//! How several people, of whom none is trusted alone, make and change a site's TUF root by carrying small files.
//!
//! ```text
//! plan      old root + what is wanted          -> request.json       (no key)
//! sign      old root + request + one key       -> a fragment         (each custodian alone)
//! assemble  old root + request + fragments     -> N.root.json, transcript.txt   (no key)
//! sign-transcript, verify                         OpenPGP over the transcript
//! ```
//!
//! Everything is a pure function of the old root and the new root's `signed` part: [`diff`] says what changes, [`check`]
//! whether it may, `words` how a person reads it. What a file claims about the change is compared with that, and refused
//! when it differs; there is no state but the files.
//!
//! # Attacks faced
//! - A request whose words say one thing and whose bytes another: the words are computed again from the custodian's own
//!   copy of the old root, and a root that says anything for which there are no words is refused.
//! - A request for another root or site, or made for an old version: it names its predecessor's digest.
//! - Fragments of strangers, of other requests, altered, or given twice: each is judged alone; keys are counted, not files.
//! - A stolen key: what was removed never comes back, and a compromised key does not count while the others suffice.
//! - A transcript that tells another story than the root: it carries the request and the fragments, and is written anew
//!   from them and compared byte for byte.
//! - Names that deceive a terminal: letters, digits and a few signs only.
//! - Endless or ambiguous files: bounded, and read by the strict reader of metadata.
//!
//! # Defence not made
//! A threshold of custodians who conspire, or a machine that shows one thing and signs another: custodians use machines of
//! their own and compare the fingerprint. Its short form has 80 bits: enough against a second request for a given
//! fingerprint, not against somebody who makes both requests; fragments name the whole digest. Dates are claims.

mod assemble;
mod change;
mod custodian;
mod fragment;
mod plan;
mod qr;
mod request;
mod rules;
mod state;
mod transcript;
mod verify;
mod words;

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::{Sha256, read_bounded};
use crate::output::Refused;
use crate::tuf::json;

pub use assemble::{Assembled, Judged, assemble};
pub use change::{Change, diff};
pub use custodian::{CustodianFile, check_name, read_certificates};
pub use fragment::Fragment;
pub use plan::{Plan, Removal, ThresholdChange};
pub use qr::qr_code;
pub use request::{Due, OldRoot, Request};
pub use rules::check;
pub use state::{Custodian, Reason, Record, Removed, RoleKeys, RoleName, RootState, TrustedRoot};
pub use transcript::Transcript;
pub use verify::{TranscriptSigner, Verified, verify};

/// The version of all files of a ceremony.
pub const FORMAT: u32 = 1;
/// The longest request, fragment or custodian's file.
pub const MAX_FILE: u64 = 256 << 10;
/// The longest transcript.
pub const MAX_TRANSCRIPT: u64 = 4 << 20;
/// The most fragments that are looked at in one run.
pub const MAX_FRAGMENTS: usize = 256;

/// The fingerprint that people compare by eye: the first 20 digits in groups of four.
#[must_use]
pub fn short(digest: &Sha256) -> String {
    let digits = digest.to_string();
    let groups = digits.as_bytes().chunks(4).take(5);
    groups.map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ")
}

fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Refused(reason.into()).into())
}

/// Reads a file of a ceremony strictly: bounded, no key twice, no unknown field.
fn read_json<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let bytes = read_bounded(path, MAX_FILE).with_context(|| format!("cannot read the {what} {}", path.display()))?;
    parse_json(&bytes, what).with_context(|| format!("reading {}", path.display()))
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    let parsed = json::parse_default(bytes).and_then(serde_json::from_value);
    parsed.map_err(|error| Refused(format!("it is not a whole {what} of this format: {error}")).into())
}

fn canonical(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(json::canonical(&serde_json::to_value(value)?)?)
}

/// Indented JSON and a line feed.
fn pretty(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
