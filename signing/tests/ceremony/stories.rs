// SPDX-License-Identifier: GPL-3.0-or-later
//! What custodians do in the life of a site.

use std::collections::BTreeMap;
use std::path::Path;

use signing::ceremony::{Change, Plan, Reason, Removal, RoleName, TrustedRoot};
use signing::clock::now;
use signing::tuf::author::{KeySet, Signer};
use signing::tuf::repository::{Expiry, Repository, Signers};
use signing::tuf::{Client, Datastore, DirectorySource, Limits, TufError};

use super::people::{Person, Site, in_days, removal, renewal, rotation, set_threshold, site};

const STOLEN: Reason = Reason::Compromised {
    last_trusted_version: 1,
};

#[test]
fn a_root_is_renewed_by_a_threshold() {
    let site = site(2);
    let request = site.request(&renewal());
    assert!(matches!(request.changes[..], [Change::Renew { .. }]));
    let alone = site.together(&request, &[&site.cleo]);
    let why = alone.complete().unwrap_err().to_string();
    assert!(
        why.contains("1 more of: ") && why.contains("Anna") && why.contains("Ben"),
        "{why}"
    );
    assert!(!why.contains("Cleo"), "{why}");
    let made = site.together(&request, &[&site.cleo, &site.anna]);
    let new = TrustedRoot::read(made.complete().unwrap().0).unwrap();
    assert_eq!(new.state.version, 2);
    assert!(new.state.expires > site.root.state.expires);
}

#[test]
fn a_lost_key_is_replaced_by_the_others() {
    let site = site(2);
    let dora = Person::new("Dora");
    let plan = Plan {
        add: vec![dora.file()],
        ..removal("Ben", Reason::Lost)
    };
    let request = site.request(&plan);
    let words = request.words(Some(&site.root)).unwrap();
    assert!(
        words.contains("The root key of Ben is taken out: it is lost."),
        "{words}"
    );
    assert!(words.contains("Dora becomes a custodian."), "{words}");
    // Dora counts for the new root only, so the old threshold needs Anna and Cleo.
    let short = site.together(&request, &[&site.anna, &dora]);
    assert!(
        short
            .complete()
            .unwrap_err()
            .to_string()
            .contains("by the rules of root 1, 1 more of: Cleo")
    );
    let made = site.together(&request, &[&site.anna, &dora, &site.cleo]);
    let new = TrustedRoot::read(made.complete().unwrap().0).unwrap();
    let keys = &new.state.role(RoleName::Root).keyids;
    assert!(keys.contains(&dora.file().keyid().unwrap()) && !keys.contains(&site.ben.file().keyid().unwrap()));
}

#[test]
fn who_leaves_may_still_sign_the_way_out() {
    let site = site(2);
    let plan = Plan {
        thresholds: set_threshold(RoleName::Root, 1),
        ..removal("Ben", Reason::Left)
    };
    let request = site.request(&plan);
    let words = request.words(Some(&site.root)).unwrap();
    assert!(
        words.contains("its custodian leaves") && words.contains("ONE CUSTODIAN ALONE"),
        "{words}"
    );
    site.together(&request, &[&site.ben, &site.anna]).complete().unwrap();
}

#[test]
fn a_root_key_that_a_role_gets_too_is_pointed_out() {
    let site = site(2);
    let warns = |person: &Person| {
        let request = site.request(&rotation(RoleName::Timestamp, person));
        let words = request.words(Some(&site.root)).unwrap();
        words.contains("THE ROOT KEY OF Anna ALSO SIGNS timestamp")
    };
    assert!(warns(&site.anna) && !warns(&Person::new("Dora")));
}

