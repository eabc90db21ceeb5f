// SPDX-License-Identifier: GPL-3.0-or-later
//! A real medium in directories, real disks as loop devices, and the program itself.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../signing/tests/common/mod.rs"]
pub mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use chrono::Duration;
use common::Said;
use installer::steps::Event;
use signing::clock;
use signing::digest::Sha256;
use signing::process::Cmd;
use signing::release::{Custom, Part};
use signing::site::Site;
use signing::tuf::repository::Repository;
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_bastide-install");
pub const SERIAL: &str = "disk-1.img";
pub const DISK_SIZE: u64 = 8 << 30;
pub const ROOT_SIZE: usize = 3 << 20;

/// Loop devices need root. Without it these tests cannot check anything, and say so.
pub fn can_check() -> bool {
    let able = nix::unistd::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !able {
        eprintln!("could not check: loop devices need root");
    }
    able
}

/// A medium: metadata made by the real author code, targets of real names, the trust directory beside it.
pub struct Medium {
    pub directory: TempDir,
    pub parts: BTreeMap<Part, Vec<u8>>,
}

impl Medium {
    /// A copy of the one that all tests share, which may be altered.
    pub fn new() -> Self {
        Self::of("installer", common::site())
    }

    /// A medium of another site, whole in itself.
    pub fn foreign() -> Self {
        Self::of("installer-foreign", &common::other_site())
    }

