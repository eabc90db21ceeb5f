// SPDX-License-Identifier: GPL-3.0-or-later
//! Who signed, how many of them, and under which root.

use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer as OpensslSigner};
use serde_json::{Value, json};

use super::super::author::{self, KeySet, Signer};
use super::super::trail::Origin;
use super::super::{Datastore, TufError};
use super::fixture::{Fixture, key, resign};
use crate::digest::Sha256;

fn below(error: &TufError, wanted: &str, counted: u64) {
    assert!(
        matches!(error, TufError::BelowThreshold { role, have, .. } if role == wanted && *have == counted),
        "{error}"
    );
}

#[test]
fn each_role_refuses_the_key_of_a_stranger_and_of_another_role() {
    for (name, role) in [
        ("timestamp.json", "timestamp"),
        ("1.snapshot.json", "snapshot"),
        ("1.targets.json", "targets"),
        ("1.host.json", "host"),
    ] {
        for stranger in [false, true] {
            let mut fixture = Fixture::new();
            let foreign = key();
            let signer: &dyn Signer = match (stranger, role) {
                (true, _) => &foreign,
                (false, "host") => &fixture.targets,
                (false, _) => &fixture.host,
            };
            let forged = resign(fixture.file(name), &[signer], |_| {});
            fixture.put(name, forged);
            // The indices name the forged file, as if their keys were stolen.
            if role == "targets" || role == "host" {
                fixture.index(1, &[("host", 1), ("targets", 1)]);
            } else if role == "snapshot" {
                fixture.stamp(1, 1);
            }
            below(&fixture.refuse_new(), role, 0);
        }
    }
}

#[test]
fn an_altered_file_loses_its_signature() {
    let mut fixture = Fixture::new();
    let text = String::from_utf8(fixture.file("timestamp.json").to_vec()).unwrap();
    fixture.put(
        "timestamp.json",
        text.replacen("2030-01-31", "2099-01-31", 1).into_bytes(),
    );
    below(&fixture.refuse_new(), "timestamp", 0);
}

#[test]
fn a_pinned_root_below_its_threshold_is_refused() {
    let fixture = Fixture::new();
    for (signers, good) in [(&[][..], false), (&[0], false), (&[0, 2], true), (&[0, 1, 2], true)] {
        assert_eq!(
            Datastore::ephemeral(&fixture.make_root(1, signers)).is_ok(),
            good,
            "{signers:?}"
        );
    }
}

#[test]
fn a_new_root_needs_the_old_threshold_and_its_own() {
    let mut fixture = Fixture::new();
    fixture.put("2.root.json", fixture.make_root(2, &[0]));
    below(&fixture.refuse_new(), "root", 1);

    // New keys alone, then old keys alone, then both.
    let old: Vec<_> = fixture.root.drain(..).collect();
    fixture.root = vec![key(), key(), key()];
    let new_only = fixture.make_root(2, &[0, 1]);
    fixture.put("2.root.json", new_only.clone());
    below(&fixture.refuse_new(), "root", 0);
    fixture.put("2.root.json", resign(&new_only, &[&old[0], &old[1]], |_| {}));
    below(&fixture.refuse_new(), "root", 0);
    let both = author::cosign(&author::cosign(&new_only, &old[0]).unwrap(), &old[1]).unwrap();
    fixture.put("2.root.json", both);
    fixture.accept(fixture.store());
}

#[test]
fn a_chain_of_roots_is_walked_one_by_one_and_remembered() {
    let mut fixture = Fixture::new();
    for version in 2..=5 {
        fixture.put(&format!("{version}.root.json"), fixture.make_root(version, &[1, 2]));
    }
    let store = fixture.accept(fixture.store());
    assert_eq!(store.root_version().unwrap(), 5);
    fixture.files.log.borrow_mut().clear();
    fixture.accept(store);
    let asked = fixture.files.log.borrow();
    assert_eq!(
        asked.as_slice(),
        ["6.root.json", "timestamp.json"],
        "nothing else is asked for again"
    );
}

#[test]
fn an_unreachable_next_root_is_not_an_absent_one() {
    let mut fixture = Fixture::new();
    fixture.files.unreachable = Some("2.root.json".to_owned());
    let error = fixture.refuse_new();
    assert!(matches!(error, TufError::Source(_)) && !error.is_refusal(), "{error}");
}

