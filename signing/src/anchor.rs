// SPDX-License-Identifier: GPL-3.0-or-later
//! The one value that people compare by another way: a fingerprint of the trust directory's three roots.
//!
//! It is the beginning of the digest of what `sha256sum root.json release.asc db.der` prints in that directory, so anybody can
//! compute it without this program. 40 digits, as many as an OpenPGP fingerprint has: to find other files with the same
//! ones takes 2^160 attempts.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::digest::{Sha256, read_bounded};

/// What a trust directory is trusted for: metadata, OpenPGP signatures, boot images.
pub const FILES: [&str; 3] = ["root.json", "release.asc", "db.der"];
/// What stands before the fingerprint wherever a person is to compare it.
pub const COMPARE: &str = "compare by telephone";
/// Digits that a person compares.
const DIGITS: usize = 40;
/// The largest of the files.
const LIMIT: u64 = 4 << 20;

/// What `sha256sum` prints of the files that are there; the root must be.
///
/// # Errors
/// When one of them cannot be read, or there is no root: a fingerprint of nothing would be the same everywhere.
pub fn listing(directory: &Path) -> io::Result<String> {
    let mut lines = String::new();
    for name in FILES {
        match read_bounded(&directory.join(name), LIMIT) {
            Ok(bytes) => {
                let _ = writeln!(lines, "{}  {name}", Sha256::of(&bytes));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && name != FILES[0] => {}
            Err(error) => return Err(error),
        }
    }
    Ok(lines)
}

/// The fingerprint of a trust directory, in groups of four digits.
///
/// # Errors
/// When one of its files cannot be read.
pub fn fingerprint(directory: &Path) -> io::Result<String> {
    let digest = Sha256::of(listing(directory)?.as_bytes()).to_string();
    let mut groups = String::new();
    for (index, digit) in digest.chars().take(DIGITS).enumerate() {
        if index > 0 && index.is_multiple_of(4) {
            groups.push(' ');
        }
        groups.push(digit);
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn anybody_computes_it_with_sha256sum() {
        // Recipe: printf a >root.json; printf b >release.asc; printf c >db.der;
        // sha256sum root.json release.asc db.der | sha256sum
        let place = tempfile::tempdir().unwrap();
        for (name, content) in FILES.iter().zip(["a", "b", "c"]) {
            fs::write(place.path().join(name), content).unwrap();
        }
        assert_eq!(
            fingerprint(place.path()).unwrap(),
            "588e 92e1 fdb7 6644 a52f 6adc 7d20 ed07 cb58 e204"
        );
        fs::remove_file(place.path().join("db.der")).unwrap();
        assert_eq!(listing(place.path()).unwrap().lines().count(), 2);
        fs::remove_file(place.path().join("root.json")).unwrap();
        assert_eq!(fingerprint(place.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
