// SPDX-License-Identifier: GPL-3.0-or-later
//! `publish`, `export`, `import` and `list`, from a build to a gateway, and everything that must be refused on the way.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use offline_repo::bundle::BundleSource;
use support::low::{Change, Low, edit};
use support::{build, flip, only_refused, other_site, passphrase_file, repo, site, trust};

#[test]
fn a_release_goes_from_a_build_to_a_gateway() {
    let low = Low::new();
    let said = low.publish("1.0.0").ends(0);
    assert!(said.out.contains("release 1.0.0 published"), "{}", said.out);
    let first = low.export("1.bundle", &[]);
    let said = low.import(&first, &["--dry-run"]).ends(0);
    assert!(said.out.contains("nothing was taken in"), "{}", said.out);
    assert!(!low.at("gateway/metadata/timestamp.json").exists() && !low.at("gateway/datastore").exists());
    let compare = signing::anchor::fingerprint(&trust()).unwrap();
    assert!(said.out.contains(&compare), "{}", said.out);
    let said = low.import(&first, &[]).ends(0);
    assert!(
        said.out.contains("first import") && said.out.contains(&compare),
        "{}",
        said.out
    );
    assert_eq!(
        low.list(&low.at("gateway"))["releases"],
        low.list(&low.repository())["releases"]
    );

    low.publish("1.1.0").ends(0);
    let second = low.export("2.bundle", &["--since", "1.0.0"]);
    let bundle = BundleSource::open(&second).unwrap();
    assert!(bundle.target_paths().iter().all(|path| path.starts_with("host/1.1.0/")));
    let summary = low.import(&second, &["--json"]).ends(0).json();
    assert_eq!(summary["new"], serde_json::json!(["1.1.0"]));
    // Its root is remembered: there is nothing to compare any more.
    assert!(summary.get("anchor").is_none());
    let releases = low.list(&low.at("gateway"));
    assert_eq!(releases["releases"].as_array().unwrap().len(), 2);
    // Once more: nothing new, nothing lost.
    let summary = low.import(&second, &["--json"]).ends(0).json();
    assert_eq!(summary["new"], serde_json::json!([]));
}

#[test]
fn a_list_says_what_was_verified_and_what_was_not() {
    let low = Low::published();
    let said = low.run(&format!("list repository --trust {}", trust().display())).ok();
    assert!(
        said.contains("metadata verified, contents not read; fresh until"),
        "{said}"
    );
    let said = low.run("list repository").ok();
    assert!(said.contains("nothing verified"), "{said}");
    let told = low.list(&low.repository());
    assert_eq!(
        (&told["metadata_verified"], &told["contents_read"], &told["expired"]),
        (&true.into(), &false.into(), &false.into())
    );
}

#[test]
fn phases_are_told_where_there_is_no_terminal() {
    let low = Low::published();
    let build = build(low.directory.path(), "1.1.0");
    for (more, phase) in [(&["--dry-run"][..], "reading parts: "), (&[], "copying: ")] {
        let said = low.publish_build(&build, more).ends(0);
        assert!(
            said.err.contains(phase) && said.err.lines().count() == 1,
            "{}",
            said.err
        );
    }
    let said = low.run("export --repo repository --out 2.bundle").ends(0);
    let phases: Vec<_> = said.err.lines().filter_map(|line| line.split_once(": ")).collect();
    let names: Vec<_> = phases.iter().map(|(name, _)| name.trim()).collect();
    assert_eq!(names, ["compressing", "writing", "reading back"], "{}", said.err);
    assert_eq!(
        low.run("export --repo repository --out 2.bundle --json").ends(0).err,
        ""
    );
}