#[test]
fn one_key_under_two_identifiers_counts_once() {
    let mut fixture = Fixture::new();
    let two = |keys: &mut serde_json::Value, fixture: &Fixture| {
        let mut same = serde_json::to_value(fixture.timestamp.public()).unwrap();
        same["note"] = json!("the same key, spelled differently");
        let id = Sha256::of(&super::super::json::canonical(&same).unwrap()).to_string();
        keys["keys"][id.as_str()] = same;
        keys["roles"]["timestamp"]["keyids"]
            .as_array_mut()
            .unwrap()
            .push(json!(id.clone()));
        keys["roles"]["timestamp"]["threshold"] = json!(2);
        id
    };
    let mut second = String::new();
    let root = resign(
        fixture.file("1.root.json"),
        &[&fixture.root[0], &fixture.root[1]],
        |signed| {
            second = two(signed, &fixture);
        },
    );
    fixture.put("1.root.json", root);
    // The one key signs under both names.
    let mut timestamp: serde_json::Value = serde_json::from_slice(fixture.file("timestamp.json")).unwrap();
    let mut again = timestamp["signatures"][0].clone();
    again["keyid"] = json!(second);
    timestamp["signatures"].as_array_mut().unwrap().push(again);
    fixture.put("timestamp.json", serde_json::to_vec(&timestamp).unwrap());
    below(&fixture.refuse_new(), "timestamp", 1);
}

#[test]
fn two_signatures_under_one_identifier_are_refused() {
    let mut fixture = Fixture::new();
    let mut timestamp: serde_json::Value = serde_json::from_slice(fixture.file("timestamp.json")).unwrap();
    let again = timestamp["signatures"][0].clone();
    timestamp["signatures"].as_array_mut().unwrap().push(again);
    fixture.put("timestamp.json", serde_json::to_vec(&timestamp).unwrap());
    assert!(matches!(fixture.refuse_new(), TufError::Malformed { .. }));
}

#[test]
fn a_role_that_lists_one_key_twice_is_refused() {
    let mut fixture = Fixture::new();
    let root = resign(
        fixture.file("1.root.json"),
        &[&fixture.root[0], &fixture.root[1]],
        |signed| {
            let first = signed["roles"]["snapshot"]["keyids"][0].clone();
            signed["roles"]["snapshot"]["keyids"]
                .as_array_mut()
                .unwrap()
                .push(first);
        },
    );
    assert!(Datastore::ephemeral(&root).is_err());
    let twice = KeySet {
        keys: vec![fixture.snapshot.public(), fixture.snapshot.public()],
        threshold: 2,
    };
    let mut plan = fixture.plan(1);
    plan.snapshot = twice;
    assert!(author::root(&plan, &[]).is_err());
    fixture.put("1.root.json", root);
}

#[test]
fn an_identifier_that_is_not_its_keys_own_is_refused() {
    let fixture = Fixture::new();
    let root = resign(
        fixture.file("1.root.json"),
        &[&fixture.root[0], &fixture.root[1]],
        |signed| {
            let keys = signed["keys"].as_object_mut().unwrap();
            let (_, value) = keys
                .iter()
                .next()
                .map(|(id, value)| (id.clone(), value.clone()))
                .unwrap();
            keys.insert("00".repeat(32), value);
        },
    );
    assert!(matches!(Datastore::ephemeral(&root), Err(TufError::Malformed { .. })));
}

#[test]
fn a_threshold_of_nothing_is_refused() {
    let fixture = Fixture::new();
    let root = resign(fixture.file("1.root.json"), &[], |signed| {
        signed["roles"]["root"]["threshold"] = json!(0);
    });
    assert!(matches!(Datastore::ephemeral(&root), Err(TufError::Malformed { .. })));
}

#[test]
fn a_key_of_an_unknown_kind_is_carried_but_never_counts() {
    let mut fixture = Fixture::new();
    let root = resign(
        fixture.file("1.root.json"),
        &[&fixture.root[0], &fixture.root[1]],
        |signed| {
            let new = json!({"keytype": "ml-dsa", "scheme": "ml-dsa-65", "keyval": {"public": "00"}});
            let id = Sha256::of(&super::super::json::canonical(&new).unwrap()).to_string();
            signed["keys"][id.as_str()] = new;
            signed["roles"]["timestamp"]["keyids"]
                .as_array_mut()
                .unwrap()
                .push(json!(id));
        },
    );
    fixture.put("1.root.json", root);
    fixture.accept(fixture.store());
}

