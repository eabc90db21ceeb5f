// SPDX-License-Identifier: GPL-3.0-or-later
//! Debian's changelogs (deb-changelog(5)): which security fixes the entries between two versions name.
//!
//! Attacks: a gzip stream of kilobytes that unpacks without end; a line without end; more identifiers than memory holds;
//! bytes that are no text, or control a terminal.
//! Defence: unpacked bytes, the length of a line and the number of identifiers are bounded; of a line nothing is kept but
//! identifiers of digits and versions of a known alphabet.
//! Not defended: what an entry says. An identifier that it names need not be fixed, and what it does not name may be: it is
//! the maintainer's word, and no more is claimed of it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;

use crate::debversion::compare;

/// The largest changelog, packed; Debian's largest is under 2 MB.
pub const LARGEST_PACKED: u64 = 8 << 20;
/// The largest changelog, unpacked.
const LARGEST: u64 = 64 << 20;
/// The longest line.
const LONGEST_LINE: u64 = 64 << 10;
/// The most identifiers in the entries between two versions; a year of the kernel's names some thousands.
const MOST_FIXES: usize = 50_000;

/// What the entries behind one version, up to another, name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The identifiers, `CVE-YYYY-NNNN`.
    pub fixes: BTreeSet<String>,
    /// Whether one of the entries was uploaded for a security suite, whatever it names.
    pub security: bool,
    /// Whether an entry of the old version or an older one is there. Where it is not, entries are lacking.
    pub reaches: bool,
}

/// Reads a packed changelog and gathers what the entries name that are newer than `old` and not newer than `new`.
///
/// # Errors
/// When it cannot be unpacked, breaks a bound, or has no entry of `new`: then it is another package's.
pub fn between(packed: &[u8], old: &str, new: &str) -> Result<Named> {
    let mut text = BufReader::new(MultiGzDecoder::new(packed).take(LARGEST + 1));
    let mut named = Named {
        fixes: BTreeSet::new(),
        security: false,
        reaches: false,
    };
    let (mut inside, mut begins, mut length) = (false, false, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = (&mut text).take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
        let count = count.context("the changelog cannot be unpacked")? as u64;
        length += count;
        ensure!(count <= LONGEST_LINE, "a line is longer than {LONGEST_LINE} bytes");
        ensure!(length <= LARGEST, "the changelog unpacks to more than {LARGEST} bytes");
        if count == 0 {
            break;
        }
        if let Some((version, security)) = heading(&line) {
            begins |= compare(version, new).is_eq();
            named.reaches |= compare(version, old).is_le();
            inside = compare(version, old).is_gt() && compare(version, new).is_le();
            named.security |= inside && security;
        } else if inside {
            gather(&line, &mut named.fixes)?;
        }
    }
    ensure!(begins, "the changelog has no entry of {new}");
    Ok(named)
}

