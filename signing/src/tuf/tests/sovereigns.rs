// SPDX-License-Identifier: GPL-3.0-or-later
//! Two sovereigns: what installs, and each way in which nothing does.

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};

use super::super::approval::{APPROVAL, Approval};
use super::super::author::{self, MetaEntry, Signer};
use super::super::client::consistent_path;
use super::super::multi::{MultiClient, Offer, Stores};
use super::super::{Datastore, Limits, TufError, VerifiedTarget};
use super::fixture::{Files, Fixture, resign, today};
use crate::digest::Sha256;

const TARGET: &str = "host/1.0.0/root.erofs";
const CONTENT: &[u8] = b"the first release";
const EVIL: &[u8] = b"something else!!!";

/// The vendor's repository and the site's, which approves what is in it.
struct Two {
    vendor: Fixture,
    site: Fixture,
}

/// What a host remembers, as it goes from one update to the next.
fn both(two: &Two) -> Stores {
    Stores::Both {
        vendor: two.vendor.store(),
        site: two.site.store(),
    }
}

/// Describes a target in the role host of a fixture, and signs the role with this key.
fn sign_host(fixture: &mut Fixture, version: u64, content: &[u8], custom: Value, signer: &dyn Signer) {
    let mut entries = fixture.entries(&[(TARGET, content)]);
    entries.get_mut(TARGET).unwrap().custom = custom.as_object().cloned();
    let host = author::targets(&Fixture::header(version), &entries, &[], &[signer]).unwrap();
    fixture.put(&format!("{version}.host.json"), host);
    fixture.index(version, &[("host", version), ("targets", 1)]);
}

impl Two {
    fn new() -> Self {
        let mut two = Self {
            vendor: Fixture::new(),
            site: Fixture::new(),
        };
        two.vendor_signs(2, CONTENT);
        two.approve(2, CONTENT, today());
        two
    }

    fn vendor_signs(&mut self, version: u64, content: &[u8]) {
        let vendor = &mut self.vendor;
        let host = std::mem::replace(&mut vendor.host, super::fixture::key());
        sign_host(vendor, version, content, json!({"channel": "stable"}), &host);
        vendor.host = host;
    }

    fn seen(&self, at: DateTime<Utc>) -> Approval {
        let mut client = self.vendor.client(self.vendor.store());
        client.targets().unwrap();
        Approval {
            at,
            ..Approval::of(client.trail())
        }
    }

    /// The officers approve this content, having seen the vendor's metadata as they are.
    fn approve(&mut self, version: u64, content: &[u8], at: DateTime<Utc>) {
        let approval = serde_json::to_value(self.seen(at)).unwrap();
        self.site_signs(version, content, json!({"channel": "stable", APPROVAL: approval}));
    }

    fn site_signs(&mut self, version: u64, content: &[u8], custom: Value) {
        let site = &mut self.site;
        let host = std::mem::replace(&mut site.host, super::fixture::key());
        sign_host(site, version, content, custom, &host);
        site.host = host;
    }

    fn follow(&self, stores: Stores, now: DateTime<Utc>) -> Result<Vec<VerifiedTarget>, TufError> {
        let offer = Offer {
            vendor: self.vendor.files.clone(),
            site: Some(self.site.files.clone()),
        };
        follow(stores, offer, now)
    }

    fn refuse(&self) -> TufError {
        self.follow(both(self), today()).expect_err("something was agreed on")
    }
}

fn follow(stores: Stores, offer: Offer<Files>, now: DateTime<Utc>) -> Result<Vec<VerifiedTarget>, TufError> {
    let mut client = MultiClient::open(stores, offer, Limits::default(), now)?;
    client.refresh()?;
    let targets = client.targets()?;
    for target in &targets {
        client.vendor().fetch(target, &mut Vec::new())?;
    }
    Ok(targets)
}

#[test]
fn what_both_name_is_agreed_on() {
    let two = Two::new();
    let targets = two.follow(both(&two), today()).unwrap();
    let [target] = targets.as_slice() else {
        panic!("{targets:?}")
    };
    assert_eq!((target.name.as_str(), target.sha256), (TARGET, Sha256::of(CONTENT)));
    // The site's description stays the site's.
    assert_eq!(target.custom, Some(json!({"channel": "stable"})));
}

