// SPDX-License-Identifier: GPL-3.0-or-later
//! `verify`: whether every object of a store's pool still is what its name says, and all that snapshots name is there.
//!
//! The objects are read in the order of their names by one thread for each core, a directory of the pool at a time, so
//! that memory does not grow with the pool. What has been read is kept in `work/.verify/progress.json`, written whole at
//! most once a second: a run that is killed loses a second's work. What the earlier run did not find whole is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use signing::digest::{self, Sha256};
use signing::output::Exit;
use signing::{clock, durable};

use crate::store::Store;

/// How often the progress is kept: syncing a file for every small object would take longer than to hash it.
const KEEP: Duration = Duration::from_secs(1);
/// How often it is told.
const TELL: Duration = Duration::from_millis(100);
/// The largest record of progress: more suspects than a hundred thousand are no longer a pool.
const LARGEST_RECORD: u64 = 8 << 20;

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Objects read by this run.
    pub objects: u64,
    /// Bytes read by this run.
    pub bytes: u64,
    /// Of all names that there could be, so many hundredths are done: names are digests, and fall evenly.
    pub percent: u32,
}

/// An object that is not what it should be, or is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name.
    pub sha256: Sha256,
    /// Its place.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
    /// The snapshots that name it, each with what it is there.
    pub needed_by: Vec<String>,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Where it is.
    pub path: PathBuf,
    /// Why not.
    pub why: String,
}

/// What a run saw.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When the first of the runs that this one goes on from began.
    pub began: DateTime<Utc>,
    /// Objects that this run read.
    pub objects: u64,
    /// Bytes that this run read.
    pub bytes: u64,
    /// Objects that an earlier, unfinished run found whole, and this one did not read.
    pub objects_earlier: u64,
    /// Objects with another content than their name says, by name.
    pub damaged: Vec<Finding>,
    /// Objects that a snapshot names and the pool lacks, by name.
    pub missing: Vec<Finding>,
    /// What could not be read.
    pub unread: Vec<Unread>,
    /// What lies in the pool and is no object of it. Nobody reads it.
    pub strangers: Vec<PathBuf>,
    /// Why the progress could not be kept, if it could not.
    pub not_kept: Option<String>,
}

impl Report {
    /// What it means to a caller: refused where something is damaged or missing.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if !self.damaged.is_empty() || !self.missing.is_empty() {
            Exit::Refused
        } else if !self.unread.is_empty() {
            Exit::CouldNotCheck
        } else {
            Exit::Done
        }
    }
}

/// What is kept of an unfinished run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    began: DateTime<Utc>,
    /// All objects before this name have been read,
    from: Sha256,
    /// and were whole but for these.
    again: BTreeSet<Sha256>,
}

/// The place of the record, with its lock.
struct Keeper {
    place: PathBuf,
    _lock: durable::Lock,
}

impl Keeper {
    fn open(store: &Store) -> io::Result<Self> {
        // No snapshot can have this name.
        let directory = store.root().join("work/.verify");
        fs::create_dir_all(&directory)?;
        let lock = durable::Lock::take(&directory)?;
        let place = directory.join("progress.json");
        durable::clear_stale(&place)?;
        Ok(Self { place, _lock: lock })
    }

    fn load(&self) -> Result<Option<Record>> {
        let read = || {
            let place = self.place.display();
            format!("cannot go on from {place}: verify without --resume, which begins anew")
        };
        let bytes = match digest::read_regular(&self.place, LARGEST_RECORD) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.with_context(read)?,
        };
        let record: Record = serde_json::from_slice(&bytes).with_context(read)?;
        anyhow::ensure!(record.format == 1, "{}: it has format {}", read(), record.format);
        Ok(Some(record))
    }

    fn keep(&self, record: &Record) -> io::Result<()> {
        durable::write(&self.place, &serde_json::to_vec(record)?)
    }

    fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.place) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// How an object was found.
enum Found {
    Whole,
    /// Listed, and gone when it was to be read. It counts as missing where a snapshot names it.
    Gone,
    Damaged(String),
    Unread(String),
}

/// The walk through the pool, shared by the threads.
struct Walk {
    store: Store,
    /// The suspects of an earlier run,
    doubted: BTreeSet<Sha256>,
    /// and those of them that are still to be read.
    again: Vec<Sha256>,
    /// The next directory of the pool to be listed, to 256.
    shard: usize,
    /// What is left of the one before it, last first.
    names: Vec<Sha256>,
    from: Sha256,
    reading: BTreeSet<Sha256>,
    running: usize,
    objects: u64,
    objects_earlier: u64,
    suspects: BTreeMap<Sha256, Found>,
    unread: Vec<Unread>,
    strangers: Vec<PathBuf>,
}

