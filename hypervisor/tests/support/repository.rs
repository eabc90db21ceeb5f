// SPDX-License-Identifier: GPL-3.0-or-later
//! A site that signs, releases, and repositories of them: made by the author's real code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use hypervisor::layout::ImageRelease;
use signing::clock;
use signing::digest::Sha256;
use signing::release::{Custom, Part, Version};
use signing::secureboot::{Identity, sign_pe};
use signing::tuf::approval::{APPROVAL, Approval};
use signing::tuf::author::{self, Delegation, Ed25519Signer, Header, KeySet, MetaEntry, RootPlan, Signer, TargetEntry};
use signing::tuf::beside;
use signing::tuf::time::waiver::Draft;
use signing::tuf::{Client, Datastore, DirectorySource, Limits, Waiver};

use super::common;

/// The keys of a site. The OpenPGP release key is the same for all but those of officers.
pub struct Site {
    pub root: Vec<u8>,
    /// Whether its root wants two of the certificates of [`common::site_of_officers`].
    officers: bool,
    custodians: [Ed25519Signer; 3],
    online: Ed25519Signer,
    db: &'static Identity,
}

/// A release of random bytes under its own hash.
#[derive(Clone)]
pub struct Release {
    pub version: Version,
    pub root: Vec<u8>,
    pub verity: Vec<u8>,
    pub xen: Vec<u8>,
    pub root_hash: Sha256,
}

impl Release {
    pub fn facts(&self) -> ImageRelease {
        ImageRelease {
            version: self.version,
            channel: "stable".into(),
            snapshot: "base".into(),
            built: 1_700_000_000,
        }
    }

    pub fn parts(&self) -> [(Part, &[u8]); 3] {
        [
            (Part::Root, &self.root),
            (Part::Verity, &self.verity),
            (Part::Xen, &self.xen),
        ]
    }
}

/// How a repository is made, beside its releases.
#[derive(Clone, Copy)]
pub struct Terms {
    /// The version of all its metadata but root.
    pub version: u64,
    /// When its timestamp expires.
    pub expires: DateTime<Utc>,
}

impl Terms {
    pub fn version(version: u64) -> Self {
        Self {
            version,
            expires: clock::now() + TimeDelta::days(30),
        }
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    // Xorshift: the bytes must only differ.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn root_plan(version: u64, custodians: &[Ed25519Signer], online: &Ed25519Signer) -> RootPlan {
    let now = clock::now();
    let header = Header {
        version,
        expires: now + TimeDelta::days(3650),
        signed_at: now - TimeDelta::days(1),
    };
    let keys = || KeySet::single(online.public());
    let root = KeySet {
        keys: custodians.iter().map(Signer::public).collect(),
        threshold: 2,
    };
    RootPlan {
        header,
        root,
        targets: keys(),
        snapshot: keys(),
        timestamp: keys(),
    }
}

impl Site {
    /// A site with keys of its own, but for the Secure Boot key, which all such sites share: it is slow to make.
    pub fn new() -> Self {
        static DB: LazyLock<Identity> = LazyLock::new(|| Identity::generate("Test db", clock::now()).unwrap());
        Self::with(&DB)
    }

    /// A site that shares nothing with another.
    pub fn stranger() -> Self {
        Self::with(Box::leak(Box::new(
            Identity::generate("Stranger db", clock::now()).unwrap(),
        )))
    }

    /// A site of which two OpenPGP certificates must sign.
    pub fn of_officers() -> Self {
        let mut site = Self::new();
        let mut root: serde_json::Value = serde_json::from_slice(&site.root).unwrap();
        root["signed"][author::OPENPGP_THRESHOLD] = 2.into();
        root["signatures"].as_array_mut().unwrap().clear();
        let unsigned = serde_json::to_vec(&root).unwrap();
        let once = author::cosign(&unsigned, &site.custodians[0]).unwrap();
        site.root = author::cosign(&once, &site.custodians[1]).unwrap();
        site.officers = true;
        site
    }

    /// The keyring of its OpenPGP certificates.
    pub fn certificates(&self) -> PathBuf {
        let trust = if self.officers {
            common::site_of_officers().join("trust")
        } else {
            common::trust()
        };
        trust.join("release.asc")
    }

    /// The release key's OpenPGP signature. Where officers must sign as well, it is not enough.
    pub fn countersign(&self, bytes: &[u8]) -> Vec<u8> {
        if self.officers {
            common::officer_signs(None, bytes)
        } else {
            common::release_signature(bytes)
        }
    }

    fn with(db: &'static Identity) -> Self {
        let (online, _) = Ed25519Signer::generate().unwrap();
        let custodians = [(); 3].map(|()| Ed25519Signer::generate().unwrap().0);
        let root = author::root(&root_plan(1, &custodians, &online), &[&custodians[0], &custodians[1]]).unwrap();
        Self {
            root,
            officers: false,
            custodians,
            online,
            db,
        }
    }

    /// A second root that one custodian alone has signed.
    pub fn offer_root_by_one_key(&self, repository: &Path) {
        let plan = root_plan(2, &self.custodians, &self.online);
        let whole = author::root(&plan, &[&self.custodians[0], &self.custodians[1]]).unwrap();
        let mut root: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        root["signatures"].as_array_mut().unwrap().pop();
        let root = serde_json::to_vec(&root).unwrap();
        let metadata = repository.join("metadata");
        fs::write(metadata.join(beside::root(2)), common::release_signature(&root)).unwrap();
        fs::write(metadata.join("2.root.json"), root).unwrap();
    }