#[test]
fn the_vendor_alone_suffices_where_the_policy_says_so() {
    let two = Two::new();
    let alone = || Offer::vendor(two.vendor.files.clone());
    assert_eq!(
        follow(Stores::Vendor(two.vendor.store()), alone(), today())
            .unwrap()
            .len(),
        1
    );
    let error = follow(both(&two), alone(), today()).unwrap_err();
    assert_eq!(error.code(), "not-approved");
    assert!(error.is_refusal() && matches!(error, TufError::NoSite));
}

/// With all online keys of the vendor somebody signs another content under the approved name, and a higher version.
#[test]
fn a_stolen_vendor_key_alone_installs_nothing() {
    let mut two = Two::new();
    two.vendor_signs(3, EVIL);
    let error = two.refuse();
    assert_eq!((error.code(), error.is_refusal()), ("not-approved", true), "{error}");
    assert!(error.reason().contains("timestamp.json"), "{error}");

    // The approved timestamp beside it, as the gateway keeps it, does not help: nothing else was approved.
    let approved = Two::new();
    let mut mixed = Two { ..approved };
    let kept = mixed.vendor.file("timestamp.json").to_vec();
    mixed.vendor_signs(3, EVIL);
    mixed.vendor.put("2.timestamp.json", kept);
    let targets = mixed.follow(both(&mixed), today()).unwrap();
    assert_eq!(targets[0].sha256, Sha256::of(CONTENT));
}

#[test]
fn a_stolen_vendor_key_teaches_the_host_nothing() {
    let mut two = Two::new();
    let directory = tempfile::tempdir().unwrap();
    let root = two.vendor.file("1.root.json").to_vec();
    let stores = |two: &Two| Stores::Both {
        vendor: Datastore::open_or_create(directory.path(), &root).unwrap().0,
        site: two.site.store(),
    };
    two.follow(stores(&two), today()).unwrap();
    let good = two.vendor.files.clone();
    // Versions as high as can be: a host that remembered them would refuse every later one.
    two.vendor_signs(u64::from(u32::MAX), EVIL);
    assert_eq!(two.follow(stores(&two), today()).unwrap_err().code(), "not-approved");
    two.vendor.files = good;
    two.follow(stores(&two), today()).unwrap();
}

/// With all online keys of the site somebody approves a content of their own.
#[test]
fn a_stolen_site_key_alone_installs_nothing() {
    let mut two = Two::new();
    two.approve(3, EVIL, today());
    let error = two.refuse();
    assert_eq!((error.code(), error.is_refusal()), ("disagreement", true), "{error}");
    assert!(error.reason().contains("different contents"), "{error}");
}

#[test]
fn an_approval_of_what_the_vendor_never_signed_installs_nothing() {
    let mut two = Two::new();
    two.approve(3, CONTENT, today());
    let mut value: Value = serde_json::from_slice(two.site.file("3.host.json")).unwrap();
    let entry = value["signed"]["targets"][TARGET].take();
    let bytes = resign(two.site.file("3.host.json"), &[&two.site.host], |signed| {
        signed["targets"] = json!({"host/9.9.9/root.erofs": entry});
    });
    let digest = Sha256::of(CONTENT).to_string();
    let content = CONTENT.to_vec();
    for files in [&mut two.vendor.files, &mut two.site.files] {
        files
            .targets
            .insert(consistent_path("host/9.9.9/root.erofs", &digest), content.clone());
    }
    two.site.put("3.host.json", bytes);
    two.site.index(3, &[("host", 3), ("targets", 1)]);
    let error = two.refuse();
    assert_eq!(error.code(), "disagreement", "{error}");
    assert!(error.reason().contains("do not name it"), "{error}");
}

#[test]
fn what_is_not_approved_yet_does_not_count() {
    let mut two = Two::new();
    // The vendor lists two, the officers approve one of them.
    let mut entries = two
        .vendor
        .entries(&[(TARGET, CONTENT), ("host/1.1.0/root.erofs", b"the next one")]);
    for entry in entries.values_mut() {
        entry.custom = json!({"channel": "stable"}).as_object().cloned();
    }
    let host = author::targets(&Fixture::header(3), &entries, &[], &[&two.vendor.host]).unwrap();
    two.vendor.put("3.host.json", host);
    two.vendor.index(3, &[("host", 3), ("targets", 1)]);
    two.approve(3, CONTENT, today());
    let targets = two.follow(both(&two), today()).unwrap();
    assert!(targets.iter().map(|target| target.name.as_str()).eq([TARGET]));
}

#[test]
fn another_description_is_refused() {
    let mut two = Two::new();
    let approval = serde_json::to_value(two.seen(today())).unwrap();
    two.site_signs(3, CONTENT, json!({"channel": "testing", APPROVAL: approval}));
    let error = two.refuse();
    assert!(error.reason().contains("describe it differently"), "{error}");
}

