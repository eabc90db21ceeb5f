// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-iso assemble`: a published release as a hybrid ISO, which starts from a USB disk and from an optical drive.
//!
//! Everything that goes in is verified against the repository's root on its way, and the tools run in the builder root of
//! the release's snapshot. The same repository gives the same bits.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use chrono::DateTime;
use offline_repo::export::metadata_names;
use offline_repo::repository::Repository;
use offline_repo::snapshot::{self, Snapshot};
use offline_repo::tarindex::TarIndex;
use serde::Serialize;
use signing::digest::{self, Sha256};
use signing::keys::Passphrase;
use signing::release::{Part, Release};
use signing::site::Site;
use signing::tuf::{Client, Datastore, Limits};
use signing::{clock, durable, output::Refused};

use crate::build::read_release;
use crate::normalise::date_all;
use crate::progress::{Progress, StepReport};
use crate::sandbox::{self, Sandbox};
use crate::work::{self, Work};
use crate::{rootimage::Identity, roots};

/// The volume's label, by which the initrd finds the medium.
pub const LABEL: &str = "BASTIDE";
/// Room on the EFI system partition beside the installer: for an answer file and the file system's own tables.
const ESP_SPARE: u64 = 4 << 20;
/// The smallest EFI system partition: firmware and mtools take a FAT of fewer than 65525 clusters for no FAT32.
const ESP_LEAST: u64 = 34 << 20;
/// Largest metadata file that is carried.
const LARGEST_METADATA: u64 = 64 << 20;
/// zstd's level. On a root image 12 takes four times as long for the same size, 6 is quicker and 3 % larger.
const LEVEL: &str = "9";

/// What to assemble.
#[derive(Debug, Clone)]
pub struct Options {
    /// The signed build.
    pub build: PathBuf,
    /// The repository that it was published to.
    pub repository: PathBuf,
    /// The working directory, with the builder root of the release's snapshot.
    pub work: PathBuf,
    /// The ISO.
    pub out: PathBuf,
    /// Whether metadata that has expired is taken.
    pub allow_expired: bool,
    /// Whether progress is shown.
    pub quiet: bool,
}

/// What was assembled.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The ISO.
    pub iso: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// Its detached OpenPGP signature, where it was signed.
    pub signature: Option<PathBuf>,
    /// The steps.
    pub steps: Vec<StepReport>,
}

/// Assembles the ISO, and signs it where a key is given. The calling thread moves into namespaces of its own and stays there.
///
/// # Errors
/// When the build is not the published one (refused), the builder root is not at hand, or a tool fails.
pub fn assemble(options: &Options, key: Option<(&Site, &Passphrase)>) -> Result<Report> {
    sandbox::need_root("the assembly")?;
    let release = read_release(&options.build)?;
    let repository = Repository::open(&options.repository)?;
    fresh(&repository, options.allow_expired)?;
    // Opening makes it: a mistyped name must not leave one.
    ensure!(
        options.work.join("builder").is_dir(),
        "there is no builder root in {}: give the --work directory of the build",
        options.work.display()
    );
    let work = Work::open(&options.work)?;
    let snapshot = snapshot_of(&options.build)?;
    let builder = roots::builder_key(&snapshot);
    ensure!(
        work.has("builder", &builder),
        "the builder root of snapshot {} is not in {}: give the --work directory of the build",
        snapshot.name,
        options.work.display()
    );
    sandbox::enter()?;
    let sandbox = Sandbox::new(
        &work.place("builder", &builder).join("root"),
        &work.path("mount"),
        release.source_date_epoch,
    );
    let scratch = work.path("assembly");
    work::remove(&scratch)?;
    fs::create_dir_all(scratch.join("out")).with_context(|| format!("cannot make {}", scratch.display()))?;
    let medium = Medium {
        release: &release,
        sandbox: &sandbox,
        scratch: &scratch,
    };

    let mut progress = Progress::new(options.quiet);
    progress.step("verified parts", || medium.stage(&repository).map(|()| ((), false)))?;
    progress.step("targets, compressed", || medium.squash().map(|()| ((), false)))?;
    progress.step("EFI system partition", || {
        medium.system_partition().map(|()| ((), false))
    })?;
    progress.step("ISO", || medium.iso().map(|()| ((), false)))?;
    let (sha256, size) = progress.step("delivery", || {
        let made = scratch.join("out/medium.iso");
        deliver(&made, &options.out).map(|facts| (facts, false))
    })?;
    let signature = match key {
        Some((site, passphrase)) => Some(progress.step("OpenPGP signature", || {
            signed(&options.out, site, passphrase).map(|place| (place, false))
        })?),
        None => None,
    };
    work::remove(&scratch)?;
    Ok(Report {
        iso: options.out.clone(),
        size,
        sha256,
        signature,
        steps: progress.steps().to_vec(),
    })
}

