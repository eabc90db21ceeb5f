// SPDX-License-Identifier: GPL-3.0-or-later
//! Debian's control format: Release files, Packages indices, the paths in them.
#![no_main]

#[path = "../seeds.rs"]
mod seeds;

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use offline_repo::control::{Release, Stanza, Stanzas, safe_path};
use offline_repo::upstream::promise;

fn honest() -> Vec<Vec<u8>> {
    let hash = "0123456789abcdef".repeat(4);
    let release = format!(
        "Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n\
         Valid-Until: Sat, 19 Sep 2026 07:55:41 UTC\nAcquire-By-Hash: yes\nArchitectures: all amd64\nComponents: main\n\
         SHA256:\n {hash} 1234 main/binary-amd64/Packages\n {hash} 567 main/binary-amd64/Packages.xz\n"
    );
    let packages = format!(
        "Package: a\nVersion: 1:2.3-4+deb13u1\nArchitecture: amd64\nSize: 12\nSHA256: {hash}\n\
         Filename: pool/main/a/a/a_2.3_amd64.deb\nDescription: x\n more\n .\n text\n\n\n\
         Package: b\nVersion: 1~rc1\nFilename: ../../etc/passwd\n"
    );
    Release::parse(release.as_bytes()).unwrap();
    vec![release.into_bytes(), packages.into_bytes()]
}

fuzz_target!(init: seeds::write(honest), |data: &[u8]| {
    // In one piece and in many: the same stanzas.
    let read = |piece: usize| {
        let mut found = Vec::new();
        let mut stanzas = Stanzas::new(|stanza: &Stanza| {
            found.push(["Package", "Version", "Filename"].map(|name| stanza.get(name).map(str::to_owned)));
            Ok(())
        });
        let written = data.chunks(piece).try_for_each(|piece| stanzas.write_all(piece));
        (written.is_ok() && stanzas.finish().is_ok()).then_some(found)
    };
    let whole = read(data.len().max(1));
    assert_eq!(whole, read(7), "read in pieces it is something else");
    for stanza in whole.into_iter().flatten() {
        if let Some(path) = stanza[2].as_deref().and_then(|path| safe_path(path).ok()) {
            assert!(!path.starts_with('/') && path.split('/').all(|part| part != ".."));
        }
    }
    if let Ok(release) = Release::parse(data) {
        drop(promise(&release, "main", "amd64"));
        drop(release.file("main/binary-amd64/Packages.xz"));
    }
});
