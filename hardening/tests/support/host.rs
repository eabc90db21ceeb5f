// SPDX-License-Identifier: GPL-3.0-or-later
//! A recorded host by recipe: what the image's own policy sets, as a system that was booted from it shows it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hardening::profile::{AccountRule, Expect, Profile, Rule};
use serde_json::{Value, json};
use signing::digest::Sha256;
use signing::release::Part;
use signing::tuf::{Client, Datastore, DirectorySource, Limits};

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

    fn kernel(&mut self) {
        let conf = tree("etc/sysctl.d/60-bastide.conf");
        for line in conf.lines().filter(|line| line.contains('=') && !line.starts_with('#')) {
            let (key, value) = line.split_once('=').unwrap();
            self.text(
                &format!("/proc/sys/{}", key.trim().replace('.', "/")),
                &format!("{}\n", value.trim()),
            );
        }
        self.text("/etc/sysctl.d/60-bastide.conf", &conf);
        self.list("/etc/sysctl.d", &["60-bastide.conf"]);
        self.absent("/usr/local/lib/sysctl.d");
        self.text(
            "/usr/lib/sysctl.d/50-default.conf",
            "# Debian\nkernel.sysrq = 438\nnet.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.all.rp_filter\n",
        );
        self.list("/usr/lib/sysctl.d", &["50-default.conf"]);
        self.text("/etc/modprobe.d/bastide.conf", &tree("etc/modprobe.d/bastide.conf"));
        self.list("/etc/modprobe.d", &["bastide.conf"]);
        self.absent("/usr/local/lib/modprobe.d");
        self.absent("/usr/lib/modprobe.d");
        self.text("/proc/modules", "erofs 1 1 - Live 0x0\ndm_verity 1 1 - Live 0x0\n");
        self.text("/proc/sys/kernel/osrelease", "6.12.1-amd64\n");
        // The image carries one of the unwanted, as a package may bring it; modprobe.d bars it.
        self.text(
            "/usr/lib/modules/6.12.1-amd64/modules.dep",
            "kernel/fs/erofs/erofs.ko:\nkernel/net/sctp/sctp.ko: kernel/lib/x.ko\n",
        );
        self.absent("/lib/modules/6.12.1-amd64/modules.dep");
        self.text("/proc/sys/kernel/tainted", "0\n");
    }

    /// Sets what systemd says of a unit.
    pub fn unit(&mut self, unit: &str, load: &str, active: &str, file: &str, wanted_by: &str) {
        let command =
            format!("systemctl show --no-pager -p LoadState,ActiveState,SubState,UnitFileState,WantedBy {unit}");
        let text =
            format!("LoadState={load}\nActiveState={active}\nSubState=x\nUnitFileState={file}\nWantedBy={wanted_by}\n");
        self.run(&command, &text);
    }

    fn services(&mut self, policy: &toml::Table) {
        self.run("systemctl list-units --failed --plain --no-legend --no-pager", "");
        self.run(
            "ss -H -l -n -t -u -p",
            "tcp   LISTEN 0      128          0.0.0.0:22        0.0.0.0:*    users:((\"sshd\",pid=1,fd=3))\n\
             tcp   LISTEN 0      128             [::]:22           [::]:*    users:((\"sshd\",pid=1,fd=4))\n",
        );
        // What the image's policy starts is running; what it masks is masked; the rest is not installed.
        let list = |value: &toml::Value| -> Vec<String> {
            value
                .as_array()
                .into_iter()
                .flatten()
                .map(|unit| unit.as_str().unwrap().to_owned())
                .collect()
        };
        let units = policy["units"].as_table().unwrap();
        let wanted: Vec<String> = units["wants"].as_table().unwrap().values().flat_map(list).collect();
        let masked: Vec<String> = units["mask"].as_table().unwrap().values().flat_map(list).collect();
        for check in &Profile::shipped("base").unwrap().checks {
            if let Rule::Unit { unit, .. } = &check.rule {
                if wanted.contains(unit) {
                    self.unit(unit, "loaded", "active", "static", "multi-user.target");
                } else if masked.contains(unit) {
                    self.unit(unit, "masked", "inactive", "masked", "");
                } else {
                    self.unit(unit, "not-found", "inactive", "", "");
                }
            }
        }
    }

    fn accounts(&mut self) {
        self.text(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin:/usr/sbin/nologin\nsync:x:4:65534::/bin:/bin/sync\nsshd:x:990:65534::/run/sshd:/usr/sbin/nologin\n",
        );
        self.text(
            "/etc/shadow",
            "root:*:20000:0:99999:7:::\ndaemon:*:20000:0:99999:7:::\nsync:*:20000:0:99999:7:::\nsshd:!:20000::::::\n",
        );
    }

    fn ssh(&mut self) {
        // What `sshd -T` makes of the image's file: names in small letters.
        let lines = tree("etc/ssh/sshd_config")
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains(' '))
            .fold(String::new(), |mut text, line| {
                let (name, value) = line.split_once(' ').unwrap();
                text.push_str(&format!("{} {value}\n", name.to_lowercase()));
                text
            });
        self.run("/usr/sbin/sshd -T", &lines);
    }

    fn places(&mut self) {
        let mounts = [
            ("/", "ro,nosuid,nodev,relatime", "erofs"),
            ("/proc", "rw,nosuid,nodev,noexec,relatime", "proc"),
            ("/sys", "rw,nosuid,nodev,noexec,relatime", "sysfs"),
            ("/dev/shm", "rw,nosuid,nodev", "tmpfs"),
            ("/tmp", "rw,nosuid,nodev", "tmpfs"),
            ("/state", "rw,nosuid,nodev,noexec,relatime", "ext4"),
            ("/etc", "rw,nosuid,nodev,relatime", "overlay"),
            ("/var", "rw,nosuid,nodev,noexec,relatime", "overlay"),
        ];
        let lines: String = mounts
            .iter()
            .map(|(point, options, kind)| format!("20 1 0:1 / {point} {options} shared:1 - {kind} none rw\n"))
            .collect();
        self.text("/proc/self/mountinfo", &lines);
        self.absent("/etc/fstab");
        for check in &Profile::shipped("base").unwrap().checks {
            if let Rule::Permission { path, uid, at_most, .. } = &check.rule {
                self.stat(path, "file", u32::from_str_radix(at_most, 8).unwrap(), *uid);
            }
        }
        for tree in ["/etc", "/var", "/state", "/root"] {
            self.walk("special", tree, &[]);
        }
        let root = [Self::entry("/tmp", "directory", 0o1777, b"")];
        self.walk("special", "/", &root);
        let upper = [
            Self::entry(&format!("{UPPER}/hostname"), "file", 0o644, b"host-17\n"),
            Self::entry(&format!("{UPPER}/ssh"), "directory", 0o755, b""),
            Self::entry(&format!("{UPPER}/ssh/ssh_host_ed25519_key"), "file", 0o600, b"key"),
        ];
        self.walk("all", UPPER, &upper);
    }

    fn trust(&mut self, repository: &Path) {
        let read = |path: PathBuf| fs::read(path).unwrap();
        let store = "/state/bastide/datastore";
        // What the client of a host keeps, made by that client.
        let directory = tempfile::tempdir().unwrap();
        let kept = Datastore::create(directory.path(), &read(trust().join("root.json"))).unwrap();
        let source = DirectorySource::below(repository);
        Client::open(kept, source, Limits::default(), signing::clock::now())
            .unwrap()
            .targets()
            .unwrap();
        let mut names: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in &names {
            self.bytes(&format!("{store}/{name}"), &read(directory.path().join(name)));
        }
        self.list(store, &names.iter().map(String::as_str).collect::<Vec<_>>());
        self.bytes("/usr/share/bastide/trust/root.json", &read(trust().join("root.json")));
        self.list(EFI, &["SecureBoot"]);
        self.bytes(&format!("{EFI}/SecureBoot-{GLOBAL}"), &[6, 0, 0, 0, 1]);
        self.bytes(&format!("{EFI}/SetupMode-{GLOBAL}"), &[6, 0, 0, 0, 0]);
        for (name, file, guid) in [
            ("PK", "pk.der", GLOBAL),
            ("KEK", "kek.der", GLOBAL),
            ("db", "db.der", "d719b2cb-3d3a-4596-a3bc-dad00e67656f"),
        ] {
            self.bytes(&format!("{EFI}/{name}-{guid}"), &variable(&read(trust().join(file))));
        }
        let xen = read(part(repository, "1.0.0", Part::Xen));
        let entries: Vec<Value> = [SLOT_A, FALLBACK]
            .iter()
            .map(|path| Self::entry(path, "file", 0o755, &xen))
            .collect();
        self.walk("all", "/boot/efi", &entries);
        let db = Sha256::of(&read(trust().join("db.der")));
        for path in [SLOT_A, FALLBACK] {
            self.answers.insert(
                format!("signature {db} {path}"),
                Answer::Json(json!({ "is": "signed", "by": "Test db" })),
            );
        }
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

    /// Every way to break a rule, each a host of its own with the words that the verdict must have.
    pub fn broken(&self, rule: &Rule) -> Vec<(Self, &'static str)> {
        let with = |text: &'static str, change: &dyn Fn(&mut Self)| {
            let mut host = self.clone();
            change(&mut host);
            (host, text)
        };
        match rule {
            Rule::Sysctl { key, expect } => {
                let running = format!("/proc/sys/{}", key.replace('.', "/"));
                let wrong = wrong(expect);
                let own = "read /etc/sysctl.d/60-bastide.conf";
                vec![
                    with("must be", &|host| host.text(&running, &wrong)),
                    with("at the next boot", &|host| {
                        let kept: String = host
                            .said(own)
                            .lines()
                            .filter(|line| !line.starts_with(key.as_str()))
                            .map(|line| format!("{line}\n"))
                            .collect();
                        host.text("/etc/sysctl.d/60-bastide.conf", &kept);
                    }),
                    with("at the next boot", &|host| {
                        host.list("/etc/sysctl.d", &["60-bastide.conf", "99-late.conf"]);
                        host.text(
                            "/etc/sysctl.d/99-late.conf",
                            &format!("{} = {wrong}\n", key.replace('.', "/")),
                        );
                    }),
                ]
            }
            Rule::KernelArgument { name, expect } => {
                let bad = |line: &str| replaced(line, name, expect);
                vec![
                    with("running command line", &|host| {
                        let (xen, kernel) = host.lines();
                        host.command_lines(&xen, &bad(&kernel));
                    }),
                    with("in the boot image on the disk", &|host| {
                        let (xen, kernel) = host.lines();
                        host.signed_lines(&xen, &bad(&kernel));
                    }),
                ]
            }
            Rule::XenArgument { name, expect } => {
                let bad = |line: &str| replaced(line, name, expect);
                vec![
                    with("running command line", &|host| {
                        let (xen, kernel) = host.lines();
                        host.command_lines(&bad(&xen), &kernel);
                    }),
                    with("in the boot image on the disk", &|host| {
                        let (xen, kernel) = host.lines();
                        host.signed_lines(&bad(&xen), &kernel);
                    }),
                ]
            }
            Rule::CommandLinesAreSigned => vec![
                with("no signature covers", &|host| {
                    let (xen, kernel) = host.lines();
                    host.running_lines(&format!("{xen} spec-ctrl=no"), &kernel);
                }),
                with("was not given", &|host| {
                    let (xen, kernel) = host.lines();
                    host.running_lines(&xen, kernel.rsplit_once(' ').unwrap().0);
                }),
            ],
            Rule::XenVersion { .. } => vec![with("must be", &|host| {
                host.edit("run xl info", "xen_minor : 20", "xen_minor : 19")
            })],
            Rule::XenLogLacks { texts } => vec![with("the hypervisor says", &|host| {
                host.edit("run xl dmesg", "(XEN) Spec", &format!("(XEN) {}\n(XEN) Spec", texts[0]));
            })],
            Rule::XenLogHas { text } => vec![with("has no line", &|host| host.edit("run xl dmesg", text, "debug=y"))],
            Rule::Iommu => vec![with("does not use it", &|host| {
                host.edit("run xl dmesg", "virtualisation enabled", "virtualisation disabled");
                host.list("/sys/firmware/acpi/tables", &["DMAR", "FACP"]);
            })],
            Rule::XenToolstack => vec![with("no domain 0", &|host| host.run("xl list", "Name ID\n"))],
            Rule::File { path, expect } => vec![with("must be", &|host| host.text(path, &wrong(expect)))],
            Rule::SecureBoot => vec![
                with("off", &|host| {
                    host.bytes(&format!("{EFI}/SecureBoot-{GLOBAL}"), &[6, 0, 0, 0, 0])
                }),
                with("setup mode", &|host| {
                    host.bytes(&format!("{EFI}/SetupMode-{GLOBAL}"), &[6, 0, 0, 0, 1])
                }),
            ],
            Rule::Verity => vec![
                with("no dm-verity device", &|host| {
                    host.run("dmsetup table --target verity", "")
                }),
                with("corruption was seen", &|host| {
                    host.edit("run dmsetup status --target verity", "verity V", "verity C")
                }),
                with("does not stop", &|host| {
                    host.edit("run dmsetup table --target verity", "1 panic_on_corruption", "")
                }),
            ],
            Rule::ModulesAbsent { modules } => {
                let module = modules[0].replace('-', "_");
                vec![
                    with("is loaded", &|host| {
                        host.text("/proc/modules", &format!("{module} 1 1 - Live 0x0\n"))
                    }),
                    with("can be loaded", &|host| {
                        host.text(
                            "/usr/lib/modules/6.12.1-amd64/modules.dep",
                            &format!("kernel/{module}.ko.xz:\n"),
                        );
                        host.text("/etc/modprobe.d/bastide.conf", &format!("blacklist {module}\n"));
                    }),
                ]
            }
            Rule::Unit { unit, runs: true } => vec![
                with("must run", &|host| {
                    host.unit(unit, "loaded", "failed", "static", "multi-user.target")
                }),
                with("nothing starts it", &|host| {
                    host.unit(unit, "loaded", "active", "disabled", "")
                }),
            ],
            Rule::Unit { unit, runs: false } => vec![
                with("must not run", &|host| {
                    host.unit(unit, "loaded", "active", "disabled", "")
                }),
                with("starts at the next boot", &|host| {
                    host.unit(unit, "loaded", "inactive", "enabled", "multi-user.target")
                }),
            ],
            Rule::NoFailedUnits => vec![with("failed", &|host| {
                host.run(
                    "systemctl list-units --failed --plain --no-legend --no-pager",
                    "auditd.service loaded failed failed Audit\n",
                );
            })],
            Rule::Sockets { .. } => vec![with("nc on 0.0.0.0", &|host| {
                host.edit(
                    "run ss -H -l -n -t -u -p",
                    "tcp",
                    "tcp   LISTEN 0 1 0.0.0.0:4444 0.0.0.0:* users:((\"nc\",pid=9,fd=3))\ntcp",
                );
            })],
            Rule::Accounts { must } => vec![self.broken_accounts(*must)],
            Rule::Sshd { option, expect } => vec![with("must be", &|host| {
                let kept: String = host
                    .said("run /usr/sbin/sshd -T")
                    .lines()
                    .filter(|line| !line.starts_with(&format!("{option} ")))
                    .map(|line| format!("{line}\n"))
                    .collect();
                host.run("/usr/sbin/sshd -T", &format!("{kept}{option} {}\n", wrong(expect)));
            })],
            Rule::SshdLacks { option, algorithms } => vec![with("offers", &|host| {
                host.edit(
                    "run /usr/sbin/sshd -T",
                    &format!("{option} "),
                    &format!("{option} {},", algorithms[0]),
                );
            })],
            Rule::Mount { point, options, .. } => vec![
                with("no ", &|host| {
                    let changed: String = host
                        .said("read /proc/self/mountinfo")
                        .lines()
                        .map(|line| {
                            if line.contains(&format!(" {point} ")) {
                                line.replace(options[0].as_str(), "x") + "\n"
                            } else {
                                format!("{line}\n")
                            }
                        })
                        .collect();
                    host.text("/proc/self/mountinfo", &changed);
                }),
                with("not a mount", &|host| host.text("/proc/self/mountinfo", "")),
                with("its line in /etc/fstab", &|host| {
                    host.text("/etc/fstab", &format!("none {point} x rw 0 0\n"))
                }),
            ],
            Rule::Permission {
                path, uid, optional, ..
            } => {
                let mut hosts = vec![
                    with("at most", &|host| host.stat(path, "file", 0o777, *uid)),
                    with("must belong", &|host| host.stat(path, "file", 0o400, 1000)),
                    with("is a link", &|host| host.stat(path, "link", 0o400, *uid)),
                ];
                if !optional {
                    hosts.push(with("not there", &|host| host.absent(path)));
                }
                hosts
            }
            Rule::Setuid { .. } => vec![with("/var/lib/evil", &|host| {
                host.found("special", "/var", Self::entry("/var/lib/evil", "file", 0o4755, b""))
            })],
            Rule::WorldWritable { .. } => vec![
                with("/etc/cron.d/x", &|host| {
                    host.found("special", "/etc", Self::entry("/etc/cron.d/x", "file", 0o666, b""))
                }),
                with("/srv", &|host| {
                    host.found("special", "/", Self::entry("/srv", "directory", 0o1777, b""))
                }),
            ],
            Rule::NotHere { .. } => Vec::new(),
        }
    }

    fn broken_accounts(&self, must: AccountRule) -> (Self, &'static str) {
        let mut host = self.clone();
        let (passwd, shadow) = ("read /etc/passwd", "read /etc/shadow");
        let text = match must {
            AccountRule::OnlyRootIsZero => {
                host.edit(passwd, "daemon:x:1:", "daemon:x:0:");
                "daemon"
            }
            AccountRule::NoEmptyPassword => {
                host.edit(shadow, "daemon:*:", "daemon::");
                "daemon"
            }
            AccountRule::PasswordsLocked => {
                host.edit(shadow, "root:*:", "root:$y$j9T$x$y:");
                "root"
            }
            AccountRule::ServiceShells => {
                host.edit(passwd, "/run/sshd:/usr/sbin/nologin", "/run/sshd:/bin/sh");
                "sshd"
            }
            AccountRule::Unique => {
                host.edit(passwd, "daemon:x:1:", "daemon:x:990:");
                "user id 990"
            }
            AccountRule::Shadowed => {
                host.edit(passwd, "daemon:x:", "daemon:abc:");
                "daemon"
            }
        };
        (host, text)
    }
}

/// A value that is not what it must be.
fn wrong(expect: &Expect) -> String {
    match expect {
        Expect::AtLeast(least) => (least - 1).to_string(),
        Expect::AtMost(most) => (most + 1).to_string(),
        Expect::NoneOf(texts) => texts[0].clone(),
        _ => "7".to_owned(),
    }
}

/// A command line in which a parameter is not what it must be.
fn replaced(line: &str, name: &str, expect: &Expect) -> String {
    let others: Vec<&str> = line
        .split(' ')
        .filter(|word| word.split('=').next() != Some(name))
        .collect();
    match expect {
        Expect::Present => others.join(" "),
        Expect::Absent => format!("{} {name}=1", others.join(" ")),
        expect => format!("{} {name}={}", others.join(" "), wrong(expect)),
    }
}

/// A UEFI variable with one certificate: attributes, then one signature list.
fn variable(der: &[u8]) -> Vec<u8> {
    let certificate = signing::secureboot::Certificate::from_der(der).unwrap();
    let owner = signing::secureboot::Guid([7; 16]);
    let mut bytes = vec![39, 0, 0, 0];
    bytes.extend(signing::secureboot::signature_list(owner, &certificate).unwrap());
    bytes
}
