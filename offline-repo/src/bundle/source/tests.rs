// SPDX-License-Identifier: GPL-3.0-or-later
use std::io::{Cursor, Write};

use signing::digest::Sha256;

use super::*;
use crate::bundle::{BundleWriter, MemberFacts, Packing, Piece, VolumeFacts, member_name};

fn bundle(members: &[(&str, &[u8])]) -> Result<BundleSource<Cursor<Vec<u8>>>, TarError> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    BundleSource::new(Cursor::new(builder.into_inner().unwrap()))
}

const MANIFEST: (&str, &[u8]) = (
    "bundle.json",
    br#"{"format":1,"created_by":"test","releases":["1.0.0"]}"#,
);

#[test]
fn what_is_written_is_read() {
    let list = Manifest::new(vec!["1.0.0".parse().unwrap()], None);
    let mut writer = BundleWriter::new(Vec::new(), &list).unwrap();
    writer.metadata("timestamp.json", b"{}").unwrap();
    let packed = zstd::encode_all(&[7; 100_000][..], 3).unwrap();
    let size = packed.len() as u64;
    writer
        .target("host/1.0.0/aa.root.erofs", Packing::Whole, None, size, &mut &packed[..])
        .unwrap();
    let mut source = BundleSource::new(Cursor::new(writer.finish().unwrap())).unwrap();
    assert_eq!(source.metadata("timestamp.json", 2).unwrap().unwrap(), b"{}");
    assert!(matches!(
        source.metadata("timestamp.json", 1),
        Err(SourceError::TooLong { .. })
    ));
    assert!(source.metadata("root.json", 9).unwrap().is_none());
    let mut content = Vec::new();
    let mut target = source.target("host/1.0.0/aa.root.erofs").unwrap().unwrap();
    target.read_to_end(&mut content).unwrap();
    drop(target);
    assert_eq!(content, [7; 100_000]);
    assert!(source.carried_size("host/1.0.0/aa.root.erofs").unwrap() < 1000);
}

#[test]
fn a_name_that_no_reader_takes_is_not_written() {
    let list = Manifest::new(vec!["1.0.0".parse().unwrap()], None);
    let mut writer = BundleWriter::new(Vec::new(), &list).unwrap();
    let long = "x".repeat(200);
    assert!(writer.metadata(&long, b"").is_err());
    assert!(writer.target(&long, Packing::Whole, None, 0, &mut &b""[..]).is_err());
    BundleSource::new(Cursor::new(writer.finish().unwrap())).unwrap();
}

#[test]
fn members_without_a_place_are_refused() {
    assert!(bundle(&[MANIFEST]).is_ok());
    assert!(bundle(&[MANIFEST, ("site/metadata/x", b"")]).unwrap().carries_site());
    for name in [
        "extra",
        "metadata/sub/x",
        "targets/x",
        "else/x.zst",
        "site/x",
        "site/metadata",
        "site/metadata/sub/x",
        "site/targets/x.zst",
    ] {
        assert!(bundle(&[MANIFEST, (name, b"")]).is_err(), "{name}");
    }
    assert!(
        bundle(&[MANIFEST, ("targets/x.zst", b""), ("metadata/x", b"")]).is_err(),
        "order"
    );
    assert!(
        bundle(&[MANIFEST, ("site/metadata/x", b""), ("metadata/x", b"")]).is_err(),
        "order of the repositories"
    );
    assert!(bundle(&[("metadata/x", b""), MANIFEST]).is_err(), "manifest first");
    assert!(bundle(&[("metadata/x", b"")]).is_err(), "no manifest");
    assert!(bundle(&[("bundle.json", b"{\"format\":2,\"created_by\":\"\",\"releases\":[]}")]).is_err());
}

