// SPDX-License-Identifier: GPL-3.0-or-later
//! The table of attacks against `bastide-repo import`: the second of its three doors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../signing/tests/common/attacks/mod.rs"]
mod attacks;
#[path = "../../signing/tests/common/attacks/carried.rs"]
mod carried;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use attacks::vault::{Built, Vault};
use attacks::{Door, Go, Refusal, recover, remembered};
use offline_repo::import::{Believed, Mode, import};
use offline_repo::repository::Repository;
use signing::clock::now;
use signing::digest::Sha256;
use signing::release::Part;
use signing::site::Trust;
use support::{common, repo, root_hash};

/// A gateway of a site whose TUF keys are in a vault; all else is the tests' site.
struct Gateway {
    vault: Vault,
    directory: tempfile::TempDir,
}

fn built(directory: &Path, version: &str) -> Built {
    let build = support::build(directory, version);
    let content = |part: Part| (part, fs::read(build.join(part.file())).unwrap());
    Built {
        version: version.parse().unwrap(),
        root_hash: root_hash(version),
        parts: Part::ALL.map(content).to_vec(),
    }
}

impl Gateway {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let built = |version| built(directory.path(), version);
        let vault = Vault::seen([built("1.0.0"), built("1.1.0")]);
        let mut door = Self { vault, directory };
        common::copy(&common::trust(), &door.at("trust"));
        let root = door.vault.file("1.root.json");
        fs::write(door.at("trust/root.json"), root).unwrap();
        fs::write(door.at("trust/root.json.asc"), common::release_signature(root)).unwrap();
        Repository::create(&door.at("gateway")).unwrap();
        let seen = door.vault.clone();
        door.offer(&seen, Go::Take).unwrap();
        common::copy(&door.at("gateway"), &door.at("first"));
        door
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn take(&mut self, bundle: &[u8], go: Go) -> Result<(), Refusal> {
        let file = self.at("x.bundle");
        fs::write(&file, bundle).unwrap();
        let gateway = Repository::open(&self.at("gateway")).unwrap();
        let believed = Believed {
            vendor: Trust::open(&self.at("trust")).unwrap(),
            site: None,
        };
        let mode = match go {
            Go::Take => Mode::Write,
            Go::Look => Mode::DryRun,
        };
        let Err(error) = import(
            std::slice::from_ref(&file),
            &gateway,
            &believed,
            now(),
            None,
            mode,
            &mut |_, _| (),
        ) else {
            return Ok(());
        };
        // What was learnt meanwhile makes it no better, and the program says the same.
        let (gateway, trust) = (self.at("gateway"), self.at("trust"));
        let args = [
            Path::new("import"),
            &file,
            Path::new("--repo"),
            &gateway,
            Path::new("--trust"),
            &trust,
        ];
        let said = repo(args).ends(3);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        Err(Refusal::of(&error))
    }
}

impl Door for Gateway {
    fn vault(&self) -> &Vault {
        &self.vault
    }

    fn offer(&mut self, vault: &Vault, go: Go) -> Result<(), Refusal> {
        self.take(&carried::bundle(vault), go)
    }

    fn memory(&self) -> BTreeMap<String, Vec<u8>> {
        remembered(&self.at("gateway/datastore"))
    }

    /// What the gateway serves. A target that was verified may lie there already: nothing names it yet.
    fn harm(&self) -> String {
        let targets = self.at("gateway/targets");
        for (name, sha256) in common::contents(&targets) {
            let own: Sha256 = Path::new(&name).file_name().unwrap().to_str().unwrap()[..64]
                .parse()
                .unwrap();
            assert_eq!(own, sha256, "{name} was never verified");
        }
        format!("{:?}", common::contents(&self.at("gateway/metadata")))
    }

    fn again(&mut self) {
        fs::remove_dir_all(self.at("gateway")).unwrap();
        common::copy(&self.at("first"), &self.at("gateway"));
    }

    fn takes_files(&self) -> bool {
        false
    }
}

#[test]
fn every_attack_is_refused_by_import() {
    attacks::withstand(&mut Gateway::new());
}

#[test]
fn a_gateway_recovers_from_a_fast_forward() {
    recover(&mut Gateway::new());
}

#[test]
fn every_attack_on_the_archive_is_refused_by_import() {
    let mut gateway = Gateway::new();
    let mut honest = gateway.vault.clone();
    honest.publish(3, 2);
    let whole = carried::bundle(&honest);
    carried::withstand(&mut gateway, &whole, |gateway, bundle| gateway.take(bundle, Go::Take));
}

#[test]
fn a_thief_of_all_tuf_keys_lacks_the_release_key_at_import() {
    carried::without_release_key(&mut Gateway::new(), |gateway, bundle| gateway.take(bundle, Go::Take));
}

#[test]
fn a_pipe_in_the_place_of_a_bundle_is_not_waited_for() {
    let gateway = Gateway::new();
    common::pipe(&gateway.at("pipe.bundle"));
    let (file, place, trust) = (gateway.at("pipe.bundle"), gateway.at("gateway"), gateway.at("trust"));
    let args = [
        Path::new("import"),
        &file,
        Path::new("--repo"),
        &place,
        Path::new("--trust"),
        &trust,
    ];
    repo(args).fails(1, &["not a regular file"]);
}
