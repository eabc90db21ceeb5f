// SPDX-License-Identifier: GPL-3.0-or-later
//! Counts keys, says who is missing, and gives the metadata. The fragments are all the state there is: any order, any
//! number of runs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use super::state::TrustedRoot;
use super::{Due, Fragment, Request, Transcript, refuse};
use crate::digest::Sha256;
use crate::output::chain;
use crate::tuf::root;

/// One set of rules and how far it is met.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// The rules.
    #[serde(flatten)]
    pub due: Due,
    /// Keys that signed.
    pub signed: BTreeMap<Sha256, String>,
    /// Keys that did not.
    pub missing: BTreeMap<Sha256, String>,
    /// How many more must sign.
    pub needed: u64,
}

/// What came of the fragments.
#[derive(Debug, Clone, Serialize)]
pub struct Assembled {
    /// The version of the new root.
    pub root_version: u64,
    /// The request.
    pub request: Sha256,
    /// The rules of the old and the new root.
    pub rules: Vec<Judged>,
    /// Fragments that were refused: what they are called, and why.
    pub refused: BTreeMap<String, String>,
    /// The new root's file, once both thresholds are met.
    #[serde(skip)]
    pub root: Option<Vec<u8>>,
    /// The transcript, likewise.
    #[serde(skip)]
    pub transcript: Option<Transcript>,
}

/// Assembles fragments, each with the name by which it is called where it is refused.
///
/// # Errors
/// When the request does not hold, or the root that was made is not one that clients follow.
pub fn assemble(
    request: &Request,
    old: Option<&TrustedRoot>,
    fragments: impl IntoIterator<Item = (String, Result<Fragment>)>,
) -> Result<Assembled> {
    let new = request.verify(old)?;
    let before = old.map(|old| &old.state);
    let mut good: BTreeMap<Sha256, Fragment> = BTreeMap::new();
    let mut refused = BTreeMap::new();
    for (name, fragment) in fragments {
        let judged = fragment.and_then(|fragment| {
            fragment.verify(request, before, &new)?;
            Ok(fragment)
        });
        match judged {
            // Of one key's fragments the earliest is kept, so that their order does not matter.
            Ok(fragment) => {
                let earlier = good.get(&fragment.keyid).is_some_and(|kept| kept.made <= fragment.made);
                if !earlier {
                    good.insert(fragment.keyid, fragment);
                }
            }
            Err(error) => {
                refused.insert(name, chain(&error));
            }
        }
    }
    let rules: Vec<Judged> = request.due.iter().map(|due| judge(due, &good)).collect();
    let (mut file, mut transcript) = (None, None);
    if rules.iter().all(|rule| rule.needed == 0) {
        let signatures: Vec<_> = good
            .values()
            .map(|fragment| (fragment.keyid.to_string(), fragment.signature()))
            .collect();
        let made = root::file(&serde_json::to_value(&new)?, &signatures)?;
        // What clients would not follow must not leave the vault.
        match old {
            Some(old) => old.judge(new.version, &made),
            None => root::judge_first(&made).map_err(Into::into),
        }
        .context("checking the new root as a client does")?;
        file = Some(made);
        transcript = Some(Transcript::new(request, old, good.into_values().collect())?);
    }
    Ok(Assembled {
        root_version: new.version,
        request: request.fingerprint()?,
        rules,
        refused,
        root: file,
        transcript,
    })
}

fn judge(due: &Due, good: &BTreeMap<Sha256, Fragment>) -> Judged {
    let (signed, missing): (BTreeMap<_, _>, _) = due
        .keys
        .clone()
        .into_iter()
        .partition(|(keyid, _)| good.contains_key(keyid));
    Judged {
        needed: due.threshold.saturating_sub(signed.len() as u64),
        due: due.clone(),
        signed,
        missing,
    }
}

impl Assembled {
    /// The refusal where a threshold is not met.
    ///
    /// # Errors
    /// It says how many are missing, and who can be asked.
    pub fn complete(&self) -> Result<(&[u8], &Transcript)> {
        if let (Some(root), Some(transcript)) = (&self.root, &self.transcript) {
            return Ok((root, transcript));
        }
        let short_of = self.rules.iter().filter(|rule| rule.needed > 0).map(|rule| {
            let names: Vec<_> = rule.missing.values().map(String::as_str).collect();
            format!(
                "by the rules of root {}, {} more of: {}",
                rule.due.root,
                rule.needed,
                names.join(", ")
            )
        });
        refuse(format!(
            "signatures are missing, {}; nothing is lost, run it again with theirs",
            short_of.collect::<Vec<_>>().join("; ")
        ))
    }
}