#[test]
fn a_compromised_key_is_named_with_its_last_trusted_version_and_does_not_come_back() {
    let site = site(2);
    let dora = Person::new("Dora");
    let plan = Plan {
        add: vec![dora.file()],
        ..removal("Ben", STOLEN)
    };
    let request = site.request(&plan);
    let words = request.words(Some(&site.root)).unwrap();
    assert!(
        words.contains("COMPROMISED") && words.contains("to be trusted is 1"),
        "{words}"
    );
    assert!(words.contains("Trust no root after version 1"), "{words}");
    let (ben, cleo) = (site.ben.file(), Person::new("Cleo"));
    let made = site.together(&request, &[&site.anna, &site.cleo]);
    let new = TrustedRoot::read(made.complete().unwrap().0).unwrap();
    let record = new.state.ceremony.clone().unwrap();
    let removed = &record.removed[&ben.keyid().unwrap()];
    assert_eq!(
        (removed.version, removed.why, removed.name.as_deref()),
        (2, STOLEN, Some("Ben"))
    );
    let back = Plan {
        add: vec![ben],
        ..Plan::default()
    };
    let why = format!("{:#}", back.request(Some(&new), now()).unwrap_err());
    assert!(why.contains("compromised") && why.contains("never comes back"), "{why}");
    assert!(why.contains("of Ben still counts"), "{why}");
    // The same name with another key is another thing, once the first is gone.
    let twice = Plan {
        add: vec![cleo.file()],
        ..Plan::default()
    };
    let why = format!("{:#}", twice.request(Some(&new), now()).unwrap_err());
    assert!(why.contains("two keys bear the name Cleo"), "{why}");
}

#[test]
fn plans_that_leave_a_compromised_key_or_cannot_be_met_are_refused() {
    let site = site(2);
    let still = Plan {
        roles: BTreeMap::from([(RoleName::Timestamp, vec![site.ben.file()])]),
        ..removal("Ben", STOLEN)
    };
    let why = site.no_request(&still);
    assert!(why.contains("still counts in the role timestamp"), "{why}");
    let late = removal(
        "Ben",
        Reason::Compromised {
            last_trusted_version: 9,
        },
    );
    assert!(site.no_request(&late).contains("at most the present 1"));
    let mut two = removal("Ben", Reason::Lost);
    two.remove.extend(removal("Cleo", Reason::Lost).remove);
    two.thresholds = set_threshold(RoleName::Root, 1);
    let why = site.no_request(&two);
    assert!(why.contains("no client will ever follow"), "{why}");
    let few = Plan {
        thresholds: set_threshold(RoleName::Root, 4),
        ..Plan::default()
    };
    assert!(site.no_request(&few).contains("4 of 3 keys of the role root"));
    let stolen = removal(&site.roles[&RoleName::Timestamp].keyid()[..12], STOLEN);
    assert!(
        site.no_request(&stolen)
            .contains("keys of the role timestamp can never sign")
    );
    assert!(site.no_request(&Plan::default()).contains("nothing would change"));
    assert!(
        site.no_request(&removal("Zoe", Reason::Lost))
            .contains("no key of \"Zoe\"")
    );
}

#[test]
fn a_compromised_key_counts_only_where_the_threshold_cannot_be_met_without_it() {
    let all = site(3);
    let dora = Person::new("Dora");
    let plan = Plan {
        add: vec![dora.file()],
        ..removal("Ben", STOLEN)
    };
    let request = all.request(&plan);
    all.together(&request, &[&all.anna, &all.ben, &all.cleo, &dora])
        .complete()
        .unwrap();
    // As many as may make a root: a stranger can make one as well.
    let two = site(2);
    let mut plan = removal("Ben", STOLEN);
    plan.remove.extend(removal("Cleo", STOLEN).remove);
    plan.add = vec![dora.file()];
    let words = two.request(&plan).words(Some(&two.root)).unwrap();
    assert!(words.contains("AS MANY KEYS ARE COMPROMISED"), "{words}");
}

#[test]
fn a_higher_threshold_needs_the_old_and_the_new_rule() {
    let site = site(2);
    let raise = Plan {
        thresholds: set_threshold(RoleName::Root, 3),
        ..Plan::default()
    };
    let request = site.request(&raise);
    let two = site.together(&request, &[&site.anna, &site.ben]);
    let why = two.complete().unwrap_err().to_string();
    assert!(
        why.contains("by the rules of root 2, 1 more of: Cleo") && !why.contains("root 1,"),
        "{why}"
    );
    site.together(&request, &[&site.anna, &site.ben, &site.cleo])
        .complete()
        .unwrap();

    let three = super::people::site(3);
    let lower = Plan {
        thresholds: set_threshold(RoleName::Root, 1),
        ..Plan::default()
    };
    let request = three.request(&lower);
    let one = three.together(&request, &[&three.anna, &three.cleo]);
    let why = one.complete().unwrap_err().to_string();
    assert!(why.contains("by the rules of root 1, 1 more of: Ben"), "{why}");
}