/// What stood in the directory of a new gateway before is not touched.
#[test]
fn a_refused_import_leaves_no_directories() {
    let low = Low::published();
    fs::write(low.at("bad.bundle"), [b'x'; 10_000]).unwrap();
    let trust = trust().display().to_string();
    low.run(&format!("import bad.bundle --repo a/b/gateway --trust {trust}"))
        .ends(3);
    assert!(!low.at("a").exists());
    fs::create_dir(low.at("gateway")).unwrap();
    fs::write(low.at("gateway/notes"), "mine").unwrap();
    low.import(&low.at("bad.bundle"), &[]).ends(3);
    let left: Vec<_> = fs::read_dir(low.at("gateway"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["notes"]);
}

#[test]
fn a_gateway_exports_in_turn() {
    let low = Low::published();
    let bundle = low.at("1.bundle");
    low.import(&bundle, &[]).ends(0);
    let again = low.at("again.bundle");
    let trust = trust().display().to_string();
    let (gateway, out) = (low.at("gateway").display().to_string(), again.display().to_string());
    repo(["export", "--repo", &gateway, "--out", &out, "--trust", &trust]).ends(0);
    assert!(
        fs::read(bundle).unwrap() == fs::read(again).unwrap(),
        "the same content gives the same bundle"
    );
}

#[test]
fn publishing_twice_changes_nothing_and_another_content_is_refused() {
    let low = Low::published();
    let timestamp = fs::read(low.at("repository/metadata/timestamp.json")).unwrap();
    let said = low.publish("1.0.0").ends(0);
    assert!(said.out.contains("already published"), "{}", said.out);
    assert_eq!(
        fs::read(low.at("repository/metadata/timestamp.json")).unwrap(),
        timestamp
    );

    let build = build(&low.at("repository"), "1.0.0");
    let facts = fs::read_to_string(build.join("release.json")).unwrap();
    let wrong = facts.replace("\"stable\"", "\"testing\"");
    fs::write(build.join("release.json"), wrong).unwrap();
    let said = low.publish_build(&build, &[]).ends(3);
    assert!(said.err.contains("published with another content"), "{}", said.err);
}

#[test]
fn signatures_are_renewed_without_a_build() {
    let low = Low::published();
    let mut args: Vec<PathBuf> = vec!["publish".into(), "--repo".into(), low.repository(), "--json".into()];
    args.extend([
        "--site".into(),
        site().into(),
        "--passphrase-file".into(),
        passphrase_file(),
    ]);
    args.extend(["--expires-days".into(), "600".into()]);
    let summary = repo(&args).ends(0).json();
    assert_eq!((&summary["changed"], &summary["timestamp"]), (&true.into(), &2.into()));
    assert_eq!(low.list(&low.repository())["releases"].as_array().unwrap().len(), 1);
    let empty = low.at("empty").display().to_string();
    let place = passphrase_file().display().to_string();
    let said = repo([
        "publish",
        "--repo",
        &empty,
        "--site",
        site().to_str().unwrap(),
        "--passphrase-file",
        &place,
    ]);
    assert!(said.ends(1).err.contains("nothing to renew"));
    assert!(!low.at("empty").exists());
}

#[test]
fn a_build_that_is_not_what_it_says_is_not_published() {
    let low = Low::published();
    let before = fs::read(low.at("repository/metadata/timestamp.json")).unwrap();
    let build = build(low.directory.path(), "1.1.0");
    flip(&build.join("root.erofs"));
    low.publish_build(&build, &[]).ends(3);
    fs::write(build.join("root.erofs"), b"cut").unwrap();
    low.publish_build(&build, &[]).ends(3);
    fs::remove_file(build.join("root.erofs")).unwrap();
    low.publish_build(&build, &[]).ends(1);
    let said = low.publish_build(Path::new("/nonexistent"), &[]).ends(1);
    assert!(said.err.contains("is this a build's directory?"), "{}", said.err);
    assert_eq!(fs::read(low.at("repository/metadata/timestamp.json")).unwrap(), before);
    low.publish("1.1.0").ends(0);
}

#[test]
fn an_altered_repository_is_neither_exported_nor_signed_again() {
    let low = Low::published();
    let out = low.at("x.bundle").display().to_string();
    let repository = low.repository().display().to_string();
    let parts = fs::read_dir(low.at("repository/targets/host/1.0.0")).unwrap();
    let part = parts.map(|entry| entry.unwrap().path()).next().unwrap();
    let good = fs::read(&part).unwrap();
    flip(&part);
    repo(["export", "--repo", &repository, "--out", &out]).ends(3);
    assert!(!Path::new(&out).exists());
    fs::write(&part, good).unwrap();
    flip(&low.at("repository/metadata/1.host.json"));
    repo(["export", "--repo", &repository, "--out", &out]).ends(3);
    low.publish("1.1.0").ends(3);
}

#[test]
fn an_older_bundle_is_refused() {
    let low = Low::published();
    let first = low.at("1.bundle");
    low.publish("1.1.0").ends(0);
    let second = low.export("2.bundle", &["--version", "1.0.0", "--version", "1.1.0"]);
    low.import(&second, &[]).ends(0);
    let said = low.import(&first, &[]).ends(3);
    assert!(said.err.contains("rollback"), "{}", said.err);
    assert_eq!(said.err.lines().count(), 1);
}

#[test]
fn expired_metadata_is_refused_and_named_when_it_is_made() {
    let low = Low::new();
    let build = build(low.directory.path(), "1.0.0");
    for more in [
        &["--expires", "2020-01-31"][..],
        &["--expires", "2020-01-31", "--dry-run"],
    ] {
        let said = low.publish_build(&build, more).ends(3);
        assert!(said.err.contains("expired at 2020-01-31"), "{}", said.err);
    }
    assert!(!low.repository().exists());
    low.publish_build(&build, &["--allow-expired"]).ends(2);
    let past = ["--expires", "2020-01-31", "--allow-expired"];
    let said = low.publish_build(&build, &past).ends(0);
    assert!(said.err.contains("warning"), "{}", said.err);
    assert!(said.out.contains("expired since 2020-01-31"), "{}", said.out);
    let bundle = low.export("1.bundle", &[]);
    for place in ["repository", "1.bundle"] {
        let said = low.run(&format!("list {place} --trust {}", trust().display())).ok();
        assert!(
            said.contains("expired since 2020-01-31") && !said.contains("fresh"),
            "{said}"
        );
        assert_eq!(low.list(&low.at(place))["expired"], true);
    }
    let said = low.import(&bundle, &[]).ends(3);
    assert!(said.err.contains("expired"), "{}", said.err);
}

#[test]
fn a_bundle_that_was_tampered_with_is_refused() {
    let low = Low::published();
    let good = low.at("1.bundle");
    let bad = low.at("bad.bundle");
    let refuse = |why: &str, change: &Change<'_>| {
        let said = low.import(&edit(&good, &bad, change), &[]).ends(3);
        assert!(said.err.contains(why), "{why}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert!(!low.at("gateway/metadata/timestamp.json").exists(), "{why}: visible");
    };
    let other = zstd::encode_all(&b"another content"[..], 1).unwrap();
    refuse("root.erofs", &|name, content| match name.ends_with("root.erofs.zst") {
        true => Some(other.clone()),
        false => Some(content),
    });
    let bomb = zstd::encode_all(&vec![0; 10 << 20][..], 1).unwrap();
    refuse("longer than", &|name, content| match name.ends_with("root.erofs.zst") {
        true => Some(bomb.clone()),
        false => Some(content),
    });
    refuse("promises release 1.0.0", &|name, content| {
        (!name.ends_with("xen.efi.zst")).then_some(content)
    });
    refuse("carries no root", &|name, content| {
        (!name.contains("root.json")).then_some(content)
    });
    refuse("does not name", &|name, content| match name {
        "bundle.json" => Some(
            String::from_utf8(content)
                .unwrap()
                .replace("\"1.0.0\"", "")
                .into_bytes(),
        ),
        _ => Some(content),
    });
    refuse("OpenPGP", &|name, content| (!name.ends_with(".asc")).then_some(content));
    refuse(
        "signed by 0 of the 1",
        &|name, content| match name.ends_with("timestamp.json") {
            true => Some(
                String::from_utf8(content)
                    .unwrap()
                    .replace("\"version\": 1", "\"version\": 2")
                    .into_bytes(),
            ),
            false => Some(content),
        },
    );
}

#[test]
fn a_bundle_with_something_more_in_it_is_refused() {
    let low = Low::published();
    let good = low.at("1.bundle");
    let bad = low.at("bad.bundle");
    for (name, why) in [
        (
            format!("targets/host/1.0.0/{}.root.erofs.zst", "0".repeat(64)),
            "vouches",
        ),
        ("notes.txt".to_owned(), "no place in a bundle"),
    ] {
        edit(&good, &bad, |_, content| Some(content));
        // The end mark is overwritten by one more member.
        let bytes = fs::read(&bad).unwrap();
        let mut out = tar::Builder::new(bytes[..bytes.len() - 1024].to_vec());
        let mut header = tar::Header::new_ustar();
        header.set_size(4);
        out.append_data(&mut header, name, &b"more"[..]).unwrap();
        fs::write(&bad, out.into_inner().unwrap()).unwrap();
        let said = low.import(&bad, &[]).ends(3);
        assert!(said.err.contains(why), "{}", said.err);
    }
}

#[test]
fn cut_and_foreign_files_are_refused() {
    let low = Low::published();
    let good = fs::read(low.at("1.bundle")).unwrap();
    let bad = low.at("bad.bundle");
    for cut in [0, 100, 512, 1536, good.len() / 2, good.len() - 512] {
        fs::write(&bad, &good[..cut]).unwrap();
        low.import(&bad, &[]).ends(3);
    }
    fs::write(&bad, [b'x'; 10_000]).unwrap();
    low.import(&bad, &[]).ends(3);
    low.import(Path::new("/nonexistent.bundle"), &[]).ends(1);
    fs::create_dir(low.at("empty")).unwrap();
    low.import(&low.at("empty"), &[]).ends(1);
}

#[test]
fn the_bundle_of_another_site_is_refused() {
    let low = Low::published();
    let bundle = low.at("1.bundle");
    let said = low.import_with(&bundle, &other_site().join("trust"), &[]).ends(3);
    assert_eq!(only_refused(&low.at("gateway")), 1, "{}", said.err);
    // The mistake is not remembered: with the right trust it is taken in, and afterwards the wrong one is still refused.
    low.import(&bundle, &[]).ends(0);
    low.import_with(&bundle, &other_site().join("trust"), &[]).ends(3);
}

#[test]
fn a_repository_that_serves_newer_metadata_does_not_become_older() {
    let low = Low::published();
    let first = low.at("1.bundle");
    low.publish("1.1.0").ends(0);
    low.import(&low.export("2.bundle", &[]), &[]).ends(0);
    // A gateway whose memory was lost.
    fs::remove_dir_all(low.at("gateway/datastore")).unwrap();
    let before = fs::read(low.at("gateway/metadata/timestamp.json")).unwrap();
    let said = low.import(&first, &[]).ends(3);
    assert!(said.err.contains("rollback"), "{}", said.err);
    assert_eq!(fs::read(low.at("gateway/metadata/timestamp.json")).unwrap(), before);
}
