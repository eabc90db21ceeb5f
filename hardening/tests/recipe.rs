// SPDX-License-Identifier: GPL-3.0-or-later
//! The script of `bastide-audit recipe` and the audit judge the same artifacts, with the real tools, and must agree on each.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use signing::release::Part;
use support::agree::{Judge, PASS, Table};
use support::common;
use support::medium::Recipe;
use support::world::World;
use support::{Tamper, part};

#[test]
fn on_every_repository_both_agree() {
    let Some(mut table) = Table::new() else { return };
    let by = &Judge::default();
    let mut case = |name: &str, expected: (i32, &str), by: &Judge, tamper: Tamper, change: &dyn Fn(&Path)| {
        let world = World::new(tamper);
        change(&world.repository());
        table.judge(name, &world.repository(), expected, by);
    };
    let none: &dyn Fn(&Path) = &|_| ();
    case("as published", PASS, by, Tamper::None, none);
    for target in Part::ALL {
        let name = format!("a bit of {} flipped", target.file());
        case(&name, (3, "it has another digest"), by, Tamper::None, &|r| {
            support::flip(&part(r, "1.0.0", target))
        });
    }
    case("a target is missing", (3, "it is not there"), by, Tamper::None, &|r| {
        fs::remove_file(part(r, "1.0.0", Part::Sbom)).unwrap();
    });
    for place in [
        "metadata/9.host.json",
        "metadata/a b",
        "targets/host/1.0.0/extra",
        "README",
        "targets/-rf",
    ] {
        case(
            &format!("a stranger: {place}"),
            (3, "a stranger"),
            by,
            Tamper::None,
            &|r| {
                fs::write(r.join(place), "x").unwrap();
            },
        );
    }
    case(
        "a symbolic link among the targets",
        (3, "a stranger"),
        by,
        Tamper::None,
        &|r| {
            std::os::unix::fs::symlink("/etc/passwd", r.join("targets/link")).unwrap();
        },
    );
    for role in ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.host.json"] {
        case(
            &format!("{role} without signatures"),
            (3, "python-tuf: "),
            by,
            Tamper::None,
            &|r| {
                let path = r.join("metadata").join(role);
                let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                json["signatures"] = serde_json::json!([]);
                fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
            },
        );
    }
    case("no timestamp", (3, "python-tuf: "), by, Tamper::None, &|r| {
        fs::remove_file(r.join("metadata/timestamp.json")).unwrap()
    });
    let asc = "metadata/1.root.json.asc";
    for (name, asc) in [
        ("no OpenPGP signature of the root", asc),
        ("no OpenPGP signature of the timestamp", "metadata/1.timestamp.json.asc"),
    ] {
        case(
            name,
            (3, "OpenPGP signature: it is not there"),
            by,
            Tamper::None,
            &|r| fs::remove_file(r.join(asc)).unwrap(),
        );
    }
    case(
        "an OpenPGP signature of something else beside the timestamp",
        (3, "timestamp.json carries the release key's OpenPGP signature"),
        by,
        Tamper::None,
        &|r| {
            let other = common::release_signature(b"something else");
            fs::write(r.join("metadata/1.timestamp.json.asc"), other).unwrap();
        },
    );
    case(
        "a broken OpenPGP signature of the root",
        (3, "OpenPGP signature"),
        by,
        Tamper::None,
        &|r| {
            fs::write(r.join(asc), "-----BEGIN PGP SIGNATURE-----\n").unwrap();
        },
    );
    case(
        "the Packages were swapped after signing",
        (3, "is the one that the signed list names"),
        by,
        Tamper::PackagesAfterSigning,
        none,
    );
    case(
        "the manifest names another package",
        (3, "xen-utils 4.20.3-1 is listed"),
        by,
        Tamper::Manifest,
        none,
    );
    case(
        "the bill of materials lacks a package",
        (3, "bill of materials"),
        by,
        Tamper::BillLacks,
        none,
    );
    case(
        "the bill of materials adds a package",
        (3, "bill of materials"),
        by,
        Tamper::BillAdds,
        none,
    );
    case(
        "the boot image names another root",
        (3, "names the root hash"),
        by,
        Tamper::OtherRoot,
        none,
    );
    case(
        "the boot image has a foreign signature",
        (3, "Secure Boot signature"),
        by,
        Tamper::ForeignKey,
        none,
    );
    case(
        "the data are not those of the hash tree",
        (3, "has the root hash"),
        by,
        Tamper::OtherData,
        none,
    );
    case(
        "the image trusts another site",
        (3, "trusts whom"),
        by,
        Tamper::ForeignTrust,
        none,
    );
    case(
        "the image has another OpenPGP certificate",
        (3, "release.asc is not"),
        by,
        Tamper::ForeignCertificate,
        none,
    );
    let other = Judge {
        trust: common::other_site().join("trust"),
        ..Judge::default()
    };
    case("of another site", (3, "python-tuf: "), &other, Tamper::None, none);
    let later = Judge {
        days: 500,
        ..Judge::default()
    };
    case("stale", (3, "python-tuf: Expired"), &later, Tamper::None, none);
    let debian = Judge {
        debian: true,
        ..Judge::default()
    };
    case(
        "an upstream that is not Debian",
        (3, "InRelease is signed by 0"),
        &debian,
        Tamper::None,
        none,
    );
    for name in ["root.json.asc", "db.der", "pk.der"] {
        let place = tempfile::tempdir().unwrap();
        support::copy(&support::trust(), place.path());
        fs::remove_file(place.path().join(name)).unwrap();
        let lacking = Judge {
            trust: place.path().to_path_buf(),
            ..Judge::default()
        };
        case(
            &format!("a trust directory without {name}"),
            (4, name),
            &lacking,
            Tamper::None,
            none,
        );
    }
    table.agree();
}

