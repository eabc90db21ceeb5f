// SPDX-License-Identifier: GPL-3.0-or-later
//! The detailed client workflow, section 5 of the specification 1.0.34; the clause stands above its check.
//!
//! Attacks: section 1.5.2 of the specification, that is arbitrary installation, endless data, extraneous dependencies, fast
//! forward, indefinite freeze, malicious mirrors, mix and match, rollback, slow retrieval, key compromise below the
//! threshold, wrong installation; and beyond it, metadata that two readers understand differently.
//!
//! Defence: nothing is believed before a threshold of distinct keys, rooted in the datastore, vouches for it; every read is
//! bounded by a field of [`Limits`]; what is trusted is stored byte for byte before the next step builds on it.
//!
//! Not defended here: slow retrieval (a source that reads from a network needs its own deadline), and a threshold of stolen
//! keys.
//!
//! Deviations, all towards refusing more: a timestamp of the trusted version with other content is an error and not only
//! passed over (5.4.3.1, unless [`SameVersion::Keep`] is chosen); the same holds for an index that gives another digest to
//! a version that it named before; a target that is installed must name a SHA-256 digest; role names are bounded. The
//! public conformance suite judges the rest: `examples/tuf-client.rs` speaks its protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::beside::{self, Signatures};
use super::datastore::{Datastore, damaged, snapshot_name, timestamp_name};
use super::error::TufError;
use super::limits::{Limits, SameVersion};
use super::model::{Delegation, Header, MetaFile, Result, Root, SignedFile, Snapshot, Target, Timestamp};
use super::source::Source;
use super::time::{Time, Used};
use super::trail::{Origin, Trail, TrailCheck, TrailFile};
use crate::digest::Sha256;
use crate::openpgp::MAX_SIGNATURE;
use checks::{check, content, exact_version, fetch, missing, no_rollback, unchanged_or_newer};
use targets::Loaded;

mod checks;
mod freshness;
mod superseded;
mod targets;

pub use targets::{Located, VerifiedTarget, consistent_path};

const TARGETS: &str = "targets";

/// Follows one repository.
pub struct Client<S> {
    store: Datastore,
    source: S,
    limits: Limits,
    time: Time,
    /// The waiver that holds, with what it has lifted so far.
    offered: Option<Used>,
    root: Root,
    snapshot: Option<Snapshot>,
    roles: BTreeMap<String, Arc<Loaded>>,
    trail: Trail,
    signatures: Signatures,
}

impl<S: Source> Client<S> {
    /// Starts from what the datastore trusts (5.2). `time` is the fixed start time of the update (5.1): what
    /// [`Datastore::time`] decided, which is kept, or a moment that the caller names.
    ///
    /// # Errors
    /// When the datastore cannot be read or written, or is damaged.
    pub fn open(mut store: Datastore, source: S, limits: Limits, time: impl Into<Time>) -> Result<Self> {
        let time = time.into();
        store.keep_time(&time)?;
        let (bytes, root) = store.root()?;
        let file = damaged(SignedFile::read("root", &bytes, &limits))?;
        let keyids = damaged(file.verify("root", &root.root))?;
        let mut client = Self {
            store,
            source,
            limits,
            trail: Trail {
                now: time.now(),
                files: Vec::new(),
            },
            time,
            offered: None,
            root,
            snapshot: None,
            roles: BTreeMap::new(),
            signatures: Signatures::new(),
        };
        let header = client.root.header;
        let own = check(format!("root {}", header.version), &client.root.root, keyids);
        client.record(
            "root",
            format!("{}.root.json", header.version),
            header,
            &bytes,
            Origin::Datastore,
            Reached {
                checks: vec![own],
                certificates: beside::PINNED,
            },
        );
        Ok(client)
    }