/// A key of any kind as metadata names it, and its signature over a message.
fn foreign(kind: &str) -> (Value, PKey<Private>) {
    let curve = |nid| {
        let group = EcGroup::from_curve_name(nid).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    };
    let (keytype, scheme, key) = match kind {
        "Ed25519" => ("ed25519", "ed25519", PKey::generate_ed25519().unwrap()),
        "P-256" => ("ecdsa", "ecdsa-sha2-nistp256", curve(Nid::X9_62_PRIME256V1)),
        "P-384" => ("ecdsa", "ecdsa-sha2-nistp384", curve(Nid::SECP384R1)),
        "RSA-PSS" => {
            let key = PKey::from_rsa(Rsa::generate(3072).unwrap()).unwrap();
            ("rsa", "rsassa-pss-sha256", key)
        }
        other => panic!("{other}"),
    };
    let public = match kind {
        "Ed25519" => hex::encode(key.raw_public_key().unwrap()),
        _ => String::from_utf8(key.public_key_to_pem().unwrap()).unwrap(),
    };
    (
        json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": public}}),
        key,
    )
}

fn sign_as(kind: &str, key: &PKey<Private>, message: &[u8]) -> Vec<u8> {
    let mut signer = match kind {
        "Ed25519" => OpensslSigner::new_without_digest(key),
        "P-384" => OpensslSigner::new(MessageDigest::sha384(), key),
        _ => OpensslSigner::new(MessageDigest::sha256(), key),
    }
    .unwrap();
    if kind == "RSA-PSS" {
        signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
    }
    signer.sign_oneshot_to_vec(message).unwrap()
}

/// The repository whose timestamp is signed by another kind of key, made and used by OpenSSL.
#[test]
fn every_kind_of_key_verifies_and_none_verifies_another_message() {
    for kind in ["Ed25519", "P-256", "P-384", "RSA-PSS"] {
        let mut fixture = Fixture::new();
        let (public, key) = foreign(kind);
        let id = Sha256::of(&super::super::json::canonical(&public).unwrap()).to_string();
        let root = resign(
            fixture.file("1.root.json"),
            &[&fixture.root[0], &fixture.root[1]],
            |signed| {
                signed["keys"][id.as_str()] = public;
                signed["roles"]["timestamp"]["keyids"] = json!([id]);
            },
        );
        fixture.put("1.root.json", root);
        below(&fixture.refuse_new(), "timestamp", 0);
        let mut timestamp: Value = serde_json::from_slice(fixture.file("timestamp.json")).unwrap();
        let message = super::super::json::canonical(&timestamp["signed"]).unwrap();
        for (signed, holds) in [(&b"another message"[..], false), (&message, true)] {
            let signature = hex::encode(sign_as(kind, &key, signed));
            timestamp["signatures"] = json!([{"keyid": id, "sig": signature}]);
            fixture.put("timestamp.json", serde_json::to_vec(&timestamp).unwrap());
            if holds {
                fixture.accept(fixture.store());
            } else {
                below(&fixture.refuse_new(), "timestamp", 0);
            }
        }
    }
}

#[test]
fn an_invalid_signature_beside_enough_valid_ones_does_no_harm() {
    let mut fixture = Fixture::new();
    for garbage in ["", "zz", "00"] {
        let mut timestamp: serde_json::Value = serde_json::from_slice(fixture.file("timestamp.json")).unwrap();
        timestamp["signatures"].as_array_mut().unwrap().truncate(1);
        let other = author::key_id(&fixture.root[0].public()).unwrap();
        timestamp["signatures"]
            .as_array_mut()
            .unwrap()
            .push(json!({"keyid": other, "sig": garbage}));
        fixture.put("timestamp.json", serde_json::to_vec(&timestamp).unwrap());
        fixture.accept(fixture.store());
    }
}

#[test]
fn the_trail_names_every_file_its_keys_and_its_threshold() {
    let mut fixture = Fixture::new();
    fixture.put("2.root.json", fixture.make_root(2, &[0, 2]));
    let mut client = fixture.client(fixture.store());
    client.targets().unwrap();
    let trail = client.trail();
    let roles: Vec<_> = trail
        .files
        .iter()
        .map(|file| (file.role.as_str(), file.version))
        .collect();
    assert_eq!(
        roles,
        [
            ("root", 1),
            ("root", 2),
            ("timestamp", 1),
            ("snapshot", 1),
            ("targets", 1),
            ("host", 1)
        ]
    );
    assert_eq!(trail.files[0].origin, Origin::Datastore);
    assert_eq!(trail.files[1].checks.len(), 2, "a new root answers to two roots");
    assert_eq!(trail.files[1].checks[0].signed_by.len(), 2);
    assert_eq!(trail.files[1].checks[0].keys.len(), 3);
    assert_eq!(trail.files[5].checks[0].named_by, "targets 1");
    let text = serde_json::to_string(trail).unwrap();
    assert_eq!(&serde_json::from_str::<super::super::Trail>(&text).unwrap(), trail);
}