#[test]
fn on_replaced_metadata_both_agree() {
    let Some(mut table) = Table::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    support::copy(&support::honest(), &directory.path().join("repository"));
    support::publish_release(
        directory.path(),
        "1.1.0",
        support::upstream(),
        Tamper::None,
        support::site(),
    );
    let place = directory.path().join("repository");
    let by = Judge::default();
    table.judge("two releases", &place, PASS, &by);
    let old = place.join("metadata/1.host.json");
    let text = fs::read_to_string(&old).unwrap();
    fs::write(&old, text.replace("root.erofs", "root.evils")).unwrap();
    table.judge("replaced metadata that nobody signed", &place, (4, "1.host.json"), &by);
    fs::write(&old, "hidden").unwrap();
    table.judge("something hidden in replaced metadata", &place, (3, "1.host.json"), &by);
    table.agree();
}

#[test]
fn on_every_bundle_both_agree() {
    let Some(mut table) = Table::new() else { return };
    let world = World::new(Tamper::None);
    let place = world.bundle();
    let by = Judge::default();
    table.judge("as exported", &place, PASS, &by);
    let gateway = world.directory.path().join("gateway");
    support::import_into(&gateway, &place, &support::trust(), None);
    table.judge("a gateway", &gateway, PASS, &by);
    fs::copy(
        common::other_site().join("trust/root.json"),
        gateway.join("datastore/root.json"),
    )
    .unwrap();
    table.judge(
        "a gateway that remembers another root",
        &gateway,
        (3, "remembers the root"),
        &by,
    );
    let whole = fs::read(&place).unwrap();
    let mut change = |name: &str, why: &str, bytes: &[u8]| {
        fs::write(&place, bytes).unwrap();
        table.judge(name, &place, (3, why), &by);
    };
    for eighth in 0..8 {
        let mut at = whole.len() / 8 * eighth + 7;
        // Padding of the archive carries nothing.
        while whole[at] == 0 {
            at += 1;
        }
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        change(&format!("a bit flipped, {eighth} eighths in"), "", &bytes);
    }
    change("cut in half", "plain files", &whole[..whole.len() / 2]);
    change("without its end mark", "plain files", &whole[..whole.len() - 1024]);
    change(
        "something behind its end",
        "plain files",
        &[&whole[..], b"evil"].concat(),
    );
    change("empty", "plain files", b"");
    let edited = |from: &str, to: &str| {
        let mut out = tar::Builder::new(Vec::new());
        for entry in tar::Archive::new(&whole[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            if name == "bundle.json" && from == "nothing" {
                bytes = String::from_utf8(bytes).unwrap().replace("1.0.0", to).into_bytes();
            }
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            out.append_data(&mut header, name.replace(from, to), &bytes[..])
                .unwrap();
        }
        out.into_inner().unwrap()
    };
    change(
        "it says that it carries another release",
        "bundle.json",
        &edited("nothing", "9.9.9"),
    );
    change(
        "a member in another place",
        "plain files",
        &edited("metadata/timestamp", "elsewhere/timestamp"),
    );
    fs::write(&place, edited(".root.erofs.zst", ".root.erofs.delta.zst")).unwrap();
    table.judge("a target as a delta", &place, (4, "deltas"), &by);
    table.agree();
}

#[test]
fn on_every_iso_both_agree() {
    let Some(mut table) = Table::new() else { return };
    let by = &Judge::default();
    let made = World::new(Tamper::None);
    let (answer, evil) = (made.directory.path().join("answer"), made.directory.path().join("evil"));
    fs::write(&answer, "[disk]\n").unwrap();
    fs::write(&evil, vec![1; 2048]).unwrap();
    let unsigned = made.directory.path().join("unsigned.efi");
    fs::write(&unsigned, support::boot_image(".cmdline", b"x")).unwrap();
    let xen = part(&made.repository(), "1.0.0", Part::Xen);
    let third = [
        "-append_partition",
        "3",
        "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        evil.to_str().unwrap(),
    ];
    let in_release = |change: &dyn Fn(&Path)| {
        let change = |targets: &Path| change(&targets.join("host/1.0.0"));
        iso_of(&Recipe {
            targets: &change,
            ..Recipe::default()
        })
    };
    let on_esp = |file: &Path, name: &str| {
        iso_of(&Recipe {
            esp: &[(file, name)],
            ..Recipe::default()
        })
    };
    let cases: Vec<(&str, (i32, &str), World)> = vec![
        ("as assembled", PASS, iso_of(&Recipe::default())),
        (
            "an answer on the ESP",
            (4, "an answer"),
            on_esp(&answer, "bastide-answer.toml"),
        ),
        (
            "a stranger on the ESP",
            (3, "a stranger on the ESP: EFI/BOOT/GRUBX64.EFI"),
            on_esp(&evil, "EFI/BOOT/GRUBX64.EFI"),
        ),
        (
            "a stranger on the ISO",
            (3, "autorun.inf"),
            iso_of(&Recipe {
                tree: &|tree| fs::write(tree.join("autorun.inf"), "x").unwrap(),
                ..Recipe::default()
            }),
        ),
        (
            "a directory on the ISO",
            (3, "a stranger on the ISO"),
            iso_of(&Recipe {
                tree: &|tree| fs::create_dir(tree.join("d")).unwrap(),
                ..Recipe::default()
            }),
        ),
        (
            "a stranger among the targets",
            (3, "a stranger: targets"),
            in_release(&|release| fs::write(release.join("extra"), "x").unwrap()),
        ),
        (
            "a link among the targets",
            (3, "targets.squashfs"),
            in_release(&|release| std::os::unix::fs::symlink("/etc", release.join("x")).unwrap()),
        ),
        (
            "another image of the site boots",
            (3, "is the installer"),
            iso_of(&Recipe {
                boot: Some(&xen),
                ..Recipe::default()
            }),
        ),
        (
            "an unsigned image boots",
            (3, "ESP carries the site's Secure Boot"),
            iso_of(&Recipe {
                boot: Some(&unsigned),
                ..Recipe::default()
            }),
        ),
        (
            "a second way to boot",
            (3, "the boot catalogue has one entry"),
            iso_of(&Recipe {
                tree: &|tree| {
                    fs::copy(&evil, tree.join("evil.img")).unwrap();
                },
                xorriso: &["-eltorito-alt-boot", "-b", "/evil.img", "-no-emul-boot"],
                ..Recipe::default()
            }),
        ),
        (
            "a second ESP",
            (3, "one EFI system partition"),
            iso_of(&Recipe {
                xorriso: &third,
                ..Recipe::default()
            }),
        ),
        (
            "a second tree",
            (3, "no second tree"),
            iso_of(&Recipe {
                xorriso: &["-J"],
                ..Recipe::default()
            }),
        ),
    ];
    for (name, expected, world) in &cases {
        table.judge(name, &world.directory.path().join("x.iso"), *expected, by);
    }
    let place = cases[0].2.directory.path().join("x.iso");
    let whole = fs::read(&place).unwrap();
    let mut change = |name: &str, bytes: &[u8]| {
        fs::write(&place, bytes).unwrap();
        table.judge(name, &place, (3, ""), by);
    };
    for (name, at, bit) in [
        ("a byte between the files", 40_965, 0x41),
        ("the label in the first partition", (16 + 16) * 2048 + 40, 0x20),
        ("the partition table", 1024 + 40, 1),
        ("code in the master boot record", 4, 0xeb),
        ("a byte of the targets", whole.len() / 3, 1),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= bit;
        change(name, &bytes);
    }
    change("cut in half", &whole[..whole.len() / 2]);
    change("no image", b"not an image");
    fs::write(&place, &whole).unwrap();
    fs::remove_file(place.with_extension("iso.asc")).unwrap();
    table.judge("without its OpenPGP signature", &place, (4, "no .asc"), by);
    table.agree();
}

/// A world with an ISO by this recipe.
fn iso_of(recipe: &Recipe<'_>) -> World {
    let world = World::new(Tamper::None);
    support::medium::iso(world.directory.path(), &world.repository(), recipe);
    world
}
