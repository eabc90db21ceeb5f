// SPDX-License-Identifier: GPL-3.0-or-later
//! `mirror` and `snapshot verify` against a real, small archive on the disk, through the machine's own apt.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use chrono::Duration;
use signing::clock::now;
use signing::process::Cmd;
use support::{Archive, Deb, PROGRAM, Said, common, deb, flip, repo};

fn three() -> Vec<Deb> {
    vec![
        deb("one", "1.0-1", "two"),
        deb("two", "2.0-1", ""),
        deb("three", "3.0-1", ""),
    ]
}

struct Low {
    archive: Archive,
    spec: PathBuf,
    store: PathBuf,
}

impl Low {
    fn new() -> Self {
        let archive = Archive::new();
        archive.publish(&three());
        let spec = archive.spec(&["one"], &["two"]);
        let store = archive.at("store");
        Self { archive, spec, store }
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<String> {
        let mut args = vec!["mirror".to_owned(), self.spec.display().to_string(), "--store".into()];
        args.push(self.store.display().to_string());
        args.extend(["--upstream".into(), self.archive.upstream()]);
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        args
    }

    fn mirror(&self, more: &[&str]) -> Said {
        repo(self.args(more))
    }

    fn verify(&self) -> Said {
        let store = self.store.display().to_string();
        let spec = self.spec.display().to_string();
        repo(["snapshot", "verify", "test", "--store", &store, "--spec", &spec])
    }

    fn manifest(&self) -> PathBuf {
        self.store.join("snapshots/test/snapshot.json")
    }

    fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for shard in fs::read_dir(self.store.join("pool/sha256")).unwrap() {
            for object in fs::read_dir(shard.unwrap().path()).unwrap() {
                found.push(object.unwrap().path());
            }
        }
        found
    }

