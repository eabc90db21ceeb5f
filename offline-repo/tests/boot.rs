// SPDX-License-Identifier: GPL-3.0-or-later
//! Boot images that the site's hosts would not start are neither published nor taken in at a gateway.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use signing::digest::Sha256;
use signing::release::Part;
use signing::secureboot::{Identity, sign_pe};
use signing::site::Site;
use support::low::Low;
use support::{build, common, insider, other_site, replace_part, root_hash, site, unsigned_boot_image};

/// The recipes: a part, what it becomes, and a word of the reason that must be given.
fn forgeries() -> Vec<(Part, Vec<u8>, &'static str)> {
    let key = |directory| -> Identity { Site::open(directory).unwrap().db_key(&common::passphrase()).unwrap() };
    let (ours, foreign) = (key(site()), key(&other_site()));
    let image = |part: Part, hash: &Sha256| unsigned_boot_image(part.command_line().unwrap(), "1.1.0", hash);
    let (right, wrong) = (root_hash("1.1.0"), root_hash("1.0.0"));
    let mut changed = sign_pe(&image(Part::Xen, &right), &ours).unwrap();
    changed[0x1000] ^= 1;
    let twice = common::boot_image(
        ".config",
        format!("bastide.roothash={right} bastide.roothash={wrong}").as_bytes(),
    );
    vec![
        (
            Part::Xen,
            sign_pe(&image(Part::Xen, &right), &foreign).unwrap(),
            "not made by",
        ),
        (
            Part::Installer,
            sign_pe(&image(Part::Installer, &right), &foreign).unwrap(),
            "not made by",
        ),
        (Part::Xen, image(Part::Xen, &right), "not signed"),
        (Part::Xen, changed, "changed after it was signed"),
        (
            Part::Installer,
            sign_pe(&image(Part::Installer, &wrong), &ours).unwrap(),
            "does not start the root file system",
        ),
        (
            Part::Xen,
            sign_pe(&twice, &ours).unwrap(),
            "does not start the root file system",
        ),
        (Part::Xen, b"#!/bin/sh\n".to_vec(), "not a PE32+ image"),
    ]
}

#[test]
fn what_no_host_of_the_site_would_start_is_not_published() {
    let low = Low::published();
    let before = common::contents(&low.repository());
    for (part, image, why) in forgeries() {
        let build = build(low.directory.path(), "1.1.0");
        replace_part(&build, part, &image);
        for more in [&["--dry-run"][..], &[], &["--json"]] {
            let said = low.publish_build(&build, more).ends(3);
            assert!(said.err.contains(why) && said.err.contains(part.file()), "{}", said.err);
            assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        }
    }
    assert_eq!(common::contents(&low.repository()), before);
    low.publish("1.1.0").ends(0);
}

/// The recipe: somebody with the TUF keys signs what `publish` refuses.
#[test]
fn what_no_host_of_the_site_would_start_is_not_imported() {
    let low = Low::published();
    low.import(&low.at("1.bundle"), &[]).ends(0);
    let seen = low.list(&low.at("gateway"));
    let good = common::contents(&low.repository());
    for (part, image, why) in forgeries() {
        fs::remove_dir_all(low.repository()).unwrap();
        common::copy(&support::published().join("repository"), &low.repository());
        assert_eq!(common::contents(&low.repository()), good);
        let build = build(low.directory.path(), "1.1.0");
        replace_part(&build, part, &image);
        let site = Site::open(site()).unwrap();
        insider::publish(&low.repository(), &site, &common::passphrase(), &build);
        let bundle = low.export("forged.bundle", &[]);
        let said = low.import(&bundle, &["--dry-run"]).ends(3);
        assert!(said.err.contains(why) && said.err.contains(part.file()), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    }
    let before = common::contents(&low.at("gateway/targets"));
    low.import(&low.at("forged.bundle"), &[]).ends(3);
    assert_eq!(common::contents(&low.at("gateway/targets")), before);
    assert_eq!(low.list(&low.at("gateway")), seen);
}