    fn of(name: &str, site: &Path) -> Self {
        let sources = ["signing/src", "installer/tests/support"];
        let shared = common::shared(name, &sources, |place| publish(place, &Site::open(site).unwrap()));
        let directory = tempfile::tempdir().unwrap();
        common::copy(&shared, directory.path());
        Self {
            parts: parts(),
            directory,
        }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The only file of a part among the targets.
    pub fn target(&self, part: Part) -> PathBuf {
        let ending = format!(".{}", part.file());
        fs::read_dir(self.at("targets/host/1.0.0"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.to_string_lossy().ends_with(&ending))
            .unwrap()
    }

    pub fn answer(&self, name: &str, lines: &str) -> PathBuf {
        let place = self.at(name);
        fs::write(&place, answer(lines)).unwrap();
        place
    }

    /// The program, looking at these devices only.
    pub fn program(&self, command: &str, devices: &[&Path]) -> Cmd {
        Cmd::new(PROGRAM).args(self.line(command, devices).split(' '))
    }

    /// The words of that command line.
    pub fn line(&self, command: &str, devices: &[&Path]) -> String {
        let mut line = format!("{command} --other-machine");
        for (option, name) in [
            ("--medium", "medium"),
            ("--targets", "targets"),
            ("--trust", "trust"),
            ("--release", "no-release.json"),
            ("--work", "memory/work"),
        ] {
            line += &format!(" {option} {}", self.at(name).display());
        }
        for device in devices {
            line += &format!(" --device {}", device.display());
        }
        line
    }
}

/// Makes the medium's directories.
fn publish(place: &Path, site: &Site) {
    let passphrase = &common::passphrase();
    let now = clock::now();
    let repository = place.join("medium/bastide");
    fs::create_dir_all(&repository).unwrap();
    let root = fs::read(site.trust_dir().join("root.json")).unwrap();
    let mut repo = Repository::create(&repository, &root).unwrap();
    let version = "1.0.0".parse().unwrap();
    for (part, bytes) in &parts() {
        let file = place.join(part.file());
        fs::write(&file, bytes).unwrap();
        let custom = Custom {
            version,
            channel: "stable".into(),
            part: *part,
            root_hash: Sha256::of(b"root hash"),
            size: bytes.len() as u64,
        };
        let serde_json::Value::Object(custom) = serde_json::to_value(custom).unwrap() else {
            panic!("custom is an object");
        };
        repo.add_file(&part.target(version), &file, Some(custom)).unwrap();
    }
    site.publish(&mut repo, passphrase, now + Duration::days(20), now)
        .unwrap();
    let name = "1.root.json.asc";
    fs::copy(site.metadata_dir().join(name), repository.join("metadata").join(name)).unwrap();
    fs::rename(repository.join("targets"), place.join("targets")).unwrap();
    common::copy(&site.trust_dir(), &place.join("trust"));
}

/// An answer for the test's disk with more lines of its `[disk]`.
pub fn answer(lines: &str) -> String {
    format!(
        "[disk]\nserial = \"{SERIAL}\"\n{lines}\n[network]\nhostname = \"rack1\"\n[admin]\nssh_keys = [\"{}\"]\n",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1tIxyC1d0vW4UeYnLcoaPyPzPbzKgYqFbXnQ3gVdGb admin@site"
    )
}

fn parts() -> BTreeMap<Part, Vec<u8>> {
    let fill = |seed: u8, size: usize| -> Vec<u8> {
        let mut block = Sha256::of(&[seed]).0;
        let mut bytes = Vec::with_capacity(size + 32);
        while bytes.len() < size {
            bytes.extend_from_slice(&block);
            block = Sha256::of(&block).0;
        }
        bytes.truncate(size);
        bytes
    };
    Part::ALL
        .into_iter()
        .zip(1..)
        .map(|(part, seed)| match part {
            Part::Root => (part, fill(seed, ROOT_SIZE)),
            Part::Verity => (part, fill(seed, 4096 * 9)),
            // A length that is no multiple of a sector.
            Part::Xen => (part, fill(seed, 1_234_567)),
            _ => (part, fill(seed, 5000)),
        })
        .collect()
}

/// A disk: a loop device over a sparse file, whose name is its serial number.
pub struct Disk {
    directory: TempDir,
    pub node: PathBuf,
}

impl Disk {
    pub fn new() -> Self {
        Self::of_size(SERIAL, DISK_SIZE)
    }

    pub fn of_size(name: &str, size: u64) -> Self {
        Self::of_sectors(name, size, 512)
    }

    pub fn of_sectors(name: &str, size: u64, sector: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(name);
        File::create(&file).unwrap().set_len(size).unwrap();
        let output = Cmd::new("losetup")
            .args(["--find", "--show", "--sector-size", &sector.to_string()])
            .arg(&file)
            .output()
            .unwrap();
        let node = PathBuf::from(String::from_utf8(output).unwrap().trim());
        Self { directory, node }
    }

    /// Every read of it fails from now on: its file has no bytes any more.
    pub fn fail(&self) {
        let file = fs::read_dir(self.directory.path()).unwrap().next().unwrap().unwrap();
        File::create(file.path()).unwrap();
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(&self.node).unwrap();
        file.write_all_at(bytes, offset).unwrap();
        file.sync_all().unwrap();
    }

    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        File::open(&self.node)
            .unwrap()
            .read_exact_at(&mut bytes, offset)
            .unwrap();
        bytes
    }

    /// Partitions the disk in these sizes (in MiB) and lets the kernel know.
    pub fn divide(&self, sizes: &[u32]) -> Vec<PathBuf> {
        let mut script = String::from("label: gpt\n");
        for size in sizes {
            script += &format!("size={size}MiB\n");
        }
        Cmd::new("sfdisk")
            .args(["--quiet", "--no-reread", "--no-tell-kernel"])
            .arg(&self.node)
            .input(script)
            .run()
            .unwrap();
        Cmd::new("partx").arg("--add").arg(&self.node).run().unwrap();
        (1..=sizes.len())
            .map(|number| PathBuf::from(format!("{}p{number}", self.node.display())))
            .collect()
    }

    /// Start and size of each partition with its type, as sfdisk reads them.
    pub fn partitions(&self) -> Vec<(String, String, u64, u64)> {
        let Ok(output) = Cmd::new("sfdisk").arg("--json").arg(&self.node).output() else {
            return Vec::new();
        };
        let table: serde_json::Value = serde_json::from_slice(&output).unwrap();
        let entries = table["partitiontable"]["partitions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let sector = table["partitiontable"]["sectorsize"].as_u64().unwrap();
        entries
            .iter()
            .map(|entry| {
                let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
                let bytes = |key: &str| entry[key].as_u64().unwrap() * sector;
                (text("name"), text("type").to_lowercase(), bytes("start"), bytes("size"))
            })
            .collect()
    }

    pub fn partition(&self, name: &str) -> (u64, u64) {
        self.partitions()
            .into_iter()
            .find_map(|(own, _, start, size)| (own == name).then_some((start, size)))
            .unwrap()
    }

    /// A file of the EFI system partition, if there is such a partition and such a file.
    pub fn esp_file(&self, name: &str) -> Option<Vec<u8>> {
        let esp = hypervisor::layout::ESP_TYPE;
        let (.., start, _) = self.partitions().into_iter().find(|(_, kind, ..)| kind == esp)?;
        Cmd::new("mcopy")
            .args(["-i", &format!("{}@@{start}", self.node.display())])
            .args([&format!("::/{name}"), "-"])
            .output()
            .ok()
    }

    /// Whether firmware finds something that it would start.
    pub fn boots(&self) -> bool {
        [
            "EFI/BOOT/BOOTX64.EFI",
            "EFI/bastide/slot-a.efi",
            "EFI/bastide/slot-b.efi",
        ]
        .iter()
        .any(|name| self.esp_file(name).is_some())
    }

    /// What debugfs says to a request about the state partition.
    pub fn state(&self, request: &str) -> Vec<u8> {
        let (start, _) = self.partition("bastide-state");
        Cmd::new("debugfs")
            .args(["-R", request])
            .arg(format!("{}?offset={start}", self.node.display()))
            .output()
            .unwrap()
    }

    pub fn state_text(&self, request: &str) -> String {
        String::from_utf8(self.state(request)).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Cmd::new("partx").arg("--delete").arg(&self.node).run());
        drop(Cmd::new("losetup").arg("--detach").arg(&self.node).run());
    }
}

pub fn run(cmd: Cmd) -> Said {
    Said::of(cmd)
}

/// A running installation whose events are read as they come.
pub struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<Box<dyn Read + Send>>>,
}

impl Running {
    pub fn start(cmd: Cmd) -> Self {
        let mut child = cmd.spawn(Stdio::piped(), Stdio::null()).unwrap();
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
        Self {
            child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// Kills the program at the first event that fits; false when it ended before.
    pub fn kill_at(mut self, fits: impl Fn(&Event) -> bool) -> bool {
        while let Some(Ok(line)) = self.lines.next() {
            // Another line is the error of a run that failed by itself: it says why.
            let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if fits(&event) {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                return true;
            }
        }
        self.child.wait().unwrap();
        false
    }
}