    /// Updates root, timestamp, snapshot and the top-level targets role, in this order.
    ///
    /// # Errors
    /// The first check that fails ends the update. What was trusted before stays trusted.
    pub fn refresh(&mut self) -> Result<()> {
        self.snapshot = None;
        self.roles.clear();
        self.trail.files.retain(|file| file.role == "root");
        self.update_root()?;
        self.check_waiver()?;
        let timestamp = self.update_timestamp()?;
        self.update_snapshot(&timestamp.snapshot)?;
        self.load(&self.top())?;
        Ok(())
    }

    /// The root that is trusted.
    pub(super) const fn root(&self) -> &Root {
        &self.root
    }

    /// Updates the root alone.
    pub(super) fn refresh_root(&mut self) -> Result<()> {
        self.update_root()
    }

    /// The delegations of a role that was loaded.
    pub(super) fn delegations_of(&self, role: &str) -> Vec<Delegation> {
        let loaded = self.roles.get(role);
        loaded
            .map(|loaded| loaded.targets.delegations.clone())
            .unwrap_or_default()
    }

    /// What a role that was loaded names, whether the search finds it there or not.
    pub(super) fn targets_of(&self, role: &str) -> BTreeMap<String, Target> {
        let loaded = self.roles.get(role);
        loaded.map(|loaded| loaded.targets.targets.clone()).unwrap_or_default()
    }

    /// What was verified so far.
    #[must_use]
    pub const fn trail(&self) -> &Trail {
        &self.trail
    }

    /// The time of this update.
    #[must_use]
    pub const fn time(&self) -> &Time {
        &self.time
    }

    /// The use of a waiver, where stale metadata was taken.
    #[must_use]
    pub fn waived(&self) -> Option<&Used> {
        self.offered.as_ref().filter(|used| !used.lifted.is_empty())
    }

    /// The OpenPGP signatures that were demanded and hold, each by the digest of what it signs.
    #[must_use]
    pub const fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    /// The datastore.
    #[must_use]
    pub const fn datastore(&self) -> &Datastore {
        &self.store
    }

    /// Where its bytes come from.
    pub const fn source(&mut self) -> &mut S {
        &mut self.source
    }

    /// Ends the client and gives back the datastore with its lock.
    #[must_use]
    pub fn into_datastore(self) -> Datastore {
        self.store
    }

    /// 5.3 Update the root role.
    fn update_root(&mut self) -> Result<()> {
        // 5.3.3: at most Y new roots; then the newest one so far is used.
        for _ in 0..self.limits.root_rotations {
            // 5.3.2, 5.3.3: try version N+1, at most W bytes. Absent ends the chain; unreachable is an error, for
            // otherwise whoever cuts the line could keep a revoked root alive.
            let version = self.root.header.version;
            let Some(next) = version.checked_add(1) else { break };
            let name = format!("{next}.root.json");
            let Some(bytes) = fetch(&mut self.source, &name, self.limits.root_bytes)? else {
                break;
            };
            let file = SignedFile::read(&name, &bytes, &self.limits)?;
            let root = Root::read(&file)?;
            // 5.3.4: check for an arbitrary software attack. A threshold of the keys in the trusted root (version N) and a
            // threshold of the keys in the new root (version N+1) must have signed it.
            let old = file.verify("root", &self.root.root)?;
            let new = file.verify("root", &root.root)?;
            // 5.3.5: check for a rollback attack. The version must be exactly N+1.
            if root.header.version <= version {
                return Err(TufError::Rollback {
                    role: "root".to_owned(),
                    have: version,
                    offered: root.header.version,
                });
            }
            exact_version("root", next, root.header)?;
            // Not in the specification: a root of the future would raise the floor of time for good.
            self.time.not_ahead("root", root.header.signed_at)?;
            let certificates = beside::succession(&self.root, &root);
            self.beside(beside::root(next), certificates, &name, &bytes, root.header)?;
            // 5.3.6: the expiration of an intermediate root does not matter.
            // 5.3.7, 5.3.8: set and persist the trusted root.
            self.store.write_root(&bytes)?;
            let checks = vec![
                check(format!("root {version}"), &self.root.root, old),
                check(format!("root {next}"), &root.root, new),
            ];
            let reached = Reached { checks, certificates };
            self.record("root", name, root.header, &bytes, Origin::Source, reached);
            self.root = root;
            // 5.3.9: repeat.
        }
        // 5.3.10: check for a freeze attack.
        self.current("root", self.root.header)?;
        // 5.3.11: if the timestamp or snapshot keys have been rotated, delete the trusted timestamp and snapshot.
        self.store.forget_other_keys(&self.root)
        // 5.3.12: consistent snapshots are read from the root where names are made.
    }