impl Walk {
    fn next(&mut self) -> Option<Sha256> {
        if let Some(again) = self.again.pop() {
            return Some(again);
        }
        while self.names.is_empty()
            && let Ok(first) = u8::try_from(self.shard)
        {
            self.list(first);
        }
        let next = self.names.pop()?;
        self.reading.insert(next);
        Some(next)
    }

    /// Lists the next directory of the pool.
    fn list(&mut self, first: u8) {
        self.shard += 1;
        match self.store.listed(first) {
            Ok(listed) => {
                let (to_read, earlier): (Vec<_>, Vec<_>) =
                    listed.objects.into_iter().partition(|digest| *digest >= self.from);
                let earlier = earlier.iter().filter(|digest| !self.doubted.contains(digest));
                self.objects_earlier += earlier.count() as u64;
                self.names = to_read;
                self.strangers.extend(listed.strangers);
            }
            Err(error) => self.unread.push(Unread {
                path: self.store.root().join(format!("pool/sha256/{first:02x}")),
                why: error.to_string(),
            }),
        }
        self.names.sort_unstable_by(|one, other| other.cmp(one));
    }

    fn read(&mut self, name: Sha256, found: Found) {
        self.reading.remove(&name);
        self.objects += u64::from(!matches!(found, Found::Gone));
        match found {
            Found::Whole | Found::Gone => self.suspects.remove(&name),
            other => self.suspects.insert(name, other),
        };
    }

    /// The first name of which it is not known that it has been read.
    fn position(&self) -> Sha256 {
        let listed = || match u8::try_from(self.shard) {
            Ok(shard) => {
                let mut first = [0; 32];
                first[0] = shard;
                Sha256(first)
            }
            // The last name that there could be: it is read again.
            Err(_) => Sha256([0xff; 32]),
        };
        let next = self.reading.first().or_else(|| self.names.last()).copied();
        next.unwrap_or_else(listed).max(self.from)
    }

    fn record(&self, began: DateTime<Utc>) -> Record {
        let from = self.position();
        Record {
            format: 1,
            began,
            from,
            again: self.suspects.range(..from).map(|(name, _)| *name).collect(),
        }
    }
}

/// Counts what passes and keeps nothing.
struct Count<'a>(&'a AtomicU64);

impl Write for Count<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn look(store: &Store, name: &Sha256, bytes: &AtomicU64, block: &mut [u8]) -> Found {
    let path = store.object(name);
    let mut hash = || -> io::Result<Found> {
        // Not through a link: what it names is not in the pool.
        if !fs::symlink_metadata(&path)?.is_file() {
            return Ok(Found::Damaged("it is not a regular file".into()));
        }
        let mut file = digest::open_regular(&path)?;
        let (found, length) = digest::copy_through(&mut file, &mut Count(bytes), block)?;
        if found == *name {
            return Ok(Found::Whole);
        }
        Ok(Found::Damaged(format!(
            "its content is {length} bytes with digest {found}"
        )))
    };
    match hash() {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => Found::Gone,
        Err(error) => Found::Unread(error.to_string()),
    }
}

