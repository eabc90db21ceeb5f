// SPDX-License-Identifier: GPL-3.0-or-later
//! The signing request: one file, of which nothing is believed but the bytes to be signed, and those only after they were
//! compared with the old root.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::state::{RoleName, RootState, TrustedRoot};
use super::{Change, FORMAT, canonical, check, diff, parse_json, pretty, read_json, refuse, rules};
use crate::digest::Sha256;
use crate::tuf::json;

const KIND: &str = "bastide-ceremony-request";

/// The root that the new one follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldRoot {
    /// Its version.
    pub version: u64,
    /// The digest of its signed part.
    pub signed_sha256: Sha256,
}

/// Who must sign, by the rules of one of the two roots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Due {
    /// Whose rules: the root of this version.
    pub root: u64,
    /// How many must sign.
    pub threshold: u64,
    /// The keys that count, and their custodians' names.
    pub keys: BTreeMap<Sha256, String>,
}

/// A signing request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    format: u32,
    kind: String,
    /// The root before, if there is one.
    pub old: Option<OldRoot>,
    /// What changes.
    pub changes: Vec<Change>,
    /// Who must sign.
    pub due: Vec<Due>,
    signed: String,
}

impl Request {
    pub(super) fn new(old: Option<&TrustedRoot>, new: &RootState) -> Result<Self> {
        let before = old.map(|old| &old.state);
        check(before, new)?;
        let changes = diff(before, new);
        if changes.is_empty() {
            return refuse("nothing would change");
        }
        Ok(Self {
            format: FORMAT,
            kind: KIND.to_owned(),
            old: old.map(|old| OldRoot {
                version: old.state.version,
                signed_sha256: old.digest,
            }),
            changes,
            due: due(before, new),
            signed: String::from_utf8(new.message()?).context("encoding the new root")?,
        })
    }

    /// Reads a request. Nothing of it is believed before [`Request::verify`].
    ///
    /// # Errors
    /// When it is not a request of this format.
    pub fn read(path: &Path) -> Result<Self> {
        read_json(path, "signing request")
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        parse_json(bytes, "signing request")
    }

    /// The file.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn to_text(&self) -> Result<String> {
        pretty(self)
    }

    /// What custodians compare and fragments name.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn fingerprint(&self) -> Result<Sha256> {
        Ok(Sha256::of(&canonical(self)?))
    }

    /// The bytes that custodians sign.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// Computes everything that the request claims from the reader's own old root and the bytes to be signed, and gives what
    /// the new root says.
    ///
    /// # Errors
    /// A refusal when a claim differs, a rule is broken, or the bytes say anything that there are no words for.
    pub fn verify(&self, old: Option<&TrustedRoot>) -> Result<RootState> {
        if self.kind != KIND || self.format != FORMAT {
            return refuse(format!("it is not a {KIND} of format {FORMAT}"));
        }
        match (self.old, old) {
            (Some(named), Some(old)) if named.signed_sha256 != old.digest || named.version != old.state.version => {
                let remedy = if named.version == old.state.version {
                    "one of the two belongs to another repository, or is forged: sign nothing, and ask the others"
                        .to_owned()
                } else {
                    format!("give {}.root.json with --root", named.version)
                };
                return refuse(format!(
                    "the request is for the root {} {}, and yours is {} {}: {remedy}",
                    named.version, named.signed_sha256, old.state.version, old.digest
                ));
            }
            (Some(_), None) => return refuse("the request changes a root: give the one that you trust with --root"),
            (None, Some(_)) => {
                return refuse(
                    "the request makes a first root, and you trust one already: leave out --root if you want a new repository \
                 beside it",
                );
            }
            _ => {}
        }
        // Canonical JSON leaves the line feeds of an ECDSA key's PEM as they are, which JSON's readers refuse; there are none
        // outside of strings, and the comparison below finds everything else.
        let text = self.signed.replace('\n', "\\n");
        let value = json::parse_default(text.as_bytes()).context("reading the new root in the request")?;
        let new = RootState::read(&value)?;
        if new.message()? != self.message() {
            return refuse("the new root in the request is not in the one form that can be shown in words");
        }
        let honest = Self::new(old, &new)?;
        if self.changes != honest.changes || self.due != honest.due {
            return refuse("the request lies: its words differ from what the new root does");
        }
        Ok(new)
    }
}

fn due(old: Option<&RootState>, new: &RootState) -> Vec<Due> {
    let of = |state: &RootState, keys: std::collections::BTreeSet<Sha256>| Due {
        root: state.version,
        threshold: state.role(RoleName::Root).threshold,
        keys: keys.into_iter().map(|keyid| (keyid, state.name_of(&keyid))).collect(),
    };
    let before = old.map(|old| of(old, rules::able(old, new)));
    let after = of(new, new.role(RoleName::Root).keyids.clone());
    before.into_iter().chain([after]).collect()
}
