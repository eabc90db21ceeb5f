// SPDX-License-Identifier: GPL-3.0-or-later
//! A vault's repository as a bundle, and the attacks on the archive that a bundle is: for the two doors that take bundles.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io;

use offline_repo::bundle::{BundleWriter, Manifest};
use signing::tuf::author::OPENPGP_THRESHOLD;

use crate::attacks::vault::{Node, Vault};
use crate::attacks::{Door, Go, Refusal};
use crate::common;

const BLOCK: usize = 512;
/// The part that the recipes change.
const PART: &str = "root.erofs.zst";

/// A bundle of all that the vault's repository holds.
pub fn bundle(vault: &Vault) -> Vec<u8> {
    bundle_beside(vault, vault.countersigned())
}

fn bundle_beside(vault: &Vault, signatures: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    let versions: BTreeSet<_> = vault
        .contents
        .keys()
        .filter_map(|path| path.split('/').nth(1))
        .collect();
    let releases = versions.iter().map(|version| version.parse().unwrap()).collect();
    let mut writer = BundleWriter::new(Vec::new(), &Manifest::new(releases, None)).unwrap();
    for (name, node) in &vault.metadata {
        writer.metadata(name, node.bytes()).unwrap();
    }
    for (name, signature) in signatures {
        writer.metadata(&name, &signature).unwrap();
    }
    for (path, node) in &vault.contents {
        let more = if let Node::Long(_, more) = node { *more } else { 0 };
        let content = io::Read::chain(node.bytes(), io::Read::take(io::repeat(0), more));
        let packed = zstd::encode_all(content, 1).unwrap();
        writer
            .target(
                path,
                offline_repo::bundle::Packing::Whole,
                None,
                packed.len() as u64,
                &mut &packed[..],
            )
            .unwrap();
    }
    writer.finish().unwrap()
}

/// The thief has every TUF key, up to the custodians', and not the OpenPGP release key: nothing new is believed.
pub fn without_release_key<D: Door>(door: &mut D, offer: fn(&mut D, &[u8]) -> Result<(), Refusal>) {
    let mut publication = door.vault().clone();
    publication.publish(3, 2);
    let mut succession = door.vault().clone();
    succession.put_root(2, &[0, 1]);
    succession.publish(3, 2);
    // Honest, and of something else.
    let other = common::release_signature(door.vault().file("timestamp.json"));
    let forgeries = [None, Some(other), Some(b"no signature".to_vec())];
    let mut refused = |vault: &Vault, signatures: Vec<(String, Vec<u8>)>, file: &str| {
        let (harm, memory) = (door.harm(), door.memory());
        let Err(refusal) = offer(door, &bundle_beside(vault, signatures)) else {
            panic!("{file} was believed")
        };
        assert!(refusal.text.contains(file), "{refusal:?}");
        assert_eq!(door.harm(), harm, "{refusal:?}");
        assert_eq!(door.memory(), memory, "{refusal:?}");
    };
    for (vault, file, signature) in [
        (&publication, "timestamp.json", "3.timestamp.json.asc"),
        (&succession, "2.root.json", "2.root.json.asc"),
    ] {
        for forged in &forgeries {
            let mut signatures = vault.countersigned();
            signatures.retain(|(name, _)| name != signature);
            signatures.extend(forged.clone().map(|forged| (signature.to_owned(), forged)));
            refused(vault, signatures, file);
        }
    }
    // The release key alone, where the root wants a second certificate beside it.
    let mut alone = succession.clone();
    let custodians = alone.custodians.clone();
    alone.resign("2.root.json", &[&custodians[0], &custodians[1]], |signed| {
        signed[OPENPGP_THRESHOLD] = 2.into();
    });
    refused(&alone, alone.countersigned(), "1 of the 2 certificates");
    for vault in [publication, succession] {
        door.offer(&vault, Go::Look).unwrap();
    }
}

/// An attack on the archive.
struct Tampered {
    name: &'static str,
    says: &'static str,
    recipe: fn(&mut Archive),
}

/// Every attack of this table against a door, to which `offer` hands the bytes of a bundle.
pub fn withstand<D: Door>(door: &mut D, whole: &[u8], offer: fn(&mut D, &[u8]) -> Result<(), Refusal>) {
    let memory = door.memory();
    for attack in links().into_iter().chain(names()).chain(lies()) {
        let name = attack.name;
        let mut archive = Archive::read(whole);
        (attack.recipe)(&mut archive);
        let harm = door.harm();
        let Err(refusal) = offer(door, &archive.write()) else {
            panic!("{name}: accepted")
        };
        assert!(refusal.text.contains(attack.says), "{name}: {refusal:?}");
        assert_eq!(door.harm(), harm, "{name}: something was changed");
        assert_eq!(door.memory(), memory, "{name}: something was learnt");
    }
    let mut honest = door.vault().clone();
    honest.publish(3, 2);
    door.offer(&honest, Go::Look).unwrap();
}

/// A tar archive in pieces.
struct Archive {
    members: Vec<Member>,
    end: Vec<u8>,
}

struct Member {
    header: [u8; BLOCK],
    content: Vec<u8>,
}

