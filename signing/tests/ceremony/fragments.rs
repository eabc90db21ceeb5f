// SPDX-License-Identifier: GPL-3.0-or-later
//! Fragments in any order, twice, and of strangers.

use anyhow::anyhow;
use serde_json::Value;
use signing::ceremony::{Assembled, Fragment, Plan, Reason, Request, RoleName, assemble};
use signing::clock::now;

use super::people::{Person, Site, removal, renewal, rotation, site};

fn altered(fragment: &Fragment, change: impl FnOnce(&mut Value)) -> Fragment {
    let mut file = serde_json::to_value(fragment).unwrap();
    change(&mut file);
    serde_json::from_value(file).unwrap()
}

fn all(site: &Site, request: &Request, fragments: &[(&str, Fragment)]) -> Assembled {
    let fragments = fragments
        .iter()
        .map(|(name, fragment)| ((*name).to_owned(), Ok(fragment.clone())));
    assemble(request, Some(&site.root), fragments).unwrap()
}

#[test]
fn order_and_repetition_do_not_matter_and_nothing_is_lost_between_runs() {
    let site = site(2);
    let request = site.request(&rotation(RoleName::Targets, &Person::new("targets")));
    let sign = |person: &Person| person.sign(&request, Some(&site.root));
    let (anna, ben, cleo) = (sign(&site.anna), sign(&site.ben), sign(&site.cleo));
    let first = all(&site, &request, &[("a", anna.clone()), ("again", anna.clone())]);
    assert!(first.refused.is_empty());
    assert_eq!(
        (first.rules[0].signed.len(), first.rules[0].needed),
        (1, 1),
        "one key counts once"
    );
    assert!(first.complete().is_err());

    let later = all(
        &site,
        &request,
        &[("c", cleo.clone()), ("a", anna.clone()), ("b", ben.clone())],
    );
    let other = all(
        &site,
        &request,
        &[("b", ben), ("a", anna.clone()), ("c", cleo), ("a2", anna.clone())],
    );
    let (root, transcript) = later.complete().unwrap();
    let (root2, transcript2) = other.complete().unwrap();
    assert_eq!((root, transcript.text()), (root2, transcript2.text()));
    // Signed again later: the earlier one is kept, in whatever order they come.
    let again = Fragment::sign(
        &request,
        Some(&site.root),
        site.anna.key(),
        now() + chrono::Duration::days(1),
    )
    .unwrap();
    let one = |fragments: &[(&str, Fragment)]| {
        let mut given = fragments.to_vec();
        given.push(("b", site.ben.sign(&request, Some(&site.root))));
        all(&site, &request, &given).complete().unwrap().1.text().to_owned()
    };
    let day = |text: &str| text.contains(&again.made.format("%Y-%m-%dT").to_string());
    assert!(
        !day(&one(&[("x", again.clone()), ("y", anna.clone())])) && !day(&one(&[("y", anna), ("x", again.clone())]))
    );
}

#[test]
fn bad_fragments_are_named_and_lose_nobody_else() {
    let site = site(2);
    let old = Some(&site.root);
    let request = site.request(&renewal());
    let anna = site.anna.sign(&request, old);
    let other = site.request(&rotation(RoleName::Targets, &Person::new("targets")));
    let flipped = |file: &mut Value| {
        let signature = file["signature"].as_str().unwrap();
        let digit = if signature.starts_with('0') { "1" } else { "0" };
        file["signature"] = format!("{digit}{}", &signature[1..]).into();
    };
    let stranger = Person::new("Ben");
    let bad = [
        ("other request", site.ben.sign(&other, old), "for another request"),
        (
            "flipped",
            altered(&site.cleo.sign(&request, old), flipped),
            "signature does not hold",
        ),
        (
            "renamed",
            altered(&site.cleo.sign(&request, old), |file| file["custodian"] = "Anna".into()),
            "its key is Cleo's",
        ),
        (
            "version",
            altered(&anna, |file| file["root_version"] = 3.into()),
            "for another request",
        ),
        (
            "kind",
            altered(&anna, |file| file["kind"] = "other".into()),
            "is not a bastide-ceremony-fragment",
        ),
        (
            "borrowed",
            altered(&anna, |file| {
                file["keyid"] = site.ben.keyid().into();
                file["custodian"] = "Ben".into();
            }),
            "signature does not hold",
        ),
        (
            "stranger",
            altered(&anna, |file| file["keyid"] = stranger.keyid().into()),
            "not among those",
        ),
    ];
    let mut given: Vec<_> = bad
        .iter()
        .map(|(name, fragment, _)| ((*name).to_owned(), Ok(fragment.clone())))
        .collect();
    given.push(("anna".to_owned(), Ok(anna)));
    given.push(("noise".to_owned(), Err(anyhow!("not a fragment"))));
    let judged = assemble(&request, old, given).unwrap();
    assert_eq!(judged.refused.len(), bad.len() + 1, "{:?}", judged.refused);
    for (name, _, reason) in &bad {
        assert!(
            judged.refused[*name].contains(reason),
            "{name}: {}",
            judged.refused[*name]
        );
    }
    assert_eq!(judged.rules[0].signed.values().collect::<Vec<_>>(), ["Anna"]);
    let error = Fragment::sign(&request, old, stranger.key(), now())
        .unwrap_err()
        .to_string();
    assert!(error.contains("not among those that may sign"), "{error}");
}

#[test]
fn a_lost_or_compromised_key_signs_nothing_while_the_others_suffice() {
    let site = site(2);
    for why in [
        Reason::Lost,
        Reason::Compromised {
            last_trusted_version: 0,
        },
    ] {
        let request = site.request(&removal("Ben", why));
        let error = Fragment::sign(&request, Some(&site.root), site.ben.key(), now()).unwrap_err();
        assert!(error.to_string().contains("does not count"), "{error}");
        // A thief's program does not ask: the fragment is made by hand.
        let forged = altered(&site.anna.sign(&request, Some(&site.root)), |file| {
            file["keyid"] = site.ben.keyid().into();
            file["custodian"] = "Ben".into();
            file["signature"] = hex::encode(site.ben.key().sign(request.message()).unwrap()).into();
        });
        let judged = all(
            &site,
            &request,
            &[("ben", forged), ("anna", site.anna.sign(&request, Some(&site.root)))],
        );
        assert!(judged.refused["ben"].contains("does not count"));
        assert!(judged.complete().is_err());
    }
}

#[test]
fn a_fragment_is_a_few_hundred_bytes() {
    let site = site(2);
    let request = site.request(&Plan {
        add: vec![Person::new("Dora").file()],
        ..renewal()
    });
    let fragment = site.anna.sign(&request, Some(&site.root)).to_text().unwrap();
    assert!(fragment.len() < 4096, "{}", fragment.len());
    let words = request.words(Some(&site.root)).unwrap();
    assert!(words.lines().all(|line| line.chars().count() < 80), "{words}");
    assert!(words.contains(&signing::ceremony::short(&request.fingerprint().unwrap())));
}
