// SPDX-License-Identifier: GPL-3.0-or-later
//! What is wrong with an answer, in one line each.

use serde::Serialize;

/// An answer file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It cannot be read, or is too large.
    #[error("cannot read the answer file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not the TOML that the schema describes. The message shows line, column and key.
    #[error("the answer is not valid: {0}")]
    Syntax(String),
    /// Its values do not go together.
    #[error("the answer is not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Values(Vec<Problem>),
    /// It names a site whose files are not beside it.
    #[error("the answer names a site, and its files cannot be used: {0}")]
    Site(String),
}

/// One thing that is wrong with an answer's values, with the key's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The key, such as `network.interface[1].gateway`.
    pub key: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Where and what, in one line. Nothing of a foreign file that moves a cursor gets onto the screen.
pub(super) fn place_and_message(text: &str, error: &toml::de::Error) -> String {
    let message: String = error
        .message()
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        // The whole file lacks it, which has no place.
        None | Some("") => message,
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!("line {line}, column {column}: {message}")
        }
    }
}
