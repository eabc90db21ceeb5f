// SPDX-License-Identifier: GPL-3.0-or-later
//! One root and its successor, apart from any repository: for those who make roots and have to know what clients will say.
//!
//! The judges are the client's own: a root that is accepted here is one that the client follows.

use std::io::Read;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::client::Client;
use super::datastore::Datastore;
use super::error::TufError;
use super::limits::Limits;
use super::source::{Source, SourceError};
use super::{author, json};

/// The part of a metadata file that its signatures cover.
///
/// # Errors
/// When the bytes are not one strict JSON object with that part.
pub fn signed_part(what: &str, file: &[u8]) -> Result<Value, TufError> {
    let malformed = |why: String| TufError::Malformed {
        what: what.to_owned(),
        why,
    };
    if file.len() as u64 > Limits::default().root_bytes {
        return Err(malformed("it is too long".to_owned()));
    }
    let mut value = json::parse_default(file).map_err(|error| malformed(error.to_string()))?;
    value
        .get_mut("signed")
        .map(Value::take)
        .ok_or_else(|| malformed("there is no \"signed\"".to_owned()))
}

/// Puts the signed part and its signatures (identifier of the key, signature) together as the file that clients read.
///
/// # Errors
/// When it cannot be encoded.
pub fn file(signed: &Value, signatures: &[(String, Vec<u8>)]) -> anyhow::Result<Vec<u8>> {
    let list = |(keyid, signature): &(String, Vec<u8>)| json!({"keyid": keyid, "sig": hex::encode(signature)});
    author::print(json!({
        "signatures": signatures.iter().map(list).collect::<Vec<_>>(),
        "signed": signed,
    }))
}

/// Judges a root as a client does that is handed it to trust: its own threshold must have signed it.
///
/// # Errors
/// What the client says when it refuses.
pub fn judge_first(root: &[u8]) -> Result<(), TufError> {
    Client::open(
        Datastore::ephemeral(root)?,
        Nothing,
        Limits::default(),
        DateTime::UNIX_EPOCH,
    )
    .map(drop)
}

/// Judges a root as a client does at the time `at` that trusts its predecessor.
///
/// # Errors
/// What the client says when it refuses.
pub fn judge_successor(old: &[u8], version: u64, new: &[u8], at: DateTime<Utc>) -> Result<(), TufError> {
    let source = One(format!("{version}.root.json"), new);
    let mut client = Client::open(Datastore::ephemeral(old)?, source, Limits::default(), at)?;
    client.refresh_root()?;
    if client.datastore().root_version()? == version {
        Ok(())
    } else {
        // The client never asked for the file: it is not the next one.
        Err(TufError::VersionMismatch {
            role: "root".to_owned(),
            named: client.datastore().root_version()?.saturating_add(1),
            offered: version,
        })
    }
}

/// A repository without any file.
struct Nothing;

impl Source for Nothing {
    fn metadata(&mut self, _name: &str, _max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(None)
    }

    fn target(&mut self, _path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        Ok(None)
    }
}

/// A repository of one metadata file.
struct One<'a>(String, &'a [u8]);

impl Source for One<'_> {
    fn metadata(&mut self, name: &str, _max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        Ok((name == self.0).then(|| self.1.to_vec()))
    }

    fn target(&mut self, _path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        Ok(None)
    }
}