#[test]
fn a_role_may_have_several_keys() {
    let site = site(2);
    let [first, second] = ["first", "second"].map(Person::new);
    let plan = Plan {
        roles: BTreeMap::from([(RoleName::Targets, vec![first.file(), second.file()])]),
        thresholds: set_threshold(RoleName::Targets, 2),
        ..Plan::default()
    };
    let request = site.request(&plan);
    assert!(matches!(
        request.changes[..],
        [
            Change::RotateRole {
                role: RoleName::Targets,
                ..
            },
            Change::SetThreshold {
                role: RoleName::Targets,
                from: 1,
                to: 2
            }
        ]
    ));
    let out = Removal {
        key: site.roles[&RoleName::Snapshot].keyid(),
        why: Reason::Lost,
    };
    let plan = Plan {
        remove: vec![out],
        ..rotation(RoleName::Snapshot, &first)
    };
    let words = site.request(&plan).words(Some(&site.root)).unwrap();
    assert!(
        words.contains("The role snapshot gets other keys.") && words.contains(": it is lost"),
        "{words}"
    );
}

/// One repository through its life, followed by a client with a memory: published, its timestamp key stolen and rotated,
/// published with the new key, ended.
#[test]
fn a_client_follows_a_rotation_and_refuses_after_the_end() {
    let mut site = site(2);
    let place = tempfile::tempdir().unwrap();
    let (repository, memory) = (place.path().join("repository"), place.path().join("memory"));
    drop(Repository::create(&repository, &site.bytes).unwrap());
    let first = site.bytes.clone();
    publish(Repository::open(&repository, &first).unwrap(), &site).unwrap();
    drop(Datastore::create(&memory, &first).unwrap());
    follow(&repository, &memory).unwrap();

    let fresh = Person::new("timestamp");
    let stolen = site.roles[&RoleName::Timestamp].keyid();
    let plan = Plan {
        remove: removal(&stolen, STOLEN).remove,
        ..rotation(RoleName::Timestamp, &fresh)
    };
    let words = site.request(&plan).words(Some(&site.root)).unwrap();
    assert!(words.contains("Compare every timestamp after version 1"), "{words}");
    site = change(site, &plan);
    let mut editor = Repository::open(&repository, &first).unwrap();
    editor.add_root(&site.bytes).unwrap();
    // What the stolen key signs is refused from now on.
    let error = follow(&repository, &memory).unwrap_err();
    assert!(matches!(error, TufError::BelowThreshold { .. }), "{error}");
    site.roles.insert(RoleName::Timestamp, fresh);
    publish(editor, &site).unwrap();
    follow(&repository, &memory).unwrap();

    let end = Plan {
        end: true,
        ..Plan::default()
    };
    let words = site.request(&end).words(Some(&site.root)).unwrap();
    assert!(
        words.contains("THE REPOSITORY ENDS") && words.contains("timestamp: nobody"),
        "{words}"
    );
    site = change(site, &end);
    let mut editor = Repository::open(&repository, &first).unwrap();
    editor.add_root(&site.bytes).unwrap();
    let error = follow(&repository, &memory).unwrap_err();
    assert!(
        matches!(&error, TufError::BelowThreshold { role, have: 0, .. } if role == "timestamp"),
        "{error}"
    );
    assert!(publish(editor, &site).is_err());
    assert!(site.no_request(&renewal()).contains("was ended by root 3"));
}

fn change(site: Site, plan: &Plan) -> Site {
    let request = site.request(plan);
    let bytes = site
        .together(&request, &[&site.anna, &site.cleo])
        .complete()
        .unwrap()
        .0
        .to_vec();
    Site {
        root: TrustedRoot::read(&bytes).unwrap(),
        bytes,
        ..site
    }
}

fn publish(mut editor: Repository, site: &Site) -> anyhow::Result<()> {
    let signer = |role| site.roles[&role].signer();
    let [targets, snapshot, timestamp] = RoleName::OTHERS.map(signer);
    let all = |key| -> [&dyn Signer; 1] { [key] };
    let signers = Signers {
        targets: &all(&targets),
        host: &all(&targets),
        snapshot: &all(&snapshot),
        timestamp: &all(&timestamp),
        release: None,
    };
    let keys = KeySet::single(targets.public());
    editor.publish(&keys, &signers, &Expiry::all(in_days(30)), now())?;
    Ok(())
}

fn follow(repository: &Path, memory: &Path) -> Result<(), TufError> {
    let source = DirectorySource::below(repository);
    Client::open(Datastore::open(memory)?, source, Limits::default(), now())?.refresh()
}
