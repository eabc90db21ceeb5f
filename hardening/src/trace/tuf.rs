// SPDX-License-Identifier: GPL-3.0-or-later
//! The tree of signatures, from the client's own record of what it verified.
//!
//! The client is run at the beginning of time, so that it judges authenticity alone; freshness is a finding of its own here,
//! because "authentic but stale" is neither forged nor current.

use std::collections::BTreeMap;
use std::io::Read;

use chrono::{DateTime, Utc};
use signing::digest::Sha256;
use signing::tuf::trail::{Origin, TrailFile};
use signing::tuf::{Client, Datastore, Limits, Source, SourceError, Trail, TufError, VerifiedTarget};

use super::{Inventory, date, left, of_tuf};
use crate::report::Finding;

/// What was learnt by following a repository from the pinned root.
pub(crate) struct Followed<S> {
    /// The client, for fetching targets.
    pub(crate) client: Option<Client<S>>,
    /// What was verified.
    pub(crate) trail: Trail,
    /// Every target.
    pub(crate) targets: Vec<VerifiedTarget>,
    /// What stopped the client.
    pub(crate) error: Option<TufError>,
}

/// Follows a repository from the pinned root to every target.
pub(crate) fn follow<S: Source>(source: S, root: &[u8]) -> Followed<S> {
    let empty = Trail {
        now: DateTime::<Utc>::MIN_UTC,
        files: Vec::new(),
    };
    let client = Datastore::ephemeral(root)
        .and_then(|store| Client::open(store, source, Limits::default(), DateTime::<Utc>::MIN_UTC));
    let mut client = match client {
        Ok(client) => client,
        Err(error) => {
            return Followed {
                client: None,
                trail: empty,
                targets: Vec::new(),
                error: Some(error),
            };
        }
    };
    let result = client.refresh().and_then(|()| client.targets());
    let trail = client.trail().clone();
    match result {
        Ok(targets) => Followed {
            client: Some(client),
            trail,
            targets,
            error: None,
        },
        Err(error) => Followed {
            client: Some(client),
            trail,
            targets: Vec::new(),
            error: Some(error),
        },
    }
}

/// Versions of the root, none of them verified.
pub(crate) type Roots = BTreeMap<u64, Vec<u8>>;

/// The most roots that are looked at.
const ROOTS: usize = 1024;

/// The version in the name of a root.
pub(crate) fn root_name(name: &str) -> Option<u64> {
    name.strip_suffix(".root.json")?.parse().ok()
}

/// The version that metadata gives itself.
pub(crate) fn version_of(metadata: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(metadata)
        .ok()?
        .get("signed")?
        .get("version")?
        .as_u64()
}

/// Reads the roots of a repository, before a client takes the source. One that cannot be read leads nowhere.
pub(crate) fn roots<S: Source>(source: &mut S, inventory: &Inventory) -> Roots {
    let versions = inventory.metadata.iter().filter_map(|held| root_name(&held.name));
    versions
        .take(ROOTS)
        .filter_map(|version| {
            let bytes = source.metadata(&format!("{version}.root.json"), Limits::default().root_bytes);
            Some((version, bytes.ok()??))
        })
        .collect()
}

/// Whether one root leads to another through these: each signed by the threshold of the one before and by its own.
pub(crate) fn leads(from: &[u8], to: &[u8], roots: &Roots) -> bool {
    led(from, to, roots).is_some()
}

/// What was verified of a root that another leads to.
pub(crate) fn led(from: &[u8], to: &[u8], roots: &Roots) -> Option<TrailFile> {
    let version = version_of(to)?;
    let sha256 = Sha256::of(to);
    let way = Way { roots, version, to };
    let verified = follow(way, from).trail.files;
    verified
        .into_iter()
        .find(|file| file.role == "root" && file.sha256 == sha256)
}

/// Roots alone, up to one.
struct Way<'a> {
    roots: &'a Roots,
    version: u64,
    to: &'a [u8],
}

impl Source for Way<'_> {
    fn metadata(&mut self, name: &str, _: u64) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(match root_name(name) {
            Some(version) if version == self.version => Some(self.to.to_vec()),
            Some(version) if version < self.version => self.roots.get(&version).cloned(),
            _ => None,
        })
    }

    fn target(&mut self, _: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        Ok(None)
    }
}

impl Followed<()> {
    /// What a client has verified.
    pub(crate) const fn of(trail: Trail) -> Self {
        Self {
            client: None,
            trail,
            targets: Vec::new(),
            error: None,
        }
    }
}

impl<S> Followed<S> {
    /// Without the client, which holds its source.
    pub(crate) fn apart(self) -> Followed<()> {
        Followed {
            client: None,
            trail: self.trail,
            targets: self.targets,
            error: self.error,
        }
    }

