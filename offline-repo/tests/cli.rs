// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-repo` as its users meet it: help that is true, foreign facts, full disks, cut runs.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use signing::digest::Sha256;
use signing::keys::{self, Algorithm, PrivateKey};
use support::common::{self, assert_closed_pipe, contents};
use support::low::{Low, edit};
use support::served::{self, Served};
use support::shelf::{Shelf, many};
use support::{PROGRAM, build, other_site, passphrase_file, published, site};

/// The words of `publish` in a directory that holds `site` and `passphrase`.
const PUBLISH: &str = "publish --repo repository --site site --passphrase-file passphrase --release build-1.1.0";

/// With all that the command lines below speak of.
fn furnished() -> Low {
    let low = Low::published();
    build(low.directory.path(), "1.1.0");
    std::os::unix::fs::symlink(site(), low.at("site")).unwrap();
    std::os::unix::fs::symlink(site().join("trust"), low.at("vendor-trust")).unwrap();
    std::os::unix::fs::symlink(other_site(), low.at("office")).unwrap();
    fs::copy(passphrase_file(), low.at("passphrase")).unwrap();
    low
}

#[test]
fn a_full_disk_leaves_no_bundle_and_no_release() {
    let low = furnished();
    for name in ["stick", "gateway"] {
        fs::create_dir(low.at(name)).unwrap();
    }
    fs::write(low.at("stick/1.bundle"), "old").unwrap();
    let used = |name: &str| -> u64 {
        let pages = |path: PathBuf| path.metadata().unwrap().len().div_ceil(4096) * 4;
        let files = common::files_below(&low.at(name)).into_iter().map(pages);
        files.sum::<u64>() + 64
    };
    let repository = format!("{}k", used("repository"));
    for (line, place, size) in [
        ("export --repo repository --out stick/1.bundle", "stick", "8k"),
        (PUBLISH, "repository", repository.as_str()),
        ("import 1.bundle --repo gateway --trust site/trust", "gateway", "128k"),
    ] {
        let before = contents(&low.at(place));
        let Some((said, mut left)) = common::on_small_disk(PROGRAM, low.directory.path(), line, &low.at(place), size)
        else {
            return;
        };
        said.fails(1, &["No space left"]);
        // What was taken in of a release that is not whole names itself by its digest, and is no release.
        // So does what an export goes on with.
        assert!(place != "stick" || left.remove(".partial-1.bundle").is_some());
        left.retain(|name, _| {
            !name.starts_with("targets/host/1.1.0/") && place != "gateway" || name.ends_with("timestamp.json")
        });
        assert_eq!(left, before, "{line}");
    }
    // With room again, the same works.
    low.run(PUBLISH).ok();
    low.run("import 1.bundle --repo gateway --trust site/trust").ok();
}

#[test]
fn a_dry_run_says_what_would_be_done_and_makes_nothing() {
    let low = furnished();
    fs::create_dir(low.at("foreign")).unwrap();
    let before = contents(low.directory.path());
    let said = low.run(&format!("{PUBLISH} --dry-run")).ok();
    assert!(said.contains("release 1.1.0 would be published"), "{said}");
    for place in ["new", "foreign"] {
        let line = PUBLISH.replace("--repo repository", &format!("--repo {place}"));
        let summary = low.run(&format!("{line} --dry-run --json")).ends(0).json();
        assert_eq!(
            (&summary["version"], &summary["changed"]),
            (&"1.1.0".into(), &true.into())
        );
        low.run(&format!("import 1.bundle --repo {place} --trust site/trust --dry-run"))
            .ok();
    }
    assert_eq!(contents(low.directory.path()), before);
    assert!(!low.at("new").exists() && fs::read_dir(low.at("foreign")).unwrap().next().is_none());
}

