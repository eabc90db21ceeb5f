// SPDX-License-Identifier: GPL-3.0-or-later
//! Later versions of the site's root, and trust directories that pin them.

use std::fs;
use std::path::Path;

use chrono::Duration;
use signing::clock::now;
use signing::site::{Role, Site};
use signing::tuf::author::{Ed25519Signer, Header, KeySet, RootPlan, Signer, root};

use super::medium::sign;
use super::{common, copy, passphrase, site};

/// Another version of the site's root, signed by all custodians of `by`, with the release key's signature beside it.
/// `replaced` says whether the timestamp's key is another one.
pub fn next_root(place: &Path, version: u64, by: &Site, replaced: bool) {
    let secret = passphrase();
    let custodians = |site: &Site| -> Vec<_> {
        (1..=3)
            .map(|number| site.signer(Role::Root(number), &secret).unwrap())
            .collect()
    };
    let single = |role| KeySet::single(site().signer(role, &secret).unwrap().public());
    let plan = RootPlan {
        header: Header {
            version,
            expires: now() + Duration::days(600),
            signed_at: now(),
        },
        root: KeySet {
            keys: custodians(by).iter().map(Signer::public).collect(),
            threshold: 2,
        },
        targets: single(Role::Targets),
        snapshot: single(Role::Snapshot),
        timestamp: if replaced {
            KeySet::single(Ed25519Signer::generate().unwrap().0.public())
        } else {
            single(Role::Timestamp)
        },
    };
    let keys = custodians(by);
    let signers: Vec<&dyn Signer> = keys.iter().map(|key| key as &dyn Signer).collect();
    fs::write(place, root(&plan, &signers).unwrap()).unwrap();
    sign(place);
}

/// As [`next_root`], by the site itself and with the same keys: the second version.
pub fn second_root(place: &Path) {
    next_root(place, 2, site(), false);
}

/// A trust directory of the site that pins this root.
pub fn pin(root: &Path) -> tempfile::TempDir {
    let trust = tempfile::tempdir().unwrap();
    copy(&common::trust(), trust.path());
    for end in ["", ".asc"] {
        fs::copy(
            format!("{}{end}", root.display()),
            trust.path().join(format!("root.json{end}")),
        )
        .unwrap();
    }
    trust
}
