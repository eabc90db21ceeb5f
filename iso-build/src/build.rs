// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-iso build`: from a snapshot, the source and a trust directory to the parts of a release.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use offline_repo::snapshot::Snapshot;
use offline_repo::spec::Role;
use offline_repo::store::Store;
use serde::Serialize;
use signing::digest::Sha256;
use signing::durable;
use signing::release::{Part, PartFile, Release, Version};

use crate::image::{self, INSTALLER_UNSIGNED, XEN_UNSIGNED};
use crate::policy::Policy;
use crate::progress::{Progress, StepReport};
use crate::sandbox::{self, Sandbox};
use crate::work::{self, Key, Work};
use crate::{programs, roots, sbom, upstream};

/// Counts changes of the code that change an image.
const RECIPE: u32 = 4;

/// What to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store.
    pub store: PathBuf,
    /// The snapshot's name.
    pub snapshot: String,
    /// The release's version.
    pub version: Version,
    /// Its channel.
    pub channel: String,
    /// The trust directory.
    pub trust: PathBuf,
    /// Files of the site that are laid over the image, if any.
    pub overlay: Option<PathBuf>,
    /// The workspace.
    pub source: PathBuf,
    /// The build directory.
    pub out: PathBuf,
    /// The working directory.
    pub work: PathBuf,
    /// The toolchain, where rustup's is not meant.
    pub toolchain: Option<PathBuf>,
    /// Cargo's home, where the usual one is not meant.
    pub cargo_home: Option<PathBuf>,
    /// Whether progress is shown.
    pub quiet: bool,
}

/// A step of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// Name of the step.
    pub step: String,
    /// The key of its result.
    pub key: Sha256,
    /// Whether its result is at hand.
    pub at_hand: bool,
}

/// What a build would do.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The snapshot.
    pub snapshot: String,
    /// Seconds since 1970 of everything that is made.
    pub source_date_epoch: u64,
    /// Packages in the host image.
    pub host_packages: usize,
    /// Packages in the builder root.
    pub builder_packages: usize,
    /// The compiler.
    pub compiler: String,
    /// The steps.
    pub steps: Vec<Planned>,
}

/// What a build did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where the parts lie.
    pub build: PathBuf,
    /// The facts of the build.
    pub release: Release,
    /// The steps.
    pub steps: Vec<StepReport>,
}

/// The inputs of a build, looked at, and the keys of its results.
struct Prepared {
    store: Store,
    snapshot: Snapshot,
    epoch: u64,
    inputs: programs::Inputs,
    policy_directory: PathBuf,
    policy: Policy,
    builder: Sha256,
    packages: Sha256,
    programs: Sha256,
    image: Sha256,
}

impl Prepared {
    fn new(options: &Options) -> Result<Self> {
        let store = Store::open(&options.store)?;
        let snapshot = store.snapshot(&options.snapshot)?;
        let epoch = epoch(&snapshot)?;
        image::check_trust(&options.trust)?;
        let inputs = programs::Inputs::find(
            &options.source,
            options.toolchain.as_deref(),
            options.cargo_home.as_deref(),
        )?;
        let policy_directory = inputs.source.join("iso-build/image");
        let policy = Policy::load(&policy_directory)?;
        let builder = roots::builder_key(&snapshot);
        let packages = roots::host_key(&snapshot, &builder, Role::Host);
        let programs = inputs.key(&builder)?;
        let mut image = Key::new("image", RECIPE)
            .with(&snapshot.to_bytes()?)
            .digest(&packages)
            .digest(&programs)
            .tree(&policy_directory)?
            .tree(&options.trust)?
            .with(options.version.to_string().as_bytes())
            .with(options.channel.as_bytes());
        if let Some(overlay) = &options.overlay {
            image = image.tree(overlay)?;
        }
        Ok(Self {
            store,
            snapshot,
            epoch,
            inputs,
            policy_directory,
            policy,
            builder,
            packages,
            programs,
            image: image.finish(),
        })
    }
}

/// Every date in a build derives from the youngest signature of upstream in the snapshot.
fn epoch(snapshot: &Snapshot) -> Result<u64> {
    let newest = snapshot.created_from.iter().map(|origin| origin.date).max();
    let newest = newest.with_context(|| format!("the snapshot {} names no upstream list", snapshot.name))?;
    u64::try_from(newest.timestamp()).context("the snapshot's upstream list is dated before 1970")
}

