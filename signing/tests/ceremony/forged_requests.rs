// SPDX-License-Identifier: GPL-3.0-or-later
//! Requests that lie, or ask for what no root may be. Each is forged from an honest one, and a custodian signs none.

use serde_json::{Value, json};
use signing::ceremony::{Fragment, Plan, Reason, Request, RoleName, TrustedRoot};
use signing::clock::now;

use super::people::{Person, Site, altered, forged, removal, renewal, set_threshold, site};

fn refused(site: &Site, old: Option<&TrustedRoot>, request: &Request, reason: &str) {
    let error = Fragment::sign(request, old, site.anna.key(), now()).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains(reason), "{reason:?} is not in {error:?}");
}

#[test]
fn words_that_differ_from_the_bytes_are_a_lie() {
    let site = site(2);
    let old = Some(&site.root);
    let honest = site.request(&renewal());
    site.anna.sign(&honest, old);
    let lie = "the request lies";
    // The bytes do more than the words say.
    refused(
        &site,
        old,
        &forged(&honest, |signed| {
            signed["roles"]["root"]["threshold"] = 1.into();
        }),
        lie,
    );
    refused(
        &site,
        old,
        &forged(&honest, |signed| {
            signed["expires"] = "2090-01-01T00:00:00Z".into();
        }),
        lie,
    );
    // The words say more, less or other than the bytes do.
    refused(&site, old, &altered(&honest, |file| file["changes"] = json!([])), lie);
    refused(
        &site,
        old,
        &altered(&honest, |file| {
            file["changes"][0]["to"] = "2027-01-01T00:00:00Z".into();
        }),
        lie,
    );
    refused(
        &site,
        old,
        &altered(&honest, |file| file["due"][0]["threshold"] = 1.into()),
        lie,
    );
    refused(
        &site,
        old,
        &altered(&honest, |file| {
            file["due"][0]["keys"][site.ben.keyid()] = "Mallory".into();
        }),
        lie,
    );
    // A reason that is made out to be harmless.
    let stolen = Reason::Compromised {
        last_trusted_version: 1,
    };
    let request = site.request(&removal("Ben", stolen));
    refused(
        &site,
        old,
        &altered(&request, |file| {
            file["changes"][0]["why"] = json!({"reason": "left"});
        }),
        lie,
    );
}

#[test]
fn bytes_for_which_there_are_no_words_are_refused() {
    let site = site(2);
    let old = Some(&site.root);
    let honest = site.request(&renewal());
    let refuse = |change: &dyn Fn(&mut Value), reason| refused(&site, old, &forged(&honest, change), reason);
    refuse(&|signed| signed["surprise"] = 1.into(), "cannot be shown in words");
    refuse(
        &|signed| signed["ceremony"]["surprise"] = 1.into(),
        "cannot be shown in words",
    );
    refuse(
        &|signed| signed["roles"]["root"]["surprise"] = 1.into(),
        "cannot be shown in words",
    );
    refuse(
        &|signed| signed["roles"]["mirrors"] = signed["roles"]["root"].clone(),
        "cannot be shown in words",
    );
    refuse(
        &|signed| drop(signed["roles"].as_object_mut().unwrap().remove("targets")),
        "its four roles",
    );
    refuse(&|signed| signed["_type"] = "targets".into(), "not a root");
    refuse(
        &|signed| signed["keys"][site.ben.keyid()]["scheme"] = "other".into(),
        "neither an Ed25519 key",
    );
    refuse(
        &|signed| {
            let other = signed["keys"][site.ben.keyid()].clone();
            signed["keys"][site.anna.keyid()] = other;
        },
        "not the identifier of its key",
    );
    let form = "not in the one form";
    refuse(&|signed| signed["expires"] = "2090-01-01T01:00:00+01:00".into(), form);
    refuse(
        &|signed| {
            let twice = signed["roles"]["root"]["keyids"][0].clone();
            signed["roles"]["root"]["keyids"].as_array_mut().unwrap().push(twice);
        },
        form,
    );
    let spaced = altered(&honest, |file| {
        file["signed"] = file["signed"].as_str().unwrap().replacen(':', ": ", 1).into();
    });
    refused(&site, old, &spaced, form);
    let twice = altered(&honest, |file| {
        file["signed"] = file["signed"]
            .as_str()
            .unwrap()
            .replacen("\"version\":2", "\"version\":2,\"version\":2", 1)
            .into();
    });
    refused(&site, old, &twice, "stands twice");
}

