// SPDX-License-Identifier: GPL-3.0-or-later
//! Which paths of an address have a place in a repository. Everything else is not there, whatever lies on the disk.
//!
//! # Attacks faced
//! Names that leave their directory (`..`, an absolute one, and either in percent signs), that hide (`.lock`,
//! `.incomplete-*`), or that mean another file after a second decoding: a path is taken apart at its slashes first, each piece
//! is decoded once, and what comes out must have the form of a name that a publisher writes.

use signing::tuf::names::check_target_name;

use crate::archive::{CERTIFICATE, COMPONENT};
use crate::spec::is_name;

/// How long an answer may be kept without asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// For good: another content would have another name.
    Forever,
    /// Not at all.
    Ask,
}

/// The name of a metadata file, from the part of an address behind its directory: `timestamp.json`, `N.ROLE.json`, and the
/// OpenPGP signatures `N.root.json.asc` and `N.timestamp.json.asc`.
#[must_use]
pub fn metadata(raw: &str) -> Option<(String, Keep)> {
    let name = decode(raw)?;
    if name == "timestamp.json" {
        return Some((name, Keep::Ask));
    }
    let (version, rest) = name.split_once('.')?;
    let digits = !version.is_empty() && version.len() <= 19 && version.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || version.starts_with('0') || name.contains('/') {
        return None;
    }
    match rest.strip_suffix(".asc") {
        // Officers sign one after the other, beside a timestamp that stands.
        Some("root.json" | "timestamp.json") => Some((name, Keep::Ask)),
        Some(_) => None,
        None => {
            let role = rest.strip_suffix(".json").filter(|role| !role.is_empty())?;
            // As the client encodes a role's name.
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
            role.bytes().all(plain).then_some((name, Keep::Forever))
        }
    }
}

/// The path of a target, from the part of an address behind its directory: any directories, then `<sha256>.NAME`.
#[must_use]
pub fn target(raw: &str) -> Option<(String, Keep)> {
    let path = decode(raw)?;
    check_target_name(&path).ok()?;
    let (digest, name) = path.rsplit('/').next()?.split_once('.')?;
    (is_digest(digest) && !name.is_empty()).then_some((path, Keep::Forever))
}

/// The path of a file of the apt archive, from the part of an address behind its directory, in the form that
/// [`crate::archive`] writes.
#[must_use]
pub fn archive(raw: &str) -> Option<(String, Keep)> {
    let path = decode(raw)?;
    let pieces: Vec<&str> = path.split('/').collect();
    let keep = match pieces[..] {
        [CERTIFICATE] => Keep::Ask,
        ["dists", suite, "InRelease" | "Release" | "Release.gpg"] if is_name(suite) => Keep::Ask,
        ["dists", suite, COMPONENT, binary, ref list @ ..]
            if is_name(suite) && is_name(binary.strip_prefix("binary-")?) =>
        {
            match *list {
                ["Packages.xz"] => Keep::Ask,
                ["by-hash", "SHA256", digest] if is_digest(digest) => Keep::Forever,
                _ => return None,
            }
        }
        ["pool", shard, package] => {
            let digest = package.strip_suffix(".deb").filter(|digest| is_digest(digest))?;
            digest.starts_with(shard).then_some(Keep::Forever)?
        }
        _ => return None,
    };
    Some((path, keep))
}

fn is_digest(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(hex)
}

/// Decodes each piece of a path once. Nothing where a piece is empty, begins with a dot, or holds what no name may.
fn decode(raw: &str) -> Option<String> {
    let mut path = String::new();
    for piece in raw.split('/') {
        let piece = unquote(piece)?;
        if piece.is_empty() || piece.starts_with('.') || piece.contains(['/', '\\']) || piece.contains(char::is_control)
        {
            return None;
        }
        if !path.is_empty() {
            path.push('/');
        }
        path += &piece;
    }
    Some(path)
}

