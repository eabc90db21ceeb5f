// SPDX-License-Identifier: GPL-3.0-or-later
//! Packages that are real, made by dpkg-deb.

use std::fs;
use std::io::Write;
use std::path::Path;

use offline_repo::snapshot::SnapshotPackage;
use signing::process::Cmd;

use super::shelf;

/// What is in a package beside its control file.
pub struct Recipe<'a> {
    /// As dpkg-deb's `-Z` names it.
    pub packing: &'a str,
    /// Fills the package's tree; the directory is `usr/share/doc/NAME`.
    pub fill: &'a dyn Fn(&Path),
}

/// An entry of a Debian changelog.
pub fn entry(source: &str, version: &str, text: &str) -> String {
    format!(
        "{source} ({version}) trixie-security; urgency=high\n\n  * {text}\n\n \
         -- A <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000\n\n"
    )
}

pub fn gzip(path: &Path, text: &[u8]) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    fs::write(path, encoder.finish().unwrap()).unwrap();
}

/// A package of the source package of its own name, with this tree in it.
pub fn real(name: &str, version: &str, recipe: &Recipe) -> (SnapshotPackage, Vec<u8>) {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    let doc = tree.join("usr/share/doc").join(name);
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    fs::create_dir_all(&doc).unwrap();
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: A <a@example.org>\nDescription: a test\n"
    );
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    (recipe.fill)(&doc);
    let out = place.path().join("out.deb");
    Cmd::new("dpkg-deb")
        .args(["--root-owner-group", &format!("-Z{}", recipe.packing), "--build"])
        .args([&tree, &out])
        .run()
        .unwrap();
    shelf::package(name, version, &fs::read(out).unwrap())
}

/// As [`real`], with this changelog.
pub fn with_changelog(name: &str, version: &str, changelog: &str) -> (SnapshotPackage, Vec<u8>) {
    let fill = |doc: &Path| gzip(&doc.join("changelog.Debian.gz"), changelog.as_bytes());
    let packing = "xz";
    real(name, version, &Recipe { packing, fill: &fill })
}