#[test]
fn a_request_fits_one_old_root_only() {
    let (mine, other) = (site(2), site(2));
    let honest = mine.request(&renewal());
    refused(&mine, Some(&other.root), &honest, "and yours is 1");
    refused(&mine, None, &honest, "give the one that you trust with --root");
    let renamed = altered(&honest, |file| file["old"] = Value::Null);
    refused(&mine, Some(&mine.root), &renamed, "leave out --root");
    refused(&mine, None, &renamed, "does not follow");
    let made = mine.together(&honest, &[&mine.anna, &mine.ben]);
    let newer = TrustedRoot::read(made.complete().unwrap().0).unwrap();
    refused(&mine, Some(&newer), &honest, "give 1.root.json with --root");
    let kind = altered(&honest, |file| file["kind"] = "other".into());
    refused(&mine, Some(&mine.root), &kind, "is not a bastide-ceremony-request");
    let format = altered(&honest, |file| file["format"] = 2.into());
    refused(&mine, Some(&mine.root), &format, "of format 1");
}

/// The rules do not trust the one who plans.
#[test]
fn a_new_root_that_breaks_a_rule_is_refused_whoever_planned_it() {
    let site = site(2);
    let dora = Person::new("Dora");
    let honest = site.request(&Plan {
        add: vec![dora.file()],
        ..removal("Ben", Reason::Lost)
    });
    let (ben, dora) = (site.ben.keyid(), dora.keyid());
    let refuse = |change: &dyn Fn(&mut Value), reason| {
        refused(&site, Some(&site.root), &forged(&honest, change), reason);
    };
    refuse(&|signed| signed["version"] = 3.into(), "version 3 does not follow");
    refuse(&|signed| signed["version"] = 1.into(), "version 1 does not follow");
    refuse(
        &|signed| signed["expires"] = signed["signed_at"].clone(),
        "expired from the start",
    );
    refuse(
        &|signed| signed["signed_at"] = "2001-01-01T00:00:00Z".into(),
        "dated before the old one",
    );
    refuse(
        &|signed| signed["consistent_snapshot"] = false.into(),
        "no consistent snapshots",
    );
    refuse(
        &|signed| signed["spec_version"] = "2.0.0".into(),
        "another specification",
    );
    refuse(
        &|signed| drop(signed.as_object_mut().unwrap().remove("ceremony")),
        "lacks the ceremony's record",
    );
    refuse(
        &|signed| drop(signed["keys"].as_object_mut().unwrap().remove(&dora)),
        "not those of its roles",
    );
    refuse(&|signed| signed["roles"]["root"]["threshold"] = 0.into(), "0 of 3 keys");
    refuse(
        &|signed| signed["roles"]["timestamp"]["threshold"] = 2.into(),
        "2 of 1 keys of the role timestamp",
    );
    refuse(
        &|signed| signed["roles"]["timestamp"]["keyids"] = json!([]),
        "not those of its roles",
    );
    refuse(
        &|signed| signed["ceremony"]["ended"] = true.into(),
        "is ended, and the role targets still has",
    );
    refuse(
        &|signed| signed["ceremony"]["custodians"][&dora]["name"] = "Anna".into(),
        "two keys bear the name Anna",
    );
    refuse(
        &|signed| signed["ceremony"]["custodians"][&dora]["name"] = "D<b>".into(),
        "no usable name",
    );
    refuse(
        &|signed| signed["ceremony"]["custodians"][&dora]["openpgp"] = "abc".into(),
        "OpenPGP fingerprint",
    );
    refuse(
        &|signed| drop(signed["ceremony"]["custodians"].as_object_mut().unwrap().remove(&dora)),
        "bears no custodian's name",
    );
    refuse(
        &|signed| signed["ceremony"]["custodians"][site.anna.keyid()]["name"] = "Eve".into(),
        "name is not",
    );
    refuse(
        &|signed| signed["ceremony"]["custodians"][&ben] = json!({"name": "Ben"}),
        "holds no root key",
    );
    refuse(
        &|signed| signed["ceremony"]["removed"] = json!({}),
        "are named as removed differ",
    );
    refuse(
        &|signed| signed["ceremony"]["removed"][&ben]["version"] = 1.into(),
        "another version or name",
    );
    refuse(
        &|signed| signed["ceremony"]["removed"][&ben]["name"] = "Eve".into(),
        "another version or name",
    );
    refuse(
        &|signed| signed["ceremony"]["removed"][&ben]["why"] = json!({"reason": "ended"}),
        "an end that does not come",
    );
    refuse(
        &|signed| {
            let strange = signed["ceremony"]["removed"][&ben].clone();
            signed["ceremony"]["removed"]["00".repeat(32)] = strange;
        },
        "are named as removed differ",
    );
    // Taken out of root, kept in another role: it is in use, so nothing names it as removed.
    let back = |signed: &mut Value| {
        let old: Value = serde_json::from_slice(&site.bytes).unwrap();
        signed["keys"][&ben] = old["signed"]["keys"][&ben].clone();
        let mut keys = vec![
            Value::from(ben.clone()),
            signed["roles"]["timestamp"]["keyids"][0].clone(),
        ];
        keys.sort_by_key(Value::to_string);
        signed["roles"]["timestamp"]["keyids"] = keys.into();
    };
    refuse(&back, "still counts in the role timestamp");
    refuse(
        &|signed| {
            back(signed);
            signed["ceremony"]["removed"] = json!({});
        },
        "is removed and stays in another role",
    );
}

