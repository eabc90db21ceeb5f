// SPDX-License-Identifier: GPL-3.0-or-later
//! Debian's packages and the changelogs in them, and the order of versions.
#![no_main]

#[path = "../seeds.rs"]
mod seeds;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use offline_repo::{changelog, deb, debversion};

const CHANGELOG: &str = "x (1.0-2) trixie-security; urgency=high\n\n  * CVE-2026-0001 and cve-2025-123456\n\n\
                         -- A <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000\n\nx (1:0~rc1-1) stable; urgency=low\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn honest() -> Vec<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let packed = gzip(CHANGELOG.as_bytes());
    for name in [
        "./usr/share/doc/x/changelog.gz",
        "./usr/share/doc/x/changelog.Debian.gz",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(packed.len() as u64);
        tar.append_data(&mut header, format!("./{}", "long/".repeat(30)), &packed[..])
            .unwrap();
        tar.append_data(&mut header, name, &packed[..]).unwrap();
    }
    let data = tar.into_inner().unwrap();
    let mut packages = vec![CHANGELOG.as_bytes().to_vec()];
    let zst = zstd::encode_all(&data[..], 3).unwrap();
    for (name, data) in [
        ("data.tar", data.clone()),
        ("data.tar.gz", gzip(&data)),
        ("data.tar.zst", zst),
    ] {
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in [("debian-binary", b"2.0\n".to_vec()), (name, data)] {
            write!(
                bytes,
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                100_644,
                content.len()
            )
            .unwrap();
            bytes.extend(&content);
            bytes.extend(vec![b'\n'; content.len() % 2]);
        }
        assert_eq!(deb::changelog(&mut &bytes[..], "x").unwrap(), Some(packed.clone()));
        packages.push(bytes);
    }
    packages
}

fuzz_target!(init: seeds::write(honest), |data: &[u8]| {
    if let Ok(Some(packed)) = deb::changelog(&mut &*data, "x") {
        assert!(packed.len() as u64 <= changelog::LARGEST_PACKED);
        drop(changelog::between(&packed, "1:0~rc1-1", "1.0-2"));
    }
    drop(changelog::between(data, "1", "1.0-2"));
    if let Ok(named) = changelog::between(&gzip(data), "1", "1.0-2") {
        for fix in named.fixes {
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let (year, number) = fix.strip_prefix("CVE-").unwrap().split_once('-').unwrap();
            assert!(year.len() == 4 && digits(year) && number.len() >= 4 && digits(number), "{fix}");
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let (one, other) = text.split_at(text.floor_char_boundary(text.len() / 2));
        assert_eq!(debversion::compare(one, other), debversion::compare(other, one).reverse());
        assert!(debversion::compare(one, one).is_eq());
    }
});
