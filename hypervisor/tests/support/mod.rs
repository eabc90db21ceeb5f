// SPDX-License-Identifier: GPL-3.0-or-later
//! A host on a disk image: real partitions on a loop device, real file systems, a real TUF repository, and the real
//! efibootmgr on a directory of variables. Needs root; without it nothing is checked, and that is said.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../signing/tests/common/mod.rs"]
pub mod common;
pub mod drive;
pub mod firmware;
pub mod repository;
pub mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hypervisor::esp::Esp;
use hypervisor::gpt::Table;
use hypervisor::health::{Check, Health, Verdict};
use hypervisor::layout::{self, Slot};
use hypervisor::machine::Machine;
use hypervisor::slots::{Slots, State};
use nix::mount::{MntFlags, umount2};
use offline_repo::bundle::{BundleWriter, Manifest, Packing};
use offline_repo::delta::{self, Base, Held};
use signing::digest::Sha256;
use signing::keys::{Algorithm, PrivateKey};
use signing::policy::{POLICY, Policy, SITE, SiteFiles};
use signing::process::Cmd;
use signing::release::Version;
use signing::tuf::Datastore;
use tempfile::TempDir;

pub use firmware::Firmware;
pub use repository::{Release, Site};

pub const MIB: u64 = 1 << 20;
const ROOT: u64 = 8 * MIB;
const VERITY: u64 = 2 * MIB;

/// A loop device with partitions, gone when dropped.
pub struct Loop(pub PathBuf);

impl Loop {
    pub fn of(image: &Path) -> Self {
        let output = Cmd::new("losetup")
            .args(["--find", "--show"])
            .arg(image)
            .output()
            .unwrap();
        Self(String::from_utf8(output).unwrap().trim().into())
    }

    /// Partitions through an ioctl: the test machine's kernel need not understand GPT itself. A device whose last file
    /// systems somebody else still holds, as a process that was just started does, keeps their partitions: then it is
    /// left alone and another one taken.
    pub fn with_partitions(image: &Path) -> Self {
        let mut held = Vec::new();
        loop {
            let device = Self::of(image);
            match Cmd::new("partx").arg("--add").arg(&device.0).run() {
                Ok(()) => return device,
                Err(error) => assert!(held.len() < 8, "{error}"),
            }
            held.push(device);
        }
    }

    pub fn partition(&self, number: u32) -> PathBuf {
        PathBuf::from(format!("{}p{number}", self.0.display()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(Cmd::new("partx").arg("--delete").arg(&self.0).run());
        drop(Cmd::new("losetup").arg("--detach").arg(&self.0).run());
    }
}

/// An installed host: version 1.0.0 confirmed in slot A.
pub struct Host {
    pub machine: Machine,
    pub site: Site,
    pub installed: Release,
    pub firmware: Firmware,
    device: Loop,
    directory: TempDir,
}

/// Whether a disk image can be attached and mounted.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("could not check: attaching and mounting a disk image needs root");
    }
    root
}

pub fn version(text: &str) -> Version {
    text.parse().unwrap()
}

