// SPDX-License-Identifier: GPL-3.0-or-later
//! `snapshot list`, `show` and `diff`, on packages that dpkg-deb made.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use offline_repo::snapshot::SnapshotPackage;
use offline_repo::spec::Role;
use serde_json::{Value, json};
use signing::digest::Sha256;
use support::common::{assert_closed_pipe, flip};
use support::debs::{Recipe, entry, gzip, real, with_changelog};
use support::shelf::{Shelf, many, package};

const DIFF: &str = "snapshot diff base patched --store store";

/// A diff that must end so, as JSON.
fn diff(shelf: &Shelf, code: i32) -> Value {
    shelf.run(&format!("{DIFF} --json")).ends(code).json()
}

#[test]
fn list_and_show_say_what_is_there_and_what_lacks() {
    let shelf = Shelf::with(3);
    shelf.put("patched", &many(4));
    fs::remove_file(shelf.object("content of 3")).unwrap();
    let list = shelf.run("snapshot list --store store --json").ends(0).json();
    let seen = |at: usize| {
        let one = &list["snapshots"][at];
        json!([one["name"], one["packages"], one["lacking"], one["suites"][0]["suite"]])
    };
    assert_eq!(seen(0), json!(["base", 3, 0, "trixie"]));
    assert_eq!(seen(1), json!(["patched", 4, 1, "trixie"]));
    let said = shelf.run("snapshot list --store store").ok();
    assert!(
        said.contains("patched 4 packages (host 4") && said.contains("1 are missing"),
        "{said}"
    );
    let said = shelf.run("snapshot show patched --store store").ok();
    assert!(
        said.contains("  p3 1.0-1 amd64 12 B for host; missing from the pool"),
        "{said}"
    );
    let shown = shelf.run("snapshot show base --store store --json").ends(0).json();
    assert_eq!(
        (&shown["name"], &shown["packages"][2]["name"], &shown["lacking"]),
        (&"base".into(), &"p2".into(), &0.into())
    );
    shelf
        .run("snapshot show other --store store")
        .fails(1, &["snapshots/other", "the store holds: base, patched"]);
    assert_closed_pipe(shelf.command("snapshot list --store store"));
}

#[test]
fn a_diff_names_packages_and_the_fixes_between_the_versions() {
    let shelf = Shelf::new();
    let old = entry("lib", "1.0-1", "CVE-2024-0001");
    let new = entry("lib", "1.0-2", "CVE-2026-0002 and CVE-2026-0003") + &old;
    let same = package("same", "1", b"same");
    shelf.put(
        "base",
        &[
            with_changelog("lib", "1.0-1", &old),
            same.clone(),
            package("gone", "1", b"gone"),
        ],
    );
    let mut kept = same;
    kept.0.roles = [Role::Builder].into();
    shelf.put(
        "patched",
        &[
            with_changelog("lib", "1.0-2", &new),
            kept,
            package("fresh", "2", b"fresh"),
        ],
    );
    let found = diff(&shelf, 0);
    assert_eq!(found["added"], json!([{"name": "fresh", "version": "2"}]));
    assert_eq!(found["removed"], json!([{"name": "gone", "version": "1"}]));
    assert_eq!(
        found["changed"],
        json!([{"name": "lib", "from": "1.0-1", "to": "1.0-2", "source": "lib"}])
    );
    assert_eq!(
        found["moved"],
        json!([{"name": "same", "from": ["host"], "to": ["builder"]}])
    );
    assert_eq!(
        (&found["fixes"], &found["complete"]),
        (&json!(["CVE-2026-0002", "CVE-2026-0003"]), &true.into())
    );
    let said = shelf.run(DIFF).ok();
    assert!(
        said.contains("source lib 1.0-1 -> 1.0-2 fixes CVE-2026-0002 CVE-2026-0003")
            && said.ends_with("base -> patched: 1 added, 1 changed, 1 removed; 2 security fixes named\n"),
        "{said}"
    );
    // The way back loses them.
    let back = shelf
        .run("snapshot diff patched base --store store --json")
        .ends(0)
        .json();
    assert_eq!(
        (&back["fixes"], &back["sources"][0]["lost"]),
        (&json!([]), &json!(["CVE-2026-0002", "CVE-2026-0003"]))
    );
    let said = shelf.run("snapshot diff patched base --store store").ok();
    assert!(said.contains("1.0-2 -> 1.0-1 loses fixes of CVE-2026-0002"), "{said}");
    let none = shelf.run("snapshot diff base base --store store --json").ends(0).json();
    assert_eq!((&none["changed"], &none["moved"]), (&json!([]), &json!([])));
}

/// A package of a source package of another name.
fn of(source: &str, (mut package, content): (SnapshotPackage, Vec<u8>)) -> (SnapshotPackage, Vec<u8>) {
    package.source = source.into();
    (package, content)
}

