// SPDX-License-Identifier: GPL-3.0-or-later
//! Every way of tampering with a repository, an ISO or a bundle, by recipe, and what the audit says to it.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Read;
use std::path::Path;

use hardening::report::{Report, Subject};
use hardening::trace::release::Question;
use hardening::trace::trust::Trust;
use hardening::trace::{bundle, repository};
use hardening::verdict::Outcome;
use signing::clock::now;
use signing::release::Part;
use support::common;
use support::medium::Recipe;
use support::world::{World, assert_fails, assert_pass};
use support::{Tamper, bad, part};

#[test]
fn a_repository_as_published_passes() {
    assert_pass(&World::new(Tamper::None).audit_repository());
}

#[test]
fn a_flipped_bit_in_any_target_fails() {
    for target in Part::ALL {
        let world = World::new(Tamper::None);
        support::flip(&part(&world.repository(), "1.0.0", target));
        assert_fails(
            &world.audit_repository(),
            &format!("target.host/1.0.0/{}", target.file()),
            "digest",
        );
    }
}

#[test]
fn a_missing_target_fails() {
    let world = World::new(Tamper::None);
    fs::remove_file(part(&world.repository(), "1.0.0", Part::Sbom)).unwrap();
    assert_fails(&world.audit_repository(), "target.host/1.0.0/sbom.cdx.json", "missing");
}

#[test]
fn an_extra_file_fails_wherever_it_lies() {
    for (place, id) in [
        ("metadata/9.host.json", "file.metadata.9.host.json"),
        ("targets/host/1.0.0/extra", "file.targets.host/1.0.0/extra"),
        ("README", "file.README"),
    ] {
        let world = World::new(Tamper::None);
        fs::write(world.repository().join(place), "x").unwrap();
        assert_fails(&world.audit_repository(), id, "");
    }
    let world = World::new(Tamper::None);
    std::os::unix::fs::symlink("/etc/passwd", world.repository().join("targets/link")).unwrap();
    assert_fails(&world.audit_repository(), "file.targets/link", "no place");
}

#[test]
fn a_dropped_signature_fails_and_nothing_below_it_is_believed() {
    for role in ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.host.json"] {
        let world = World::new(Tamper::None);
        let path = world.repository().join("metadata").join(role);
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json["signatures"] = serde_json::json!([]);
        fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
        let report = world.audit_repository();
        assert_fails(&report, "tuf.stopped", "");
        assert!(
            !report
                .findings(Outcome::Pass)
                .iter()
                .any(|(_, finding)| finding.id.starts_with("target."))
        );
    }
}

#[test]
fn a_root_or_a_timestamp_without_its_openpgp_signature_fails() {
    for (signature, id) in [
        ("metadata/1.root.json.asc", "openpgp.root.1"),
        ("metadata/1.timestamp.json.asc", "openpgp.timestamp.1"),
    ] {
        let world = World::new(Tamper::None);
        let place = world.repository().join(signature);
        fs::remove_file(&place).unwrap();
        assert_fails(&world.audit_repository(), id, "not there");
        fs::write(&place, "-----BEGIN PGP SIGNATURE-----\n").unwrap();
        assert_fails(&world.audit_repository(), id, "");
        fs::write(&place, common::release_signature(b"something else")).unwrap();
        assert_fails(&world.audit_repository(), id, "does not hold");
    }
}

#[test]
fn a_repository_of_another_site_fails() {
    let world = World::new(Tamper::None);
    let trust = Trust::open(&common::other_site().join("trust")).unwrap();
    let policy = support::upstream().policy();
    let question = Question {
        trust: &trust,
        site: None,
        now: now(),
        complete: true,
        upstream: Some(&policy),
    };
    let audited = repository::repository(&world.repository(), question).unwrap();
    let report = Report::new(Subject::new("repository", "test"), now(), audited.sections);
    assert_fails(&report, "tuf.stopped", "signed by 0 of the");
}

