// SPDX-License-Identifier: GPL-3.0-or-later
//! A bundle of deltas: for whom it was made, for nobody else, and what stands in for it.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Read;
use std::path::Path;

use signing::digest::Sha256;
use signing::release::Part;
use support::common::{self, contents};
use support::low::{Low, edit};
use support::{build, passphrase_file, replace_part, site};

/// Bytes without a pattern.
fn noise(seed: u32, kib: u32) -> Vec<u8> {
    (0..kib << 5)
        .flat_map(|n| Sha256::of(&[seed.to_le_bytes(), n.to_le_bytes()].concat()).0)
        .collect()
}

/// Two releases of which the second changed a little, with a new boot image that its root file system holds too, and a
/// gateway that holds the first.
fn two() -> Low {
    let low = Low::new();
    std::os::unix::fs::symlink(site(), low.at("site")).unwrap();
    fs::copy(passphrase_file(), low.at("passphrase")).unwrap();
    let first = build(low.directory.path(), "1.0.0");
    let mut root = noise(1, 1500);
    replace_part(&first, Part::Root, &root);
    low.publish_build(&first, &[]).ends(0);
    let bundle = low.export("1.bundle", &[]);
    low.import(&bundle, &[]).ends(0);
    let second = build(low.directory.path(), "1.1.0");
    for at in (0..root.len()).step_by(9973) {
        root[at] ^= 0x55;
    }
    root.splice(700..700, fs::read(second.join(Part::Xen.file())).unwrap());
    root.extend(noise(2, 10));
    replace_part(&second, Part::Root, &root);
    low.publish_build(&second, &[]).ends(0);
    low
}

