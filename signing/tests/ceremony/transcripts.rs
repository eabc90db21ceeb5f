// SPDX-License-Identifier: GPL-3.0-or-later
//! Transcripts, and who vouches for them.

use chrono::{Duration, Timelike};
use signing::ceremony::{Plan, Reason, Transcript, Verified, verify};
use signing::clock::now;
use signing::openpgp::{Cert, Generated, generate, parse_keyring, sign_detached};

use super::common::passphrase;
use super::people::{Person, Site, removal, renewal, site, site_of};

struct Certified {
    site: Site,
    keys: Vec<Generated>,
    certs: Vec<Cert>,
}

/// A site whose custodians have OpenPGP certificates; the fourth is a stranger's.
fn certified() -> Certified {
    let made = now() - Duration::hours(2);
    let keys: Vec<_> = ["Anna", "Ben", "Cleo", "Eve"]
        .iter()
        .map(|name| generate(name, &passphrase(), made.with_nanosecond(0).unwrap()).unwrap())
        .collect();
    let mut people = ["Anna", "Ben", "Cleo"].map(Person::new);
    for (person, key) in people.iter_mut().zip(&keys) {
        person.openpgp = Some((key.fingerprint.clone(), key.certificate.clone()));
    }
    let certs = keys[..3]
        .iter()
        .flat_map(|key| parse_keyring("x".as_ref(), key.certificate.as_bytes()).unwrap())
        .collect();
    Certified {
        site: site_of(2, people),
        keys,
        certs,
    }
}

fn signature(key: &Generated, text: &str) -> (String, Vec<u8>) {
    let made = sign_detached(key.key.as_bytes(), &passphrase(), text.as_bytes(), now()).unwrap();
    (key.fingerprint.clone(), made.into_bytes())
}

impl Certified {
    fn transcript(&self, plan: &Plan) -> String {
        let request = self.site.request(plan);
        let made = self.site.together(&request, &[&self.site.anna, &self.site.cleo]);
        made.complete().unwrap().1.text().to_owned()
    }

    fn verify(&self, text: &str, signatures: &[(String, Vec<u8>)], threshold: usize) -> Result<Verified, String> {
        let at = now() + Duration::minutes(1);
        let verified = verify(
            text.as_bytes(),
            Some(&self.site.root),
            &self.certs,
            signatures,
            threshold,
            at,
        );
        verified.map_err(|error| format!("{error:#}"))
    }
}

#[test]
fn distinct_certificates_are_counted() {
    let it = certified();
    let text = it.transcript(&renewal());
    let sign = |key: usize| signature(&it.keys[key], &text);
    let verified = it.verify(&text, &[sign(0), sign(2)], 2).unwrap();
    let mut names: Vec<_> = verified
        .signers
        .iter()
        .map(|signer| signer.custodian.clone().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["Anna", "Cleo"]);
    // One certificate twice is one, a stranger's is none, and one over another text does not hold.
    let refuse = |signatures: &[(String, Vec<u8>)], reason: &str| {
        let error = it.verify(&text, signatures, 2).unwrap_err();
        assert!(
            error.contains("1 of the 2 certificates") && error.contains(reason),
            "{error}"
        );
    };
    let again = ("again".to_owned(), sign(0).1);
    refuse(&[sign(0), again], "");
    refuse(&[sign(0), sign(3)], "no signature of a known key");
    refuse(&[sign(0), signature(&it.keys[2], "another text")], "does not hold");
    refuse(
        &[sign(0), ("noise".to_owned(), b"noise".to_vec())],
        "noise: not a detached signature",
    );
    assert!(it.verify(&text, &[], 1).unwrap_err().contains("0 of the 1"));
}

#[test]
fn a_compromised_custodians_certificate_does_not_count() {
    let it = certified();
    let stolen = Reason::Compromised {
        last_trusted_version: 1,
    };
    let text = it.transcript(&removal("Ben", stolen));
    let sign = |key: usize| signature(&it.keys[key], &text);
    let error = it.verify(&text, &[sign(0), sign(1)], 2).unwrap_err();
    assert!(
        error.contains("1 of the 2") && error.contains("calls compromised"),
        "{error}"
    );
    it.verify(&text, &[sign(0), sign(2)], 2).unwrap();
}

/// Even signed by everybody, a transcript that tells another story than its request and fragments is refused.
#[test]
fn a_transcript_whose_words_were_altered_is_refused() {
    let it = certified();
    let text = it.transcript(&removal("Ben", Reason::Lost));
    Transcript::verify(text.as_bytes(), Some(&it.site.root)).unwrap();
    let refuse = |text: &str, reason: &str| {
        let signatures: Vec<_> = it.keys[..3].iter().map(|key| signature(key, text)).collect();
        let error = it.verify(text, &signatures, 2).unwrap_err();
        assert!(error.contains(reason), "{reason:?} is not in {error:?}");
    };
    let swap = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let differ = "words differ";
    refuse(&swap("it is lost", "its custodian leaves"), differ);
    refuse(&swap("2 of 2", "1 of 2"), differ);
    refuse(&swap("Z  Cleo\n", "Z  Eve\n"), differ);
    refuse(&swap("programs: ", "programs:  "), differ);
    refuse(
        &swap("\"reason\": \"lost\"", "\"reason\": \"left\""),
        "the request lies",
    );
    refuse(&swap("\"custodian\": \"Anna\"", "\"custodian\": \"Eve\""), "fragment");
    refuse(&swap("---- end ----\n", ""), "not a whole transcript");
    refuse(&swap("BASTIDE", "bastide"), "not a whole transcript");
    refuse(&swap("---- request ----\n", ""), "not a whole transcript");
    let (before, _) = text.rsplit_once("---- fragment ----").unwrap();
    refuse(&format!("{before}---- end ----\n"), "signatures are missing");
    let twice = text.split("---- fragment ----").nth(1).unwrap();
    refuse(
        &swap("---- end ----", &format!("---- fragment ----{twice}---- end ----")),
        differ,
    );
    let other = site(2);
    let error = Transcript::verify(text.as_bytes(), Some(&other.root)).unwrap_err();
    assert!(format!("{error:#}").contains("and yours is 1"), "{error:#}");
}