#[test]
fn a_site_target_without_an_approval_is_refused() {
    let mut two = Two::new();
    let mut approval = serde_json::to_value(two.seen(today())).unwrap();
    approval["vendor"].as_array_mut().unwrap().remove(0);
    for (custom, why) in [
        (json!({"channel": "stable"}), "no approval"),
        (json!({APPROVAL: {"at": "yesterday"}}), "malformed"),
        (json!({APPROVAL: approval}), "no root"),
    ] {
        two.site_signs(3, CONTENT, custom);
        let error = two.refuse();
        assert!(
            error.code() == "disagreement" && error.reason().contains(why),
            "{error}"
        );
    }
}

/// The vendor's metadata expire: what was approved while they were fresh can still be installed, as long as the site signs.
#[test]
fn the_vendor_is_judged_as_of_the_approval_and_the_site_as_of_now() {
    let mut two = Two::new();
    let later = today() + Duration::days(40);
    let vendor_alone = follow(
        Stores::Vendor(two.vendor.store()),
        Offer::vendor(two.vendor.files.clone()),
        later,
    );
    assert_eq!(vendor_alone.unwrap_err().code(), "expired");
    // The site's have expired too.
    let error = two.follow(both(&two), later).unwrap_err();
    assert_eq!(error.code(), "expired", "{error}");
    assert!(error.reason().contains("timestamp"), "{error}");

    // The site renews its signatures, and the approval stays what it was.
    let expires = later + Duration::days(30);
    let renew = |bytes: &[u8], signer: &dyn Signer| {
        resign(bytes, &[signer], |signed| {
            signed["expires"] = json!(author::seconds(expires))
        })
    };
    for (name, key) in [("2.host.json", &two.site.host), ("1.targets.json", &two.site.targets)] {
        let bytes = renew(&two.site.files.metadata[name], key);
        two.site.files.metadata.insert(name.to_owned(), bytes);
    }
    two.site.index(3, &[("host", 2), ("targets", 1)]);
    let snapshot = renew(two.site.file("3.snapshot.json"), &two.site.snapshot);
    let meta = MetaEntry::of(3, &snapshot);
    two.site.put("3.snapshot.json", snapshot);
    let header = author::Header {
        expires,
        ..Fixture::header(3)
    };
    let timestamp = author::timestamp(&header, &meta, &[&two.site.timestamp]).unwrap();
    two.site.put("timestamp.json", timestamp);
    two.follow(both(&two), later).unwrap();
}

#[test]
fn an_approval_of_stale_metadata_is_refused() {
    let mut two = Two::new();
    // The vendor's metadata expire in 30 days, and the site's header is signed yesterday: only a forged date is later.
    two.approve(3, CONTENT, today() + Duration::days(31));
    assert!(two.refuse().reason().contains("after the site signed it"));
    // At a host whose clock is as far, the vendor's had expired when they were approved.
    let expires = today() + Duration::days(90);
    let timestamp = resign(two.site.file("timestamp.json"), &[&two.site.timestamp], |signed| {
        signed["expires"] = json!(author::seconds(expires));
        signed["signed_at"] = json!(author::seconds(today() + Duration::days(32)));
    });
    two.site.put("timestamp.json", timestamp);
    let error = two.refuse();
    assert_eq!(error.code(), "expired", "{error}");
}

#[test]
fn an_approval_older_than_the_signatures_it_names_is_refused() {
    let mut two = Two::new();
    two.approve(3, CONTENT, today() - Duration::days(2));
    let error = two.refuse();
    assert!(error.reason().contains("were signed at"), "{error}");
}

/// The officers saw root 1. Root 2, which the vendor made since, is for the next approval.
#[test]
fn a_root_that_is_newer_than_the_approval_is_not_looked_at() {
    let mut two = Two::new();
    let root = two.vendor.make_root(2, &[0, 1]);
    two.vendor.put("2.root.json", root);
    two.follow(both(&two), today()).unwrap();
    // Approved with root 2, another root 2 is refused.
    two.vendor_signs(3, CONTENT);
    two.approve(3, CONTENT, today());
    two.follow(both(&two), today()).unwrap();
    let other = two.vendor.make_root(2, &[1, 2]);
    two.vendor.put("2.root.json", other);
    let error = two.refuse();
    assert!(
        error.code() == "not-approved" && error.reason().contains("2.root.json"),
        "{error}"
    );
}