#[test]
fn stale_metadata_is_authentic_and_still_fails() {
    let world = World::new(Tamper::None);
    let trust = Trust::open(&support::trust()).unwrap();
    let policy = support::upstream().policy();
    let later = now() + chrono::Duration::days(500);
    let question = Question {
        trust: &trust,
        site: None,
        now: later,
        complete: true,
        upstream: Some(&policy),
    };
    let audited = repository::repository(&world.repository(), question).unwrap();
    let report = Report::new(Subject::new("repository", "test"), later, audited.sections);
    assert_fails(&report, "fresh.timestamp", "authentic but stale");
    assert!(
        report
            .findings(Outcome::Pass)
            .iter()
            .any(|(_, finding)| finding.id == "target.host/1.0.0/root.erofs")
    );
}

#[test]
fn a_swapped_package_fails_at_upstreams_signature() {
    assert_fails(
        &World::new(Tamper::PackagesAfterSigning).audit_repository(),
        "packages.1.0.0.upstream",
        "not the one that trixie signs",
    );
    assert_fails(
        &World::new(Tamper::Manifest).audit_repository(),
        "packages.1.0.0.upstream",
        "other contents",
    );
}

#[test]
fn an_upstream_of_an_unknown_key_fails() {
    let world = World::new(Tamper::None);
    let trust = Trust::open(&support::trust()).unwrap();
    // With Debian's keys, which are part of the program, a test's archive is a stranger.
    let question = Question {
        trust: &trust,
        site: None,
        now: now(),
        complete: true,
        upstream: None,
    };
    let audited = repository::repository(&world.repository(), question).unwrap();
    let report = Report::new(Subject::new("repository", "test"), now(), audited.sections);
    assert_fails(&report, "packages.1.0.0.upstream", "");
}

#[test]
fn the_bill_of_materials_is_compared_both_ways() {
    assert_fails(
        &World::new(Tamper::BillLacks).audit_repository(),
        "packages.1.0.0.sbom.xen-utils",
        "not in the bill",
    );
    assert_fails(
        &World::new(Tamper::BillAdds).audit_repository(),
        "packages.1.0.0.sbom.nmap",
        "not among the packages of the image",
    );
}

#[test]
fn a_boot_image_must_name_its_root_and_carry_the_sites_signature() {
    assert_fails(
        &World::new(Tamper::OtherRoot).audit_repository(),
        "boot.1.0.0.xen.efi.root",
        "lacks",
    );
    assert_fails(
        &World::new(Tamper::ForeignKey).audit_repository(),
        "boot.1.0.0.installer.efi.signature",
        "",
    );
    assert_fails(
        &World::new(Tamper::OtherData).audit_repository(),
        "boot.1.0.0.verity",
        "the data has the root hash",
    );
}

#[test]
fn replaced_metadata_is_checked_too() {
    let directory = tempfile::tempdir().unwrap();
    support::copy(&support::honest(), &directory.path().join("repository"));
    let upstream = support::upstream();
    support::publish_release(directory.path(), "1.1.0", upstream, Tamper::None, support::site());
    let world = World { directory };
    let report = world.audit_repository();
    assert_pass(&report);
    let ids: Vec<_> = report
        .findings(Outcome::Pass)
        .iter()
        .map(|(_, finding)| finding.id.clone())
        .collect();
    assert!(ids.contains(&"file.metadata.1.host.json".to_owned()), "{ids:?}");
    // Something hidden in a file that no client reads any more.
    let old = world.repository().join("metadata/1.host.json");
    let text = fs::read_to_string(&old).unwrap();
    fs::write(&old, text.replace("root.erofs", "root.evils")).unwrap();
    let report = world.audit_repository();
    assert_eq!(report.outcome, Outcome::CouldNotCheck, "{}", bad(&report));
    fs::write(&old, "hidden").unwrap();
    assert_fails(&world.audit_repository(), "file.metadata.1.host.json", "malformed");
}

#[test]
fn an_iso_as_assembled_passes() {
    assert_pass(&World::new(Tamper::None).audit_iso(&Recipe::default()));
}