    /// A waiver for what is stale in this repository, signed by so many custodians.
    pub fn waiver(&self, repository: &Path, signers: usize) -> Waiver {
        let source = DirectorySource::below(repository);
        let store = Datastore::ephemeral(&self.root).unwrap();
        let mut client = Client::open(store, source, Limits::default(), DateTime::UNIX_EPOCH).unwrap();
        client.targets().unwrap();
        let draft = Draft {
            signed_at: clock::now(),
            until: clock::now() + TimeDelta::days(7),
            reason: "the courier is late".to_owned(),
            roles: Vec::new(),
        };
        let signers = self.custodians.iter().take(signers);
        signers.fold(draft.write(client.trail()).unwrap(), |waiver, custodian| {
            waiver.sign(custodian).unwrap()
        })
    }

    /// A signed boot image of at least this size.
    pub fn padded_boot_image(&self, root_hash: &Sha256, size: usize) -> Vec<u8> {
        let mut image = boot_image(root_hash);
        image.resize(size, 0);
        sign_pe(&image, self.db).unwrap()
    }

    pub fn db_certificate(&self) -> &[u8] {
        self.db.certificate().to_der()
    }

    pub fn release(&self, version: &str, seed: u64) -> Release {
        // Not a multiple of any block, so that ends are seen.
        let root = noise(seed, 5 * 1024 * 1024 + 12_288);
        let verity = noise(seed + 1000, 150_000);
        let root_hash = Sha256::of(&root);
        let xen = sign_pe(&boot_image(&root_hash), self.db).unwrap();
        Release {
            version: version.parse().unwrap(),
            root,
            verity,
            xen,
            root_hash,
        }
    }

    pub fn publish(&self, directory: &Path, releases: &[&Release], terms: Terms) {
        self.sign(directory, releases, terms, None);
    }

    /// As officers of this site do at a gateway: approves these releases of the vendor, whose metadata are as they are there.
    pub fn approve(&self, directory: &Path, vendor: &Self, releases: &[&Release], terms: Terms) {
        let store = Datastore::ephemeral(&vendor.root).unwrap();
        let source = DirectorySource::below(directory);
        let mut client = Client::open(store, source, Limits::default(), clock::now()).unwrap();
        client.targets().unwrap();
        let approval = Approval::of(client.trail());
        self.sign(&directory.join("site"), releases, terms, Some(&approval));
        common::copy(&directory.join("metadata"), &directory.join("site/vendor"));
    }

    fn sign(&self, directory: &Path, releases: &[&Release], terms: Terms, approval: Option<&Approval>) {
        let (metadata, targets) = (directory.join("metadata"), directory.join("targets"));
        fs::create_dir_all(&metadata).unwrap();
        let signed_at = match approval {
            Some(approval) => approval.at,
            None => clock::now() - TimeDelta::hours(1),
        };
        let far = clock::now() + TimeDelta::days(365);
        let header = |expires: DateTime<Utc>| Header {
            version: terms.version,
            expires,
            signed_at: signed_at.min(expires - TimeDelta::days(1)),
        };
        let mut entries = BTreeMap::new();
        for release in releases {
            for (part, bytes) in release.parts() {
                let custom = Custom {
                    version: release.version,
                    channel: "stable".into(),
                    part,
                    root_hash: release.root_hash,
                    size: bytes.len() as u64,
                };
                let serde_json::Value::Object(mut custom) = serde_json::to_value(custom).unwrap() else {
                    unreachable!()
                };
                if let Some(approval) = approval {
                    custom.insert(APPROVAL.to_owned(), serde_json::to_value(approval).unwrap());
                }
                let sha256 = Sha256::of(bytes);
                let entry = TargetEntry {
                    length: bytes.len() as u64,
                    sha256,
                    custom: Some(custom),
                };
                entries.insert(part.target(release.version), entry);
                let place = targets.join(format!("host/{}/{sha256}.{}", release.version, part.file()));
                fs::create_dir_all(place.parent().unwrap()).unwrap();
                fs::write(place, bytes).unwrap();
            }
        }
        let delegation = Delegation {
            name: "host".into(),
            keys: KeySet::single(self.online.public()),
            paths: vec!["host/*/*".into()],
            terminating: true,
        };
        let signers: [&dyn Signer; 1] = [&self.online];
        let version = terms.version;
        let host = author::targets(&header(far), &entries, &[], &signers).unwrap();
        let top = author::targets(&header(far), &BTreeMap::new(), &[delegation], &signers).unwrap();
        let meta = BTreeMap::from([
            ("targets.json".to_owned(), MetaEntry::of(version, &top)),
            ("host.json".to_owned(), MetaEntry::of(version, &host)),
        ]);
        let snapshot = author::snapshot(&header(far), &meta, &signers).unwrap();
        let timestamp =
            author::timestamp(&header(terms.expires), &MetaEntry::of(version, &snapshot), &signers).unwrap();
        let signature = self.countersign(&timestamp);
        for (name, bytes) in [
            (beside::timestamp(version), &signature),
            ("1.root.json".to_owned(), &self.root),
            ("timestamp.json".to_owned(), &timestamp),
            (format!("{version}.snapshot.json"), &snapshot),
            (format!("{version}.targets.json"), &top),
            (format!("{version}.host.json"), &host),
        ] {
            fs::write(metadata.join(name), bytes).unwrap();
        }
    }
}

/// The recipe of the smallest boot image: DOS header, PE32+ headers, and a section `.config` with the kernel's arguments.
pub fn boot_image(root_hash: &Sha256) -> Vec<u8> {
    let config = format!("[global]\nkernel=vmlinuz bastide.roothash={root_hash} bastide.mode=host\n");
    common::boot_image(".config", config.as_bytes())
}