    /// 5.4 Update the timestamp role.
    fn update_timestamp(&mut self) -> Result<Timestamp> {
        const FILE: &str = "timestamp.json";
        let place = timestamp_name(&self.root);
        let trusted = match self.store.read(&place)? {
            Some(bytes) => {
                let file = damaged(SignedFile::read("the stored timestamp", &bytes, &self.limits))?;
                let keyids = damaged(file.verify("timestamp", &self.root.timestamp))?;
                Some((damaged(Timestamp::read(&file))?, file, bytes, keyids))
            }
            None => None,
        };
        // 5.4.1: download at most X bytes.
        let bytes = fetch(&mut self.source, FILE, self.limits.timestamp_bytes)?.ok_or_else(|| missing(FILE))?;
        let file = SignedFile::read(FILE, &bytes, &self.limits)?;
        // 5.4.2: check for an arbitrary software attack.
        let keyids = file.verify("timestamp", &self.root.timestamp)?;
        let timestamp = Timestamp::read(&file)?;
        let mut keep = None;
        if let Some((old, old_file, old_bytes, old_keyids)) = trusted {
            // 5.4.3.1: check for a rollback attack. An equal version is discarded without an error...
            no_rollback("timestamp", old.header.version, timestamp.header.version)?;
            if timestamp.header.version == old.header.version {
                // ... but two contents under one version mean that a signer lies or is not alone.
                if old_file.message() != file.message() && self.limits.same_version == SameVersion::Refuse {
                    return Err(TufError::Equivocation {
                        role: "timestamp".to_owned(),
                        version: old.header.version,
                    });
                }
                keep = Some((old, old_bytes, old_keyids));
            } else {
                // 5.4.3.2: the version of the snapshot must not fall.
                unchanged_or_newer("snapshot", &old.snapshot, &timestamp.snapshot)?;
            }
        }
        let named_by = format!("root {}", self.root.header.version);
        let (timestamp, bytes, keyids, origin) = match keep {
            Some((old, bytes, keyids)) => (old, bytes, keyids, Origin::Datastore),
            None => (timestamp, bytes, keyids, Origin::Source),
        };
        // 5.4.4: check for a freeze attack.
        self.fresh("timestamp", timestamp.header, &bytes)?;
        let signature = beside::timestamp(timestamp.header.version);
        let certificates = self.root.openpgp_threshold;
        self.beside(signature, certificates, FILE, &bytes, timestamp.header)?;
        // 5.4.5: persist.
        if origin == Origin::Source {
            self.store.write(&place, &bytes)?;
        }
        let checks = vec![check(named_by, &self.root.timestamp, keyids)];
        let reached = Reached { checks, certificates };
        self.record("timestamp", FILE.to_owned(), timestamp.header, &bytes, origin, reached);
        Ok(timestamp)
    }