/// The version in the first line of an entry, `package (version) suites; urgency=low`, and whether it is for a security suite.
fn heading(line: &[u8]) -> Option<(&str, bool)> {
    let line = std::str::from_utf8(line).ok()?;
    let (package, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(") ")?;
    let plain = |text: &str, more: &str| {
        let known = |letter: char| letter.is_ascii_alphanumeric() || more.contains(letter);
        !text.is_empty() && text.len() <= 256 && text.chars().all(known)
    };
    let (suites, _) = rest.split_once(';')?;
    let security = suites.split(' ').any(|suite| suite.ends_with("-security"));
    (plain(package, "+-.") && plain(version, "+-.:~")).then_some((version, security))
}

/// Every `CVE-YYYY-NNNN` of a line, whichever way it is written.
fn gather(line: &[u8], fixes: &mut BTreeSet<String>) -> Result<()> {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    for at in 0..line.len().saturating_sub(8) {
        let (before, rest) = line.split_at(at);
        let begins = rest[..4].eq_ignore_ascii_case(b"CVE-") && digits(&rest[4..]) == 4 && rest[8] == b'-';
        if !begins || before.last().is_some_and(u8::is_ascii_alphanumeric) {
            continue;
        }
        let number = &rest[9..][..digits(&rest[9..])];
        if !(4..=19).contains(&number.len()) {
            continue;
        }
        let text = [&rest[4..9], number].concat();
        fixes.insert(format!("CVE-{}", String::from_utf8_lossy(&text)));
        if fixes.len() > MOST_FIXES {
            bail!("the changelog names more than {MOST_FIXES} security fixes");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn entry(version: &str, text: &str) -> String {
        format!(
            "x ({version}) stable; urgency=high\n\n  * {text}\n\n -- A <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000\n\n"
        )
    }

    fn found(text: &str, old: &str, new: &str) -> (Vec<String>, bool) {
        let named = between(&packed(text.as_bytes()), old, new).unwrap();
        (named.fixes.into_iter().collect(), named.reaches)
    }

    #[test]
    fn entries_between_the_versions_count_and_no_others() {
        let text = [
            entry("1.0-3", "CVE-2026-0003"),
            entry("1.0-2", "fixes CVE-2026-0002, cve-2025-123456\n    (CVE-2024-0001)"),
            // A fix that was merged from the stable branch stands out of order.
            entry("0.9-1+deb13u1", "CVE-2026-0000"),
            entry("1.0-1.1", "CVE-2026-0011"),
            entry("1.0-1", "CVE-2026-0001"),
        ]
        .concat();
        let expected = ["CVE-2024-0001", "CVE-2025-123456", "CVE-2026-0002", "CVE-2026-0011"];
        assert_eq!(
            found(&text, "1.0-1", "1.0-2"),
            (expected.map(str::to_owned).to_vec(), true)
        );
        assert_eq!(found(&text, "1.0-3", "1.0-3"), (Vec::new(), true));
        assert!(between(&packed(text.as_bytes()), "1.0-1", "1.0-4").is_err());
    }

    #[test]
    fn an_upload_for_a_security_suite_is_known_without_identifiers() {
        let security = entry("1.0-2", "GHSA-1").replace("stable;", "trixie trixie-security;");
        let text = packed((security + &entry("1.0-1", "x")).as_bytes());
        let known = |old, new| between(&text, old, new).unwrap().security;
        assert!(known("1.0-1", "1.0-2") && !known("1.0-2", "1.0-2") && !known("0.9-1", "1.0-1"));
    }

    #[test]
    fn a_trimmed_changelog_says_so() {
        let text = entry("2.0-2", "CVE-2026-0003") + "# Older entries have been removed from this changelog.\n";
        assert_eq!(found(&text, "1.0-1", "2.0-2"), (vec!["CVE-2026-0003".into()], false));
    }

    #[test]
    fn what_only_looks_like_an_identifier_is_none() {
        let text = entry(
            "2",
            "XCVE-2026-0001 CVE-2026-001 CVE-26-0001 CVE-2026-12345678901234567890 CVE-2026- CVE CVE-20",
        );
        assert_eq!(found(&text, "1", "2"), (Vec::new(), false));
    }

    /// The recipes: zeros without end; one line without end; more identifiers than anybody fixes; a cut stream; no gzip.
    #[test]
    fn hostile_changelogs_are_errors() {
        let head = entry("2", "x");
        let lines = format!("{}\n", " ".repeat(1000)).repeat((LARGEST / 1000 + 1) as usize);
        let line = "x".repeat(LONGEST_LINE as usize + 1);
        let many: String = (0..=MOST_FIXES)
            .map(|one| format!(" CVE-2026-{:05}\n", one + 10_000))
            .collect();
        let whole = packed(head.as_bytes());
        for (bytes, why) in [
            (packed((head.clone() + &lines).as_bytes()), "unpacks to more than"),
            (packed((head.clone() + &line).as_bytes()), "a line is longer"),
            (packed((head.clone() + &many).as_bytes()), "security fixes"),
            (whole[..whole.len() / 2].to_vec(), "cannot be unpacked"),
            (b"no gzip".to_vec(), "cannot be unpacked"),
            (packed(b"\xff\xfe\x1b[2J\n"), "no entry of 2"),
        ] {
            let error = format!("{:#}", between(&bytes, "1", "2").unwrap_err());
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
