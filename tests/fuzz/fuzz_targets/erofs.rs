// SPDX-License-Identifier: GPL-3.0-or-later
//! The reader of erofs that the audit has: the bytes begin at the superblock, or are a whole image.
#![no_main]

#[path = "../../../signing/tests/common/mod.rs"]
mod common;
#[path = "../seeds.rs"]
mod seeds;

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use hardening::medium::Image;
use hardening::medium::erofs::{Erofs, Kind};
use libfuzzer_sys::fuzz_target;

/// Without the kibibyte before the superblock, so that the fuzzer's short inputs reach the inodes.
fn honest() -> Vec<Vec<u8>> {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join("a/b")).unwrap();
    fs::write(tree.path().join("a/short"), "short").unwrap();
    std::os::unix::fs::symlink("short", tree.path().join("a/link")).unwrap();
    let small = common::erofs(tree.path());
    fs::write(tree.path().join("a/b/long"), [7; 5000]).unwrap();
    let large = common::erofs(tree.path());
    vec![small[1024..].to_vec(), large[1024..].to_vec(), small]
}

fuzz_target!(init: seeds::write(honest), |data: &[u8]| {
    let mut file = tempfile::tempfile().unwrap();
    if !data.starts_with(&[0; 8]) {
        file.seek(SeekFrom::Start(1024)).unwrap();
    }
    file.write_all(data).unwrap();
    let image = Image::nameless(file).unwrap();
    let Ok(erofs) = Erofs::open(&image) else { return };
    let mut open = vec![(String::new(), 0)];
    let mut seen = 0;
    while let Some((path, depth)) = open.pop() {
        let Ok(Some(names)) = erofs.list(&path) else { continue };
        for (name, kind) in names {
            seen += 1;
            if seen > 200 {
                return;
            }
            let path = format!("{path}/{name}");
            match kind {
                Kind::Directory if depth < 4 => open.push((path, depth + 1)),
                Kind::File => {
                    if let Ok(Some(content)) = erofs.read(&path, 1 << 16) {
                        assert!(content.len() <= 1 << 16);
                    }
                }
                _ => {}
            }
        }
    }
});
