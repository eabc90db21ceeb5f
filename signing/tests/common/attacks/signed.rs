// SPDX-License-Identifier: GPL-3.0-or-later
//! Rollback and freeze: what was signed, but at another time; and who signed it, with what.

use serde_json::{Value, json};
use signing::tuf::author::{self, Signer as _};

use super::vault::{Key, Vault, key};
use super::{Attack, Learns, Recipe, attack, reindex};

/// Rollback and freeze.
pub fn freshness() -> Vec<Attack> {
    let mut all = vec![
        attack(
            "rollback of the root",
            &["rollback"],
            "root",
            Learns::Nothing,
            |vault| {
                vault.put("2.root.json", vault.file("1.root.json").to_vec());
            },
        ),
        attack(
            "rollback of the timestamp",
            &["rollback"],
            "timestamp",
            Learns::Nothing,
            |vault| {
                vault.put("timestamp.json", vault.timestamps[&1].clone());
            },
        ),
        attack(
            "rollback of the snapshot",
            &["rollback"],
            "snapshot",
            Learns::Nothing,
            |vault| {
                vault.stamp(3, 1);
            },
        ),
        attack(
            "rollback of the targets role",
            &["rollback"],
            "targets",
            Learns::Timestamp,
            |vault| {
                vault.index(3, &[("host", 3), ("targets", 1)]);
            },
        ),
        attack(
            "rollback of one delegated role",
            &["rollback"],
            "host",
            Learns::Timestamp,
            |vault| {
                vault.index(3, &[("host", 1), ("targets", 3)]);
            },
        ),
        attack(
            "two contents under the version that was seen",
            &["equivocation"],
            "timestamp",
            Learns::Nothing,
            |vault| {
                let timestamp = vault.timestamp.clone();
                vault.resign("timestamp.json", &[&timestamp], |signed| signed["version"] = json!(2));
            },
        ),
        attack(
            "indefinite freeze: the timestamp",
            &["expired"],
            "timestamp",
            Learns::Nothing,
            |vault| {
                let timestamp = vault.timestamp.clone();
                vault.resign("timestamp.json", &[&timestamp], expire);
            },
        ),
        attack(
            "indefinite freeze: the snapshot",
            &["expired"],
            "snapshot",
            Learns::Timestamp,
            |vault| {
                let snapshot = vault.snapshot.clone();
                vault.resign("3.snapshot.json", &[&snapshot], expire);
                vault.stamp(3, 3);
            },
        ),
        attack(
            "indefinite freeze: the targets role",
            &["expired"],
            "targets",
            Learns::Snapshot,
            |vault| {
                let targets = vault.targets.clone();
                vault.resign("3.targets.json", &[&targets], expire);
                reindex(vault);
            },
        ),
        attack(
            "indefinite freeze: a delegated role",
            &["expired"],
            "host",
            Learns::Targets,
            |vault| {
                let host = vault.host.clone();
                vault.resign("3.host.json", &[&host], expire);
                reindex(vault);
            },
        ),
    ];
    // A root that has expired is trusted nevertheless: the next one may build on it (5.3.6, 5.3.10).
    all.push(Attack {
        heal: |vault| {
            vault.put_root(2, &[0, 1]);
            expire_root(vault);
            vault.put_root(3, &[1, 2]);
            vault.publish(9, 2);
        },
        ..attack(
            "indefinite freeze: the root",
            &["expired"],
            "root",
            Learns::Root,
            |vault| {
                vault.put_root(2, &[0, 1]);
                expire_root(vault);
            },
        )
    });
    all
}

