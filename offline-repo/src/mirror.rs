// SPDX-License-Identifier: GPL-3.0-or-later
//! `mirror`: from upstream's archive to a snapshot in the store.
//!
//! Two attacks are met here and not in [`crate::upstream`], since they are about time: a mirror that keeps serving an old
//! state (a list past its `Valid-Until` is refused), and one that goes back (a list older than the one in the snapshot
//! that stands is refused).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use signing::clock;
use signing::digest::{self, Sha256};
use signing::durable;
use signing::output::Refused;

use crate::apt::{Apt, Index, Upstream};
use crate::snapshot::{FORMAT, KeptFile, KeptIndex, Origin, Snapshot, SnapshotPackage};
use crate::spec::{Role, Spec};
use crate::store::{self, Lock, Store};
use crate::upstream::{self, Entry, Identity, IndexPromise, LARGEST_INRELEASE, Policy};

/// Packages asked of apt in one run: what arrived is in the pool before the next ones are asked for.
const BATCH: usize = 32;

/// What happens, for whoever shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// apt asks the mirror for its lists.
    Lists,
    /// A suite's lists have been verified.
    Verified {
        /// The suite.
        suite: String,
        /// The keys.
        signers: Vec<String>,
    },
    /// A role's closure is known.
    Resolved {
        /// The role.
        role: Role,
        /// Packages in it.
        packages: usize,
    },
    /// Bytes of packages that are in the pool now.
    Fetched {
        /// So far.
        done: u64,
        /// In the end.
        total: u64,
    },
}

/// How to mirror.
#[derive(Debug, Clone)]
pub struct Options {
    /// From where.
    pub upstream: Upstream,
    /// Whether to write.
    pub mode: Mode,
}

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Fetch packages and write the snapshot.
    Write,
    /// Resolve and verify only, to say what would be fetched. apt's private lists are brought up to date.
    DryRun,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The snapshot's name.
    pub snapshot: String,
    /// Whether a snapshot was written, or would be.
    pub changed: bool,
    /// Packages in it.
    pub packages: usize,
    /// Their size.
    pub bytes: u64,
    /// Packages that were fetched, or would be.
    pub fetched_packages: usize,
    /// Their size.
    pub fetched_bytes: u64,
    /// Packages by role.
    pub roles: BTreeMap<Role, usize>,
    /// The version of each package whose version differs from that in the snapshot that stood, as (old, new).
    pub upgraded: BTreeMap<String, (String, String)>,
}

/// A verified list with the place that apt has for its index.
struct Listed {
    origin: Origin,
    inrelease: Vec<u8>,
    indexes: Vec<(Index, IndexPromise)>,
}

/// What decides the outcome of a resolution; kept beside apt's lists.
#[derive(Serialize)]
struct Inputs<'a> {
    spec: &'a Spec,
    lists: Vec<Sha256>,
    program: &'static str,
}