#[test]
fn an_answer_on_the_esp_is_named_and_leaves_the_image_signature_open() {
    let world = World::new(Tamper::None);
    let answer = world.directory.path().join("answer");
    fs::write(&answer, "[disk]\n").unwrap();
    let report = world.audit_iso(&Recipe {
        esp: &[(&answer, "bastide-answer.toml")],
        ..Recipe::default()
    });
    assert_eq!(report.outcome, Outcome::CouldNotCheck, "{}", bad(&report));
    assert!(
        report
            .findings(Outcome::Pass)
            .iter()
            .any(|(_, finding)| finding.id == "medium.answer")
    );
    assert!(bad(&report).starts_with("medium.openpgp"), "{}", bad(&report));
}

#[test]
fn a_stranger_on_the_medium_fails_wherever_it_lies() {
    let world = World::new(Tamper::None);
    let evil = world.directory.path().join("evil");
    fs::write(&evil, "evil").unwrap();
    let report = world.audit_iso(&Recipe {
        esp: &[(&evil, "EFI/BOOT/GRUBX64.EFI")],
        ..Recipe::default()
    });
    assert_fails(&report, "medium.stranger.EFI/BOOT/GRUBX64.EFI", "no signature");

    let world = World::new(Tamper::None);
    let tree = |tree: &Path| fs::write(tree.join("autorun.inf"), "x").unwrap();
    assert_fails(
        &world.audit_iso(&Recipe {
            tree: &tree,
            ..Recipe::default()
        }),
        "medium.stranger.autorun.inf",
        "no signature",
    );

    let world = World::new(Tamper::None);
    let targets = |targets: &Path| fs::write(targets.join("host/1.0.0/extra"), "x").unwrap();
    let report = world.audit_iso(&Recipe {
        targets: &targets,
        ..Recipe::default()
    });
    assert_fails(&report, "file.targets.host/1.0.0/extra", "no signature");

    let world = World::new(Tamper::None);
    let targets = |targets: &Path| std::os::unix::fs::symlink("/etc/passwd", targets.join("link")).unwrap();
    let report = world.audit_iso(&Recipe {
        targets: &targets,
        ..Recipe::default()
    });
    assert_fails(&report, "medium.squashfs", "not a plain file");

    // A target that was altered is named, and the file of the medium that holds it.
    let world = World::new(Tamper::None);
    let targets = |targets: &Path| {
        let root = common::files_below(targets)
            .into_iter()
            .find(|path| path.to_string_lossy().ends_with(".root.erofs"));
        support::flip(&root.unwrap());
    };
    let report = world.audit_iso(&Recipe {
        targets: &targets,
        ..Recipe::default()
    });
    assert_fails(
        &report,
        "target.host/1.0.0/root.erofs",
        "lies in bastide/targets.squashfs",
    );
}

#[test]
fn another_boot_image_fails() {
    let world = World::new(Tamper::None);
    // Signed with the site's own key, and still not the installer that the metadata names.
    let xen = part(&world.repository(), "1.0.0", Part::Xen);
    let report = world.audit_iso(&Recipe {
        boot: Some(&xen),
        ..Recipe::default()
    });
    assert_fails(&report, "medium.boot", "no verified metadata");

    let world = World::new(Tamper::None);
    let unsigned = world.directory.path().join("unsigned.efi");
    fs::write(&unsigned, support::boot_image(".cmdline", b"x")).unwrap();
    let report = world.audit_iso(&Recipe {
        boot: Some(&unsigned),
        ..Recipe::default()
    });
    assert_fails(&report, "medium.boot.signature", "not signed");
}

