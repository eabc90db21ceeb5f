// SPDX-License-Identifier: GPL-3.0-or-later
//! `publish`, `export`, `import` and `list`, from a build to a gateway, and everything that must be refused on the way.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use offline_repo::bundle::BundleSource;
use signing::process::Cmd;
use support::{Said, build, flip, make_site, passphrase_file, repo, site, trust};

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

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
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
    let low = Low::new();
    low.publish("1.0.0").ends(0);
    let bundle = low.export("1.bundle", &[]);
    low.import(&bundle, &[]).ends(0);
    let again = low.at("again.bundle");
    let trust = trust().display().to_string();
    let (gateway, out) = (low.at("gateway").display().to_string(), again.display().to_string());
    repo(["export", "--repo", &gateway, "--out", &out, "--trust", &trust]).ends(0);
    assert_eq!(
        fs::read(bundle).unwrap(),
        fs::read(again).unwrap(),
        "the same content gives the same bundle"
    );
}

#[test]
fn publishing_twice_changes_nothing_and_another_content_is_refused() {
    let low = Low::new();
    low.publish("1.0.0").ends(0);
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
    let low = Low::new();
    low.publish("1.0.0").ends(0);
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
    let low = Low::new();
    low.publish("1.0.0").ends(0);
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
    let low = Low::new();
    low.publish("1.0.0").ends(0);
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
    let low = Low::new();
    low.publish("1.0.0").ends(0);
    let first = low.export("1.bundle", &[]);
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
    let low = Low::new();
    low.publish("1.0.0").ends(0);
    let good = low.export("good.bundle", &[]);
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
    let low = Low::new();
    low.publish("1.0.0").ends(0);
    let good = low.export("good.bundle", &[]);
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
    let low = Low::new();
    low.publish("1.0.0").ends(0);
    let good = fs::read(low.export("good.bundle", &[])).unwrap();
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
    let low = Low::new();
    low.publish("1.0.0").ends(0);
    let bundle = low.export("1.bundle", &[]);
    let other = make_site(low.directory.path(), "other-site");
    let said = low.import_with(&bundle, &other.join("trust"), &[]).ends(3);
    assert!(!low.at("gateway/metadata/timestamp.json").exists(), "{}", said.err);
}

#[test]
fn a_full_disk_leaves_no_bundle_and_no_release() {
    let low = Low::new();
    low.publish("1.0.0").ends(0);
    let (probe, _, _) = Cmd::new("unshare")
        .args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .status()
        .unwrap();
    if !probe.success() {
        println!("could not check: this machine allows no mount in a namespace");
        return;
    }
    let small = low.at("small");
    fs::create_dir(&small).unwrap();
    // The size is a page or two: not even the metadata fits. The listing shows what is left of the attempt.
    let script = "mount -t tmpfs -o size=8k tmpfs \"$1\" && place=$1 && shift && { \"$@\"; code=$?; ls -A \"$place\"; exit $code; }";
    let out = small.join("1.bundle");
    let (status, left, err) = Cmd::new("unshare")
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(&small)
        .args([env!("CARGO_BIN_EXE_bastide-repo"), "export", "--repo"])
        .arg(low.repository())
        .arg("--out")
        .arg(out)
        .status()
        .unwrap();
    let err = String::from_utf8_lossy(&err).into_owned();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains("No space left"), "{err}");
    assert_eq!(String::from_utf8_lossy(&left), "", "something half-written is left");
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let low = Low::new();
    low.publish("1.0.0").ends(0);
    let script = "\"$1\" list \"$2\" --json | true; echo \"${PIPESTATUS[0]}\"";
    let (_, out, err) = Cmd::new("bash")
        .args(["-c", script, "bash", env!("CARGO_BIN_EXE_bastide-repo")])
        .arg(low.repository())
        .status()
        .unwrap();
    // The reader may go before or after the last line: what was not read is no success, and says so without a word.
    let code = String::from_utf8_lossy(&out).trim().to_owned();
    assert!(["0", "141"].contains(&code.as_str()), "{code}");
    assert_eq!(String::from_utf8_lossy(&err), "");
}

#[test]
fn help_is_narrow_and_its_examples_work() {
    let low = Low::new();
    build(low.directory.path(), "1.0.0");
    fs::create_dir(low.at("build")).unwrap();
    fs::rename(low.at("build-1.0.0"), low.at("build/1.0.0")).unwrap();
    for directory in ["stick", "store/pool", "store/snapshots"] {
        fs::create_dir_all(low.at(directory)).unwrap();
    }
    std::os::unix::fs::symlink(site(), low.at("site")).unwrap();
    fs::copy(passphrase_file(), low.at("passphrase")).unwrap();
    let mut seen = 0;
    for command in ["mirror", "verify-snapshot", "publish", "export", "import", "list", ""] {
        let args = [command, "--help"].into_iter().filter(|arg| !arg.is_empty());
        let help = repo(args).ends(0).out;
        assert!(
            help.lines().all(|line| line.chars().count() <= 80),
            "{command}: a line is too long"
        );
        let examples = help.split("Examples:\n").nth(1).unwrap().replace("\\\n", " ");
        for example in examples.lines().filter(|line| line.trim().starts_with("bastide-repo")) {
            let mut words = example.split_whitespace().skip(1);
            let mut cmd = Cmd::new(env!("CARGO_BIN_EXE_bastide-repo")).dir(low.directory.path());
            cmd = cmd.args(words.by_ref());
            // These two need a mirror: only their words are judged.
            if example.contains("mirror ") || example.contains("verify-snapshot ") {
                cmd = cmd.arg("--help");
            }
            let (status, _, err) = cmd.status().unwrap();
            assert!(status.success(), "{example}: {}", String::from_utf8_lossy(&err));
            seen += 1;
        }
    }
    assert!(seen > 12, "{seen}");
}