/// The recipe: kill a run once it has written so much, look, and run it again.
#[test]
fn a_killed_run_leaves_nothing_half_visible_and_the_next_one_does_it() {
    let low = furnished();
    let mut killed = 0;
    let versions = |place: &str| low.list(&low.at(place))["releases"].as_array().unwrap().len();
    let import = "import 1.bundle --repo gateway --trust site/trust";
    for sign in [
        "gateway/datastore/root.json",
        "gateway/targets/host/1.0.0",
        "gateway/metadata/1.root.json",
    ] {
        drop(fs::remove_dir_all(low.at("gateway")));
        killed += u32::from(common::killed(low.command(import), &low.at("gateway"), || {
            low.at(sign).exists()
        }));
        if low.at("gateway/metadata/timestamp.json").exists() {
            assert_eq!(versions("gateway"), 1, "{sign}");
        }
        low.run(import).ok();
        assert_eq!(versions("gateway"), 1);
    }
    for sign in ["repository/targets/host/1.1.0", "repository/metadata/2.host.json"] {
        drop(fs::remove_dir_all(low.at("repository")));
        common::copy(&published().join("repository"), &low.at("repository"));
        killed += u32::from(common::killed(low.command(PUBLISH), &low.at("repository"), || {
            low.at(sign).exists()
        }));
        let timestamp: serde_json::Value =
            serde_json::from_slice(&fs::read(low.at("repository/metadata/timestamp.json")).unwrap()).unwrap();
        let seen = if timestamp["signed"]["version"] == 1 { 1 } else { 2 };
        assert_eq!(versions("repository"), seen, "{sign}");
        low.run(PUBLISH).ok();
        assert_eq!(versions("repository"), 2);
    }
    fs::create_dir(low.at("stick")).unwrap();
    let begun = || fs::read_dir(low.at("stick")).unwrap().next().is_some();
    let export = "export --repo repository --version 1.0.0 --level 19 --out stick/1.bundle";
    killed += u32::from(common::killed(low.command(export), &low.at("repository"), begun));
    if !low.at("stick/1.bundle").exists() {
        low.run(export).ok();
    }
    let left: Vec<_> = fs::read_dir(low.at("stick"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["1.bundle"], "the next export clears what the killed one left");
    assert_eq!(versions("stick/1.bundle"), 2);
    assert!(killed > 0, "every run was over before it could be killed");
}

#[test]
fn unknown_keys_and_foreign_facts_are_named() {
    let low = furnished();
    let facts = fs::read_to_string(low.at("build-1.1.0/release.json")).unwrap();
    fs::write(
        low.at("build-1.1.0/release.json"),
        facts.replacen('{', "{\"surprise\": 1,", 1),
    )
    .unwrap();
    low.run(PUBLISH).fails(1, &["release.json", "surprise"]);
    for foreign in ["", "{", "[]", &facts[..facts.len() / 2]] {
        fs::write(low.at("build-1.1.0/release.json"), foreign).unwrap();
        low.run(PUBLISH).fails(1, &["release.json"]);
    }
    let bad = edit(&low.at("1.bundle"), &low.at("bad.bundle"), |name, content| match name {
        "bundle.json" => Some(
            String::from_utf8(content)
                .unwrap()
                .replacen('{', "{\"surprise\": 1,", 1)
                .into_bytes(),
        ),
        _ => Some(content),
    });
    assert!(low.import(&bad, &[]).ends(3).err.contains("surprise"));
    low.run("snapshot verify --archive /dev/zero")
        .fails(1, &["/dev/zero", "not a regular file"]);
    low.run("list nowhere").fails(1, &["nowhere"]);
    common::copy(&Shelf::with(1).at("store"), &low.at("store"));
    low.run("list store")
        .fails(1, &["store is a store", "snapshot list --store store"]);
    low.run("list passphrase").fails(3, &["passphrase"]);
    low.run("list build-1.1.0")
        .fails(1, &["build-1.1.0 is not a repository"]);
    low.run("export --repo nowhere --out x.bundle").fails(1, &["nowhere"]);
    low.run("import 1.bundle --repo gateway --trust nowhere")
        .fails(1, &["nowhere"]);
}

/// As an ordinary user, where the tests run as root: the super-user may write everywhere.
#[test]
fn no_permission_is_named() {
    let low = furnished();
    let run = |line: &str| common::as_nobody(PROGRAM, low.directory.path(), line);
    let Some(said) = run("list repository") else {
        return;
    };
    said.ok();
    let fails = |line: &str, reasons: &[&str]| run(line).unwrap().fails(1, reasons);
    fails(PUBLISH, &["ermission denied"]);
    fails(
        "export --repo repository --out x.bundle",
        &["work/export", "Permission denied"],
    );
    fails(
        "import 1.bundle --repo gateway --trust site/trust",
        &["gateway", "Permission denied"],
    );
    for name in ["specs", "keyrings"] {
        common::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name), &low.at(name));
    }
    fails("mirror specs/base.toml --store store", &["store", "Permission denied"]);
    assert!(!low.at("x.bundle").exists() && !low.at("gateway").exists() && !low.at("store").exists());
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let low = furnished();
    for line in [
        "list repository",
        "list repository --json",
        "export --repo repository --out x.bundle --json",
        "serve --repo repository --plain --listen 127.0.0.1:0",
    ] {
        assert_closed_pipe(low.command(line));
    }
}

