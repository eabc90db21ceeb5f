// SPDX-License-Identifier: GPL-3.0-or-later
//! Content that is not what was signed, releases that are none, and places where no file stands.

use serde_json::json;
use signing::release::Part;

use super::vault::{Node, Vault};
use super::{Attack, Learns, attack, insider};

/// Content that is not what was signed, and releases that are none.
pub fn content() -> Vec<Attack> {
    vec![
        attack(
            "arbitrary installation: another root file system",
            &["hash-mismatch"],
            "root.erofs",
            Learns::Host,
            |vault| {
                flip(vault.content(Part::Root));
            },
        ),
        attack(
            "arbitrary installation: another boot image",
            &["hash-mismatch"],
            "xen.efi",
            Learns::Host,
            |vault| {
                flip(vault.content(Part::Xen));
            },
        ),
        attack(
            "arbitrary installation: a part that is cut",
            &["length"],
            "root.verity",
            Learns::Host,
            |vault| {
                let cut = vault.content(Part::Verity).bytes().split_last().unwrap().1.to_vec();
                *vault.content(Part::Verity) = Node::File(cut);
            },
        ),
        attack(
            "endless data: a target",
            &["length"],
            "root.erofs",
            Learns::Host,
            |vault| {
                *vault.content(Part::Root) = Node::Long(vault.content(Part::Root).bytes().to_vec(), 64 << 20);
            },
        ),
        attack(
            "endless data: the next root",
            &["length"],
            "2.root.json",
            Learns::Nothing,
            |vault| {
                vault.put_root(2, &[0, 1]);
                pad(vault, "2.root.json");
            },
        ),
        attack(
            "endless data: the timestamp",
            &["length"],
            "timestamp.json",
            Learns::Nothing,
            |vault| {
                pad(vault, "timestamp.json");
            },
        ),
        attack(
            "endless data: the snapshot",
            &["length"],
            "3.snapshot.json",
            Learns::Timestamp,
            |vault| {
                pad(vault, "3.snapshot.json");
            },
        ),
        attack(
            "endless data: the targets role",
            &["length"],
            "3.targets.json",
            Learns::Snapshot,
            |vault| {
                pad(vault, "3.targets.json");
            },
        ),
        attack(
            "endless data: a delegated role",
            &["length"],
            "3.host.json",
            Learns::Targets,
            |vault| {
                pad(vault, "3.host.json");
            },
        ),
        attack(
            "extraneous dependencies: one part more than a release has",
            &["policy"],
            "driver.ko",
            Learns::Host,
            |vault| {
                let release = vault.newest();
                vault.put_target(&release, Part::Sbom, "host/1.1.0/driver.ko", b"install me too");
                insider(vault);
            },
        ),
        attack(
            "mix and match: the root file system of another release",
            &["policy"],
            "different root hashes",
            Learns::Host,
            |vault| {
                let root_hash = vault.entries["host/1.0.0/root.erofs"].custom.clone().unwrap()["root_hash"].clone();
                let entry = vault.entries.get_mut("host/1.1.0/root.erofs").unwrap();
                entry.custom.as_mut().unwrap()["root_hash"] = root_hash;
                insider(vault);
            },
        ),
        attack(
            "mix and match: the snapshot of another moment",
            &["hash-mismatch", "length"],
            "3.snapshot.json",
            Learns::Timestamp,
            |vault| {
                vault.put("3.snapshot.json", vault.file("2.snapshot.json").to_vec());
            },
        ),
        attack(
            "mix and match: an older role under a newer name",
            &["hash-mismatch", "length"],
            "3.host.json",
            Learns::Targets,
            |vault| {
                vault.put("3.host.json", vault.file("2.host.json").to_vec());
            },
        ),
        attack(
            "mix and match: an older role where no digest is named",
            &["version-mismatch"],
            "host",
            Learns::Targets,
            |vault| {
                vault.put("3.host.json", vault.file("2.host.json").to_vec());
                let snapshot = vault.snapshot.clone();
                vault.resign("3.snapshot.json", &[&snapshot], |signed| {
                    signed["meta"]["host.json"] = json!({"version": 3});
                });
                vault.stamp(3, 3);
            },
        ),
        attack(
            "a copy that is not whole: no delegated role",
            &["incomplete"],
            "3.host.json",
            Learns::Targets,
            |vault| {
                vault.metadata.remove("3.host.json");
            },
        ),
        attack(
            "a role that the snapshot does not list",
            &["rollback"],
            "host",
            Learns::Timestamp,
            |vault| {
                vault.index(3, &[("targets", 3)]);
            },
        ),
    ]
}

/// What only a door that reads files faces; an archive with such members is refused as a whole (`carried.rs`).
pub fn files() -> Vec<Attack> {
    let no_file = &["source"];
    vec![
        attack(
            "slow retrieval: a pipe as timestamp",
            no_file,
            "not a regular file",
            Learns::Nothing,
            |vault| {
                vault.metadata.insert("timestamp.json".into(), Node::Pipe);
            },
        ),
        attack(
            "slow retrieval: a pipe as target",
            no_file,
            "not a regular file",
            Learns::Host,
            |vault| {
                *vault.content(Part::Xen) = Node::Pipe;
            },
        ),
        attack(
            "a link to a device as the next root",
            no_file,
            "not a regular file",
            Learns::Nothing,
            |vault| {
                vault
                    .metadata
                    .insert("2.root.json".into(), Node::Link("/dev/zero".into()));
            },
        ),
        attack(
            "a link out of the repository as target",
            no_file,
            "not a regular file",
            Learns::Host,
            |vault| {
                *vault.content(Part::Xen) = Node::Link("/etc/hostname".into());
            },
        ),
    ]
}

fn flip(node: &mut Node) {
    let Node::File(bytes) = node else { panic!("no file") };
    let last = bytes.last_mut().unwrap();
    *last ^= 1;
}

/// White space behind a document is no change of it, but for its length.
fn pad(vault: &mut Vault, name: &str) {
    let mut bytes = vault.file(name).to_vec();
    bytes.resize(bytes.len() + (1 << 20), b' ');
    vault.put(name, bytes);
}