    /// The tree: roots, below the newest its roles, below each role its delegations and `files` for its targets.
    pub(crate) fn tree(&self, files: &mut dyn FnMut(&str) -> Vec<Finding>) -> Finding {
        let roots: Vec<&TrailFile> = self.trail.files.iter().filter(|file| file.role == "root").collect();
        let Some((newest, older)) = roots.split_last() else {
            let verdict = self.error.as_ref().map_or_else(
                || crate::verdict::Verdict::CouldNotCheck("nothing was verified".to_owned()),
                of_tuf,
            );
            return Finding::new("tuf.root", "The pinned root", verdict);
        };
        let named_by = format!("root {}", newest.version);
        let mut node = role(newest).with(self.below(&named_by, files));
        if let Some(error) = &self.error {
            node = node.with([
                Finding::new("tuf.stopped", "Following the signatures ended here", of_tuf(error)).guide(
                    "Whatever hangs below the point where the chain breaks is vouched for by nobody.",
                    &["TUF 1.0.34, section 5"],
                    "Do not use it. Get an intact copy from its origin, and keep this one as evidence.",
                ),
            ]);
        }
        for root in older.iter().rev() {
            node = role(root).with([node]);
        }
        node
    }

    fn below(&self, named_by: &str, files: &mut dyn FnMut(&str) -> Vec<Finding>) -> Vec<Finding> {
        self.trail
            .files
            .iter()
            .filter(|file| file.role != "root" && file.checks.iter().any(|check| check.named_by == named_by))
            .map(|file| {
                let delegated = self.below(&format!("{} {}", file.role, file.version), files);
                role(file).with(delegated).with(files(&file.role))
            })
            .collect()
    }

    /// The pinned root, and the one that a client keeps if it was verified from there.
    pub(crate) fn roots(&self, pinned: &[u8], kept: Result<Option<Vec<u8>>, String>) -> Vec<Vec<u8>> {
        let kept = kept.ok().flatten().filter(|kept| {
            let sha256 = Sha256::of(kept);
            let mut verified = self.trail.files.iter();
            verified.any(|file| file.role == "root" && file.sha256 == sha256)
        });
        [pinned.to_vec()].into_iter().chain(kept).collect()
    }

    /// The way from a role up to the pinned root, in one line.
    pub(crate) fn chain(&self, role: &str) -> String {
        let mut links = Vec::new();
        let mut at = role.to_owned();
        while links.len() < 32 {
            let Some(file) = self.trail.newest(&at) else {
                break;
            };
            let Some(check) = file.checks.first() else { break };
            links.push(format!(
                "{} {} ({} of {} keys)",
                file.role,
                file.version,
                check.signed_by.len(),
                check.keys.len()
            ));
            if at == "root" {
                break;
            }
            at = check
                .named_by
                .rsplit_once(' ')
                .map_or_else(|| "root".to_owned(), |(role, _)| role.to_owned());
        }
        links.push("pinned root".to_owned());
        links.join(" ← ")
    }

    /// Whether each role is current.
    pub(crate) fn freshness(&self, now: DateTime<Utc>, stale_fails: bool) -> Finding {
        let mut newest: Vec<&TrailFile> = Vec::new();
        for file in &self.trail.files {
            newest.retain(|known| known.role != file.role);
            newest.push(file);
        }
        let findings = newest
            .iter()
            .map(|file| {
                let id = format!("fresh.{}", file.role);
                let title = format!("{} {} is current", file.role, file.version);
                if file.expires > now {
                    return Finding::pass(
                        id,
                        title,
                        format!("expires {}, in {}", date(file.expires), left(now, file.expires)),
                    );
                }
                let why = format!("authentic but stale: it expired {}", date(file.expires));
                let finding = if stale_fails {
                    Finding::fail(id, title, why)
                } else {
                    Finding::unknown(
                        id,
                        title,
                        format!("{why}; whether a newer release exists cannot be told"),
                    )
                };
                finding.guide(
                    "Stale metadata hides newer releases and revoked keys. Hosts refuse it by default.",
                    &["TUF 1.0.34, section 5.3.10 and 5.4.4"],
                    "Carry the newest metadata over the gap: `bastide-repo export` at the publisher, `bastide-repo import` at the gateway.",
                )
            })
            .collect();
        Finding::heading("fresh", format!("Current on {}", date(now)), findings)
    }
}

fn role(file: &TrailFile) -> Finding {
    let reached: Vec<String> = file
        .checks
        .iter()
        .map(|check| {
            format!(
                "{} of {} keys named by {} signed, {} needed",
                check.signed_by.len(),
                check.keys.len(),
                check.named_by,
                check.threshold
            )
        })
        .collect();
    let title = match (file.role.as_str(), file.origin) {
        ("root", Origin::Datastore) => format!("Pinned root, version {}", file.version),
        ("root", Origin::Source) => format!("Root, version {}", file.version),
        (role, _) => format!("Role {role}, version {}", file.version),
    };
    let mut finding = Finding::pass(format!("tuf.{}.{}", file.role, file.version), title, reached.join("; "))
        .fact("file", &file.file)
        .fact("sha256", file.sha256)
        .fact("expires", date(file.expires));
    if let Some(signed_at) = file.signed_at {
        finding = finding.fact("signed", date(signed_at));
    }
    for check in &file.checks {
        for key in &check.keys {
            let signed = if check.signed_by.contains(key) {
                "signed"
            } else {
                "did not sign"
            };
            finding = finding.fact(format!("key named by {}", check.named_by), format!("{key} ({signed})"));
        }
    }
    finding
}