    /// 5.5 Update the snapshot role.
    fn update_snapshot(&mut self, meta: &MetaFile) -> Result<()> {
        let place = snapshot_name(&self.root);
        let name = self.metadata_name("snapshot", meta.version);
        let trusted = match self.store.read(&place)? {
            Some(bytes) => {
                let file = damaged(SignedFile::read("the stored snapshot", &bytes, &self.limits))?;
                let keyids = damaged(file.verify("snapshot", &self.root.snapshot))?;
                Some((damaged(Snapshot::read(&file, &self.limits))?, bytes, keyids))
            }
            None => None,
        };
        let (snapshot, bytes, keyids, origin) = match trusted {
            Some((old, bytes, keyids))
                if old.header.version == meta.version && content("snapshot", meta, &bytes).is_ok() =>
            {
                (old, bytes, keyids, Origin::Datastore)
            }
            trusted => {
                // 5.5.1: download at most the length in the timestamp, and never more than our own bound.
                let max = meta.length.unwrap_or(u64::MAX).min(self.limits.snapshot_bytes);
                let bytes = fetch(&mut self.source, &name, max)?.ok_or_else(|| missing(&name))?;
                // 5.5.2: check against the timestamp role's snapshot hash.
                content(&name, meta, &bytes)?;
                let file = SignedFile::read(&name, &bytes, &self.limits)?;
                // 5.5.3: check for an arbitrary software attack.
                let keyids = file.verify("snapshot", &self.root.snapshot)?;
                let snapshot = Snapshot::read(&file, &self.limits)?;
                // 5.5.4: check against the timestamp role's snapshot version.
                exact_version("snapshot", meta.version, snapshot.header)?;
                // 5.5.5: check for a rollback attack. No role may be older than before, and none may be gone.
                if let Some((old, ..)) = trusted {
                    for (file, old) in &old.meta {
                        let role = file.strip_suffix(".json").unwrap_or(file);
                        match snapshot.meta.get(file) {
                            Some(new) => unchanged_or_newer(role, old, new)?,
                            None => return Err(TufError::RoleRemoved { role: role.to_owned() }),
                        }
                    }
                }
                (snapshot, bytes, keyids, Origin::Source)
            }
        };
        // 5.5.6: check for a freeze attack.
        self.fresh("snapshot", snapshot.header, &bytes)?;
        // 5.5.7: persist.
        if origin == Origin::Source {
            self.store.write(&place, &bytes)?;
        }
        let checks = vec![check(
            format!("root {}", self.root.header.version),
            &self.root.snapshot,
            keyids,
        )];
        self.record("snapshot", name, snapshot.header, &bytes, origin, Reached::by(checks));
        self.snapshot = Some(snapshot);
        Ok(())
    }

    /// Not in the specification: the OpenPGP signatures of so many certificates, where the datastore demands them.
    fn beside(&mut self, signature: String, need: u64, file: &str, bytes: &[u8], header: Header) -> Result<()> {
        let Some(release) = self.store.release() else {
            return Ok(());
        };
        let found = fetch(&mut self.source, &signature, MAX_SIGNATURE as u64)?.ok_or_else(|| missing(&signature))?;
        let by = self.time.now().max(beside::latest(header.signed_at));
        beside::verify((release, need), file, bytes, &found, by)?;
        self.signatures.insert(Sha256::of(bytes), found);
        Ok(())
    }

    fn metadata_name(&self, encoded_role: &str, version: u64) -> String {
        if self.root.consistent_snapshot {
            format!("{version}.{encoded_role}.json")
        } else {
            format!("{encoded_role}.json")
        }
    }

    fn record(&mut self, role: &str, file: String, header: Header, bytes: &[u8], origin: Origin, reached: Reached) {
        self.trail.files.push(TrailFile {
            role: role.to_owned(),
            file,
            version: header.version,
            expires: header.expires,
            signed_at: header.signed_at,
            length: bytes.len() as u64,
            sha256: Sha256::of(bytes),
            origin,
            checks: reached.checks,
            certificates: reached.certificates,
        });
    }
}

/// The thresholds that a file reached.
struct Reached {
    checks: Vec<TrailCheck>,
    /// Of OpenPGP certificates, where the datastore demands them.
    certificates: u64,
}

impl Reached {
    /// TUF's own keys alone: it hangs from what certificates signed.
    const fn by(checks: Vec<TrailCheck>) -> Self {
        Self {
            checks,
            certificates: 0,
        }
    }
}