/// Who signed, and how many.
pub fn signatures() -> Vec<Attack> {
    vec![
        attack(
            "malicious mirror: a repository of its own",
            &["below-threshold"],
            "timestamp is signed by 0 of the 1",
            Learns::Nothing,
            |vault| {
                *vault = vault.stranger();
            },
        ),
        attack(
            "keys below the threshold: a root by one custodian",
            &["below-threshold"],
            "root is signed by 1 of the 2",
            Learns::Nothing,
            |vault| {
                let thief = key();
                (vault.targets, vault.snapshot, vault.timestamp) = (thief.clone(), thief.clone(), thief);
                vault.put_root(2, &[0, 1]);
                let stolen = vault.custodians[0].clone();
                vault.resign("2.root.json", &[&stolen], |_| {});
                vault.publish(3, 2);
            },
        ),
        attack(
            "keys below the threshold: one custodian's signature twice",
            &["malformed"],
            "2.root.json",
            Learns::Nothing,
            |vault| {
                one_custodian(vault, |signatures, _| signatures.push(signatures[0].clone()));
            },
        ),
        attack(
            "keys below the threshold: one custodian's key under two names",
            &["below-threshold"],
            "root is signed by 1 of the 2",
            Learns::Nothing,
            |vault| {
                one_custodian(vault, |signatures, other| {
                    let mut again = signatures[0].clone();
                    again["keyid"] = json!(other);
                    signatures.push(again);
                });
            },
        ),
        foreign(
            "another role's key: snapshot signs the timestamp",
            "timestamp",
            Learns::Nothing,
            |vault| {
                let snapshot = vault.snapshot.clone();
                vault.resign("timestamp.json", &[&snapshot], |_| {});
            },
        ),
        foreign(
            "another role's key: timestamp signs the snapshot",
            "snapshot",
            Learns::Timestamp,
            |vault| {
                let timestamp = vault.timestamp.clone();
                vault.resign("3.snapshot.json", &[&timestamp], |_| {});
                vault.stamp(3, 3);
            },
        ),
        foreign(
            "another role's key: host signs the targets role",
            "targets",
            Learns::Snapshot,
            |vault| {
                let host = vault.host.clone();
                vault.resign("3.targets.json", &[&host], |_| {});
                reindex(vault);
            },
        ),
        foreign(
            "another role's key: targets signs the delegated role",
            "host",
            Learns::Targets,
            |vault| {
                let targets = vault.targets.clone();
                vault.resign("3.host.json", &[&targets], |_| {});
                reindex(vault);
            },
        ),
        foreign(
            "another role's key: the online keys sign a root",
            "root",
            Learns::Nothing,
            |vault| {
                vault.put_root(2, &[0, 1]);
                let (snapshot, timestamp) = (vault.snapshot.clone(), vault.timestamp.clone());
                vault.resign("2.root.json", &[&snapshot, &timestamp], |_| {});
            },
        ),
        attack(
            "another role's file: a snapshot as timestamp",
            &["malformed"],
            "type",
            Learns::Nothing,
            |vault| {
                let timestamp = vault.timestamp.clone();
                vault.put("timestamp.json", vault.file("3.snapshot.json").to_vec());
                vault.resign("timestamp.json", &[&timestamp], |_| {});
            },
        ),
    ]
}

fn foreign(name: &'static str, says: &'static str, learns: Learns, recipe: Recipe) -> Attack {
    attack(name, &["below-threshold"], says, learns, recipe)
}

fn expire(signed: &mut Value) {
    signed["signed_at"] = json!("2020-01-01T00:00:00Z");
    signed["expires"] = json!("2020-01-31T00:00:00Z");
}

fn expire_root(vault: &mut Vault) {
    let signers: Vec<Key> = vault.custodians[..2].to_vec();
    vault.resign("2.root.json", &[&signers[0], &signers[1]], expire);
}

/// A second root with one custodian's signature, and what else the thief does with it; he is also given that key's
/// identifier in another spelling, which the second root lists.
fn one_custodian(vault: &mut Vault, change: impl FnOnce(&mut Vec<Value>, &str)) {
    let stolen = vault.custodians[0].clone();
    vault.put_root(2, &[0, 1]);
    let mut alias = serde_json::to_value(stolen.public()).unwrap();
    alias["note"] = json!("the same key");
    let other = author::key_id(&serde_json::from_value(alias.clone()).unwrap()).unwrap();
    vault.resign("2.root.json", &[&stolen], |signed| {
        signed["keys"][&other] = alias;
        signed["roles"]["root"]["keyids"]
            .as_array_mut()
            .unwrap()
            .push(json!(other));
    });
    let mut file: Value = serde_json::from_slice(vault.file("2.root.json")).unwrap();
    change(file["signatures"].as_array_mut().unwrap(), &other);
    vault.put("2.root.json", serde_json::to_vec(&file).unwrap());
}