/// Says what a build would do, and does nothing.
///
/// # Errors
/// When an input is missing or wrong.
pub fn plan(options: &Options) -> Result<Plan> {
    let prepared = Prepared::new(options)?;
    let at_hand = |kind: &str, key: &Sha256| options.work.join(kind).join(&key.to_string()[..32]).is_dir();
    let step = |step: &str, kind: &str, key: Sha256| Planned {
        step: step.to_owned(),
        at_hand: at_hand(kind, &key),
        key,
    };
    Ok(Plan {
        snapshot: prepared.snapshot.name.clone(),
        source_date_epoch: prepared.epoch,
        host_packages: prepared.snapshot.of(Role::Host).count(),
        builder_packages: prepared.snapshot.of(Role::Builder).count(),
        compiler: prepared.inputs.compiler.lines().next().unwrap_or_default().to_owned(),
        steps: vec![
            step("builder root", "builder", prepared.builder),
            step("programs", "programs", prepared.programs),
            step("packages of the host", "packages", prepared.packages),
            step("host image", "image", prepared.image),
        ],
    })
}

/// Builds. The calling thread moves into namespaces of its own and stays there.
///
/// # Errors
/// When an input is missing or wrong, a tool fails, or the process is not root. What was finished is kept for the next run.
pub fn build(options: &Options) -> Result<Report> {
    sandbox::need_root("the build")?;
    let prepared = Prepared::new(options)?;
    check_out(&options.out)?;
    let work = Work::open(&options.work)?;
    sandbox::enter()?;
    let mut progress = Progress::new(options.quiet);
    let logs = work.path("logs");
    work::remove(&logs)?;
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;

    let view = progress.step("apt view of the snapshot", || {
        let made = roots::view(&work, &prepared.store, &prepared.snapshot)?;
        anyhow::Ok((made.path, made.kept))
    })?;
    let builder = progress.step("builder root", || {
        let made = work.once("builder", &prepared.builder, |place| {
            roots::make_builder(&view, &prepared.snapshot, prepared.epoch, place, &logs.join("builder"))
        })?;
        anyhow::Ok((made.path.join("root"), made.kept))
    })?;
    let sandbox = Sandbox::new(&builder, &work.path("mount"), prepared.epoch);
    let programs = progress.step("programs", || {
        let made = work.once("programs", &prepared.programs, |place| {
            prepared
                .inputs
                .compile(&work, &sandbox, &prepared.builder, place, &logs.join("programs"))
        })?;
        anyhow::Ok((made.path, made.kept))
    })?;
    let packages = progress.step("packages of the host", || {
        let made = work.once("packages", &prepared.packages, |place| {
            let root = place.join("root");
            roots::make_tree(
                &sandbox,
                &view,
                &prepared.snapshot,
                Role::Host,
                &root,
                &logs.join("packages"),
            )
        })?;
        anyhow::Ok((made.path.join("root"), made.kept))
    })?;
    let inputs = image::Inputs {
        sandbox: &sandbox,
        view: &view,
        snapshot: &prepared.snapshot,
        packages: &packages,
        programs: &programs,
        policy: &prepared.policy_directory,
        trust: &options.trust,
        version: options.version,
        channel: &options.channel,
        overlay: options.overlay.as_deref(),
        seed: &prepared.image,
    };
    let image = progress.step("host image", || {
        let made = work.once("image", &prepared.image, |place| {
            make_image(&work, &prepared, &inputs, options, place)
        })?;
        anyhow::Ok((made.path, made.kept))
    })?;
    let release = progress.step("build directory", || deliver(&image, &options.out))?;
    Ok(Report {
        build: options.out.clone(),
        release,
        steps: progress.steps().to_vec(),
    })
}

