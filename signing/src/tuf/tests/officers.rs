// SPDX-License-Identifier: GPL-3.0-or-later
//! A root says how many OpenPGP certificates sign beside TUF's keys.

use std::sync::LazyLock;

use chrono::Duration;
use sequoia_openpgp::Cert;
use serde_json::Value;

use super::fixture::{Fixture, resign, today};
use crate::keys::Passphrase;
use crate::openpgp::{Generated, generate, join, parse_keyring, sign_detached};
use crate::tuf::author::{OPENPGP_THRESHOLD, Signer};
use crate::tuf::{Datastore, TufError, beside};

static PASSPHRASE: LazyLock<Passphrase> = LazyLock::new(|| Passphrase::new(b"three officers".to_vec()).unwrap());

/// Three officers, and a fourth whom nobody named.
static KEYS: LazyLock<Vec<Generated>> = LazyLock::new(|| {
    let made = today() - Duration::days(10);
    let generate = |name: &&str| generate(name, &PASSPHRASE, made).unwrap();
    ["Anna", "Ben", "Carla", "Stranger"].iter().map(generate).collect()
});

fn certs() -> Vec<Cert> {
    let named = KEYS.iter().take(3);
    let cert = |key: &Generated| {
        parse_keyring("x".as_ref(), key.certificate.as_bytes())
            .unwrap()
            .remove(0)
    };
    named.map(cert).collect()
}

fn sign(officer: usize, bytes: &[u8]) -> String {
    sign_detached(
        KEYS[officer].key.as_bytes(),
        &PASSPHRASE,
        bytes,
        today() - Duration::hours(2),
    )
    .unwrap()
}

/// The signatures of these officers in one file.
fn signed_by(officers: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut each = officers.iter().map(|officer| sign(*officer, bytes));
    let first = each.next().unwrap();
    let all = each.fold(first, |all, one| join(all.as_bytes(), one.as_bytes()).unwrap());
    all.into_bytes()
}

impl Fixture {
    /// Gives a root this number.
    fn demand(&mut self, version: u64, count: impl Into<Value>) {
        let name = format!("{version}.root.json");
        let signers: [&dyn Signer; 2] = [&self.root[0], &self.root[1]];
        let count = count.into();
        let root = resign(self.file(&name), &signers, |signed| signed[OPENPGP_THRESHOLD] = count);
        self.put(&name, root);
    }

    fn countersign(&mut self, file: &str, signature: &str, officers: &[usize]) {
        let signed = signed_by(officers, self.file(file));
        self.put(signature, signed);
    }

    fn stamped_by(&mut self, officers: &[usize]) {
        self.countersign("timestamp.json", "1.timestamp.json.asc", officers);
    }

    fn demanding(&self) -> Datastore {
        self.store().demanding(certs())
    }
}

fn not_countersigned(error: &TufError, file: &str, why: &str) {
    match error {
        TufError::NotCountersigned { file: told, why: said } => {
            assert_eq!(told, file);
            assert!(said.contains(why), "{said}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn as_many_certificates_as_the_root_says_sign_each_timestamp() {
    let mut fixture = Fixture::new();
    fixture.demand(1, 2);
    for officers in [&[0, 1][..], &[2, 0], &[0, 1, 2], &[0, 3, 2]] {
        fixture.stamped_by(officers);
        fixture.accept(fixture.demanding());
    }
    // Who has not pinned certificates asks for none.
    fixture.accept(fixture.store());
    for officers in [&[0][..], &[2], &[1, 3]] {
        fixture.stamped_by(officers);
        not_countersigned(&fixture.refuse(fixture.demanding()), "timestamp.json", "1 of the 2");
    }
    // The same officer twice, at two times.
    let stamp = fixture.file("timestamp.json").to_vec();
    let first = sign_detached(
        KEYS[0].key.as_bytes(),
        &PASSPHRASE,
        &stamp[..],
        today() - Duration::hours(3),
    )
    .unwrap();
    let twice = [first.into_bytes(), sign(0, &stamp).into_bytes()].concat();
    fixture.put("1.timestamp.json.asc", twice);
    assert!(matches!(
        fixture.refuse(fixture.demanding()),
        TufError::NotCountersigned { .. }
    ));
    // Of something else.
    let other = signed_by(&[0, 1], b"something else");
    fixture.put("1.timestamp.json.asc", other);
    assert!(matches!(
        fixture.refuse(fixture.demanding()),
        TufError::NotCountersigned { .. }
    ));
}

#[test]
fn a_root_neither_lowers_the_number_alone_nor_raises_it_for_others_only() {
    for (before, after) in [(2, 1), (1, 2)] {
        let mut fixture = Fixture::new();
        fixture.demand(1, before);
        let root = fixture.make_root(2, &[0, 1]);
        fixture.put("2.root.json", root);
        fixture.demand(2, after);
        fixture.stamped_by(&[0, 1]);
        fixture.countersign("2.root.json", "2.root.json.asc", &[1]);
        not_countersigned(&fixture.refuse(fixture.demanding()), "2.root.json", "1 of the 2");
        fixture.countersign("2.root.json", "2.root.json.asc", &[1, 2]);
        fixture.accept(fixture.demanding());
        // From then on the new number counts.
        fixture.stamped_by(&[2]);
        if after == 1 {
            fixture.accept(fixture.demanding());
        } else {
            not_countersigned(&fixture.refuse(fixture.demanding()), "timestamp.json", "1 of the 2");
        }
        let roots = [fixture.file("1.root.json"), fixture.file("2.root.json")];
        assert_eq!(beside::over_root(None, roots[0]).unwrap(), 1);
        assert_eq!(beside::over_root(Some(roots[0]), roots[1]).unwrap(), 2);
        assert_eq!(beside::over_timestamp(roots[1]).unwrap(), after);
    }
}

#[test]
fn a_number_that_is_none_is_malformed() {
    for count in [Value::from(0), Value::from(-1), Value::from("2"), Value::Null] {
        let mut fixture = Fixture::new();
        let root = fixture.make_root(2, &[0, 1]);
        fixture.put("2.root.json", root);
        fixture.demand(2, count.clone());
        let error = fixture.refuse(fixture.store());
        assert!(matches!(error, TufError::Malformed { .. }), "{count}: {error:?}");
    }
}

/// What verifiers would refuse is not written: one officer twice, or anything but signatures.
#[test]
fn signatures_are_joined_once_each() {
    let (anna, ben) = (sign(0, b"data"), sign(1, b"data"));
    let both = join(anna.as_bytes(), ben.as_bytes()).unwrap();
    assert_eq!(both.matches("-----BEGIN PGP SIGNATURE-----").count(), 1);
    for added in [&anna, &ben, &both] {
        let error = join(both.as_bytes(), added.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("OpenPGP"), "{error:?}");
    }
    for other in [&b""[..], b"text", KEYS[0].certificate.as_bytes()] {
        join(anna.as_bytes(), other).unwrap_err();
        join(other, anna.as_bytes()).unwrap_err();
    }
    let endless = vec![b' '; crate::openpgp::MAX_SIGNATURE + 1];
    join(anna.as_bytes(), &endless).unwrap_err();
}
