// SPDX-License-Identifier: GPL-3.0-or-later
//! Names that come from metadata: of targets, of roles, and the patterns of delegations.
//!
//! Attacks: a target's name that leaves its directory (`..`, absolute, a drive, an empty segment), that no file system
//! holds, or that hides in a terminal; a role's name that stands for another file; a pattern that takes exponential time.
//!
//! Defence: names are checked as text before they become paths, and are never resolved; a role's name is percent-encoded;
//! patterns are matched segment by segment in quadratic time.
//!
//! Not defended here: names that look alike to a person.

use std::fmt::Write as _;

/// The longest name of a target in bytes.
pub const MAX_TARGET_NAME: usize = 1024;
/// The longest name of a delegated role in bytes.
pub const MAX_ROLE_NAME: usize = 64;

/// A name that is refused.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {shown:?} is not allowed: {why}")]
pub struct BadName {
    kind: &'static str,
    shown: String,
    why: &'static str,
}

fn bad(kind: &'static str, name: &str, why: &'static str) -> BadName {
    BadName {
        kind,
        shown: name.chars().take(80).collect(),
        why,
    }
}

/// Says whether a target may have this name: relative, segments between single slashes, none of them `.` or `..`.
///
/// # Errors
/// When it may not.
pub fn check_target_name(name: &str) -> Result<(), BadName> {
    let no = |why| Err(bad("target name", name, why));
    if name.is_empty() {
        return no("it is empty");
    }
    if name.len() > MAX_TARGET_NAME {
        return no("it is longer than 1024 bytes");
    }
    if name.starts_with('/') {
        return no("it is absolute");
    }
    if name.contains('\\') || name.chars().any(char::is_control) {
        return no("it holds a backslash or a control character");
    }
    for segment in name.split('/') {
        match segment {
            "" => return no("it has an empty segment"),
            "." | ".." => return no("it leaves its directory"),
            // With the digest before it the segment becomes a file name of at most 255 bytes.
            _ if segment.len() > 255 - 65 => return no("a segment is longer than 190 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// Says whether a delegated role may have this name.
///
/// # Errors
/// When it is empty, too long, or the name of a top-level role.
pub fn check_role_name(name: &str) -> Result<(), BadName> {
    let no = |why| Err(bad("role name", name, why));
    match name {
        "" => no("it is empty"),
        "root" | "timestamp" | "snapshot" | "targets" => no("it is the name of a top-level role"),
        _ if name.len() > MAX_ROLE_NAME => no("it is longer than 64 bytes"),
        _ => Ok(()),
    }
}

/// A role's name as part of a file name: everything but letters, digits and `-._~` is percent-encoded.
#[must_use]
pub fn encode_role(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Whether a delegation's path pattern (section 4.5) covers a target: `*` and `?` stop at `/`, and `[...]` is a set.
#[must_use]
pub fn pattern_matches(pattern: &str, name: &str) -> bool {
    let mut patterns = pattern.split('/');
    let mut segments = name.split('/');
    loop {
        match (patterns.next(), segments.next()) {
            (None, None) => return true,
            (Some(pattern), Some(segment)) if segment_matches(pattern, segment) => {}
            _ => return false,
        }
    }
}

fn segment_matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to resume when the last star has to take one character more.
    let mut resume = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                resume = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('[') => {
                if let Some((true, next)) = set_matches(&pattern, p, text[t]) {
                    p = next;
                    t += 1;
                    continue;
                }
            }
            Some('?') => {
                p += 1;
                t += 1;
                continue;
            }
            Some(&literal) if literal == text[t] => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        match resume {
            Some((after, from)) => {
                p = after;
                t = from + 1;
                resume = Some((after, from + 1));
            }
            None => return false,
        }
    }
    pattern[p..].iter().all(|&rest| rest == '*')
}

/// Matches `[...]` at `start`; `None` when the set is never closed, which then matches nothing.
fn set_matches(pattern: &[char], start: usize, letter: char) -> Option<(bool, usize)> {
    let mut at = start + 1;
    let negated = matches!(pattern.get(at), Some('!' | '^'));
    if negated {
        at += 1;
    }
    let first = at;
    let mut found = false;
    loop {
        match *pattern.get(at)? {
            ']' if at > first => return Some((found != negated, at + 1)),
            low => {
                let range = pattern.get(at + 1) == Some(&'-') && pattern.get(at + 2).is_some_and(|&c| c != ']');
                let high = if range { *pattern.get(at + 2)? } else { low };
                found |= (low..=high).contains(&letter);
                at += if range { 3 } else { 1 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_names_stay_in_their_directory() {
        assert!(check_target_name("host/1.0.0/root.erofs").is_ok());
        assert!(check_target_name("a..b/.c").is_ok());
        let long = "a".repeat(4096);
        let longer = vec!["a"; 2048].join("/");
        for name in [
            "",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "a\\b",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            &long,
            &longer,
        ] {
            assert!(check_target_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_role_cannot_be_called_like_a_top_level_one() {
        assert!(check_role_name("host").is_ok());
        for name in ["", "root", "timestamp", "snapshot", "targets", &"r".repeat(65)] {
            assert!(check_role_name(name).is_err(), "{name:?}");
        }
        assert_eq!(encode_role("../a b"), "..%2Fa%20b");
    }

    #[test]
    fn a_star_stops_at_a_slash() {
        for (pattern, name, matches) in [
            ("host/*/*", "host/1.0.0/root.erofs", true),
            ("host/*/*", "host/1.0.0", false),
            ("host/*/*", "host/1/2/3", false),
            ("*", "a/b", false),
            ("*", "a", true),
            ("*.tgz", "foo.tgz", true),
            ("targets/*.tgz", "targets/foo.txt", false),
            ("foo-version-?.tgz", "foo-version-2.tgz", true),
            ("foo-version-?.tgz", "foo-version-alpha.tgz", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[a", "a", false),
            ("**", "a/b", false),
            ("", "a", false),
        ] {
            assert_eq!(pattern_matches(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        assert!(!pattern_matches(&"*a".repeat(200), &"a".repeat(199)));
    }
}