impl Archive {
    fn read(bytes: &[u8]) -> Self {
        let (mut members, mut at) = (Vec::new(), 0);
        while bytes[at] != 0 {
            let header: [u8; BLOCK] = bytes[at..at + BLOCK].try_into().unwrap();
            let size = std::str::from_utf8(&header[124..135]).unwrap();
            let size = usize::from_str_radix(size, 8).unwrap().next_multiple_of(BLOCK);
            at += BLOCK;
            let content = bytes[at..at + size].to_vec();
            members.push(Member { header, content });
            at += size;
        }
        let end = bytes[at..].to_vec();
        Self { members, end }
    }

    fn write(&self) -> Vec<u8> {
        let members = self
            .members
            .iter()
            .flat_map(|member| [&member.header[..], &member.content]);
        members.chain([&self.end[..]]).collect::<Vec<_>>().concat()
    }

    fn at(&self, name: &str) -> usize {
        let found = self.members.iter().position(|member| member.name().ends_with(name));
        found.unwrap()
    }

    fn part(&mut self) -> &mut Member {
        let at = self.at(PART);
        &mut self.members[at]
    }
}

impl Member {
    fn name(&self) -> String {
        let field = |bytes: &[u8]| String::from_utf8(bytes.split(|byte| *byte == 0).next().unwrap().to_vec()).unwrap();
        field(&self.header[..100])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// A name without a prefix.
    fn rename(&mut self, name: &str) {
        self.put(0, &[0; 100])
            .put(345, &[0; 155])
            .put(0, name.as_bytes())
            .seal();
    }

    /// Another kind of member, which points elsewhere.
    fn kind(&mut self, kind: u8, to: &str) {
        self.content.clear();
        self.put(156, &[kind])
            .put(157, to.as_bytes())
            .put(124, b"00000000000\0")
            .seal();
    }

    fn seal(&mut self) {
        self.put(148, b"        ");
        let sum: u32 = self.header.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
    }
}

fn links() -> Vec<Tampered> {
    let tampered = |name, recipe| Tampered {
        name,
        says: "is no regular file",
        recipe,
    };
    vec![
        tampered("a symbolic link", |archive| archive.part().kind(b'2', "/etc/passwd")),
        tampered("a hard link", |archive| {
            archive.part().kind(b'1', "metadata/timestamp.json")
        }),
        tampered("a character device", |archive| archive.part().kind(b'3', "")),
        tampered("a block device", |archive| archive.part().kind(b'4', "")),
        tampered("a directory", |archive| archive.part().kind(b'5', "")),
        tampered("a pipe", |archive| archive.part().kind(b'6', "")),
        tampered("an extension header", |archive| archive.part().kind(b'x', "")),
        tampered("an extension header for all", |archive| archive.part().kind(b'g', "")),
        // How GNU tar carries a name of 4 KiB.
        tampered("a name in a member of its own", |archive| {
            archive.part().kind(b'L', "");
            archive.part().content = vec![b'a'; 8 * BLOCK];
            archive.part().put(124, b"00000010000\0").seal();
        }),
        tampered("a sparse file", |archive| archive.part().kind(b'S', "")),
        tampered("a file that points elsewhere all the same", |archive| {
            archive.part().put(157, b"/etc/passwd").seal()
        }),
    ]
}

fn names() -> Vec<Tampered> {
    let tampered = |name, recipe| Tampered {
        name,
        says: "not allowed",
        recipe,
    };
    vec![
        tampered("a name with ..", |archive| {
            archive.part().rename("targets/../../etc/cron.d/x.zst")
        }),
        tampered("an absolute name", |archive| archive.part().rename("/etc/cron.d/x.zst")),
        tampered("an empty name", |archive| archive.part().rename("")),
        tampered("a Unicode look-alike", |archive| {
            archive.part().rename("targets/host/1.0.0/r\u{43e}\u{43e}t.zst")
        }),
        tampered("a name that moves the cursor", |archive| {
            archive.part().rename("targets/\u{1b}[2J.zst")
        }),
        Tampered {
            name: "one name twice",
            says: "twice",
            recipe: |archive| {
                let at = archive.at("timestamp.json");
                let Member { header, content } = &archive.members[at];
                let again = Member {
                    header: *header,
                    content: content.clone(),
                };
                archive.members.insert(at, again);
            },
        },
        Tampered {
            name: "a member where nobody looks",
            says: "no place in a bundle",
            recipe: |archive| archive.part().rename("notes.txt"),
        },
        Tampered {
            name: "members in another order",
            says: "wrong order",
            recipe: |archive| {
                let part = archive.at(PART);
                let timestamp = archive.at("timestamp.json");
                archive.members.swap(part, timestamp);
            },
        },
    ]
}

fn lies() -> Vec<Tampered> {
    vec![
        Tampered {
            name: "a size beyond the archive",
            says: "lies",
            recipe: |archive| archive.part().put(124, b"77777777777\0").seal(),
        },
        Tampered {
            name: "a size in another notation",
            says: "is no number",
            recipe: |archive| archive.part().put(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]).seal(),
        },
        Tampered {
            name: "an altered header",
            says: "checksum",
            recipe: |archive| {
                archive.part().put(0, b"T");
            },
        },
        Tampered {
            name: "an archive that is cut off",
            says: "cut off",
            recipe: |archive| archive.end.truncate(BLOCK),
        },
        Tampered {
            name: "an archive behind the archive",
            says: "follows its end mark",
            recipe: |archive| {
                let whole = archive.write();
                archive.end.extend(whole);
            },
        },
        Tampered {
            name: "no list of what is carried",
            says: "bundle.json is missing",
            recipe: |archive| drop(archive.members.remove(0)),
        },
    ]
}
