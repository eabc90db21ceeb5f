// SPDX-License-Identifier: GPL-3.0-or-later
//! A site that changes its root, and `publish` that was cut off behind it.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use chrono::Duration;
use signing::clock::now;
use signing::site::{Role, Site};
use signing::tuf::author::{self, Ed25519Signer, Header, KeySet, RootPlan, Signer};
use signing::tuf::repository::{Expiry, Repository, Signers};
use support::low::Low;
use support::{build, common, passphrase_file, repo};

/// The recipe: the first root names another timestamp key than the site has, the second one the site's; the second was taken
/// over into the repository, and then the power went.
#[test]
fn a_publication_that_was_cut_behind_a_new_root_is_gone_on_with() {
    let low = Low::new();
    let place = low.at("site");
    common::copy(common::site(), &place);
    let (site, passphrase) = (Site::open(&place).unwrap(), common::passphrase());
    let key = |role| site.signer(role, &passphrase).unwrap();
    let (replaced, _) = Ed25519Signer::generate().unwrap();
    let custodians = [key(Role::Root(1)), key(Role::Root(2))];
    let (targets, host, snapshot) = (key(Role::Targets), key(Role::Host), key(Role::Snapshot));
    let root = |version, timestamp: &dyn Signer| {
        let plan = RootPlan {
            header: Header {
                version,
                expires: now() + Duration::days(300),
                signed_at: now() - Duration::hours(1),
            },
            root: KeySet {
                keys: custodians.iter().map(Signer::public).collect(),
                threshold: 2,
            },
            targets: KeySet::single(targets.public()),
            snapshot: KeySet::single(snapshot.public()),
            timestamp: KeySet::single(timestamp.public()),
        };
        author::root(&plan, &[&custodians[0], &custodians[1]]).unwrap()
    };
    let (first, second) = (root(1, &replaced), root(2, &key(Role::Timestamp)));
    let release_key = site.release_key(&passphrase).unwrap();
    for (name, root) in [
        ("trust/root.json", &first),
        ("metadata/1.root.json", &first),
        ("metadata/2.root.json", &second),
    ] {
        fs::write(place.join(name), root).unwrap();
        let signature = release_key.sign_detached(root.as_slice()).unwrap();
        fs::write(place.join(format!("{name}.asc")), signature).unwrap();
    }
    let repository = low.repository();
    fs::create_dir(&repository).unwrap();
    let mut editor = Repository::create(&repository, &first).unwrap();
    let signers = Signers {
        targets: &[&targets],
        host: &[&host],
        snapshot: &[&snapshot],
        timestamp: &[&replaced],
        release: None,
    };
    let expires = Expiry::all(now() + Duration::days(200));
    editor
        .publish(&KeySet::single(host.public()), &signers, &expires, now())
        .unwrap();
    editor.add_root(&second).unwrap();
    drop(editor);

    let (trust, build) = (place.join("trust"), build(low.directory.path(), "1.0.0"));
    let list = || {
        repo([
            "list",
            repository.to_str().unwrap(),
            "--trust",
            trust.to_str().unwrap(),
            "--json",
        ])
    };
    list().fails(3, &["timestamp is signed by 0 of the 1"]);
    let (site, secret) = (place.display().to_string(), passphrase_file().display().to_string());
    let (repository, build) = (repository.display().to_string(), build.display().to_string());
    let publish = [
        "publish",
        "--repo",
        &repository,
        "--site",
        &site,
        "--passphrase-file",
        &secret,
    ];
    repo(publish.into_iter().chain(["--release", &build])).ends(0);
    assert_eq!(list().ends(0).json()["releases"][0]["version"], "1.0.0");
}
