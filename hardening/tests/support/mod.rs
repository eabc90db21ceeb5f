// SPDX-License-Identifier: GPL-3.0-or-later
//! What the tests of this crate are made of: a site, an upstream with its own key, signed releases, and media.
//! Everything is made by the code that makes the real thing; only sizes are small.

#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::panic)]

pub mod agree;
#[path = "../../../signing/tests/common/mod.rs"]
pub mod common;

#[path = "../../../signing/tests/common/archive.rs"]
mod archive;
pub mod host;
#[path = "../../../signing/tests/common/insider.rs"]
mod insider;
pub mod medium;
pub mod office;
pub mod rotation;
pub mod world;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chrono::{DateTime, Duration, Utc};
pub use common::{Said, boot_image, copy, flip, passphrase, trust};
use hardening::report::Report;
use hardening::verdict::Outcome;
use offline_repo::import::{self, Believed, import};
use offline_repo::publish::{Mode, Options, publish};
use offline_repo::repository::Repository;
use offline_repo::upstream::Policy;
use sequoia_openpgp as openpgp;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::serialize::SerializeInto;
use serde_json::{Value, json};
use signing::clock::now;
use signing::digest::Sha256;
use signing::process::Cmd;
use signing::release::{Part, PartFile, Release};
use signing::secureboot::sign_pe;
use signing::site::Site;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_bastide-audit");

/// What a report in JSON says.
pub trait Findings {
    /// Asserts that a finding of this identifier ended so, and gives its text.
    fn finding(&self, id: &str, outcome: &str) -> String;

    /// Every finding that failed, for a message.
    fn failures(&self) -> String;
}

impl Findings for Said {
    fn finding(&self, id: &str, outcome: &str) -> String {
        let report = self.json();
        let mut found = Vec::new();
        for section in report["sections"].as_array().unwrap() {
            collect(&section["findings"], id, &mut found);
        }
        let hit = found.iter().find(|finding| finding["outcome"] == outcome);
        hit.unwrap_or_else(|| panic!("no {id} with {outcome}: {found:#?}\n{}", self.failures()))["detail"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn failures(&self) -> String {
        let report = self.json();
        let mut all = Vec::new();
        for section in report["sections"].as_array().unwrap() {
            collect(&section["findings"], "", &mut all);
        }
        let bad = all
            .iter()
            .filter(|finding| matches!(finding["outcome"].as_str(), Some("fail" | "could-not-check")));
        bad.map(|finding| format!("{} {}: {}\n", finding["outcome"], finding["id"], finding["detail"]))
            .collect()
    }
}

fn collect<'a>(findings: &'a Value, id: &str, found: &mut Vec<&'a Value>) {
    for finding in findings.as_array().into_iter().flatten() {
        if id.is_empty() || finding["id"] == id {
            found.push(finding);
        }
        collect(&finding["children"], id, found);
    }
}

/// Runs `bastide-audit`.
pub fn audit<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Said {
    Said::of(Cmd::new(PROGRAM).args(args))
}

/// What all tests share: an upstream's key, and a repository of one release.
fn shared() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let sources = ["signing/src", "offline-repo/src", "hardening/tests/support"];
        common::shared("hardening", &sources, |place| {
            fs::write(place.join("upstream.tsk"), archive::key().as_tsk().to_vec().unwrap()).unwrap();
            let upstream = Upstream::read(&place.join("upstream.tsk"));
            publish_release(place, "1.0.0", &upstream, Tamper::None, site());
        })
    })
}

/// The site of all tests.
pub fn site() -> &'static Site {
    static OPEN: OnceLock<Site> = OnceLock::new();
    OPEN.get_or_init(|| Site::open(common::site()).unwrap())
}

/// The upstream of all tests.
pub fn upstream() -> &'static Upstream {
    static OPEN: OnceLock<Upstream> = OnceLock::new();
    OPEN.get_or_init(|| Upstream::read(&shared().join("upstream.tsk")))
}

/// The untampered repository of one release. It is not to be changed, but copied.
pub fn honest() -> PathBuf {
    shared().join("repository")
}