#[test]
fn a_second_way_to_boot_fails() {
    let world = World::new(Tamper::None);
    let evil = world.directory.path().join("evil.img");
    fs::write(&evil, vec![1; 2048]).unwrap();
    let tree = |tree: &Path| fs::copy(&evil, tree.join("evil.img")).map(drop).unwrap();
    let more = ["-eltorito-alt-boot", "-b", "/evil.img", "-no-emul-boot"];
    let report = world.audit_iso(&Recipe {
        tree: &tree,
        xorriso: &more,
        ..Recipe::default()
    });
    assert_fails(&report, "medium.catalogue", "not one UEFI entry");
    assert_fails(&report, "medium.stranger.evil.img", "no signature");

    let world = World::new(Tamper::None);
    let evil = evil.to_str().unwrap().to_owned();
    let more = ["-append_partition", "3", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", &evil];
    let report = world.audit_iso(&Recipe {
        xorriso: &more,
        ..Recipe::default()
    });
    assert_fails(&report, "medium.gpt", "2 EFI system partitions");

    let world = World::new(Tamper::None);
    let report = world.audit_iso(&Recipe {
        xorriso: &["-J"],
        ..Recipe::default()
    });
    assert_fails(&report, "medium.iso", "second tree");
}

#[test]
fn bytes_between_the_files_and_a_changed_image_fail() {
    let world = World::new(Tamper::None);
    let path = support::medium::iso(world.directory.path(), &world.repository(), &Recipe::default());
    let whole = fs::read(&path).unwrap();
    let change = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] ^= byte;
        fs::write(&path, bytes).unwrap();
        world.audit_iso_file(&path)
    };
    // Between the two sets of volume descriptors.
    let report = change(40_965, 0x41);
    assert_fails(&report, "medium.slack", "byte 40965");
    assert_fails(&report, "medium.openpgp", "");
    // The label of the volume that the first partition shows.
    assert_fails(
        &change((16 + 16) * 2048 + 40, 0x20),
        "medium.partition.1",
        "another reader",
    );
    // The partition table.
    assert_fails(&change(1024 + 40, 1), "medium.gpt", "checksum");
    // Code in the master boot record.
    assert_fails(&change(4, 0xeb), "medium.gpt", "holds code");
    // Cut off.
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(world.audit_iso_file(&path).outcome, Outcome::Fail);
    fs::write(&path, b"not an image").unwrap();
    assert_fails(&world.audit_iso_file(&path), "medium.iso", "");
}

#[test]
fn a_flipped_bit_in_a_target_on_the_iso_fails() {
    let world = World::new(Tamper::None);
    let targets = |targets: &Path| {
        let files = fs::read_dir(targets.join("host/1.0.0"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut roots = files.filter(|path| path.to_str().unwrap().ends_with(".root.erofs"));
        support::flip(&roots.next().unwrap());
    };
    let report = world.audit_iso(&Recipe {
        targets: &targets,
        ..Recipe::default()
    });
    assert_fails(&report, "target.host/1.0.0/root.erofs", "digest");
}

#[test]
fn a_bundle_passes_and_its_tampered_copies_fail() {
    let world = World::new(Tamper::None);
    let place = world.bundle();
    let audit = |path: &Path| {
        let audited = world.ask(false, |question| bundle::bundle(path, question));
        Report::new(Subject::new("bundle", "test"), now(), audited.sections)
    };
    assert_pass(&audit(&place));
    let whole = fs::read(&place).unwrap();
    let stray = world.directory.path().join("stray.bundle");
    fs::write(&stray, with_stray(&whole)).unwrap();
    assert_fails(&audit(&stray), "file.metadata.9.host.json", "5 bytes");
    // Wherever a bit is flipped, something fails and nothing panics.
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let copy = world.directory.path().join("copy.bundle");
        fs::write(&copy, bytes).unwrap();
        let report = audit(&copy);
        // Padding of the archive carries nothing.
        assert!(
            report.outcome == Outcome::Fail || whole[at] == 0,
            "byte {at}: {}",
            bad(&report)
        );
    }
}

/// A bundle with one more metadata file, where metadata has its place.
fn with_stray(bundle: &[u8]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    let mut done = false;
    for entry in tar::Archive::new(bundle).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        if !done && entry.path().unwrap().starts_with("targets") {
            let mut stray = tar::Header::new_ustar();
            stray.set_path("metadata/9.host.json").unwrap();
            stray.set_mode(0o644);
            stray.set_size(5);
            stray.set_cksum();
            out.append(&stray, &b"stray"[..]).unwrap();
            done = true;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        out.append(&header, &bytes[..]).unwrap();
    }
    out.into_inner().unwrap()
}