/// No installer takes metadata that has expired.
fn fresh(repository: &Repository, allow_expired: bool) -> Result<()> {
    let reading = repository.read(&repository.own_root()?)?;
    let past = reading.expires().filter(|(_, expires)| *expires <= clock::now());
    let Some((role, expires)) = past.filter(|_| !allow_expired) else {
        return Ok(());
    };
    bail!(Refused(format!(
        "the role {role} in the repository {} expired at {expires}, so no installer would take the medium: \
         renew the signatures with `bastide-repo publish`",
        repository.root().display()
    )))
}

/// The snapshot of a build, whose packages name the builder root.
fn snapshot_of(build: &Path) -> Result<Snapshot> {
    let path = build.join(Part::Upstream.file());
    let read = || -> Result<Snapshot> {
        let mut archive = TarIndex::open(File::open(&path)?)?;
        let mut member = archive.read("snapshot.json")?.context("it holds no snapshot.json")?;
        Snapshot::parse(&digest::read_to_limit(&mut member, snapshot::LARGEST)?)
    };
    read().with_context(|| format!("cannot read the snapshot in {}", path.display()))
}

/// A medium in the making.
struct Medium<'a> {
    release: &'a Release,
    sandbox: &'a Sandbox,
    scratch: &'a Path,
}