/// Upstream: an archive of two packages that is signed with a key of its own.
pub struct Upstream {
    key: openpgp::Cert,
    keyring: tempfile::NamedTempFile,
}

/// What a recipe changes in upstream's part of a release.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tamper {
    None,
    /// The digest of a package in `Packages`, after it was signed.
    PackagesAfterSigning,
    /// The digest of a package in the manifest.
    Manifest,
    /// The bill of materials leaves a package out.
    BillLacks,
    /// The bill of materials names a package that is not there.
    BillAdds,
    /// The boot image names another root.
    OtherRoot,
    /// The boot image is signed with a foreign key.
    ForeignKey,
    /// The data is not what the hash tree says.
    OtherData,
    /// The image was built with another site's trust directory.
    ForeignTrust,
    /// The image was built with another site's OpenPGP certificate.
    ForeignCertificate,
    /// The root file system is none that can be looked into.
    UnknownForm,
}

impl Upstream {
    fn read(path: &Path) -> Self {
        let key = openpgp::Cert::from_file(path).unwrap();
        let mut keyring = tempfile::NamedTempFile::new().unwrap();
        keyring.write_all(&key.armored().to_vec().unwrap()).unwrap();
        Self { key, keyring }
    }

    /// The policy that trusts this upstream.
    pub fn policy(&self) -> Policy {
        let suite = ("debian".to_owned(), "trixie".to_owned());
        Policy {
            keyring: self.keyring.path().to_path_buf(),
            signed_by: BTreeMap::from([(suite, vec![self.key.fingerprint().to_hex()])]),
        }
    }