/// A host's receipt; gives the fingerprint of its key.
fn first_receipt(low: &Low, name: &str) -> Sha256 {
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let signed = common::host_receipt(name, 1, "0.9.0").sign(&key).unwrap();
    fs::write(low.at(&format!("{name}.receipt.json")), signed.bytes).unwrap();
    signed.fingerprint
}

#[test]
fn the_examples_in_the_help_work() {
    let low = furnished();
    fs::create_dir(low.at("build")).unwrap();
    build(low.directory.path(), "1.0.0");
    fs::rename(low.at("build-1.0.0"), low.at("build/1.0.0")).unwrap();
    for directory in ["stick", "discs"] {
        fs::create_dir_all(low.at(directory)).unwrap();
    }
    let shelf = Shelf::with(2);
    shelf.put("patched", &many(3));
    for place in ["store", "stick/store"] {
        common::copy(&shelf.at("store"), &low.at(place));
    }
    let mut helps = common::helps(PROGRAM, &[]);
    let order = [
        "mirror",
        "snapshot",
        "snapshot list",
        "snapshot show",
        "snapshot diff",
        "snapshot verify",
        "verify",
        "repair",
        "prune",
        "publish",
        "export",
        "import",
        "quarantine",
        "approve",
        "enrol",
        "receive",
        "receipts",
        "receipt",
        "apt",
        "apt publish",
        "serve",
        "list",
        "",
    ];
    helps.sort_by_key(|help| order.iter().position(|&command| command == help.command));
    let fingerprints = ["rack4", "rack5"].map(|name| first_receipt(&low, name));
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    served::certificate(low.directory.path(), "gateway");
    keys::write_new(&low.at("gateway.key.pem"), &key, &common::passphrase()).unwrap();
    for example in helps.into_iter().flat_map(|help| help.examples) {
        if let Some((enrol, _)) = example.split_once(" --fingerprint ") {
            for (name, fingerprint) in ["rack4", "rack5"].iter().zip(&fingerprints) {
                let line = enrol.replace("rack4", name);
                low.run(&format!("{line} --fingerprint {fingerprint}")).ok();
            }
            continue;
        }
        if example.starts_with("serve ") {
            // At an address of this machine, and not for ever.
            let line = example.replace(" --listen 10.0.0.5:8443", "");
            let served = Served::started(low.command(&line));
            served.connect();
            continue;
        }
        // These need a mirror of Debian: only their words are judged.
        let words = ["mirror ", "snapshot verify ", "apt publish "];
        let judged = words.iter().any(|words| example.starts_with(words));
        low.run(&format!("{example}{}", if judged { " --help" } else { "" }))
            .ok();
    }
}