impl Host {
    /// Nothing where it cannot be made: without root a test that needs it checks nothing, and says so.
    pub fn install() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["state", "esp", "trust", "run", "health.d"] {
            fs::create_dir(path(name)).unwrap();
        }
        let device = make_disk(&path("disk.img"));
        for (number, mount) in [(1, "esp"), (6, "state")] {
            let node = device.partition(number);
            Cmd::new("mkfs.ext4").args(["-q", "-F"]).arg(&node).run().unwrap();
            Cmd::new("mount").arg(&node).arg(path(mount)).run().unwrap();
        }
        let site = Site::new();
        fs::write(path("trust/root.json"), &site.root).unwrap();
        fs::copy(common::trust().join("release.asc"), path("trust/release.asc")).unwrap();
        fs::write(path("trust/db.der"), site.db_certificate()).unwrap();
        let machine = Machine {
            disk: Some(device.0.clone()),
            state_mount: path("state"),
            state: path("state/bastide"),
            esp_mount: path("esp"),
            trust: path("trust"),
            release: path("release.json"),
            command_line: path("cmdline"),
            efivars: path("efivars"),
            efibootmgr: path("efibootmgr"),
            health_checks: path("health.d"),
            health_config: path("health.toml"),
            server_certificate: path("server.pem"),
            run: path("run"),
            clock: signing::clock::read,
        };
        let firmware = Firmware::new(&machine.efivars, &machine.efibootmgr);
        let installed = site.release("1.0.0", 1);
        let host = Self {
            machine,
            site,
            installed,
            firmware,
            device,
            directory,
        };
        host.lay_down();
        Some(host)
    }

    fn lay_down(&self) {
        let release = &self.installed;
        fs::create_dir(&self.machine.state).unwrap();
        Datastore::create(&self.machine.datastore(), &self.site.root).unwrap();
        self.pin(&Policy::Vendor);
        let table = self.table();
        for (partition, bytes) in [(2, &release.root), (3, &release.verity)] {
            let mut content = fs::OpenOptions::new()
                .write(true)
                .open(self.device.partition(partition))
                .unwrap();
            std::io::Write::write_all(&mut content, bytes).unwrap();
            content.sync_all().unwrap();
        }
        for (number, guid) in [
            (2, layout::root_guid(&release.root_hash)),
            (3, layout::verity_guid(&release.root_hash)),
        ] {
            let partition = table
                .partitions
                .iter()
                .find(|partition| partition.number == number)
                .unwrap();
            hypervisor::gpt::set_guid(&table.disk, partition, guid).unwrap();
        }
        // Written and put away read-only as the host itself does it.
        let esp = Esp::writable(&self.machine, &table).unwrap();
        for name in [Slot::A.boot_image(), layout::FALLBACK_IMAGE] {
            esp.write(name, &release.xen).unwrap();
        }
        drop(esp);
        assert!(self.esp_is_read_only());
        Slots::installed(release.version, release.root_hash)
            .store(&self.machine.slots_file())
            .unwrap();
        self.firmware.add("0000", "UiApp");
        Cmd::new(&self.machine.efibootmgr)
            .args(["--quiet", "--create-only", "--bootnum", "0003", "--disk"])
            .arg(&table.disk)
            .args(["--part", "1", "--label", "Bastide A"])
            .args(["--loader", Slot::A.boot_loader_path()])
            .run()
            .unwrap();
        self.firmware.set_order(&[3, 0]);
        self.start(release);
    }

    /// The policy and the signed record of it, as the installer leaves them.
    pub fn pin(&self, policy: &Policy) {
        fs::create_dir_all(self.machine.policy()).unwrap();
        fs::write(self.machine.policy().join(POLICY), policy.to_file().unwrap()).unwrap();
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let host_key = key.public().to_pem().unwrap();
        let record = serde_json::json!({"host_key": host_key, "policy": policy}).to_string();
        let place = |name: &str| self.machine.state.join(name);
        fs::write(place("install-record.json"), &record).unwrap();
        signing::durable::write_private(&place("host-key.pem"), &key.to_unencrypted_pem().unwrap()).unwrap();
        fs::write(place("install-record.json.sig"), key.sign(record.as_bytes()).unwrap()).unwrap();
    }

    /// From now on the host demands this site's approval too.
    pub fn pin_site(&self, site: &Site) {
        let directory = self.machine.policy().join(SITE);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("root.json"), &site.root).unwrap();
        fs::copy(site.certificates(), directory.join("release.asc")).unwrap();
        fs::write(directory.join("root.json.asc"), site.countersign(&site.root)).unwrap();
        let site = SiteFiles::read(&directory).unwrap().pinned();
        self.pin(&Policy::VendorAndSite { site });
        Datastore::create(
            &self.machine.site_datastore(),
            &fs::read(directory.join("root.json")).unwrap(),
        )
        .unwrap();
    }

    /// What a start of this release leaves: its command line and its own facts. The firmware clears BootNext first.
    pub fn start(&self, release: &Release) {
        let slot = self.table().slot_holding(&release.root_hash).unwrap();
        self.firmware.start(slot.boot_label());
        fs::write(
            &self.machine.command_line,
            format!("ro bastide.roothash={} bastide.mode=host\n", release.root_hash),
        )
        .unwrap();
        fs::write(&self.machine.release, serde_json::to_vec(&release.facts()).unwrap()).unwrap();
    }

    /// What the firmware would start at a power-on now, by its label.
    pub fn would_start(&self) -> String {
        let next = self.firmware.next();
        self.firmware.label(&next.unwrap_or_else(|| self.order()[0].clone()))
    }

    pub fn order(&self) -> Vec<String> {
        self.firmware.order()
    }

    /// The label of the first entry of the boot order.
    pub fn first(&self) -> String {
        self.firmware.label(&self.order()[0])
    }

    pub fn table(&self) -> Table {
        Table::read(&self.device.0).unwrap()
    }

    pub fn slots(&self) -> Slots {
        Slots::load(&self.machine.slots_file()).unwrap()
    }

    pub fn esp(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.machine.esp_mount.join(name)).ok()
    }

    pub fn esp_is_read_only(&self) -> bool {
        let place = self.machine.esp_mount.to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().any(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            words[1] == place && words[3].split(',').any(|option| option == "ro")
        })
    }

    /// Whether both partitions of a slot hold this release, read past the cache.
    pub fn content_is(&self, slot: Slot, release: &Release) -> bool {
        let partitions = self.table().slot(slot).unwrap();
        [(&partitions.root, &release.root), (&partitions.verity, &release.verity)]
            .iter()
            .all(|(partition, bytes)| {
                let blocks = bytes.len().div_ceil(MIB as usize).to_string();
                let output = Cmd::new("dd")
                    .args(["bs=1M", "iflag=direct", "status=none", &format!("count={blocks}")])
                    .arg(format!("if={}", partition.node.display()))
                    .output()
                    .unwrap();
                output[..bytes.len()] == **bytes
            })
    }

    /// What must hold after any cut: the old release starts and is whole, and the new one is whole wherever anything
    /// takes it for a release.
    pub fn assert_nothing_half(&self, new: &Release) {
        assert_eq!(self.first(), "Bastide A", "the boot order names the old slot first");
        assert!(self.content_is(Slot::A, &self.installed));
        assert_eq!(self.esp(Slot::A.boot_image()).as_ref(), Some(&self.installed.xen));
        assert_eq!(self.esp(layout::FALLBACK_IMAGE).as_ref(), Some(&self.installed.xen));
        let table = self.table();
        assert_eq!(table.slot_holding(&self.installed.root_hash).unwrap(), Slot::A);
        let whole = self.content_is(Slot::B, new);
        let named = table.slot(Slot::B).unwrap().hold(&new.root_hash);
        assert!(whole || !named, "a slot is named by its hash only when it is whole");
        let state = self.slots().get(Slot::B).state;
        assert_ne!(state, State::Confirmed);
        if state == State::Trial || self.would_start() == "Bastide B" {
            assert!(whole && named, "a trial is whole");
            assert_eq!(self.esp(Slot::B.boot_image()).as_ref(), Some(&new.xen));
        }
        if let Some(image) = self.esp(Slot::B.boot_image()) {
            assert_eq!(
                image, new.xen,
                "a boot image stands under its name only when it is whole"
            );
        }
        assert!(self.esp_is_read_only());
    }

    /// What the TUF client remembers, file by file.
    pub fn memory(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(self.machine.datastore())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    /// All that a refused update must leave as it was.
    pub fn fingerprint(&self) -> String {
        format!(
            "{} {:?} {:?} {:?} {:?}",
            self.firmware.fingerprint(),
            self.slots(),
            self.table(),
            self.esp(Slot::A.boot_image()).map(|image| Sha256::of(&image)),
            self.esp(Slot::B.boot_image()).map(|image| Sha256::of(&image)),
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for place in [&self.machine.esp_mount, &self.machine.state_mount] {
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}

fn make_disk(image: &Path) -> Loop {
    let file = fs::File::create(image).unwrap();
    file.set_len(96 * MIB).unwrap();
    let sizes = [16 * MIB, ROOT, VERITY, ROOT, VERITY];
    let mut script = String::from("label: gpt\n");
    for partition in layout::PARTITIONS {
        let size = sizes
            .get(partition.number as usize - 1)
            .map(|size| format!("size={}KiB, ", size >> 10));
        script += &format!(
            "{}name={}, type={}\n",
            size.unwrap_or_default(),
            partition.name,
            partition.kind
        );
    }
    Cmd::new("sfdisk")
        .arg("--quiet")
        .arg(image)
        .input(script)
        .run()
        .unwrap();
    Loop::with_partitions(image)
}

/// A stick with an ext4 file system and these files.
pub fn stick(image: &Path, files: &[(&str, &[u8])]) -> Loop {
    fs::File::create(image).unwrap().set_len(32 * MIB).unwrap();
    let content = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(content.path().join(name), bytes).unwrap();
    }
    Cmd::new("mkfs.ext4")
        .args(["-q", "-F", "-L", layout::BUNDLE_LABEL, "-d"])
        .arg(content.path())
        .arg(image)
        .run()
        .unwrap();
    Loop::of(image)
}

/// A repository as a bundle.
pub fn bundle(repository: &Path) -> Vec<u8> {
    packed(repository, &|_, content| (Packing::Whole, content))
}

/// A repository as a bundle of deltas to a release.
pub fn deltas(repository: &Path, held: &Release) -> Vec<u8> {
    packed(repository, &|path, content| {
        let parts = held.parts();
        let part = parts
            .iter()
            .find(|(part, _)| path.ends_with(&format!(".{}", part.file())));
        let (part, held_bytes) = part.unwrap();
        let base = Base {
            path: format!("{}.x.{}", part.target(held.version), part.file()),
            length: held_bytes.len() as u64,
            sha256: Sha256::of(held_bytes),
        };
        let bases = [(base, Held::Memory(held_bytes.to_vec()))];
        let length = content.len() as u64;
        let mut delta = Vec::new();
        delta::make(&bases, &Held::Memory(content), length, &mut delta, &mut |_| ()).unwrap();
        (Packing::Delta, delta)
    })
}

/// Makes a target's form of its path and content.
type Pack<'a> = dyn Fn(&str, Vec<u8>) -> (Packing, Vec<u8>) + 'a;

fn packed(repository: &Path, pack: &Pack<'_>) -> Vec<u8> {
    let mut writer = BundleWriter::new(Vec::new(), &Manifest::new(Vec::new(), None)).unwrap();
    let mut names: Vec<_> = fs::read_dir(repository.join("metadata"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    for path in names {
        writer
            .metadata(path.file_name().unwrap().to_str().unwrap(), &fs::read(&path).unwrap())
            .unwrap();
    }
    let targets = repository.join("targets");
    for release in fs::read_dir(targets.join("host")).unwrap() {
        for target in fs::read_dir(release.unwrap().path()).unwrap() {
            let place = target.unwrap().path();
            let name = place.strip_prefix(&targets).unwrap().to_str().unwrap().to_owned();
            let (packing, content) = pack(&name, fs::read(&place).unwrap());
            let packed = zstd::encode_all(&content[..], 1).unwrap();
            writer
                .target(&name, packing, None, packed.len() as u64, &mut &packed[..])
                .unwrap();
        }
    }
    writer.finish().unwrap()
}

pub fn healthy() -> Health {
    Health::of(Vec::new())
}

pub fn sick() -> Health {
    let (name, detail) = ("xenstored".into(), "it does not answer".into());
    Health::of(vec![Check {
        name,
        verdict: Verdict::Fail,
        detail,
    }])
}

pub const AT_ONCE: Duration = Duration::ZERO;