#[test]
fn what_an_earlier_root_removed_is_never_forgotten() {
    let site = site(2);
    let lost = site.request(&Plan {
        thresholds: set_threshold(RoleName::Root, 1),
        ..removal("Ben", Reason::Lost)
    });
    let made = site.together(&lost, &[&site.anna, &site.cleo]);
    let newer = TrustedRoot::read(made.complete().unwrap().0).unwrap();
    let honest = renewal().request(Some(&newer), now()).unwrap();
    let forgets = forged(&honest, |signed| signed["ceremony"]["removed"] = json!({}));
    refused(&site, Some(&newer), &forgets, "forgets a key that was removed earlier");
}

#[test]
fn a_first_root_has_no_past() {
    let site = site(2);
    let honest = Plan {
        add: vec![site.anna.file()],
        roles: site
            .roles
            .iter()
            .map(|(role, person)| (*role, vec![person.file()]))
            .collect(),
        expires: renewal().expires,
        ..Plan::default()
    }
    .request(None, now())
    .unwrap();
    site.anna.sign(&honest, None);
    let past = forged(&honest, |signed| {
        signed["ceremony"]["removed"] = json!({"00".repeat(32): {"version": 1, "why": {"reason": "lost"}}});
    });
    refused(&site, None, &past, "a first root has removed nothing");
}

#[test]
fn a_key_file_that_was_altered_on_its_way_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("anna.public.json");
    let honest = serde_json::to_value(Person::new("Anna").file()).unwrap();
    let other = serde_json::to_value(Person::new("Anna").file()).unwrap();
    let read = |change: &dyn Fn(&mut Value)| {
        let mut file = honest.clone();
        change(&mut file);
        std::fs::write(&path, file.to_string()).unwrap();
        let read = signing::ceremony::CustodianFile::read(&path);
        read.map_err(|error| format!("{error:#}"))
    };
    assert!(read(&|_| ()).is_ok());
    let refuse = |change: &dyn Fn(&mut Value), reason: &str| {
        let error = read(change).unwrap_err();
        assert!(error.contains(reason) && error.contains("anna.public.json"), "{error}");
    };
    let proof = "its proof does not hold";
    refuse(&|file| file["name"] = "Eve".into(), proof);
    refuse(&|file| file["key"] = other["key"].clone(), proof);
    refuse(&|file| file["openpgp"] = "AB".repeat(20).into(), proof);
    refuse(&|file| file["certificate"] = "another".into(), proof);
    refuse(&|file| file["proof"] = "zz".into(), proof);
    refuse(&|file| file["name"] = "<Eve>".into(), "no usable name");
    refuse(&|file| file["kind"] = "other".into(), "is not a bastide-ceremony-key");
    refuse(&|file| file["surprise"] = 1.into(), "not a whole public key file");
    refuse(&|file| file["name"] = "x".repeat(300_000).into(), "limit");
}
