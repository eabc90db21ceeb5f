// SPDX-License-Identifier: GPL-3.0-or-later
//! A delta: its list, its blocks, and what they make of bases that are shorter than the list says.
#![no_main]

#[path = "../seeds.rs"]
mod seeds;

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use offline_repo::delta::{self, Base, Held, Patched};
use signing::digest::Sha256;

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        bytes.extend(Sha256::of(&[&[seed], &bytes[..]].concat()).0);
    }
    bytes.truncate(length);
    bytes
}

fn base(seed: u8) -> (Base, Held) {
    let bytes = noise(seed, 3000);
    let facts = Base {
        path: "host/1.0.0/x".into(),
        length: 3000,
        sha256: Sha256::of(&bytes),
    };
    (facts, Held::Memory(bytes))
}

fn honest() -> Vec<Vec<u8>> {
    let mut changed = noise(1, 3000);
    changed[1500] ^= 1;
    changed.extend(noise(2, 900));
    changed.extend(noise(3, 200));
    let mut seeds = Vec::new();
    for (bases, new) in [
        (vec![base(1), base(2)], changed),
        (vec![base(1)], noise(1, 3000)),
        (Vec::new(), noise(4, 100)),
    ] {
        let mut to = Vec::new();
        let length = new.len() as u64;
        delta::make(&bases, &Held::Memory(new), length, &mut to, &mut |_| ()).unwrap();
        seeds.push(to);
    }
    seeds
}

fuzz_target!(init: seeds::write(honest), |data: &[u8]| {
    let mut from = data;
    let Ok(list) = delta::list(&mut from) else { return };
    let held: Vec<Held> = (1..).take(list.bases.len()).map(|seed| base(seed).1).collect();
    let held: Vec<&Held> = held.iter().collect();
    let mut made = Vec::new();
    let whole = Patched::new(from, &list, &held).read_to_end(&mut made).is_ok();
    assert!(made.len() as u64 <= list.length && (!whole || made.len() as u64 == list.length));
});