    /// `upstream.tar` and the bill of materials.
    fn parts(&self, tamper: Tamper) -> (Vec<u8>, Vec<u8>) {
        let sha = |name: &str| Sha256::of(name.as_bytes());
        let packages = |xen: Sha256| {
            let one = |name: &str, version: &str, sha256: Sha256| {
                format!(
                    "Package: {name}\nVersion: {version}\nArchitecture: amd64\nSection: misc\nFilename: \
                     pool/main/{name}.deb\nSize: 1000\nSHA256: {sha256}\n\n"
                )
            };
            one("linux-image", "6.12.1-1", sha("linux")) + &one("xen-utils", "4.20.3-1", xen)
        };
        let pack = |text: &str| {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let plain = packages(sha("xen"));
        let compressed = pack(&plain);
        let date: DateTime<Utc> = now() - Duration::hours(2);
        let date = DateTime::from_timestamp(date.timestamp(), 0).unwrap();
        let inrelease = archive::sign(
            &self.key,
            &format!(
                "Origin: Test\nSuite: stable\nCodename: trixie\nDate: {}\nArchitectures: amd64\nComponents: main\nSHA256:\n {} {} \
             main/binary-amd64/Packages\n {} {} main/binary-amd64/Packages.xz\n",
                date.format("%a, %d %b %Y %H:%M:%S UTC"),
                Sha256::of(plain.as_bytes()),
                plain.len(),
                Sha256::of(&compressed),
                compressed.len()
            ),
        );
        let signed_at =
            signing::openpgp::verify_cleartext(self.keyring.path(), &inrelease, now() + Duration::minutes(1))
                .unwrap()
                .signed_at;
        let (kept, xen) = match tamper {
            // The attacker also makes the manifest agree with his index.
            Tamper::PackagesAfterSigning => (pack(&packages(sha("evil"))), sha("evil")),
            Tamper::Manifest => (compressed, sha("evil")),
            _ => (compressed, sha("xen")),
        };
        let package = |name: &str, version: &str, sha256: Sha256| {
            json!({ "name": name, "version": version, "architecture": "amd64", "source": name, "source_version": version,
                "section": "misc", "filename": format!("pool/main/{name}.deb"), "size": 1000, "sha256": sha256,
                "suite": "trixie", "component": "main", "roles": ["host"] })
        };
        let snapshot = json!({
            "format": 1, "name": "base", "architecture": "amd64",
            "created_from": [{
                "suite": "trixie", "path": "debian", "components": ["main"],
                "inrelease": { "file": "upstream/trixie/InRelease", "sha256": Sha256::of(&inrelease), "size": inrelease.len() },
                "signers": [self.key.fingerprint().to_hex()], "date": date, "signed_at": signed_at,
                "packages": [{ "component": "main", "file": "upstream/trixie/main_binary-amd64_Packages.xz",
                    "sha256": Sha256::of(&kept), "size": kept.len() }],
            }],
            "packages": [package("linux-image", "6.12.1-1", sha("linux")), package("xen-utils", "4.20.3-1", xen)],
        });
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, bytes).unwrap();
        };
        add("snapshot.json", &serde_json::to_vec(&snapshot).unwrap());
        add("upstream/trixie/InRelease", &inrelease);
        add("upstream/trixie/main_binary-amd64_Packages.xz", &kept);
        let component = |name: &str, version: &str, sha256: Sha256| {
            json!({ "type": "library", "name": name, "version": version, "purl": format!("pkg:deb/debian/{name}@{version}?arch=amd64"),
                "hashes": [{ "alg": "SHA-256", "content": sha256 }], "licenses": [{ "license": { "id": "GPL-2.0-only" } }] })
        };
        let mut components = vec![component("linux-image", "6.12.1-1", sha("linux"))];
        if tamper != Tamper::BillLacks {
            components.push(component("xen-utils", "4.20.3-1", xen));
        }
        if tamper == Tamper::BillAdds {
            components.push(component("nmap", "7.95-1", sha("nmap")));
        }
        let bill = json!({ "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components });
        (archive.into_inner().unwrap(), serde_json::to_vec(&bill).unwrap())
    }
}

/// A root file system with a trust directory, its hash image and its root hash, by the rules of dm-verity.
fn root_image(directory: &Path, version: &str, trust: &Path, features: u8) -> (Vec<u8>, Vec<u8>, Sha256) {
    let tree = directory.join(format!("tree-{version}"));
    copy(trust, &tree.join("usr/share/bastide/trust"));
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/version"), version).unwrap();
    fs::write(tree.join("usr/filling"), [0x5a; 64 * 4096]).unwrap();
    let mut root = common::erofs(&tree);
    root[1024 + 80] |= features;
    let blocks = u64::try_from(root.len() / 4096).unwrap();
    assert!(blocks <= 128, "one level of hashes");
    let salt = [0x5a; 32];
    let salted = |bytes: &[u8]| Sha256::of(&[&salt, bytes].concat());
    let mut level: Vec<u8> = root.chunks(4096).flat_map(|block| salted(block).0).collect();
    level.resize(4096, 0);
    let mut verity = vec![0; 4096];
    verity[..6].copy_from_slice(b"verity");
    verity[8] = 1;
    verity[12] = 1;
    verity[32..38].copy_from_slice(b"sha256");
    verity[64..68].copy_from_slice(&4096_u32.to_le_bytes());
    verity[68..72].copy_from_slice(&4096_u32.to_le_bytes());
    verity[72..80].copy_from_slice(&blocks.to_le_bytes());
    verity[80] = 32;
    verity[88..120].copy_from_slice(&salt);
    let hash = salted(&level);
    verity.extend(level);
    (root, verity, hash)
}

/// The command lines that the boot images of these tests hold.
pub const XEN: &str = "console=com1,vga dom0_mem=1G,max:1G bootscrub=idle iommu=on";
pub const KERNEL: &str = "lockdown=integrity audit=1 apparmor=1 init_on_alloc=1 slab_nomerge randomize_kstack_offset=on vsyscall=none \
                          module.sig_enforce=1";

/// A build as iso-build makes it, signed for Secure Boot.
fn build(directory: &Path, version: &str, upstream: &Upstream, tamper: Tamper, site: &Site) -> PathBuf {
    let build = directory.join(format!("build-{version}"));
    fs::create_dir_all(&build).unwrap();
    let other = common::other_site().join("trust");
    let own = site.directory().join("trust");
    let (mut root, verity, hash) = match tamper {
        Tamper::ForeignTrust => root_image(directory, version, &other, 0),
        Tamper::ForeignCertificate => {
            let mixed = directory.join("mixed");
            copy(&own, &mixed);
            fs::copy(other.join("release.asc"), mixed.join("release.asc")).unwrap();
            root_image(directory, version, &mixed, 0)
        }
        // Files in chunks, which no build of ours has.
        Tamper::UnknownForm => root_image(directory, version, &own, 4),
        _ => root_image(directory, version, &own, 0),
    };
    let named = if tamper == Tamper::OtherRoot {
        Sha256::of(b"another")
    } else {
        hash
    };
    if tamper == Tamper::OtherData {
        root[5000] ^= 1;
    }
    let db = match tamper {
        Tamper::ForeignKey => signing::secureboot::Identity::generate("Stranger", now()).unwrap(),
        _ => site.db_key(&passphrase()).unwrap(),
    };
    let config = format!(
        "[global]\ndefault=bastide\n[bastide]\noptions={XEN}\nkernel=vmlinuz bastide.roothash={named} {KERNEL}\n"
    );
    let xen = boot_image(".config", config.as_bytes());
    let arguments = format!("bastide.roothash={named} bastide.mode=install");
    let installer = boot_image(".cmdline", arguments.as_bytes());
    let (archive, bill) = upstream.parts(tamper);
    let contents = [
        root,
        verity,
        sign_pe(&xen, &db).unwrap(),
        sign_pe(&installer, &db).unwrap(),
        bill,
        archive,
    ];
    let mut parts = Vec::new();
    for (part, content) in Part::ALL.into_iter().zip(contents) {
        fs::write(build.join(part.file()), &content).unwrap();
        parts.push(PartFile::of(part, &content));
    }
    let release = Release {
        format: 1,
        version: version.parse().unwrap(),
        channel: "stable".into(),
        root_hash: hash,
        snapshot: "base".into(),
        source_date_epoch: 1_700_000_000,
        parts,
    };
    fs::write(build.join("release.json"), serde_json::to_vec(&release).unwrap()).unwrap();
    build
}

/// A repository with one release, tampered with before it was signed.
pub fn repository(directory: &Path, tamper: Tamper) -> PathBuf {
    publish_release(directory, "1.0.0", upstream(), tamper, site())
}

/// Builds and publishes a release.
pub fn publish_release(directory: &Path, version: &str, upstream: &Upstream, tamper: Tamper, site: &Site) -> PathBuf {
    let place = directory.join("repository");
    let build = build(directory, version, upstream, tamper, site);
    if matches!(tamper, Tamper::OtherRoot | Tamper::ForeignKey) {
        // `publish` refuses it.
        insider::publish(&place, site, &passphrase(), &build);
        return place;
    }
    let repository = Repository::create(&place).unwrap();
    let options = Options {
        site,
        passphrase: &passphrase(),
        build: Some(&build),
        expires: None,
        now: now(),
        mode: Mode::Write,
    };
    publish(&repository, &options, &mut |_, _| ()).unwrap();
    place
}

/// What failed or could not be checked, one line each.
pub fn bad(report: &Report) -> String {
    [Outcome::Fail, Outcome::CouldNotCheck]
        .iter()
        .flat_map(|&outcome| report.findings(outcome))
        .map(|(_, finding)| format!("{}: {:?}\n", finding.id, finding.verdict))
        .collect()
}

/// The target's file of a part in a repository.
pub fn part(repository: &Path, version: &str, part: Part) -> PathBuf {
    let folder = repository.join("targets/host").join(version);
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .find(|path| path.to_str().unwrap().ends_with(&format!(".{}", part.file())))
        .unwrap()
}

/// A gateway takes a bundle in; with the site's trust directory it demands an approval.
pub fn import_into(gateway: &Path, bundle: &Path, vendor: &Path, site: Option<&Path>) {
    let open = |place: &Path| signing::site::Trust::open(place).unwrap();
    let believed = Believed {
        vendor: open(vendor),
        site: site.map(open),
    };
    let gateway = Repository::create(gateway).unwrap();
    let files = [bundle.to_path_buf()];
    import(
        &files,
        &gateway,
        &believed,
        now(),
        None,
        import::Mode::Write,
        &mut |_, _| (),
    )
    .unwrap();
}
