// SPDX-License-Identifier: GPL-3.0-or-later
//! The recipes of the forgeries, on small files: what they make is forged in the one way that they speak of.

#![allow(clippy::unwrap_used)]

#[path = "../../signing/tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::Write;
use std::path::Path;

use common::{boot_image, contents, passphrase, passphrase_file};
use journey::tamper;
use offline_repo::export::{Order, Roots, Selection, export};
use offline_repo::import::{Believed, Mode, import};
use offline_repo::publish;
use offline_repo::repository::Repository;
use signing::clock::now;
use signing::digest::Sha256;
use signing::output::Refused;
use signing::release::{Part, PartFile, Release};
use signing::secureboot::sign_pe;
use signing::site::{Site, Trust};

/// A signed build with small parts.
fn build(directory: &Path, site: &Site) {
    fs::create_dir(directory).unwrap();
    let key = site.db_key(&passphrase()).unwrap();
    let root_hash = Sha256::of(b"root");
    let parts = Part::ALL.map(|part| {
        let content = match part.command_line() {
            Some(section) => {
                let image = boot_image(section, format!("bastide.roothash={root_hash}").as_bytes());
                let unsigned = part.file().replace(".efi", ".unsigned.efi");
                fs::write(directory.join(unsigned), &image).unwrap();
                sign_pe(&image, &key).unwrap()
            }
            None => part.file().as_bytes().to_vec(),
        };
        fs::write(directory.join(part.file()), &content).unwrap();
        PartFile::of(part, &content)
    });
    let release = Release {
        format: 1,
        version: "1.0.0".parse().unwrap(),
        channel: "stable".into(),
        root_hash,
        snapshot: "base".into(),
        source_date_epoch: 1_700_000_000,
        parts: parts.into(),
    };
    let mut facts = fs::File::create(directory.join("release.json")).unwrap();
    facts.write_all(&serde_json::to_vec(&release).unwrap()).unwrap();
}

#[test]
fn a_foreign_boot_image_is_signed_as_it_must_be_but_for_the_stranger() {
    let bench = tempfile::tempdir().unwrap();
    let at = |name: &str| bench.path().join(name);
    let site = Site::open(common::site()).unwrap();
    build(&at("honest"), &site);
    let before = contents(&at("honest"));
    tamper::foreign_boot_image(&at("honest"), &at("foreign"), &common::other_site(), &passphrase_file()).unwrap();
    assert_eq!(contents(&at("honest")), before, "the honest build has the same files");

    // The site's programs refuse to publish it, and leave the repository as it was.
    let repository = Repository::create(&at("repository")).unwrap();
    let secret = passphrase();
    let options = |build| publish::Options {
        site: &site,
        passphrase: &secret,
        build: Some(build),
        expires: None,
        now: now(),
        mode: publish::Mode::Write,
    };
    let foreign = at("foreign");
    let error = publish::publish(&repository, &options(&foreign), &mut |_, _| ()).unwrap_err();
    assert!(error.chain().any(|cause| cause.is::<Refused>()), "{error:#}");
    assert!(format!("{error:#}").contains("(db)"), "{error:#}");
    assert!(!repository.is_published());

    // An insider does, and every signature of the way holds.
    let root = fs::read(site.trust_dir().join("root.json")).unwrap();
    fs::copy(site.trust_dir().join("root.json"), repository.metadata("1.root.json")).unwrap();
    let signature = site.trust_dir().join("root.json.asc");
    fs::copy(signature, repository.metadata("1.root.json.asc")).unwrap();
    tamper::published_by_an_insider(&at("repository"), &foreign, common::site(), &passphrase_file()).unwrap();
    let reading = repository.read(&root).unwrap();
    assert!(reading.releases.iter().all(|release| release.complete()) && reading.releases.len() == 1);
    let bundle = at("foreign.bundle");
    export(
        &repository,
        &Roots::vendor(root),
        &Order::whole(Selection::Newest, 1, &bundle),
        &mut |_, _, _| (),
    )
    .unwrap();

    // So only who looks into the boot image finds out.
    let gateway = Repository::create(&at("gateway")).unwrap();
    let believed = Believed {
        vendor: Trust::open(&site.trust_dir()).unwrap(),
        site: None,
    };
    let error = import(
        std::slice::from_ref(&bundle),
        &gateway,
        &believed,
        now(),
        None,
        Mode::DryRun,
        &mut |_, _| (),
    )
    .unwrap_err();
    assert!(format!("{error:#}").contains("(db)"), "{error:#}");
}