fn members(bundle: &Path) -> Vec<String> {
    let mut archive = tar::Archive::new(fs::File::open(bundle).unwrap());
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

fn target(place: &Path, version: &str, part: Part) -> std::path::PathBuf {
    let files = common::files_below(&place.join("targets/host").join(version));
    let end = format!(".{}", part.file());
    files
        .into_iter()
        .find(|file| file.to_str().unwrap().ends_with(&end))
        .unwrap()
}

#[test]
fn what_the_receiver_holds_is_not_carried_again() {
    let low = two();
    let said = low
        .run("export --repo repository --out 2.bundle --since 1.0.0 --json")
        .ends(0)
        .json();
    assert_eq!(
        (&said["base"], &said["releases"][0]),
        (&"1.0.0".into(), &"1.1.0".into())
    );
    let members = members(&low.at("2.bundle"));
    assert!(
        members.iter().any(|name| name.ends_with(".root.erofs.delta.zst")),
        "{members:?}"
    );
    let (delta, whole) = (
        low.at("2.bundle"),
        low.export("w.bundle", &["--since", "1.0.0", "--whole"]),
    );
    let size = |file: &Path| fs::metadata(file).unwrap().len();
    assert!(size(&delta) < size(&whole) / 20, "{} {}", size(&delta), size(&whole));
    low.run("import 2.bundle --repo gateway --trust site/trust --dry-run")
        .ends(0);
    low.run("import 2.bundle --repo gateway --trust site/trust").ends(0);
    assert_eq!(
        contents(&low.at("gateway/targets")),
        contents(&low.at("repository/targets"))
    );
    // Where it is whole already nothing needs a base.
    fs::remove_dir_all(low.at("gateway/targets/host/1.0.0")).unwrap();
    low.run("import 2.bundle --repo gateway --trust site/trust").ends(0);
}

#[test]
fn a_receiver_without_the_base_is_told_so_before_anything_is_kept() {
    for change in [
        |gateway: &Path| fs::remove_dir_all(gateway).unwrap(),
        |gateway: &Path| fs::remove_file(target(gateway, "1.0.0", Part::Root)).unwrap(),
        // One byte of what should be the base is another.
        |gateway: &Path| {
            let place = target(gateway, "1.0.0", Part::Root);
            let mut bytes = fs::read(&place).unwrap();
            bytes[1_000_000] ^= 1;
            fs::remove_file(&place).unwrap();
            fs::write(&place, bytes).unwrap();
        },
    ] {
        let low = two();
        let bundle = low.export("2.bundle", &["--since", "1.0.0"]);
        change(&low.at("gateway"));
        let before = low.at("gateway").exists().then(|| contents(&low.at("gateway/targets")));
        low.import(&bundle, &["--dry-run"])
            .fails(3, &["as a delta to host/1.0.0/", "which is not here", "a whole one"]);
        low.import(&bundle, &[])
            .fails(3, &["which is not here", "the reason is in"]);
        let quarantine = common::files_below(&low.at("gateway/quarantine"));
        assert!(
            quarantine.iter().all(|file| file.ends_with("refused.json")),
            "{quarantine:?}"
        );
        assert_eq!(
            before,
            low.at("gateway/targets")
                .exists()
                .then(|| contents(&low.at("gateway/targets")))
        );
        let whole = low.export("w.bundle", &["--since", "1.0.0", "--whole"]);
        low.import(&whole, &[]).ends(0);
    }
}

#[test]
fn where_the_base_was_pruned_everything_is_carried_whole() {
    let low = two();
    fs::remove_file(target(&low.repository(), "1.0.0", Part::Verity)).unwrap();
    let said = low.run("export --repo repository --out 2.bundle --since 1.0.0");
    let said = said.ends(0);
    let why = "release 1.0.0 is not whole in this repository any more: everything is carried whole";
    assert!(said.err.contains(why), "{}", said.err);
    assert!(
        members(&low.at("2.bundle"))
            .iter()
            .all(|name| !name.ends_with(".delta.zst"))
    );
    fs::remove_dir_all(low.at("gateway")).unwrap();
    low.import(&low.at("2.bundle"), &[]).ends(0);
    low.run("export --repo repository --out 3.bundle --whole")
        .fails(2, &["--since"]);
}

/// The recipe: each delta's last byte is another, its list names another base, or it is another target's.
#[test]
fn an_altered_delta_is_refused_by_the_signed_digest() {
    let low = two();
    let bundle = low.export("2.bundle", &["--since", "1.0.0"]);
    let again = |content: Vec<u8>, change: &dyn Fn(&mut Vec<u8>)| {
        let mut delta = Vec::new();
        zstd::Decoder::new(&content[..])
            .unwrap()
            .read_to_end(&mut delta)
            .unwrap();
        change(&mut delta);
        zstd::encode_all(&delta[..], 3).unwrap()
    };
    let root = |name: &str| name.ends_with(".root.erofs.delta.zst");
    let altered = edit(&bundle, &low.at("altered.bundle"), |name, content| {
        Some(match root(name) {
            true => again(content, &|delta| *delta.last_mut().unwrap() ^= 1),
            false => content,
        })
    });
    low.import(&altered, &[])
        .fails(3, &["root.erofs", "does not have the digest"]);
    let longer = edit(&bundle, &low.at("longer.bundle"), |name, content| {
        Some(match root(name) {
            true => again(content, &|delta| delta.push(0)),
            false => content,
        })
    });
    low.import(&longer, &[]).fails(3, &["the delta is damaged"]);
    let torn = edit(&bundle, &low.at("torn.bundle"), |name, mut content| {
        if root(name) {
            content.truncate(content.len() / 2);
        }
        Some(content)
    });
    low.import(&torn, &[]).fails(3, &["root.erofs", "damaged"]);
    assert!(!low.at("gateway/targets/host/1.1.0").exists());
    low.import(&bundle, &[]).ends(0);
}

/// A member that rests on itself, and two that rest on each other, are made of nothing.
#[test]
fn a_delta_that_rests_on_itself_is_refused() {
    let low = two();
    let bundle = low.export("2.bundle", &["--since", "1.0.0"]);
    let name = |bundle: &Path, part: Part| {
        let end = format!(".{}.delta.zst", part.file());
        members(bundle).into_iter().find(|name| name.ends_with(&end)).unwrap()
    };
    let (root, sbom) = (name(&bundle, Part::Root), name(&bundle, Part::Sbom));
    let path = |name: &str| name["targets/".len()..name.len() - ".delta.zst".len()].to_owned();
    let resting = |on: &str| {
        let place = low.repository().join("targets").join(path(on));
        let (sha256, length) = Sha256::of_file(&place).unwrap();
        let list = serde_json::json!({"length": 1, "bases": [{"path": path(on), "length": length, "sha256": sha256}]});
        let list = serde_json::to_vec(&list).unwrap();
        let mut delta = b"bastide delta 1\n".to_vec();
        delta.extend(u32::try_from(list.len()).unwrap().to_le_bytes());
        delta.extend(list);
        zstd::encode_all(&delta[..], 3).unwrap()
    };
    for (first, second) in [(&root, &root), (&sbom, &root)] {
        let forged = edit(&bundle, &low.at("forged.bundle"), |name, content| {
            Some(match name {
                _ if name == first => resting(second),
                _ if name == second => resting(first),
                _ => content,
            })
        });
        low.import(&forged, &[])
            .fails(3, &["as a delta to", "which is not here"]);
    }
}

#[test]
fn volumes_carry_deltas_in_any_order() {
    let low = two();
    let line =
        "export --repo repository --out d --since 1.0.0 --volume-size 4M --site site --passphrase-file passphrase";
    low.run(&format!("{line} --json")).ends(0);
    let said = low.run(&format!("{line} --json")).ends(0).json();
    assert_eq!((&said["base"], &said["of"]), (&"1.0.0".into(), &1.into()));
    low.run("import d.001 --repo gateway --trust site/trust").ends(0);
    assert_eq!(
        contents(&low.at("gateway/targets")),
        contents(&low.at("repository/targets"))
    );
}
