// SPDX-License-Identifier: GPL-3.0-or-later
//! What a host shows when it runs as the image makes it.

use std::fs;
use std::path::{Path, PathBuf};

use hardening::profile::{Profile, Rule};
use serde_json::{Value, json};
use signing::digest::Sha256;
use signing::release::Part;
use signing::tuf::{Client, Datastore, DirectorySource, Limits};

use super::super::{part, trust};
use super::{Answer, EFI, FALLBACK, GLOBAL, Host, SLOT_A, SLOT_B, UPPER, tree};

/// Where the image has its trust directory.
const TRUST: &str = "/usr/share/bastide/trust";

impl Host {
    pub(super) fn kernel(&mut self) {
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

    pub(super) fn services(&mut self, policy: &toml::Table) {
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

    pub(super) fn accounts(&mut self) {
        self.text(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin:/usr/sbin/nologin\nsync:x:4:65534::/bin:/bin/sync\nsshd:x:990:65534::/run/sshd:/usr/sbin/nologin\n",
        );
        self.text(
            "/etc/shadow",
            "root:*:20000:0:99999:7:::\ndaemon:*:20000:0:99999:7:::\nsync:*:20000:0:99999:7:::\nsshd:!:20000::::::\n",
        );
    }

    pub(super) fn ssh(&mut self) {
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

    pub(super) fn places(&mut self) {
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

    /// The trust directory that the image was built with.
    pub fn image_trust(&mut self, directory: &Path) {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in &names {
            self.bytes(&format!("{TRUST}/{name}"), &fs::read(directory.join(name)).unwrap());
        }
        self.list(TRUST, &names.iter().map(String::as_str).collect::<Vec<_>>());
    }

    pub(super) fn trust(&mut self, repository: &Path) {
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
        self.text("/state/bastide/trust/policy.json", "{\"demands\": \"vendor\"}\n");
        self.image_trust(&trust());
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
}

/// A UEFI variable with one certificate: attributes, then one signature list.
fn variable(der: &[u8]) -> Vec<u8> {
    let certificate = signing::secureboot::Certificate::from_der(der).unwrap();
    let owner = signing::secureboot::Guid([7; 16]);
    let mut bytes = vec![39, 0, 0, 0];
    bytes.extend(signing::secureboot::signature_list(owner, &certificate).unwrap());
    bytes
}
