// SPDX-License-Identifier: GPL-3.0-or-later
//! A recorded host by recipe: what the image's own policy sets, as a system that was booted from it shows it.

mod broken;
mod made;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use signing::digest::Sha256;

use super::{part, trust};

pub const SLOT_A: &str = "/boot/efi/EFI/bastide/slot-a.efi";
pub const SLOT_B: &str = "/boot/efi/EFI/bastide/slot-b.efi";
pub const FALLBACK: &str = "/boot/efi/EFI/BOOT/BOOTX64.EFI";
pub const UPPER: &str = "/state/overlay/etc";
const EFI: &str = "/sys/firmware/efi/efivars";
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The image's files and policy, where iso-build has them.
fn image() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../iso-build/image")
}

fn tree(path: &str) -> String {
    fs::read_to_string(image().join("tree").join(path)).unwrap()
}

/// A host that can be tampered with and written down as a recording.
#[derive(Clone)]
pub struct Host {
    answers: BTreeMap<String, Answer>,
}

#[derive(Clone)]
enum Answer {
    Absent,
    Content(Vec<u8>),
    Names(Vec<String>),
    Json(Value),
    Ran(i32, String),
}

impl Host {
    /// A host that runs release 1.0.0 of this repository.
    pub fn of(repository: &Path) -> Self {
        let mut host = Self {
            answers: BTreeMap::new(),
        };
        let policy: toml::Table = fs::read_to_string(image().join("policy.toml"))
            .unwrap()
            .parse()
            .unwrap();
        let line = |key: &str| policy["boot"][key].as_str().unwrap().to_owned();
        let release: Value = {
            let builds = repository.parent().unwrap().join("build-1.0.0/release.json");
            serde_json::from_slice(&fs::read(builds).unwrap()).unwrap()
        };
        let root = release["root_hash"].as_str().unwrap();
        host.command_lines(&line("xen"), &format!("bastide.roothash={root} {}", line("host")));
        host.text("/sys/hypervisor/type", "xen\n");
        host.text("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        host.run(
            "xl dmesg",
            "(XEN) Xen version 4.20.3 (Debian 4.20.3-1) (pkg-xen@lists) (gcc) debug=n\n(XEN) Speculative mitigation\n(XEN) I/O virtualisation enabled\n",
        );
        host.run(
            "xl list",
            "Name  ID  Mem VCPUs State Time(s)\nDomain-0  0  1024  2  r-----  12.0\n",
        );
        host.run(
            "dmsetup table --target verity",
            &format!("root: 0 512 verity 1 /dev/a /dev/b 4096 4096 64 1 sha256 {root} 5a5a 1 panic_on_corruption\n"),
        );
        host.run("dmsetup status --target verity", "root: 0 512 verity V\n");
        host.run(
            "findmnt -n -o SOURCE,FSTYPE,OPTIONS -M /",
            "/dev/mapper/root erofs ro,relatime\n",
        );
        host.kernel();
        host.services(&policy);
        host.accounts();
        host.ssh();
        host.places();
        host.trust(repository);
        host.text("/proc/sys/kernel/hostname", "host-17\n");
        host.text("/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        host
    }

    pub fn text(&mut self, path: &str, text: &str) {
        self.bytes(path, text.as_bytes());
    }

    pub fn bytes(&mut self, path: &str, bytes: &[u8]) {
        self.answers
            .insert(format!("read {path}"), Answer::Content(bytes.to_vec()));
    }

    pub fn absent(&mut self, path: &str) {
        for question in ["read", "list", "stat", "walk all", "walk special"] {
            self.answers.insert(format!("{question} {path}"), Answer::Absent);
        }
    }

    pub fn list(&mut self, path: &str, names: &[&str]) {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        self.answers.insert(format!("list {path}"), Answer::Names(names));
    }

    pub fn run(&mut self, command: &str, output: &str) {
        self.answers
            .insert(format!("run {command}"), Answer::Ran(0, output.to_owned()));
    }

    pub fn fails(&mut self, command: &str) {
        self.answers
            .insert(format!("run {command}"), Answer::Ran(1, String::new()));
    }

    pub fn forget(&mut self, question: &str) {
        self.answers.remove(question);
    }

    /// What a file or program says now.
    pub fn said(&self, question: &str) -> String {
        match &self.answers[question] {
            Answer::Content(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            Answer::Ran(_, output) => output.clone(),
            _ => panic!("{question} has no text"),
        }
    }

    /// Changes what a file or program says.
    pub fn edit(&mut self, question: &str, from: &str, to: &str) {
        let said = self.said(question);
        assert!(said.contains(from), "{question} has no {from:?}: {said}");
        let changed = said.replace(from, to);
        match self.answers.get_mut(question) {
            Some(Answer::Content(bytes)) => *bytes = changed.into_bytes(),
            Some(Answer::Ran(_, output)) => *output = changed,
            _ => unreachable!(),
        }
    }

    pub fn stat(&mut self, path: &str, kind: &str, mode: u32, uid: u32) {
        let found = json!({ "path": path, "kind": kind, "mode": mode, "uid": uid, "gid": 0, "size": 0 });
        self.answers.insert(
            format!("stat {path}"),
            Answer::Json(json!({ "is": "found", "found": found })),
        );
    }

    pub fn walk(&mut self, what: &str, path: &str, entries: &[Value]) {
        self.answers.insert(
            format!("walk {what} {path}"),
            Answer::Json(json!({ "is": "walked", "entries": entries })),
        );
    }

    /// A file as a walk finds it.
    pub fn entry(path: &str, kind: &str, mode: u32, content: &[u8]) -> Value {
        let sha256 = (kind == "file").then(|| Sha256::of(content));
        json!({ "path": path, "kind": kind, "mode": mode, "uid": 0, "gid": 0, "size": content.len(), "sha256": sha256 })
    }

    /// Adds an entry to a walk.
    pub fn found(&mut self, what: &str, path: &str, entry: Value) {
        match self.answers.get_mut(&format!("walk {what} {path}")) {
            Some(Answer::Json(walk)) => walk["entries"].as_array_mut().unwrap().push(entry),
            _ => panic!("no walk of {path}"),
        }
    }

    /// Sets the running command lines and those of the signed image.
    pub fn command_lines(&mut self, xen: &str, kernel: &str) {
        self.running_lines(xen, kernel);
        self.signed_lines(xen, kernel);
    }

    pub fn running_lines(&mut self, xen: &str, kernel: &str) {
        // As Xen hands it on: after the name of the section.
        self.text("/proc/cmdline", &format!("kernel {kernel}\n"));
        self.run(
            "xl info",
            &format!("host : host-17\nxen_major              : 4\nxen_minor : 20\nxen_extra : .3\nxen_commandline        : {xen}\n"),
        );
    }

    pub fn signed_lines(&mut self, xen: &str, kernel: &str) {
        let config =
            format!("[global]\ndefault=bastide\n\n[bastide]\noptions={xen}\nkernel=vmlinuz {kernel}\nramdisk=initrd\n");
        self.answers.insert(
            format!("section .config {SLOT_A}"),
            Answer::Content(config.into_bytes()),
        );
        self.answers.insert(format!("section .config {SLOT_B}"), Answer::Absent);
    }

    pub fn lines(&self) -> (String, String) {
        let info = self.said("run xl info");
        let xen = info
            .lines()
            .find_map(|line| line.strip_prefix("xen_commandline        : "))
            .unwrap();
        let kernel = self.said("read /proc/cmdline");
        (xen.to_owned(), kernel.trim().trim_start_matches("kernel ").to_owned())
    }

    /// Writes the recording.
    pub fn record(&self, directory: &Path) {
        fs::create_dir_all(directory.join("files")).unwrap();
        let mut number = 0;
        let mut keep = |bytes: &[u8]| {
            number += 1;
            let file = format!("files/{number}");
            fs::write(directory.join(&file), bytes).unwrap();
            file
        };
        let answers: BTreeMap<&String, Value> = self
            .answers
            .iter()
            .map(|(question, answer)| {
                let answer = match answer {
                    Answer::Absent => json!({ "is": "absent" }),
                    Answer::Content(bytes) => json!({ "is": "content", "file": keep(bytes) }),
                    Answer::Names(names) => json!({ "is": "names", "names": names }),
                    Answer::Json(value) => value.clone(),
                    Answer::Ran(code, output) => {
                        json!({ "is": "ran", "code": code, "stdout": keep(output.as_bytes()), "stderr": keep(b"") })
                    }
                };
                (question, answer)
            })
            .collect();
        let index = json!({ "format": 1, "answers": answers });
        fs::write(directory.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    }
}
