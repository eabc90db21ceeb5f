// SPDX-License-Identifier: GPL-3.0-or-later
//! `publish`, `export`, `import` and `list`, from a build to a gateway, and everything that must be refused on the way.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use offline_repo::bundle::BundleSource;
use signing::process::Cmd;
use support::common::{self, assert_closed_pipe, contents};
use support::{PROGRAM, Said, build, flip, other_site, passphrase_file, published, repo, site, trust};

/// A low side with a repository.
struct Low {
    directory: tempfile::TempDir,
}

impl Low {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// With release 1.0.0 and its bundle.
    fn published() -> Self {
        let low = Self::new();
        common::copy(&published(), low.directory.path());
        low
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command line in the directory, words split at spaces.
    fn command(&self, line: &str) -> Cmd {
        common::command(PROGRAM, self.directory.path(), line)
    }

    fn run(&self, line: &str) -> Said {
        Said::of(self.command(line))
    }

    fn repository(&self) -> PathBuf {
        self.at("repository")
    }

    fn publish_build(&self, build: &Path, more: &[&str]) -> Said {
        let mut args: Vec<PathBuf> = vec!["publish".into(), "--repo".into(), self.repository()];
        args.extend([
            "--site".into(),
            site().into(),
            "--passphrase-file".into(),
            passphrase_file(),
        ]);
        args.extend(["--release".into(), build.into()]);
        args.extend(more.iter().map(PathBuf::from));
        repo(args)
    }

    fn publish(&self, version: &str) -> Said {
        self.publish_build(&build(self.directory.path(), version), &[])
    }

    fn export(&self, name: &str, more: &[&str]) -> PathBuf {
        let out = self.at(name);
        let mut args: Vec<PathBuf> = vec!["export".into(), "--repo".into(), self.repository(), "--out".into()];
        args.push(out.clone());
        args.extend(more.iter().map(PathBuf::from));
        repo(args).ends(0);
        out
    }

    fn import(&self, bundle: &Path, more: &[&str]) -> Said {
        self.import_with(bundle, &trust(), more)
    }

    fn import_with(&self, bundle: &Path, trust: &Path, more: &[&str]) -> Said {
        let mut args: Vec<PathBuf> = vec!["import".into(), bundle.into(), "--repo".into(), self.at("gateway")];
        args.extend(["--trust".into(), trust.into()]);
        args.extend(more.iter().map(PathBuf::from));
        repo(args)
    }

    fn list(&self, path: &Path) -> serde_json::Value {
        let trust = trust().display().to_string();
        repo(["list", path.to_str().unwrap(), "--trust", &trust, "--json"])
            .ends(0)
            .json()
    }
}

type Change<'a> = dyn Fn(&str, Vec<u8>) -> Option<Vec<u8>> + 'a;

/// Writes a bundle anew, each member through `edit`: changed, or left out where it gives none.
fn edit(from: &Path, to: &Path, edit: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> PathBuf {
    let mut out = tar::Builder::new(File::create(to).unwrap());
    let mut archive = tar::Archive::new(File::open(from).unwrap());
    for member in archive.entries().unwrap() {
        let mut member = member.unwrap();
        let name = member.path().unwrap().display().to_string();
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        if let Some(content) = edit(&name, content) {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            out.append_data(&mut header, name, content.as_slice()).unwrap();
        }
    }
    out.finish().unwrap();
    to.to_path_buf()
}

#[test]
fn a_release_goes_from_a_build_to_a_gateway() {
    let low = Low::new();
    let said = low.publish("1.0.0").ends(0);
    assert!(said.out.contains("release 1.0.0 published"), "{}", said.out);
    let first = low.export("1.bundle", &[]);
    let said = low.import(&first, &["--dry-run"]).ends(0);
    assert!(said.out.contains("nothing was taken in"), "{}", said.out);
    assert!(!low.at("gateway/metadata/timestamp.json").exists() && !low.at("gateway/datastore").exists());
    low.import(&first, &[]).ends(0);
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
    let releases = low.list(&low.at("gateway"));
    assert_eq!(releases["releases"].as_array().unwrap().len(), 2);
    // Once more: nothing new, nothing lost.
    let summary = low.import(&second, &["--json"]).ends(0).json();
    assert_eq!(summary["new"], serde_json::json!([]));
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
    let said = low.publish_build(&build, &["--expires", "2020-01-31"]).ends(0);
    assert!(said.err.contains("warning"), "{}", said.err);
    let bundle = low.export("1.bundle", &[]);
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
    low.import(low.directory.path(), &[]).ends(1);
}

#[test]
fn the_bundle_of_another_site_is_refused() {
    let low = Low::published();
    let bundle = low.at("1.bundle");
    let said = low.import_with(&bundle, &other_site().join("trust"), &[]).ends(3);
    assert!(!low.at("gateway/metadata/timestamp.json").exists(), "{}", said.err);
}

/// The words of `publish` in a directory that holds `site` and `passphrase`.
const PUBLISH: &str = "publish --repo repository --site site --passphrase-file passphrase --release build-1.1.0";

/// With all that the command lines below speak of.
fn furnished() -> Low {
    let low = Low::published();
    build(low.directory.path(), "1.1.0");
    std::os::unix::fs::symlink(site(), low.at("site")).unwrap();
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
    low.run("list nowhere").fails(1, &["nowhere"]);
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
        &["x.bundle", "Permission denied"],
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
    ] {
        assert_closed_pipe(low.command(line));
    }
}

#[test]
fn the_examples_in_the_help_work() {
    let low = furnished();
    fs::create_dir(low.at("build")).unwrap();
    build(low.directory.path(), "1.0.0");
    fs::rename(low.at("build-1.0.0"), low.at("build/1.0.0")).unwrap();
    for directory in ["stick", "store/pool", "store/snapshots"] {
        fs::create_dir_all(low.at(directory)).unwrap();
    }
    let mut helps = common::helps(PROGRAM, &[]);
    let order = ["mirror", "verify-snapshot", "publish", "export", "import", "list", ""];
    helps.sort_by_key(|help| order.iter().position(|&command| command == help.command));
    for example in helps.into_iter().flat_map(|help| help.examples) {
        // These two need a mirror: only their words are judged.
        let judged = example.starts_with("mirror ") || example.starts_with("verify-snapshot ");
        low.run(&format!("{example}{}", if judged { " --help" } else { "" }))
            .ok();
    }
}