/// Mirrors.
///
/// # Errors
/// [`Refused`] in the chain when what upstream offers does not verify; else when something could not be done. What the
/// store held before is as it was, and packages that arrived are kept.
pub fn mirror(spec: &Spec, store: &Store, options: &Options, tell: &mut dyn FnMut(Event)) -> Result<Summary> {
    let lock = store.lock()?;
    store::sweep(&store.root().join("pool"))?;
    store::sweep(&store.root().join("snapshots"))?;
    let work = store.work_directory(&lock, &spec.name)?;
    let apt = Apt::prepare(&work.join("apt"), spec, &options.upstream)?;
    tell(Event::Lists);
    apt.update()?;
    let old = store.snapshot(&spec.name).ok();
    let mut listed = lists(spec, &apt, old.as_ref(), tell)?;
    if !take_indexes(store, &lock, &listed)? {
        // apt holds an unpacked list whose original has gone from the pool: once more from the start.
        apt.forget()?;
        apt.update()?;
        listed = lists(spec, &apt, old.as_ref(), &mut |_| ())?;
        if !take_indexes(store, &lock, &listed)? {
            bail!("apt does not keep upstream's Packages.xz: nothing to verify");
        }
    }

    let inputs = serde_json::to_vec(&Inputs {
        spec,
        lists: listed.iter().map(|list| list.origin.inrelease.sha256).collect(),
        program: concat!(env!("CARGO_PKG_VERSION"), " snapshot 1"),
    })?;
    let inputs = Sha256::of(&inputs).to_string();
    let memory = work.join("inputs");
    if let Some(old) = &old
        && fs::read_to_string(&memory).is_ok_and(|text| text == inputs)
        && missing(store, old).is_empty()
    {
        return Ok(summary(old, None, false, &[]));
    }

    let snapshot = resolve(spec, store, &apt, &listed, tell)?;
    let missing = missing(store, &snapshot);
    let fresh = summary(&snapshot, old.as_ref(), old.as_ref() != Some(&snapshot), &missing);
    if options.mode == Mode::DryRun {
        return Ok(fresh);
    }
    fetch(store, &lock, &apt, &work.join("downloads"), &missing, tell)?;
    if fresh.changed {
        let kept: Vec<_> = listed
            .into_iter()
            .map(|list| (list.origin.inrelease.file, list.inrelease))
            .collect();
        store.put_snapshot(&lock, &snapshot, &kept)?;
    }
    durable::write(&memory, inputs.as_bytes()).with_context(|| format!("cannot write {}", memory.display()))?;
    Ok(fresh)
}

fn summary(snapshot: &Snapshot, old: Option<&Snapshot>, changed: bool, fetched: &[&SnapshotPackage]) -> Summary {
    let before: HashMap<&str, &str> = old
        .map(|old| {
            old.packages
                .iter()
                .map(|p| (p.name.as_str(), p.version.as_str()))
                .collect()
        })
        .unwrap_or_default();
    let upgraded = snapshot.packages.iter().filter_map(|package| {
        let version = *before.get(package.name.as_str())?;
        let versions = (version.to_owned(), package.version.clone());
        (version != package.version).then(|| (package.name.clone(), versions))
    });
    Summary {
        snapshot: snapshot.name.clone(),
        changed,
        packages: snapshot.packages.len(),
        bytes: snapshot.packages.iter().map(|package| package.size).sum(),
        fetched_packages: fetched.len(),
        fetched_bytes: fetched.iter().map(|package| package.size).sum(),
        roles: Role::ALL
            .iter()
            .map(|role| (*role, snapshot.of(*role).count()))
            .collect(),
        upgraded: upgraded.collect(),
    }
}

/// The packages whose objects the pool lacks.
fn missing<'a>(store: &Store, snapshot: &'a Snapshot) -> Vec<&'a SnapshotPackage> {
    let lacks = |package: &&SnapshotPackage| !store.has(&package.sha256, package.size);
    snapshot.packages.iter().filter(lacks).collect()
}