fn make_image(
    work: &Work,
    prepared: &Prepared,
    inputs: &image::Inputs<'_>,
    options: &Options,
    out: &Path,
) -> Result<()> {
    let scratch = work.path("scratch");
    work::remove(&scratch)?;
    fs::create_dir(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let tree = scratch.join("tree");
    image::make_tree(inputs, &prepared.policy, &scratch, &tree)?;
    let root_hash = image::make_parts(inputs, &prepared.policy, &scratch, &tree, out)?;
    upstream::write(
        &prepared.store,
        &prepared.snapshot,
        prepared.epoch,
        &out.join(Part::Upstream.file()),
    )?;
    let bill = sbom::Inputs {
        snapshot: &prepared.snapshot,
        tree: &tree,
        programs: inputs.programs,
        locked: prepared.inputs.locked(),
        version: options.version,
        channel: &options.channel,
        root_hash: &root_hash,
        epoch: prepared.epoch,
    };
    sbom::write(&bill, &out.join(Part::Sbom.file()))?;
    let mut parts = Vec::new();
    for part in Part::ALL {
        let path = out.join(part.file());
        if !path.exists() {
            continue;
        }
        let (sha256, size) = Sha256::of_file(&path).with_context(|| format!("cannot read {}", path.display()))?;
        parts.push(PartFile { part, size, sha256 });
    }
    let release = Release {
        format: 1,
        version: options.version,
        channel: options.channel.clone(),
        root_hash,
        snapshot: prepared.snapshot.name.clone(),
        source_date_epoch: prepared.epoch,
        parts,
    };
    write_release(out, &release)?;
    work::remove(&scratch)
}

/// Reads a build's facts.
///
/// # Errors
/// When there are none or they are malformed.
pub fn read_release(build: &Path) -> Result<Release> {
    let file = build.join("release.json");
    let bytes = signing::digest::read_bounded(&file, 1 << 20)
        .with_context(|| format!("cannot read {}: build first (bastide-iso build)", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("cannot understand {}", file.display()))
}

/// Writes a build's facts.
///
/// # Errors
/// When the file cannot be written.
pub fn write_release(build: &Path, release: &Release) -> Result<()> {
    let file = build.join("release.json");
    let mut bytes = serde_json::to_vec_pretty(release)?;
    bytes.push(b'\n');
    durable::write(&file, &bytes).with_context(|| format!("cannot write {}", file.display()))
}

/// A build directory is new, empty, or an earlier build.
fn check_out(out: &Path) -> Result<()> {
    let occupied = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !out.join("release.json").is_file() {
        bail!(
            "{} holds something else than a build: name a new directory with --out",
            out.display()
        );
    }
    Ok(())
}

/// Copies the image's parts into the build directory, which appears whole or not at all.
fn deliver(image: &Path, out: &Path) -> Result<(Release, bool)> {
    let release = read_release(image)?;
    let unsigned = [XEN_UNSIGNED, INSTALLER_UNSIGNED];
    if holds(&release, image, out)? {
        return Ok((read_release(out)?, true));
    }
    let name = out
        .file_name()
        .with_context(|| format!("{} is no name for a build directory", out.display()))?;
    let parent = out
        .parent()
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let partial = parent.join(format!(".{}.partial", name.to_string_lossy()));
    work::remove(&partial)?;
    fs::create_dir(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    for part in &release.parts {
        let name = part.part.file();
        let mut from = fs::File::open(image.join(name)).with_context(|| format!("cannot read {name} of the image"))?;
        let mut to = fs::File::create(partial.join(name)).with_context(|| format!("cannot write {name}"))?;
        let (sha256, size) =
            signing::digest::copy(&mut from, &mut to).with_context(|| format!("cannot copy {name}"))?;
        if (sha256, size) != (part.sha256, part.size) {
            bail!(
                "{} was altered since it was made: remove that directory and build again",
                image.join(name).display()
            );
        }
    }
    for name in unsigned {
        fs::copy(image.join(name), partial.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    write_release(&partial, &release)?;
    work::remove(out)?;
    fs::rename(&partial, out).with_context(|| format!("cannot put {} into its place", out.display()))?;
    Ok((release, false))
}

/// Whether the build directory already holds these very parts, signed since or not.
fn holds(release: &Release, image: &Path, out: &Path) -> Result<bool> {
    if !out.join("release.json").is_file() {
        return Ok(false);
    }
    let Ok(old) = read_release(out) else { return Ok(false) };
    let same_facts = Release {
        parts: Vec::new(),
        ..old.clone()
    } == Release {
        parts: Vec::new(),
        ..release.clone()
    };
    if !same_facts || !release.parts.iter().all(|part| old.parts.contains(part)) {
        return Ok(false);
    }
    for part in &old.parts {
        let path = out.join(part.part.file());
        let same = Sha256::of_file(&path).is_ok_and(|found| found == (part.sha256, part.size));
        if !same {
            return Ok(false);
        }
    }
    for name in [XEN_UNSIGNED, INSTALLER_UNSIGNED] {
        let digest = |directory: &Path| Sha256::of_file(&directory.join(name)).ok();
        if digest(image).is_none() || digest(image) != digest(out) {
            return Ok(false);
        }
    }
    Ok(true)
}