/// Reads every object of the pool, and looks for every one that a snapshot names. With `resume`, from where an unfinished
/// run was.
///
/// # Errors
/// When another process verifies this store, or an unfinished run's record is of no use. What is damaged, missing or
/// cannot be read is no error but in the report.
pub fn verify(store: &Store, resume: bool, tell: &mut dyn FnMut(Step)) -> Result<Report> {
    let (keeper, mut not_kept) = match Keeper::open(store) {
        Ok(keeper) => (Some(keeper), None),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(error).with_context(|| format!("cannot verify {}", store.root().display()));
        }
        // A store that may only be read can be verified; there is no place for the progress.
        Err(error) => (None, Some(error.to_string())),
    };
    let earlier = match &keeper {
        Some(keeper) if resume => keeper.load()?,
        _ => None,
    };
    let began = earlier.as_ref().map_or_else(clock::now, |record| record.began);
    let (from, again) = earlier.map_or_else(Default::default, |record| (Some(record.from), record.again));
    // A suspect is one until it has been read again, by whichever run.
    let suspect = || Found::Unread("it was not read again".into());
    let walk = Mutex::new(Walk {
        store: store.clone(),
        again: again.iter().copied().collect(),
        doubted: again.clone(),
        shard: 0,
        names: Vec::new(),
        from: from.unwrap_or(Sha256([0; 32])),
        reading: BTreeSet::new(),
        running: thread::available_parallelism().map_or(1, usize::from),
        objects: 0,
        objects_earlier: 0,
        suspects: again.into_iter().map(|name| (name, suspect())).collect(),
        unread: Vec::new(),
        strangers: Vec::new(),
    });
    let bytes = AtomicU64::new(0);
    let ended = Condvar::new();
    thread::scope(|scope| {
        for _ in 0..own(&walk).running {
            scope.spawn(|| {
                let mut block = vec![0; digest::BLOCK];
                loop {
                    let Some(name) = own(&walk).next() else { break };
                    let found = look(store, &name, &bytes, &mut block);
                    own(&walk).read(name, found);
                }
                own(&walk).running -= 1;
                ended.notify_all();
            });
        }
        let mut kept: Option<Instant> = None;
        loop {
            let state = own(&walk);
            if state.running == 0 {
                break;
            }
            let (state, _) = ended.wait_timeout(state, TELL).unwrap_or_else(PoisonError::into_inner);
            let first = state.position().0;
            let step = Step {
                objects: state.objects,
                bytes: bytes.load(Ordering::Relaxed),
                percent: u32::from(u16::from_be_bytes([first[0], first[1]])) * 100 / 65536,
            };
            let due = not_kept.is_none() && kept.is_none_or(|at| at.elapsed() >= KEEP);
            let record = due.then(|| state.record(began));
            drop(state);
            tell(step);
            if let (Some(keeper), Some(record)) = (&keeper, record) {
                not_kept = keeper.keep(&record).err().map(|error| error.to_string());
                kept = Some(Instant::now());
            }
        }
    });
    let walk = walk.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut report = walk.report(began, bytes.into_inner());
    name_what_needs_it(store, &mut report);
    // What stays behind costs the next run with `resume` a look at where this one ended, and takes no verdict away.
    let forgotten = keeper.as_ref().and_then(|keeper| keeper.forget().err());
    report.not_kept = not_kept.or_else(|| forgotten.map(|error| error.to_string()));
    Ok(report)
}

fn own(walk: &Mutex<Walk>) -> MutexGuard<'_, Walk> {
    walk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Walk {
    fn report(self, began: DateTime<Utc>, bytes: u64) -> Report {
        let mut report = Report {
            began,
            objects: self.objects,
            bytes,
            objects_earlier: self.objects_earlier,
            damaged: Vec::new(),
            missing: Vec::new(),
            unread: self.unread,
            strangers: self.strangers,
            not_kept: None,
        };
        for (sha256, found) in self.suspects {
            let path = self.store.object(&sha256);
            match found {
                Found::Damaged(why) => report.damaged.push(Finding {
                    sha256,
                    path,
                    why,
                    needed_by: Vec::new(),
                }),
                Found::Unread(why) => report.unread.push(Unread { path, why }),
                Found::Whole | Found::Gone => (),
            }
        }
        report.strangers.sort();
        report
    }
}

/// Finds what is missing, and who needs it and what is damaged.
fn name_what_needs_it(store: &Store, report: &mut Report) {
    let names = store.snapshots().unwrap_or_else(|error| {
        report.unread.push(Unread {
            path: store.root().join("snapshots"),
            why: signing::output::chain(&error),
        });
        Vec::new()
    });
    let mut missing: BTreeMap<Sha256, Finding> = BTreeMap::new();
    for name in names {
        let snapshot = match store.snapshot(&name) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                report.unread.push(Unread {
                    path: store.root().join("snapshots").join(&name),
                    why: signing::output::chain(&error),
                });
                continue;
            }
        };
        for (sha256, what) in snapshot.objects() {
            let need = format!("{name}: {what}");
            if let Ok(index) = report.damaged.binary_search_by(|one| one.sha256.cmp(&sha256)) {
                report.damaged[index].needed_by.push(need);
                continue;
            }
            let path = store.object(&sha256);
            let gone = fs::symlink_metadata(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
            if gone {
                let entry = missing.entry(sha256).or_insert_with(|| Finding {
                    sha256,
                    path,
                    why: "it is not in the pool".into(),
                    needed_by: Vec::new(),
                });
                entry.needed_by.push(need);
            }
        }
    }
    report.missing = missing.into_values().collect();
}
