// SPDX-License-Identifier: GPL-3.0-or-later
//! The attacks on a TUF client (section 1.5.2 of the specification, and beyond it), each with the recipe that makes it.
//!
//! One table for three doors: the client itself, `bastide-repo import` and `bastide-host update`. Each recipe has the
//! history of [`Vault`] and changes its third version; the victim has seen the second. Each is refused with the
//! reason that the table names, teaches the victim nothing but what is properly signed, leaves what is installed or
//! served as it was, and does not keep the victim from a later, honest version.
//!
//! A recipe that signs with a role's key shows what a thief of that key, or an insider, can do.
//!
//! Not in this table: attacks on an archive, which only the two doors that take one face (`carried.rs`); slow retrieval, which
//! for files means that nobody waits for what never comes: here a pipe in the place of a file, there one in the place
//! of the bundle. A stick that is slow on purpose stays slow.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use signing::openpgp::OpenPgpError;
use signing::output::Refused;
use signing::release::Part;
use signing::tuf::TufError;

mod content;
mod parsed;
mod signed;
pub mod vault;

use content::{content, files};
use parsed::parsing;
use signed::{freshness, signatures};
use vault::{Built, Node, Vault, key};

/// Why a door refused.
#[derive(Debug)]
pub struct Refusal {
    /// The code of the client's error, or `policy` where the application refused.
    pub code: String,
    pub text: String,
}

impl Refusal {
    /// Of an error, which must be a refusal of one line: exit code 3.
    pub fn of(error: &anyhow::Error) -> Self {
        let text = format!("{error:#}");
        assert_eq!(text.lines().count(), 1, "{text}");
        for cause in error.chain() {
            if let Some(judged) = cause.downcast_ref::<TufError>() {
                assert!(judged.is_refusal(), "no refusal: {text}");
                let code = judged.code().to_owned();
                return Self { code, text };
            }
            if let Some(OpenPgpError::Refused(_)) = cause.downcast_ref() {
                let code = "openpgp".to_owned();
                return Self { code, text };
            }
            if let Some(refused) = cause.downcast_ref::<Refused>() {
                // Where only the text crosses, the code begins it.
                let first = refused.0.split_once(": ").map_or("", |(first, _)| first);
                let coded = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
                let code = if coded { first } else { "policy" }.to_owned();
                return Self { code, text };
            }
        }
        panic!("no refusal: {text}");
    }
}

/// How far a door goes.
#[derive(Clone, Copy, PartialEq)]
pub enum Go {
    /// It takes what it is offered.
    Take,
    /// It only says whether it would.
    Look,
}

/// A way into a site. It has seen the second version when it is made, and again after [`Door::again`].
pub trait Door {
    /// The releases that the site makes.
    fn vault(&self) -> &Vault;
    /// Offers a repository; the newest release in it is what is taken.
    fn offer(&mut self, vault: &Vault, go: Go) -> Result<(), Refusal>;
    /// What its client remembers, by file name.
    fn memory(&self) -> BTreeMap<String, Vec<u8>>;
    /// What is installed or served: a refused offer leaves it as it was.
    fn harm(&self) -> String;
    /// Puts back what it remembered at first.
    fn again(&mut self);
    /// Whether it is handed files, and no archive.
    fn takes_files(&self) -> bool;
}

/// The last role of which an attack makes the victim trust the new file: the attack comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Learns {
    Nothing,
    Root,
    Timestamp,
    Snapshot,
    Targets,
    Host,
}

impl Learns {
    fn of(memory: &str) -> Self {
        match memory.split('.').next().unwrap() {
            "root" => Self::Root,
            "timestamp" => Self::Timestamp,
            "snapshot" => Self::Snapshot,
            "targets" => Self::Targets,
            "role" => Self::Host,
            _ => panic!("{memory} does not belong into a memory"),
        }
    }

    /// The recipes with a new root change nothing behind it.
    fn teaches(self, role: Self) -> bool {
        if role == Self::Root { self == role } else { role <= self }
    }
}

/// What the attacker does to an honest repository.
pub type Recipe = fn(&mut Vault);

/// An attack.
pub struct Attack {
    pub name: &'static str,
    pub recipe: Recipe,
    /// The codes of the reasons that may be given: which of two checks comes first may depend on a length.
    pub codes: &'static [&'static str],
    /// What the reason names.
    pub says: &'static str,
    pub learns: Learns,
    /// How the site goes on afterwards.
    pub heal: Recipe,
}