/// Reads and verifies the signed lists that apt has.
fn lists(spec: &Spec, apt: &Apt, old: Option<&Snapshot>, tell: &mut dyn FnMut(Event)) -> Result<Vec<Listed>> {
    let policy = Policy::of(spec);
    let indexes = apt.indexes()?;
    let now = clock::now();
    let mut all = Vec::new();
    for suite in &spec.suite {
        let mut found = Vec::new();
        for component in &suite.components {
            let index = indexes
                .iter()
                .find(|index| index.suite == suite.name && index.component == *component)
                .with_context(|| format!("apt has no list of {} {component}", suite.name))?;
            found.push(index.clone());
        }
        let first = found.first().context("a suite has no component")?;
        let file = first.inrelease(&spec.architecture)?;
        let inrelease = digest::read_bounded(&file, LARGEST_INRELEASE)
            .with_context(|| format!("cannot read the signed list of {} at {}", suite.name, file.display()))?;
        let signed = upstream::verify_inrelease(&policy, &suite.path, &suite.name, &inrelease, now)?;
        if let Some(until) = signed.release.valid_until
            && until < now
        {
            return Err(anyhow!(Refused(format!(
                "the list of {} was valid until {until}: the mirror serves an old state, or this machine's clock is wrong",
                suite.name
            ))));
        }
        if let Some(old) = old.and_then(|old| old.origin(&suite.name))
            && signed.release.date < old.date
        {
            return Err(anyhow!(Refused(format!(
                "the list of {} is of {}, older than that of {} in the snapshot {}: the mirror went back",
                suite.name, signed.release.date, old.date, spec.name
            ))));
        }
        let mut promises = Vec::new();
        let mut kept = Vec::new();
        for index in found {
            let promise = upstream::promise(&signed.release, &index.component, &spec.architecture)
                .with_context(|| format!("the list of {} is of no use", suite.name))?;
            kept.push(KeptIndex {
                component: index.component.clone(),
                file: Snapshot::index_file(&suite.name, &index.component, &spec.architecture),
                sha256: promise.compressed.sha256,
                size: promise.compressed.size,
            });
            promises.push((index, promise));
        }
        tell(Event::Verified {
            suite: suite.name.clone(),
            signers: signed.signers.clone(),
        });
        all.push(Listed {
            origin: Origin {
                suite: suite.name.clone(),
                path: suite.path.clone(),
                components: suite.components.clone(),
                inrelease: KeptFile {
                    file: Snapshot::inrelease_file(&suite.name),
                    sha256: Sha256::of(&inrelease),
                    size: inrelease.len() as u64,
                },
                signers: signed.signers,
                date: signed.release.date,
                signed_at: signed.signed_at,
                packages: kept,
            },
            inrelease,
            indexes: promises,
        });
    }
    Ok(all)
}

/// Takes upstream's `Packages.xz` files into the pool and leaves them unpacked to apt, which would otherwise unpack them
/// again for each package that it looks up. Gives false when one is in neither place.
fn take_indexes(store: &Store, lock: &Lock, listed: &[Listed]) -> Result<bool> {
    for (index, promise) in listed.iter().flat_map(|list| &list.indexes) {
        let compressed = &promise.compressed;
        let is_compressed = index.file.extension().is_some_and(|end| end == "xz");
        if !store.has(&compressed.sha256, compressed.size) {
            if !is_compressed {
                return Ok(false);
            }
            let mut file = File::open(&index.file).with_context(|| format!("cannot read {}", index.file.display()))?;
            let what = format!("Packages.xz of {} {}", index.suite, index.component);
            store.ingest(lock, &mut file, &compressed.sha256, compressed.size, &what)?;
        }
        if is_compressed {
            let place = index.file.with_extension("");
            let write = || format!("cannot write {}", place.display());
            let mut writer = durable::Writer::new(&place, 0o644).with_context(write)?;
            let mut object = File::open(store.object(&compressed.sha256))?;
            upstream::unpack(&mut object, &promise.unpacked, &mut writer)?;
            writer.flush()?;
            writer.commit().with_context(write)?;
            fs::remove_file(&index.file).with_context(|| format!("cannot delete {}", index.file.display()))?;
        }
    }
    Ok(true)
}

