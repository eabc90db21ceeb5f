// SPDX-License-Identifier: GPL-3.0-or-later
//! A bundle: its tar index, its list, its compressed targets.
#![no_main]

#[path = "../seeds.rs"]
mod seeds;

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use offline_repo::bundle::{self, BundleSource, BundleWriter, Manifest, MemberFacts, Packing, Piece, VolumeFacts};
use offline_repo::tarindex::TarIndex;
use signing::digest::Sha256;
use signing::tuf::Source;

fn honest() -> Vec<Vec<u8>> {
    let start = || BundleWriter::new(Vec::new(), &Manifest::new(vec!["1.0.0".parse().unwrap()], None)).unwrap();
    let packed = zstd::encode_all(&[7; 3000][..], 3).unwrap();
    let size = packed.len() as u64;
    let mut site = start();
    site.metadata("timestamp.json", b"{}").unwrap();
    site.site_metadata("1.root.json", b"{}").unwrap();
    site.target("host/1.0.0/aa.root.erofs", Packing::Whole, None, size, &mut &packed[..]).unwrap();
    // A name that needs the header's field for its beginning.
    let mut long = start();
    let name = format!("host/1.0.0-{}/{}.root.erofs", "a".repeat(60), "b".repeat(60));
    long.target(&name, Packing::Whole, None, size, &mut &packed[..]).unwrap();
    let sha256 = Sha256::of(b"");
    let piece = Piece { number: 1, of: 2 };
    let members = vec![MemberFacts {
        name: bundle::member_name("host/1.0.0/aa.root.erofs", Packing::Whole, Some(piece)),
        size,
        sha256,
        piece: Some(piece),
    }];
    let facts = VolumeFacts {
        set: sha256,
        number: 1,
        of: 2,
        members,
    };
    let list = Manifest::new(vec!["1.0.0".parse().unwrap()], Some(facts));
    let mut volume = BundleWriter::volume(Vec::new(), &list, "signature").unwrap();
    volume.target("host/1.0.0/aa.root.erofs", Packing::Whole, Some(piece), size, &mut &packed[..]).unwrap();
    let seeds = vec![
        volume.finish().unwrap(),
        start().finish().unwrap(),
        site.finish().unwrap(),
        long.finish().unwrap(),
    ];
    for seed in &seeds {
        BundleSource::new(Cursor::new(seed)).unwrap();
    }
    seeds
}

fuzz_target!(init: seeds::write(honest), |data: &[u8]| {
    let Ok(mut index) = TarIndex::open(Cursor::new(data)) else { return };
    for name in index.names().to_vec() {
        assert!(!name.starts_with('/') && name.split('/').all(|part| part != ".." && !part.is_empty()));
        let member = index.member(&name).unwrap();
        assert!(member.offset + member.size <= data.len() as u64);
        let mut content = Vec::new();
        index.read(&name).unwrap().unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, member.size);
    }
    let Ok(mut bundle) = BundleSource::new(Cursor::new(data)) else { return };
    let names: Vec<String> = bundle.metadata_names().map(str::to_owned).collect();
    for name in names {
        drop(bundle.metadata(&name, 1 << 20));
    }
    for path in bundle.target_paths() {
        if let Ok(Some(target)) = bundle.target(&path) {
            let mut content = Vec::new();
            drop(target.take(1 << 20).read_to_end(&mut content));
        }
    }
});