    fn object_of(&self, name: &str) -> PathBuf {
        let manifest: serde_json::Value = serde_json::from_slice(&fs::read(self.manifest()).unwrap()).unwrap();
        let packages = manifest["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == name).unwrap();
        let digest = package["sha256"].as_str().unwrap();
        self.store.join(format!("pool/sha256/{}/{digest}", &digest[..2]))
    }
}

#[test]
fn a_snapshot_is_the_closure_and_is_proved() {
    let low = Low::new();
    let summary = low.mirror(&["--json"]).ends(0).json();
    assert_eq!(summary["packages"], 2, "one needs two, nobody wants three");
    assert_eq!(summary["roles"]["host"], 2);
    assert_eq!(summary["roles"]["guest"], 1);
    let said = low.verify().ends(0);
    assert!(said.out.contains("all 2 packages"), "{}", said.out);
    let manifest = fs::read_to_string(low.manifest()).unwrap();
    let mirror = low.archive.directory.path().to_str().unwrap();
    assert!(!manifest.contains(mirror), "the manifest names the mirror");
}

#[test]
fn the_same_upstream_gives_the_same_bytes_and_costs_nothing_twice() {
    let low = Low::new();
    low.mirror(&[]).ends(0);
    let first = fs::read(low.manifest()).unwrap();
    // Nothing can be fetched again: the packages are gone.
    fs::remove_dir_all(low.archive.at("debian/pool")).unwrap();
    let summary = low.mirror(&["--json"]).ends(0).json();
    assert_eq!(
        (&summary["changed"], &summary["fetched_packages"]),
        (&false.into(), &0.into())
    );
    low.archive.publish(&three());
    let other = Low {
        store: low.archive.at("other"),
        spec: low.spec.clone(),
        archive: low.archive,
    };
    // Signed anew in between, so only the packages are compared.
    other.mirror(&[]).ends(0);
    let packages = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["packages"].clone();
    assert_eq!(packages(&first), packages(&fs::read(other.manifest()).unwrap()));
}

#[test]
fn an_upgrade_is_named_and_fetches_only_what_changed() {
    let low = Low::new();
    low.mirror(&[]).ends(0);
    let mut debs = three();
    debs[1] = deb("two", "2.0-2", "");
    low.archive.publish(&debs);
    fs::remove_file(low.archive.at("debian/pool/main/one_1.0-1_amd64.deb")).unwrap();
    let said = low.mirror(&[]).ends(0);
    assert!(said.out.contains("two 2.0-1 -> 2.0-2"), "{}", said.out);
    low.verify().ends(0);
}

#[test]
fn a_dry_run_fetches_no_package_and_writes_no_snapshot() {
    let low = Low::new();
    let summary = low.mirror(&["--dry-run", "--json"]).ends(0).json();
    assert_eq!(summary["fetched_packages"], 2);
    assert!(!low.manifest().exists());
    assert_eq!(low.objects().len(), 1, "the verified list only");
}

#[test]
fn an_interrupted_mirror_goes_on_where_it_was() {
    let low = Low::new();
    let missing = low.archive.at("debian/pool/main/two_2.0-1_amd64.deb");
    let content = fs::read(&missing).unwrap();
    fs::remove_file(&missing).unwrap();
    low.mirror(&[]).ends(1);
    assert!(!low.manifest().exists(), "half a snapshot is none");
    // What had arrived is not there any more to be fetched again.
    fs::write(&missing, content).unwrap();
    fs::remove_file(low.archive.at("debian/pool/main/one_1.0-1_amd64.deb")).unwrap();
    low.mirror(&[]).ends(0);
    low.verify().ends(0);
}

#[test]
fn a_killed_mirror_leaves_a_store_that_works() {
    let low = Low::new();
    // Killed at some moment: whichever it is, the next run must succeed.
    let cmd = Cmd::new(PROGRAM).args(low.args(&[]));
    common::killed(cmd, &low.store, || low.store.join(".lock").exists());
    low.mirror(&[]).ends(0);
    low.verify().ends(0);
}

/// The recipe: a mirror that takes connections and never answers, and a run that is killed while its apt waits.
#[test]
fn a_killed_mirror_takes_its_apt_with_it() {
    let low = Low::new();
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    deaf.set_nonblocking(true).unwrap();
    let mut args = low.args(&[]);
    *args.last_mut().unwrap() = format!("http://{}", deaf.local_addr().unwrap());
    let asked = std::cell::RefCell::new(None);
    let when = || {
        asked.replace(deaf.accept().ok());
        asked.borrow().is_some()
    };
    assert!(common::killed(Cmd::new(PROGRAM).args(args), &low.store, when));
    // Its peer ends with it, and does not wait for the answer.
    let (mut peer, _) = asked.take().unwrap();
    peer.set_nonblocking(false).unwrap();
    peer.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    std::io::copy(&mut peer, &mut std::io::sink()).unwrap();
    low.mirror(&[]).ends(0);
    low.verify().ends(0);
}

#[test]
fn a_second_writer_is_told_to_wait() {
    let low = Low::new();
    low.mirror(&[]).ends(0);
    let _held = signing::durable::Lock::take(&low.store).unwrap();
    let said = low.mirror(&[]).ends(1);
    assert!(said.err.contains("another process"), "{}", said.err);
}

#[test]
fn an_altered_package_upstream_is_refused() {
    let low = Low::new();
    flip(&low.archive.at("debian/pool/main/two_2.0-1_amd64.deb"));
    let said = low.mirror(&[]).ends(3);
    assert!(said.err.contains("refused"), "{}", said.err);
    assert!(!low.manifest().exists());
}

#[test]
fn altered_lists_upstream_are_refused_and_the_old_snapshot_stands() {
    let low = Low::new();
    low.mirror(&[]).ends(0);
    let before = fs::read(low.manifest()).unwrap();
    let mut debs = three();
    debs[1] = deb("two", "2.0-2", "");
    for file in ["InRelease", "main/binary-amd64/Packages.xz"] {
        low.archive.publish(&debs);
        flip(&low.archive.at("debian/dists/small").join(file));
        low.mirror(&[]).ends(3);
        assert_eq!(fs::read(low.manifest()).unwrap(), before, "{file}");
    }
    low.verify().ends(0);
}

#[test]
fn a_key_in_the_keyring_that_is_not_allowed_is_refused() {
    let low = Low::new();
    let text = fs::read_to_string(&low.spec).unwrap();
    let start = text.find("signed_by = [\"").unwrap() + 14;
    let other = format!("{}{}{}", &text[..start], "A".repeat(40), &text[start + 40..]);
    fs::write(&low.spec, other).unwrap();
    let said = low.mirror(&[]).ends(3);
    assert!(
        said.err.contains("no signature of a key that is allowed"),
        "{}",
        said.err
    );
}

#[test]
fn a_list_of_another_suite_an_old_one_and_an_expired_one_are_refused() {
    let mut low = Low::new();
    low.archive.codename = "other";
    low.archive.publish(&three());
    low.mirror(&[]).ends(3);
    low.archive.codename = "small";
    low.archive.publish(&three());
    low.mirror(&[]).ends(0);
    low.archive.date -= Duration::days(2);
    low.archive.publish(&three());
    // apt itself passes over an older list while it holds a newer one.
    let said = low.mirror(&[]).ends(0);
    assert!(said.out.contains("unchanged"), "{}", said.out);
    fs::remove_dir_all(low.store.join("work")).unwrap();
    let said = low.mirror(&[]).ends(3);
    assert!(said.err.contains("went back"), "{}", said.err);
    low.archive.date = now() - Duration::minutes(5);
    low.archive.valid_until = Some(now() - Duration::minutes(1));
    low.archive.publish(&three());
    let said = low.mirror(&[]).ends(3);
    assert!(said.err.contains("was valid until"), "{}", said.err);
    low.verify().ends(0);
}

#[test]
fn a_list_that_unpacks_to_more_than_it_promises_is_refused() {
    let low = Low::new();
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    std::io::Write::write_all(&mut encoder, &[b'\n'; 1 << 20]).unwrap();
    low.archive.publish_index(b"\n", &encoder.finish().unwrap());
    low.mirror(&[]).ends(3);
}

#[test]
fn every_flipped_byte_in_a_stored_snapshot_is_found() {
    let low = Low::new();
    low.mirror(&[]).ends(0);
    let kept = low.store.join("snapshots/test/upstream/small");
    let files = [
        low.object_of("one"),
        kept.join("InRelease"),
        kept.join("main_binary-amd64_Packages.xz"),
    ];
    for file in files {
        let good = fs::read(&file).unwrap();
        flip(&file);
        let said = low.verify().ends(3);
        assert!(said.err.starts_with("bastide-repo: refused:"), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        fs::write(&file, good).unwrap();
        low.verify().ends(0);
    }
}

#[test]
fn the_proof_is_repeated_from_an_archive_alone() {
    let low = Low::new();
    low.mirror(&[]).ends(0);
    let archive = low.archive.at("upstream.tar");
    let snapshot = low.store.join("snapshots/test");
    let files = [
        "snapshot.json",
        "upstream/small/InRelease",
        "upstream/small/main_binary-amd64_Packages.xz",
    ];
    let write = |without: &str| {
        let mut out = tar::Builder::new(fs::File::create(&archive).unwrap());
        for file in files.iter().filter(|file| **file != without) {
            out.append_path_with_name(snapshot.join(file), file).unwrap();
        }
        out.finish().unwrap();
    };
    write("");
    let spec = low.spec.display().to_string();
    let args = [
        "snapshot",
        "verify",
        "--archive",
        archive.to_str().unwrap(),
        "--spec",
        &spec,
    ];
    let said = repo(args).ends(0);
    assert!(said.out.contains("all 2 packages"), "{}", said.out);
    flip(&archive);
    repo(args).ends(3);
    write(files[1]);
    repo(args).ends(1);
    // The compiled-in policy trusts Debian for Debian's suites, and nobody for others.
    write("");
    let said = repo(&args[..4]).ends(3);
    assert!(said.err.contains("no key is trusted"), "{}", said.err);
}

#[test]
fn a_manifest_that_says_more_than_upstream_signed_is_refused() {
    let low = Low::new();
    low.mirror(&[]).ends(0);
    let good: serde_json::Value = serde_json::from_slice(&fs::read(low.manifest()).unwrap()).unwrap();
    type Edit = fn(&mut serde_json::Value);
    let edits: [(&str, Edit); 7] = [
        ("version", |m| m["packages"][0]["version"] = "9".into()),
        ("digest", |m| m["packages"][0]["sha256"] = "00".repeat(32).into()),
        ("source", |m| m["packages"][0]["source"] = "else".into()),
        ("unlisted component", |m| {
            m["packages"][0]["component"] = "contrib".into()
        }),
        ("unlisted suite", |m| m["packages"][0]["suite"] = "sid".into()),
        ("date", |m| m["created_from"][0]["date"] = "2020-01-01T00:00:00Z".into()),
        ("signers", |m| m["created_from"][0]["signers"] = serde_json::json!([])),
    ];
    for (what, edit) in edits {
        let mut manifest = good.clone();
        edit(&mut manifest);
        fs::write(low.manifest(), manifest.to_string()).unwrap();
        let said = low.verify().ends(3);
        assert!(said.err.contains("not proved"), "{what}: {}", said.err);
    }
    let mut manifest = good;
    manifest["packages"][0]["filename"] = "../../etc/passwd".into();
    fs::write(low.manifest(), manifest.to_string()).unwrap();
    low.verify().ends(1);
}

#[test]
fn a_view_of_a_snapshot_is_an_archive_that_apt_takes() {
    let low = Low::new();
    low.mirror(&[]).ends(0);
    let store = offline_repo::store::Store::open(&low.store).unwrap();
    let snapshot = store.snapshot("test").unwrap();
    let view = low.archive.at("view");
    let keyring = low.archive.at("key.asc");
    offline_repo::aptview::materialise(&store, &snapshot, &view, &keyring).unwrap();
    // Once more over itself.
    offline_repo::aptview::materialise(&store, &snapshot, &view, &keyring).unwrap();
    let blank = offline_repo::aptview::materialise(&store, &snapshot, &low.archive.at("a view"), &keyring);
    assert!(format!("{:#}", blank.unwrap_err()).contains("a view cannot be given to apt"));
    let sources = fs::read_to_string(view.join("sources.list")).unwrap();
    assert!(sources.contains("signed-by="), "{sources}");
    // The view is upstream for another store: the same bytes come out.
    let (again, url) = (low.archive.at("again"), format!("file:{}", view.display()));
    let (spec, again) = (low.spec.display().to_string(), again.display().to_string());
    repo(["mirror", &spec, "--store", &again, "--upstream", &url]).ends(0);
    assert_eq!(
        fs::read(Path::new(&again).join("snapshots/test/snapshot.json")).unwrap(),
        fs::read(low.manifest()).unwrap()
    );
}

#[test]
fn a_full_disk_is_named_and_harms_nothing() {
    let low = Low::new();
    fs::create_dir(&low.store).unwrap();
    let line = low.args(&[]).join(" ");
    let place = low.archive.directory.path();
    let Some((said, _)) = common::on_small_disk(PROGRAM, place, &line, &low.store, "40k") else {
        return;
    };
    said.fails(1, &["No space left"]);
    // With room again, the same store works.
    low.mirror(&[]).ends(0);
    low.verify().ends(0);
}

#[test]
fn wrong_specifications_and_stores_are_named() {
    let low = Low::new();
    let text = fs::read_to_string(&low.spec).unwrap();
    fs::write(&low.spec, format!("colour = \"blue\"\n{text}")).unwrap();
    let said = low.mirror(&[]).ends(1);
    assert!(said.err.contains("colour"), "{}", said.err);
    fs::write(&low.spec, text.replace("key.asc", "gone.asc")).unwrap();
    assert!(low.mirror(&[]).ends(1).err.contains("gone.asc"));
    let said = repo(["snapshot", "verify", "test", "--store", "/nonexistent"]).ends(1);
    assert!(said.err.contains("is not a store"), "{}", said.err);
    repo(["mirror"]).ends(2);
}
