// SPDX-License-Identifier: GPL-3.0-or-later
//! Custodians with their keys in memory, and the recipes of requests.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};
use serde_json::Value;
use signing::ceremony::{
    Assembled, CustodianFile, Fragment, Plan, Reason, Removal, Request, RoleName, ThresholdChange, TrustedRoot,
    assemble,
};
use signing::clock::now;
use signing::keys::{Algorithm, MetadataKey, PrivateKey};

/// Somebody, or a role, with a key.
pub struct Person {
    pub name: String,
    pem: String,
    pub openpgp: Option<(String, String)>,
}

impl Person {
    pub fn new(name: &str) -> Self {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        Self {
            name: name.to_owned(),
            pem: String::from_utf8(key.to_unencrypted_pem().unwrap().to_vec()).unwrap(),
            openpgp: None,
        }
    }

    pub fn key(&self) -> PrivateKey {
        PrivateKey::from_unencrypted_pem(&self.name, self.pem.as_bytes()).unwrap()
    }

    pub fn signer(&self) -> MetadataKey {
        MetadataKey::new(self.key()).unwrap()
    }

    /// What is handed in.
    pub fn file(&self) -> CustodianFile {
        CustodianFile::new(&self.name, self.key(), self.openpgp.clone()).unwrap()
    }

    pub fn keyid(&self) -> String {
        self.file().keyid().unwrap().to_string()
    }

    /// Signs alone, with an own copy of the old root.
    pub fn sign(&self, request: &Request, old: Option<&TrustedRoot>) -> Fragment {
        Fragment::sign(request, old, self.key(), now()).unwrap()
    }
}

/// A site: its custodians, its roles' keys, its root.
pub struct Site {
    pub anna: Person,
    pub ben: Person,
    pub cleo: Person,
    pub roles: BTreeMap<RoleName, Person>,
    pub root: TrustedRoot,
    pub bytes: Vec<u8>,
}

pub fn in_days(days: i64) -> DateTime<Utc> {
    now() + Duration::days(days)
}

/// A site of three custodians, made by them.
pub fn site(threshold: u64) -> Site {
    site_of(threshold, ["Anna", "Ben", "Cleo"].map(Person::new))
}

pub fn site_of(threshold: u64, [anna, ben, cleo]: [Person; 3]) -> Site {
    let roles: BTreeMap<_, _> = RoleName::OTHERS
        .into_iter()
        .map(|role| (role, Person::new(&role.to_string())))
        .collect();
    let plan = Plan {
        add: [&anna, &ben, &cleo].map(Person::file).to_vec(),
        roles: roles
            .iter()
            .map(|(role, person)| (*role, vec![person.file()]))
            .collect(),
        thresholds: set_threshold(RoleName::Root, threshold),
        expires: Some(in_days(365)),
        ..Plan::default()
    };
    let request = plan.request(None, now() - Duration::hours(1)).unwrap();
    let made = together(&request, None, &[&anna, &ben, &cleo]);
    let bytes = made.complete().unwrap().0.to_vec();
    Site {
        anna,
        ben,
        cleo,
        roles,
        root: TrustedRoot::read(&bytes).unwrap(),
        bytes,
    }
}

impl Site {
    /// The request for a plan.
    pub fn request(&self, plan: &Plan) -> Request {
        plan.request(Some(&self.root), now()).unwrap()
    }

    /// Why there is no request for a plan.
    pub fn no_request(&self, plan: &Plan) -> String {
        format!("{:#}", plan.request(Some(&self.root), now()).unwrap_err())
    }

    pub fn together(&self, request: &Request, people: &[&Person]) -> Assembled {
        together(request, Some(&self.root), people)
    }
}

/// Assembles what these people sign.
pub fn together(request: &Request, old: Option<&TrustedRoot>, people: &[&Person]) -> Assembled {
    let fragments = people
        .iter()
        .map(|person| (person.name.clone(), Ok(person.sign(request, old))));
    assemble(request, old, fragments).unwrap()
}

pub fn renewal() -> Plan {
    Plan {
        expires: Some(in_days(1000)),
        ..Plan::default()
    }
}

pub fn set_threshold(role: RoleName, count: u64) -> Vec<ThresholdChange> {
    vec![ThresholdChange { role, count }]
}

pub fn removal(key: &str, why: Reason) -> Plan {
    Plan {
        remove: vec![Removal {
            key: key.to_owned(),
            why,
        }],
        ..Plan::default()
    }
}

pub fn rotation(role: RoleName, person: &Person) -> Plan {
    Plan {
        roles: BTreeMap::from([(role, vec![person.file()])]),
        ..Plan::default()
    }
}

/// The request with other bytes to be signed, and its words as they were. The text is ASCII, so compact JSON with sorted
/// keys is its canonical form.
pub fn forged(request: &Request, change: impl FnOnce(&mut Value)) -> Request {
    altered(request, |file| {
        let mut signed: Value = serde_json::from_str(file["signed"].as_str().unwrap()).unwrap();
        change(&mut signed);
        signed.sort_all_objects();
        file["signed"] = serde_json::to_string(&signed).unwrap().into();
    })
}

/// The request with something else changed in its file.
pub fn altered(request: &Request, change: impl FnOnce(&mut Value)) -> Request {
    let mut file = serde_json::to_value(request).unwrap();
    change(&mut file);
    serde_json::from_value(file).unwrap()
}