/// Resolves the roles and looks every package up in the verified lists.
fn resolve(spec: &Spec, store: &Store, apt: &Apt, listed: &[Listed], tell: &mut dyn FnMut(Event)) -> Result<Snapshot> {
    let mut wanted: BTreeMap<Identity, BTreeSet<Role>> = BTreeMap::new();
    for role in Role::ALL {
        let closure = apt.resolve(role, spec.packages.of(role))?;
        tell(Event::Resolved {
            role,
            packages: closure.len(),
        });
        for identity in closure {
            wanted.entry(identity).or_default().insert(role);
        }
    }
    let names: BTreeSet<&str> = wanted.keys().map(|identity| identity.name.as_str()).collect();
    let mut found: HashMap<Identity, (Entry, String, String)> = HashMap::new();
    for (index, promise) in listed.iter().flat_map(|list| &list.indexes) {
        let mut object = File::open(store.object(&promise.compressed.sha256))
            .with_context(|| format!("cannot read the pool's Packages.xz of {}", index.suite))?;
        let entries = upstream::read_index(
            &mut object,
            &promise.unpacked,
            &|name| names.contains(name),
            &mut |_, _, _| (),
        )?;
        for (identity, entry) in entries {
            if let Some((other, suite, _)) = found.get(&identity) {
                if other.sha256 != entry.sha256 {
                    return Err(anyhow!(Refused(format!(
                        "{} {} differs between {suite} and {}",
                        identity.name, identity.version, index.suite
                    ))));
                }
                continue;
            }
            found.insert(identity, (entry, index.suite.clone(), index.component.clone()));
        }
    }
    let mut packages = Vec::new();
    for (identity, roles) in wanted {
        let (entry, suite, component) = found.remove(&identity).ok_or_else(|| {
            let Identity {
                name,
                version,
                architecture,
            } = &identity;
            anyhow!(Refused(format!(
                "apt chose {name} {version} {architecture}, which no verified list names"
            )))
        })?;
        packages.push(SnapshotPackage {
            name: identity.name,
            version: identity.version,
            architecture: identity.architecture,
            source: entry.source,
            source_version: entry.source_version,
            section: entry.section,
            filename: entry.filename,
            size: entry.size,
            sha256: entry.sha256,
            suite,
            component,
            roles,
        });
    }
    Ok(Snapshot {
        format: FORMAT,
        name: spec.name.clone(),
        architecture: spec.architecture.clone(),
        created_from: listed.iter().map(|list| list.origin.clone()).collect(),
        packages,
    })
}

/// Fetches what the pool lacks, a batch at a time.
fn fetch(
    store: &Store,
    lock: &Lock,
    apt: &Apt,
    downloads: &Path,
    missing: &[&SnapshotPackage],
    tell: &mut dyn FnMut(Event),
) -> Result<()> {
    fs::create_dir_all(downloads).with_context(|| format!("cannot make {}", downloads.display()))?;
    let total: u64 = missing.iter().map(|package| package.size).sum();
    let mut done = 0;
    // What a killed run has left is taken first.
    let mut lacking: BTreeMap<Sha256, &SnapshotPackage> =
        missing.iter().map(|package| (package.sha256, *package)).collect();
    adopt_downloads(store, lock, downloads, &mut lacking, &mut done)?;
    tell(Event::Fetched { done, total });
    while !lacking.is_empty() {
        let batch: Vec<Identity> = lacking
            .values()
            .take(BATCH)
            .map(|package| Identity {
                name: package.name.clone(),
                version: package.version.clone(),
                architecture: package.architecture.clone(),
            })
            .collect();
        let before = lacking.len();
        apt.download(downloads, &batch.iter().collect::<Vec<_>>())?;
        adopt_downloads(store, lock, downloads, &mut lacking, &mut done)?;
        tell(Event::Fetched { done, total });
        if lacking.len() > before.saturating_sub(batch.len()) {
            let wrong = batch
                .iter()
                .find(|one| lacking.values().any(|package| package.name == one.name));
            return Err(anyhow!(Refused(format!(
                "the mirror's {} is not the package that upstream's signed list names",
                wrong.map_or("package", |one| one.name.as_str())
            ))));
        }
    }
    fs::remove_dir_all(downloads).with_context(|| format!("cannot delete {}", downloads.display()))
}

/// Moves downloaded files that are whole and wanted into the pool and deletes the others.
fn adopt_downloads(
    store: &Store,
    lock: &Lock,
    downloads: &Path,
    lacking: &mut BTreeMap<Sha256, &SnapshotPackage>,
    done: &mut u64,
) -> Result<()> {
    let read = || format!("cannot read {}", downloads.display());
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(downloads).with_context(read)? {
        files.push(entry.with_context(read)?.path());
    }
    for file in files {
        let meta = fs::symlink_metadata(&file).with_context(read)?;
        if meta.is_dir() {
            continue;
        }
        if meta.is_file() {
            let (found, size) = Sha256::of_file(&file).with_context(|| format!("cannot read {}", file.display()))?;
            if lacking.get(&found).is_some_and(|package| package.size == size) {
                store.adopt(lock, &file, &found)?;
                lacking.remove(&found);
                *done += size;
                continue;
            }
        }
        fs::remove_file(&file).with_context(|| format!("cannot delete {}", file.display()))?;
    }
    Ok(())
}
