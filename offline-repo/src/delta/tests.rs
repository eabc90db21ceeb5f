// SPDX-License-Identifier: GPL-3.0-or-later
use std::io::Read;

use super::*;

/// Bytes without a pattern that are the same each time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn base(bytes: Vec<u8>) -> (Base, Held) {
    let facts = Base {
        path: "host/1.0.0/x".into(),
        length: bytes.len() as u64,
        sha256: Sha256::of(&bytes),
    };
    (facts, Held::Memory(bytes))
}

fn delta(bases: &[(Base, Held)], new: &[u8]) -> Vec<u8> {
    let mut to = Vec::new();
    let length = new.len() as u64;
    let mut told = 0;
    make(bases, &Held::Memory(new.to_vec()), length, &mut to, &mut |done| {
        told = done
    })
    .unwrap();
    assert_eq!(told, length);
    to
}

fn applied(bases: &[(Base, Held)], mut delta: &[u8]) -> io::Result<Vec<u8>> {
    let list = list(&mut delta)?;
    let held: Vec<&Held> = bases.iter().map(|(_, held)| held).collect();
    let mut made = Vec::new();
    Patched::new(delta, &list, &held).read_to_end(&mut made)?;
    Ok(made)
}

/// A file that moved, changed here and there, and took in a piece of another base.
fn changed() -> (Vec<(Base, Held)>, Vec<u8>) {
    let (one, two) = (noise(1, 9 << 20), noise(2, 3 << 20));
    let mut new = noise(3, 70_000);
    new.extend_from_slice(&one[1000..6 << 20]);
    for at in (0..new.len()).step_by(4099) {
        new[at] = new[at].wrapping_add(3);
    }
    new.extend_from_slice(&two[1 << 20..]);
    new.extend_from_slice(&one[7 << 20..]);
    (vec![base(one), base(two)], new)
}

#[test]
fn what_is_made_is_the_new_file_and_the_delta_is_small() {
    let (bases, new) = changed();
    let delta = delta(&bases, &new);
    assert_eq!(applied(&bases, &delta).unwrap(), new);
    let packed = zstd::encode_all(&delta[..], 19).unwrap();
    assert!(packed.len() < 100_000, "{}", packed.len());
}

#[test]
fn nothing_no_base_and_nothing_alike_are_deltas_too() {
    for (bases, new) in [
        (vec![base(noise(1, 5000))], Vec::new()),
        (Vec::new(), noise(2, 5 << 20)),
        (vec![base(noise(1, 5000))], noise(2, 5000)),
        (vec![base(Vec::new())], noise(2, 5000)),
        (vec![base(noise(1, BLOCK))], noise(1, BLOCK)),
    ] {
        assert_eq!(applied(&bases, &delta(&bases, &new)).unwrap(), new);
    }
}

#[test]
fn a_base_is_known_by_its_bytes() {
    let (facts, held) = base(noise(1, 3 << 20));
    assert!(held.is(&facts).unwrap());
    let mut longer = noise(1, 3 << 20);
    longer.push(9);
    assert!(
        Held::Memory(longer).is(&facts).unwrap(),
        "a partition is longer than its file system"
    );
    assert!(!Held::Memory(noise(2, 3 << 20)).is(&facts).unwrap());
    assert!(!Held::Memory(noise(1, 1 << 20)).is(&facts).unwrap());
}

/// The recipe: one place of a small delta is overwritten, cut off or added to.
#[test]
fn a_delta_that_cannot_be_is_refused() {
    let bases = [base(noise(1, 3000))];
    let mut new = noise(1, 3000);
    new[1500] ^= 1;
    let good = delta(&bases, &new);
    let block = MAGIC.len() + 4 + u32::from_le_bytes(good[16..20].try_into().unwrap()) as usize;
    let refused = |why: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bad = good.clone();
        change(&mut bad);
        let error = applied(&bases, &bad).unwrap_err();
        assert!(error.to_string().contains(why), "{error} is not {why}");
        let kinds = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
        assert!(kinds.contains(&error.kind()), "{error}");
    };
    let put_at = |at: usize, bytes: &[u8]| {
        let bytes = bytes.to_vec();
        move |bad: &mut Vec<u8>| bad[at..at + bytes.len()].copy_from_slice(&bytes)
    };
    let control = block + 12;
    refused("does not begin like one", &put_at(0, b"B"));
    refused("its list is too long", &put_at(16, &[255; 4]));
    refused("key must be a string", &put_at(21, b"!"));
    for field in 0..3 {
        refused("cannot have these lengths", &put_at(block + 4 * field, &[255; 4]));
    }
    refused("cannot have these lengths", &put_at(block, &[0; 4]));
    // The list says less than the block makes, and the block less than the control.
    let length = good.windows(4).position(|four| four == b"3000").unwrap();
    refused("cannot have these lengths", &put_at(length, b"2999"));
    refused("cannot have these lengths", &put_at(block, &2999_u32.to_le_bytes()));
    // What is taken, 3000, becomes a number without end, 3001 and 2999; and its place another.
    refused("a block is not what it says", &put_at(control, &[0x80; 4]));
    refused("a block is not what it says", &|bad| bad[control] ^= 1);
    refused("a block is not what it says", &|bad| bad[control] ^= 0x0f);
    let size = u32::from_le_bytes(good[block + 4..block + 8].try_into().unwrap()) as usize;
    refused("a block is not what it says", &|bad| bad[control + size - 1] = 0x7f);
    refused("there is more behind its end", &|bad| bad.push(0));
    for length in [10, 18, block, block + 5, good.len() - 1] {
        refused("", &|bad| bad.truncate(length));
    }
    let short = [base(noise(1, 100))];
    assert!(applied(&short, &good).is_err(), "bases that end too soon");
}

#[test]
fn too_many_bases_are_refused() {
    let bases: Vec<_> = (0..5).map(|seed| base(noise(seed, 10))).collect();
    assert!(applied(&bases, &delta(&bases, b"new")).is_err());
}

#[test]
fn numbers_come_back() {
    for number in [0, 1, 127, 128, 300, u64::MAX] {
        let mut bytes = Vec::new();
        put(&mut bytes, number);
        assert_eq!(take(&mut &bytes[..]), Some(number));
        assert_eq!(zigzag(unzigzag(number)), number);
    }
    assert_eq!(take(&mut &[0x80; 20][..]), None);
}