fn unquote(piece: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(piece.len());
    let mut rest = piece.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    u8::try_from(char::from(byte).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_publisher_writes_has_a_place() {
        for (raw, keep) in [
            ("timestamp.json", Keep::Ask),
            ("%74imestamp.json", Keep::Ask),
            ("1.root.json", Keep::Forever),
            ("12.root.json.asc", Keep::Ask),
            ("3.timestamp.json", Keep::Forever),
            ("3.timestamp.json.asc", Keep::Ask),
            ("7.targets.json", Keep::Forever),
            // A role `a/b`: its file has percent signs of its own.
            ("7.a%252Fb.json", Keep::Forever),
        ] {
            assert_eq!(metadata(raw).map(|(_, keep)| keep), Some(keep), "{raw}");
        }
        assert_eq!(metadata("7.a%252Fb.json").unwrap().0, "7.a%2Fb.json");
        let digest = "0123456789abcdef".repeat(4);
        for raw in [format!("host/1.0.0/{digest}.root.erofs"), format!("{digest}.x")] {
            assert_eq!(target(&raw), Some((raw.clone(), Keep::Forever)));
        }
    }

    #[test]
    fn the_archive_for_apt_has_places() {
        let digest = "0123456789abcdef".repeat(4);
        for (raw, keep) in [
            ("site.asc".to_owned(), Keep::Ask),
            ("dists/base/InRelease".to_owned(), Keep::Ask),
            ("dists/base/Release.gpg".to_owned(), Keep::Ask),
            ("dists/base/main/binary-amd64/Packages.xz".to_owned(), Keep::Ask),
            (
                format!("dists/base/main/binary-amd64/by-hash/SHA256/{digest}"),
                Keep::Forever,
            ),
            (format!("pool/01/{digest}.deb"), Keep::Forever),
        ] {
            assert_eq!(archive(&raw), Some((raw.clone(), keep)));
        }
        for raw in [
            "other.asc".to_owned(),
            "dists/base".to_owned(),
            "dists/../InRelease".to_owned(),
            "dists/.incomplete-x/InRelease".to_owned(),
            "dists/a%2fb/InRelease".to_owned(),
            "dists/a%20b/InRelease".to_owned(),
            "dists/base/main/binary-amd64/Packages".to_owned(),
            "dists/base/other/binary-amd64/Packages.xz".to_owned(),
            "dists/base/main/binary-/Packages.xz".to_owned(),
            "dists/base/main/source/Packages.xz".to_owned(),
            format!("dists/base/main/binary-amd64/by-hash/MD5Sum/{digest}"),
            format!("dists/base/main/binary-amd64/by-hash/SHA256/{}", &digest[1..]),
            format!("pool/02/{digest}.deb"),
            format!("pool/01/{digest}"),
            format!("pool/{digest}.deb"),
            format!("pool/01/{digest}.deb/x"),
        ] {
            assert_eq!(archive(&raw), None, "{raw}");
        }
    }

    #[test]
    fn everything_else_has_none() {
        for raw in [
            "",
            "/",
            ".",
            "..",
            "../metadata/timestamp.json",
            "%2e%2e/timestamp.json",
            "..%2ftimestamp.json",
            ".lock",
            ".incomplete-timestamp.json-abcdef",
            "timestamp.json/",
            "/timestamp.json",
            "./timestamp.json",
            "timestamp.json%00",
            "timestamp.json%0a",
            "timestamp.json%",
            "timestamp.json%2",
            "timestamp.json%zz",
            "TIMESTAMP.json",
            "root.json",
            "0.root.json",
            "01.root.json",
            "+1.root.json",
            "1..json",
            "1.json",
            "1.root.json.asc.asc",
            "1.targets.json.asc",
            "1.a/b.json",
            "1.a%2fb.json",
            "1.a%5cb.json",
            "1.a%ffb.json",
            "99999999999999999999.root.json",
            "1.root.json~",
        ] {
            assert_eq!(metadata(raw), None, "{raw}");
        }
        let digest = "0".repeat(64);
        for raw in [
            "host/1.0.0/root.erofs".to_owned(),
            digest.clone(),
            format!("{digest}."),
            format!("{}.x", &digest[1..]),
            format!("{}.x", "A".repeat(64)),
            format!("../{digest}.x"),
            format!("host/%2e%2e/{digest}.x"),
            format!("host//{digest}.x"),
            format!("host%2f1.0.0/{digest}.x"),
            format!("/{digest}.x"),
            format!(".incomplete/{digest}.x"),
            format!("host/{digest}.x/"),
            format!("host\\{digest}.x"),
            format!("{digest}.x%00"),
        ] {
            assert_eq!(target(&raw), None, "{raw}");
        }
    }
}