fn attack(
    name: &'static str,
    codes: &'static [&'static str],
    says: &'static str,
    learns: Learns,
    recipe: Recipe,
) -> Attack {
    let heal = |vault: &mut Vault| vault.publish(9, 2);
    Attack {
        name,
        recipe,
        codes,
        says,
        learns,
        heal,
    }
}

/// Every attack of the table against a door.
pub fn withstand(door: &mut impl Door) {
    let seen = door.vault().clone();
    let mut honest = seen.clone();
    honest.publish(3, 2);
    let before = door.memory();
    let files = if door.takes_files() { files() } else { Vec::new() };
    for attack in content()
        .into_iter()
        .chain(freshness())
        .chain(signatures())
        .chain(parsing())
        .chain(files)
    {
        let name = attack.name;
        let mut vault = honest.clone();
        (attack.recipe)(&mut vault);
        let harm = door.harm();
        let Err(refusal) = door.offer(&vault, Go::Take) else {
            panic!("{name}: accepted")
        };
        assert!(attack.codes.contains(&refusal.code.as_str()), "{name}: {refusal:?}");
        assert!(refusal.text.contains(attack.says), "{name}: {refusal:?}");
        assert_eq!(door.harm(), harm, "{name}: something was changed");

        let memory = door.memory();
        let signed: BTreeSet<&[u8]> = vault.metadata.values().map(Node::bytes).collect();
        for (file, bytes) in &memory {
            let new = before.get(file) != Some(bytes);
            assert_eq!(new, attack.learns.teaches(Learns::of(file)), "{name}: {file}");
            assert!(
                !new || signed.contains(bytes.as_slice()),
                "{name}: {file} was never offered"
            );
        }
        assert!(
            before.keys().all(|file| memory.contains_key(file)),
            "{name}: memory was lost"
        );

        // Neither is the memory of the second version lost, nor the victim locked out.
        let mut old = seen.clone();
        old.put("timestamp.json", old.timestamps[&1].clone());
        let refusal = door.offer(&old, Go::Look).expect_err(name);
        // An expired root comes before everything else.
        let code = if attack.learns == Learns::Root {
            "expired"
        } else {
            "rollback"
        };
        assert_eq!(refusal.code, code, "{name}: {refusal:?}");
        let mut later = honest.clone();
        (attack.heal)(&mut later);
        door.offer(&later, Go::Look)
            .unwrap_or_else(|refusal| panic!("after {name}: {refusal:?}"));
        door.again();
    }
}

/// A fast-forward attack is no forgery: the stolen keys sign it. It must be possible to recover from it.
pub fn recover(door: &mut impl Door) {
    for rotate in [rotate_timestamp as Recipe, rotate_snapshot] {
        let seen = door.vault().clone();
        let mut burnt = seen.clone();
        burnt.publish(1_000_000, 1);
        door.offer(&burnt, Go::Take).unwrap();
        let mut honest = seen.clone();
        honest.publish(3, 1);
        let refusal = door.offer(&honest, Go::Take).unwrap_err();
        assert_eq!(refusal.code, "rollback", "{refusal:?}");
        rotate(&mut honest);
        honest.put_root(2, &[1, 2]);
        honest.publish(3, 1);
        door.offer(&honest, Go::Take).unwrap();
        // The new keys' memory is one: what they signed before is refused.
        let mut old = honest.clone();
        old.publish(2, 1);
        assert_eq!(door.offer(&old, Go::Take).unwrap_err().code, "rollback");
        door.again();
    }
}

fn rotate_timestamp(vault: &mut Vault) {
    vault.timestamp = key();
}

fn rotate_snapshot(vault: &mut Vault) {
    vault.snapshot = key();
}

/// The holder of the delegated role's key signs what stands in the vault, and the site's index names it in good faith.
fn insider(vault: &mut Vault) {
    vault.put_host(3);
    reindex(vault);
}

fn reindex(vault: &mut Vault) {
    vault.index(3, &[("host", 3), ("targets", 3)]);
}

/// Names of a directory's files with their contents, without locks and without the record of time: that one tells how
/// long the machine has run and nothing of what it was offered.
pub fn remembered(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| ![".lock", "time.json"].iter().any(|name| path.ends_with(name)))
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect()
}

/// A release of bytes that say what they are.
pub fn plain(version: &str) -> Built {
    let root_hash = signing::digest::Sha256::of(version.as_bytes());
    let parts = Part::ALL.map(|part| (part, format!("{} of {version}\n", part.file()).repeat(100).into_bytes()));
    Built {
        version: version.parse().unwrap(),
        root_hash,
        parts: parts.to_vec(),
    }
}
