// SPDX-License-Identifier: GPL-3.0-or-later
//! Builds that are not this site's, or not what they say, are not signed; metadata that no installer takes is not assembled.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use iso_build::build::{read_release, write_release};
use offline_repo::publish::{Mode, Options, publish};
use offline_repo::repository::Repository;
use signing::clock::now;
use signing::digest::Sha256;
use signing::release::{Part, PartFile};
use signing::site::{Site, TRUST_DIRECTORY};
use support::common::{boot_image, contents, is_root, other_site, passphrase, site};
use support::{Bench, root_image};

const SIGN: &str = "sign --build build-1.0.0 --site site --passphrase-file passphrase";

/// The recipe: the root image is another, and the build's facts agree.
fn with_root_image(bench: &Bench, image: &[u8]) {
    let build = bench.at("build-1.0.0");
    fs::write(build.join(Part::Root.file()), image).unwrap();
    let mut release = read_release(&build).unwrap();
    let root = release.parts.iter_mut().find(|part| part.part == Part::Root).unwrap();
    *root = PartFile::of(Part::Root, image);
    write_release(&build, &release).unwrap();
}

fn refused(bench: &Bench, why: &str) {
    let before = contents(&bench.at("build-1.0.0"));
    let said = bench.run(&format!("{SIGN} --json")).ends(3);
    assert!(said.err.contains(why), "{why}: {}", said.err);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    assert_eq!(said.json()["kind"], "refused");
    assert_eq!(contents(&bench.at("build-1.0.0")), before);
}

#[test]
fn a_build_with_another_sites_trust_directory_is_not_signed() {
    let bench = Bench::new();
    bench.unsign();
    with_root_image(&bench, &root_image(&other_site(), TRUST_DIRECTORY));
    refused(&bench, "another trust directory than that of the site Test (its ");
    // One byte of one file.
    let mut image = root_image(site(), TRUST_DIRECTORY);
    let owner = fs::read(site().join("trust/owner.guid")).unwrap();
    let at = image.windows(owner.len()).position(|bytes| bytes == owner).unwrap();
    image[at] ^= 1;
    with_root_image(&bench, &image);
    refused(&bench, "another trust directory");
    // All of it, where no host looks.
    with_root_image(&bench, &root_image(site(), "usr/share/elsewhere"));
    refused(&bench, "another trust directory");
    with_root_image(&bench, &root_image(site(), TRUST_DIRECTORY));
    bench.run(SIGN).ok();
}

#[test]
fn an_altered_root_image_is_not_signed_for() {
    let bench = Bench::new();
    bench.unsign();
    let path = bench.at("build-1.0.0/root.erofs");
    let mut image = fs::read(&path).unwrap();
    image[1000] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, image).unwrap();
    refused(&bench, "the build was altered");
}

#[test]
fn a_boot_image_that_starts_another_root_is_not_signed() {
    let bench = Bench::new();
    bench.unsign();
    for name in ["xen.unsigned.efi", "installer.unsigned.efi"] {
        let path = bench.at("build-1.0.0").join(name);
        let whole = fs::read(&path).unwrap();
        let section = if name.starts_with("xen") { ".config" } else { ".cmdline" };
        let other = format!("bastide.roothash={}", Sha256::of(b"another"));
        for image in [boot_image(section, other.as_bytes()), boot_image(".text", b"nothing")] {
            fs::write(&path, image).unwrap();
            refused(&bench, "does not start the root file system");
        }
        fs::write(&path, whole).unwrap();
    }
    bench.run(SIGN).ok();
}

#[test]
fn progress_is_told_where_there_is_no_terminal() {
    let bench = Bench::new();
    let said = bench.run(SIGN).ends(0);
    for step in [
        "root image and its trust directory",
        "xen.efi, signed",
        "installer.efi, signed",
    ] {
        assert!(said.err.contains(step), "{step}: {}", said.err);
    }
    assert_eq!(bench.run(&format!("{SIGN} --json")).ends(0).err, "");
}

/// The recipe: the signatures of the repository are renewed with a date that is past.
#[test]
fn expired_metadata_is_not_assembled() {
    if !is_root() {
        eprintln!("could not check: assembling needs root");
        return;
    }
    let bench = Bench::new();
    let site = Site::open(site()).unwrap();
    let options = Options {
        site: &site,
        passphrase: &passphrase(),
        build: None,
        expires: Some(now() - std::time::Duration::from_secs(3600)),
        now: now(),
        mode: Mode::Write,
    };
    let repository = Repository::open(&bench.at("repository")).unwrap();
    publish(&repository, &options, &mut |_, _| ()).unwrap();
    let line = "assemble --build build-1.0.0 --repo repository --work nowhere --out new.iso";
    bench.run(line).fails(3, &["expired at", "bastide-repo publish"]);
    // The flag leads past it, to the next thing that is wrong.
    bench
        .run(&format!("{line} --allow-expired"))
        .fails(1, &["no builder root in nowhere"]);
    assert!(!bench.at("nowhere").exists() && !bench.at("new.iso").exists());
}