impl Medium<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Lays out metadata and targets, each verified on its way from the repository.
    fn stage(&self, repository: &Repository) -> Result<()> {
        let root = repository.own_root()?;
        let reading = repository.read(&root)?;
        let metadata = self.path("iso/bastide/metadata");
        fs::create_dir_all(&metadata).with_context(|| format!("cannot make {}", metadata.display()))?;
        for name in metadata_names(&reading.trail) {
            let from = repository.metadata(&name);
            let bytes = digest::read_bounded(&from, LARGEST_METADATA)
                .with_context(|| format!("cannot read {}", from.display()))?;
            let to = metadata.join(&name);
            fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
        }
        let datastore = Datastore::ephemeral(&root)?;
        let source = repository.source();
        let mut client = Client::open(datastore, source, Limits::default(), DateTime::UNIX_EPOCH)?;
        for part in &self.release.parts {
            let name = part.part.target(self.release.version);
            let Some(target) = client.target(&name)? else {
                bail!("{name} is not published: publish this build first (bastide-repo publish)");
            };
            if (target.sha256, target.length) != (part.sha256, part.size) {
                bail!(Refused(format!(
                    "{name} was published with other content than this build has: publish this build as a new version"
                )));
            }
            let to = self.path("targets").join(client.path(&target));
            fs::create_dir_all(to.parent().unwrap_or(&to)).with_context(|| format!("cannot make {}", to.display()))?;
            let mut file = File::create(&to).with_context(|| format!("cannot make {}", to.display()))?;
            client
                .fetch(&target, &mut file)
                .with_context(|| format!("cannot take {name} into {}", to.display()))?;
            if part.part == Part::Installer {
                fs::copy(&to, self.path("installer.efi")).context("cannot copy the installer's boot image")?;
            }
        }
        date_all(&self.path("targets"), self.sandbox.epoch())
    }

    /// The targets as one file that can be read at random, in which each keeps its own bytes.
    fn squash(&self) -> Result<()> {
        self.sandbox
            .step("mksquashfs")
            .args([
                "/mnt/targets",
                "/mnt/bastide/targets.squashfs",
                "-noappend",
                "-no-progress",
                "-quiet",
            ])
            .args([
                "-comp",
                "zstd",
                "-Xcompression-level",
                LEVEL,
                "-b",
                "256K",
                "-all-root",
                "-no-xattrs",
                "-no-exports",
            ])
            .read(&self.path("targets"), "/mnt/targets")
            .write(&self.path("iso/bastide"), "/mnt/bastide")
            .run()
            .context("cannot compress the targets")?;
        work::remove(&self.path("targets"))
    }

    /// A FAT that firmware starts the installer from, and on which a user may put an answer file.
    fn system_partition(&self) -> Result<()> {
        let installer = fs::metadata(self.path("installer.efi"))?.len();
        let size = (installer + ESP_SPARE).max(ESP_LEAST);
        let image = self.path("out/esp.img");
        File::create(&image)
            .and_then(|file| file.set_len(size.next_multiple_of(1 << 20)))
            .with_context(|| format!("cannot make {}", image.display()))?;
        date_all(&self.path("installer.efi"), self.sandbox.epoch())?;
        let serial = hex::encode(&self.release.root_hash.0[..4]);
        let out = self.path("out");
        // One sector a cluster: firmware tells FAT32 from its elders by the number of clusters.
        self.sandbox
            .step("mkfs.fat")
            .args([
                "--invariant",
                "-F",
                "32",
                "-s",
                "1",
                "-n",
                "BASTIDE-ESP",
                "-i",
                &serial,
                "/mnt/out/esp.img",
            ])
            .write(&out, "/mnt/out")
            .run()
            .context("cannot make the EFI system partition")?;
        for directory in ["::/EFI", "::/EFI/BOOT"] {
            let step = self.sandbox.step("mmd").args(["-i", "/mnt/out/esp.img", directory]);
            step.write(&out, "/mnt/out")
                .run()
                .context("cannot fill the EFI system partition")?;
        }
        self.sandbox
            .step("mcopy")
            .args([
                "-m",
                "-i",
                "/mnt/out/esp.img",
                "/mnt/installer.efi",
                "::/EFI/BOOT/BOOTX64.EFI",
            ])
            .read(&self.path("installer.efi"), "/mnt/installer.efi")
            .write(&out, "/mnt/out")
            .run()
            .context("cannot put the installer on the EFI system partition")
            .map(drop)
    }

    fn iso(&self) -> Result<()> {
        date_all(&self.path("iso"), self.sandbox.epoch())?;
        let seed = self.release.root_hash;
        let guid = Identity::new(&seed).uuid("iso").replace('-', "");
        self.sandbox
            .step("xorriso")
            .args([
                "-as",
                "mkisofs",
                "-quiet",
                "-V",
                LABEL,
                "-iso-level",
                "3",
                "-r",
                "-partition_offset",
                "16",
            ])
            .args(["--gpt_disk_guid", &guid])
            .args([
                "-append_partition",
                "2",
                "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
                "/mnt/out/esp.img",
            ])
            .args([
                "-appended_part_as_gpt",
                "-e",
                "--interval:appended_partition_2:all::",
                "-no-emul-boot",
            ])
            .args(["-o", "/mnt/out/medium.iso", "/mnt/iso"])
            .read(&self.path("iso"), "/mnt/iso")
            .write(&self.path("out"), "/mnt/out")
            .run()
            .context("cannot make the ISO")
            .map(drop)
    }
}

/// Puts the ISO into its place, whole or not at all, and removes the signature of an older one.
fn deliver(made: &Path, out: &Path) -> Result<(Sha256, u64)> {
    let write = || format!("cannot write {}", out.display());
    let mut from = File::open(made).with_context(|| format!("cannot read {}", made.display()))?;
    durable::clear_stale(out).with_context(write)?;
    let mut to = durable::Writer::new(out, 0o644).with_context(write)?;
    let facts = {
        let mut buffer = BufWriter::with_capacity(digest::BLOCK, &mut to);
        digest::copy(&mut from, &mut buffer).with_context(write)?
    };
    work::remove_file(&signature_place(out))?;
    to.commit().with_context(write)?;
    Ok(facts)
}

fn signed(iso: &Path, site: &Site, passphrase: &Passphrase) -> Result<PathBuf> {
    let file = File::open(iso).with_context(|| format!("cannot read {}", iso.display()))?;
    let signature = site.release_key(passphrase)?.sign_detached(file)?;
    let place = signature_place(iso);
    durable::write(&place, signature.as_bytes()).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place)
}

fn signature_place(iso: &Path) -> PathBuf {
    let mut name = iso.as_os_str().to_owned();
    name.push(".asc");
    PathBuf::from(name)
}