/// The recipe: three packages of one source. The smallest has a link for its documentation, as Debian's libgcc has.
#[test]
fn a_source_package_is_read_once_and_where_its_changelog_is() {
    let shelf = Shelf::new();
    let linked = |doc: &Path| {
        fs::remove_dir(doc).unwrap();
        symlink("big", doc).unwrap();
    };
    let recipe = Recipe {
        packing: "xz",
        fill: &linked,
    };
    let text = |version: &str| entry("src", version, "CVE-2026-0002") + &entry("src", "1", "CVE-2024-0001");
    let large = |version: &str| {
        let fill = |doc: &Path| {
            let digests = (0..1000u32).map(|number| Sha256::of(&number.to_be_bytes()).to_string());
            fs::write(doc.join("README"), digests.collect::<String>()).unwrap();
            gzip(&doc.join("changelog.Debian.gz"), text(version).as_bytes());
        };
        let packing = "xz";
        real("large", version, &Recipe { packing, fill: &fill })
    };
    let all = |version: &str| {
        vec![
            of("src", real("small", version, &recipe)),
            of("src", with_changelog("big", version, &text(version))),
            of("src", large(version)),
        ]
    };
    shelf.put("base", &all("1"));
    shelf.put("patched", &all("2"));
    let found = diff(&shelf, 0);
    assert_eq!(
        found["sources"],
        json!([{
            "source": "src", "from": "1", "to": "2", "packages": ["big", "large", "small"],
            "fixes": ["CVE-2026-0002"], "lost": [], "security": true, "incomplete": null,
        }])
    );
    let damage = |name: &str| {
        let snapshot = shelf.store().snapshot("patched").unwrap();
        let package = snapshot.packages.iter().find(|one| one.name == name).unwrap();
        flip(&shelf.store().object(&package.sha256));
    };
    // Each is held against its digest, and the next larger one taken.
    damage("big");
    diff(&shelf, 0);
    damage("large");
    let found = diff(&shelf, 4);
    let why = found["sources"][0]["incomplete"].as_str().unwrap();
    assert!(
        why.contains("in big 2 could not be read") && why.contains("has been altered"),
        "{why}"
    );
    assert!(shelf.run(DIFF).ends(4).out.contains("there may be more"));
}

#[test]
fn a_new_build_of_the_same_source_has_no_fixes_to_be_read() {
    let shelf = Shelf::new();
    let build = |version: &str| {
        let (mut package, content) = package("lib", version, version.as_bytes());
        package.source_version = "1.0-1".into();
        (package, content)
    };
    shelf.put("base", &[build("1.0-1")]);
    shelf.put("patched", &[build("1.0-1+b1")]);
    let found = diff(&shelf, 0);
    assert_eq!(
        (&found["changed"][0]["to"], &found["sources"]),
        (&"1.0-1+b1".into(), &json!([]))
    );
}

#[test]
fn a_security_upload_without_an_identifier_is_said() {
    let shelf = Shelf::new();
    shelf.put("base", &[package("lib", "1", b"1")]);
    let text = entry("lib", "2", "Fixes GHSA-0000-0000-0000") + &entry("lib", "1", "x");
    shelf.put("patched", &[with_changelog("lib", "2", &text)]);
    let said = shelf.run(DIFF).ok();
    assert!(
        said.contains("source lib 1 -> 2: a security upload that names no CVE"),
        "{said}"
    );
}

#[test]
fn a_trimmed_changelog_and_none_are_said() {
    let shelf = Shelf::new();
    let bare = |doc: &Path| fs::write(doc.join("README"), "x").unwrap();
    let recipe = Recipe {
        packing: "gzip",
        fill: &bare,
    };
    shelf.put(
        "base",
        &[package("cut", "1.0-1", b"cut"), package("bare", "1.0-1", b"bare")],
    );
    let cut = entry("cut", "3.0-1", "CVE-2026-0003") + "# Older entries have been removed from this changelog.\n";
    shelf.put(
        "patched",
        &[with_changelog("cut", "3.0-1", &cut), real("bare", "3.0-1", &recipe)],
    );
    let found = diff(&shelf, 4);
    assert_eq!(
        (&found["complete"], &found["fixes"]),
        (&false.into(), &json!(["CVE-2026-0003"]))
    );
    let why = |at: usize| found["sources"][at]["incomplete"].as_str().unwrap().to_owned();
    assert!(why(0).contains("none of its packages"), "{}", why(0));
    assert!(why(1).contains("does not reach back to 1.0-1"), "{}", why(1));
}

#[test]
fn whatever_dpkg_packs_is_read_and_native_packages_too() {
    for packing in ["none", "gzip", "xz", "zstd"] {
        let shelf = Shelf::new();
        let old = entry("lib", "1", "x");
        let new = entry("lib", "2", "CVE-2026-0002") + &old;
        let native = |doc: &Path| {
            gzip(&doc.join("changelog.gz"), new.as_bytes());
        };
        let upstreams_too = |doc: &Path| {
            gzip(&doc.join("changelog.gz"), b"Changes in 2: CVE-2020-0001 is ours\n");
            gzip(&doc.join("changelog.Debian.gz"), new.as_bytes());
        };
        let recipe = |fill| Recipe { packing, fill };
        // Longer than a name in a tar header.
        let long = "o".repeat(80);
        shelf.put("base", &[package("lib", "1", b"1"), package(&long, "1", b"other 1")]);
        shelf.put(
            "patched",
            &[
                real("lib", "2", &recipe(&native)),
                real(&long, "2", &recipe(&upstreams_too)),
            ],
        );
        let found = diff(&shelf, 0);
        assert_eq!(found["sources"][0]["fixes"], json!(["CVE-2026-0002"]), "{packing}");
        assert_eq!(found["sources"][1]["fixes"], json!(["CVE-2026-0002"]), "{packing}");
    }
}