#[test]
fn a_frame_with_a_huge_window_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    for _ in 0..100 {
        encoder.write_all(&[1; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let mut source = bundle(&[MANIFEST, ("targets/bomb.zst", &bomb)]).unwrap();
    let mut target = source.target("bomb").unwrap().unwrap();
    assert!(target.read(&mut [0; 10]).is_err());
}

#[test]
fn a_damaged_frame_is_an_error_and_not_an_end() {
    let mut frame = zstd::encode_all(&[9u8; 5000][..], 3).unwrap();
    let last = frame.len() - 1;
    frame.truncate(last);
    let mut source = bundle(&[MANIFEST, ("targets/x.zst", &frame)]).unwrap();
    let mut target = source.target("x").unwrap().unwrap();
    assert!(target.read_to_end(&mut Vec::new()).is_err());
}

/// Two volumes of a target in three frames, and what `change` makes of their lists.
fn volumes(change: impl Fn(&mut VolumeFacts)) -> Vec<Vec<u8>> {
    let frames = [1u8, 2, 3].map(|byte| zstd::encode_all(&[byte; 1000][..], 3).unwrap());
    let pieces = [[&frames[0][..], &frames[1]].concat(), frames[2].clone()];
    let volume = |(number, content): (u32, &Vec<u8>)| {
        let piece = Some(Piece { number, of: 2 });
        let mut facts = VolumeFacts {
            set: Sha256::of(b"set"),
            number,
            of: 2,
            members: vec![
                MemberFacts {
                    name: "metadata/timestamp.json".into(),
                    size: 2,
                    sha256: Sha256::of(b"{}"),
                    piece: None,
                },
                MemberFacts {
                    name: member_name("host/x", Packing::Whole, piece),
                    size: content.len() as u64,
                    sha256: Sha256::of(content),
                    piece,
                },
            ],
        };
        change(&mut facts);
        let list = Manifest::new(vec!["1.0.0".parse().unwrap()], Some(facts));
        let mut writer = BundleWriter::volume(Vec::new(), &list, "signature").unwrap();
        writer.metadata("timestamp.json", b"{}").unwrap();
        writer
            .target("host/x", Packing::Whole, piece, content.len() as u64, &mut &content[..])
            .unwrap();
        writer.finish().unwrap()
    };
    (1..).zip(&pieces).map(volume).collect()
}

fn open(bytes: &[u8]) -> Result<Volume<Cursor<Vec<u8>>>, TarError> {
    Volume::new(Cursor::new(bytes.to_vec()))
}

#[test]
fn volumes_in_any_order_are_one_target_and_one_alone_is_none() {
    let both = volumes(|_| ());
    for order in [[0, 1], [1, 0]] {
        let opened = order.map(|index: usize| open(&both[index]).unwrap());
        let mut source = BundleSource::gather(opened.into(), Vec::new()).unwrap();
        let mut content = Vec::new();
        source
            .target("host/x")
            .unwrap()
            .unwrap()
            .read_to_end(&mut content)
            .unwrap();
        assert_eq!(content, [[1; 1000], [2; 1000], [3; 1000]].concat());
        assert_eq!(source.metadata("timestamp.json", 9).unwrap().unwrap(), b"{}");
    }
    let mut alone = BundleSource::gather(vec![open(&both[1]).unwrap()], Vec::new()).unwrap();
    assert!(alone.target_paths().is_empty() && alone.target("host/x").unwrap().is_none());
    let second = zstd::encode_all(&[3; 1000][..], 3).unwrap();
    let loose = Loose {
        path: "host/x".into(),
        packing: Packing::Whole,
        piece: Piece { number: 2, of: 2 },
        size: second.len() as u64,
        reader: Cursor::new(second),
    };
    let source = BundleSource::gather(vec![open(&both[0]).unwrap()], vec![loose]).unwrap();
    assert_eq!(source.target_paths().len(), 1);
}

/// The recipe: each list says one thing that is not so.
#[test]
fn volumes_that_are_not_what_they_say_are_refused() {
    let changes: [fn(&mut VolumeFacts); 9] = [
        |facts| facts.number = 0,
        |facts| facts.number = 3,
        |facts| facts.of = 10_000,
        |facts| drop(facts.members.pop()),
        |facts| facts.members.reverse(),
        |facts| facts.members[1].size += 1,
        |facts| facts.members[1].piece = Some(Piece { number: 3, of: 2 }),
        |facts| facts.members[1].piece = Some(Piece { number: 1, of: 1 }),
        |facts| facts.members[1].piece = None,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert!(volumes(change).iter().any(|bytes| open(bytes).is_err()), "{index}");
    }
    let (both, other) = (volumes(|_| ()), volumes(|facts| facts.set = Sha256::of(b"other")));
    let gather = |volumes: [&[u8]; 2]| {
        BundleSource::gather(volumes.map(|bytes| open(bytes).unwrap()).into(), Vec::new()).map(drop)
    };
    assert!(gather([&both[0], &both[1]]).is_ok());
    assert!(gather([&both[0], &other[1]]).is_err(), "two sets");
    assert!(gather([&both[0], &both[0]]).is_err(), "one twice");
    let three = volumes(|facts| {
        facts.members[1].piece = Some(Piece {
            number: facts.number,
            of: 3,
        })
    });
    assert!(gather([&three[0], &both[1]]).is_err(), "another number of pieces");
}

#[test]
fn a_damaged_member_is_named() {
    let mut bytes = volumes(|_| ()).remove(0);
    assert_eq!(open(&bytes).unwrap().damaged().unwrap(), None);
    let frame = bytes
        .windows(4)
        .position(|four| four == [0x28, 0xb5, 0x2f, 0xfd])
        .unwrap();
    bytes[frame + 9] ^= 1;
    let named = open(&bytes).unwrap().damaged().unwrap();
    assert_eq!(named.as_deref(), Some("targets/host/x.zst.0001"));
}
