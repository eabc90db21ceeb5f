// SPDX-License-Identifier: GPL-3.0-or-later
//! The transcript: the words that the custodians read, who signed and when, and below them the request and the fragments,
//! from which all of it can be written anew. A transcript that differs in one byte from that is refused.

use anyhow::{Context, Result};

use super::assemble::Assembled;
use super::state::TrustedRoot;
use super::{Fragment, MAX_FRAGMENTS, Request, assemble, refuse, short};
use crate::tuf::author::seconds;

const TITLE: &str = "BASTIDE CEREMONY TRANSCRIPT, FORMAT 1";
const REQUEST: &str = "---- request ----\n";
const FRAGMENT: &str = "---- fragment ----\n";
const END: &str = "---- end ----\n";

/// What happened, as text.
#[derive(Debug, Clone)]
pub struct Transcript {
    text: String,
}

impl Transcript {
    /// Writes it. The fragments were verified, stand in the order of their keys, and each key has one.
    pub(super) fn new(request: &Request, old: Option<&TrustedRoot>, fragments: Vec<Fragment>) -> Result<Self> {
        let mut text = format!(
            "{TITLE}\n\n{}\nWho signed, and when by their own clocks:\n",
            request.words(old)?
        );
        for fragment in &fragments {
            text += &format!(
                "  {}  {}  {}\n",
                short(&fragment.keyid),
                seconds(fragment.made),
                fragment.custodian
            );
        }
        text += "\nWhat follows is for programs: the request and the signatures.\n\n";
        text += REQUEST;
        text += &request.to_text()?;
        for fragment in &fragments {
            text += FRAGMENT;
            text += &fragment.to_text()?;
        }
        text += END;
        Ok(Self { text })
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads a transcript and repeats the ceremony that it tells of.
    ///
    /// # Errors
    /// A refusal when anything in it does not hold or the text differs from what happened.
    pub fn verify(bytes: &[u8], old: Option<&TrustedRoot>) -> Result<Assembled> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return refuse("the transcript is not text");
        };
        let parts = text.strip_prefix(TITLE).and_then(|text| {
            let body = text.strip_suffix(END)?;
            body.split_once(REQUEST)
        });
        let Some((_, parts)) = parts else {
            return refuse("this is not a whole transcript");
        };
        let mut parts = parts.split(FRAGMENT);
        let request = Request::parse(parts.next().unwrap_or_default().as_bytes())?;
        let fragments: Vec<_> = parts
            .enumerate()
            .map(|(at, part)| (format!("fragment {}", at + 1), Fragment::parse(part.as_bytes())))
            .take(MAX_FRAGMENTS)
            .collect();
        let assembled = assemble(&request, old, fragments).context("repeating the ceremony of the transcript")?;
        if let Some((name, why)) = assembled.refused.first_key_value() {
            return refuse(format!("{name} of the transcript: {why}"));
        }
        let (_, honest) = assembled
            .complete()
            .context("repeating the ceremony of the transcript")?;
        if honest.text != text {
            return refuse("the transcript's words differ from what was signed: it was altered");
        }
        Ok(assembled)
    }
}
