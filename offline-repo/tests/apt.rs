// SPDX-License-Identifier: GPL-3.0-or-later
//! A snapshot's packages for guests: signed by the site, served, and taken or refused by the real apt.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "serve")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use chrono::Duration;
use offline_repo::archive::{self, Mode, Options};
use offline_repo::repository::Repository;
use offline_repo::spec::Spec;
use offline_repo::store::Store;
use offline_repo::upstream::Policy;
use signing::clock::now;
use signing::digest::Sha256;
use signing::process::Cmd;
use signing::site::Site;
use support::debs::{Recipe, real};
use support::low::Low;
use support::served::{self, Served};
use support::{Archive, Deb, Said, common, flip, other_site, passphrase_file, site};

/// A low side with a snapshot `test` of two packages, one needing the other.
struct Shop {
    low: Low,
    upstream: Archive,
    library: Deb,
}

fn package(name: &'static str, version: &'static str, depends: &'static str) -> Deb {
    let fill = |doc: &Path| fs::write(doc.join("version"), version).unwrap();
    let packing = "xz";
    let content = real(name, version, &Recipe { packing, fill: &fill }).1;
    Deb {
        name,
        version,
        depends,
        content,
    }
}

impl Shop {
    fn new() -> Self {
        let shop = Self {
            low: Low::published(),
            upstream: Archive::new(),
            library: package("library", "7", ""),
        };
        shop.mirror("1.0");
        shop
    }

    /// Mirrors an upstream whose `tool` has this version.
    fn mirror(&self, version: &'static str) {
        self.upstream
            .publish(&[package("tool", version, "library"), self.library.clone()]);
        let spec = self.upstream.spec(&[], &["tool"]);
        let line = format!(
            "mirror {} --store store --upstream {}",
            spec.display(),
            self.upstream.upstream()
        );
        self.low.run(&line).ends(0);
    }

    fn publish_by(&self, site: &Path, repository: &str, more: &str) -> Said {
        self.low.run(&format!(
            "apt publish test --store store --repo {repository} --site {} --passphrase-file {} --spec {} {more}",
            site.display(),
            passphrase_file().display(),
            self.upstream.at("spec.toml").display()
        ))
    }

    fn publish(&self, more: &str) -> Said {
        self.publish_by(site(), "repository", more)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.low.repository().join("apt").join(path)
    }

    fn packages(&self) -> PathBuf {
        self.at("dists/test/main/binary-amd64/Packages.xz")
    }

    /// The one list under its hash.
    fn by_hash(&self) -> PathBuf {
        let digest = Sha256::of_file(&self.packages()).unwrap().0;
        self.at(&format!("dists/test/main/binary-amd64/by-hash/SHA256/{digest}"))
    }
}

/// A guest: apt in a root of its own.
struct Guest {
    directory: tempfile::TempDir,
}

impl Guest {
    /// One that has the certificate which the server gives.
    fn of(served: &Served) -> Self {
        let guest = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for part in [
            "lists/partial",
            "cache/archives/partial",
            "etc",
            "log",
            "root/var/lib/dpkg/info",
        ] {
            fs::create_dir_all(guest.at(part)).unwrap();
        }
        fs::write(guest.at("root/var/lib/dpkg/status"), "").unwrap();
        let certificate = served.get("/apt/site.asc");
        assert_eq!(certificate.header("content-type"), "application/pgp-keys");
        fs::write(guest.at("site.asc"), certificate.body).unwrap();
        let root = guest.directory.path().display();
        fs::write(
            guest.at("apt.conf"),
            format!(
                "Dir::Etc \"{root}/etc\";\nDir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n\
                 Dir::Etc::trusted \"/dev/null\";\nDir::Etc::trustedparts \"/dev/null\";\nDir::State \"{root}\";\n\
                 Dir::State::lists \"{root}/lists\";\nDir::State::status \"{root}/root/var/lib/dpkg/status\";\n\
                 Dir::Cache \"{root}/cache\";\nDir::Log \"{root}/log\";\nAPT::Architecture \"amd64\";\n\
                 APT::Architectures {{ \"amd64\"; }};\nAPT::Sandbox::User \"root\";\nAcquire::http::Proxy \"DIRECT\";\n\
                 Acquire::https::Proxy \"DIRECT\";\nAcquire::https::CAInfo \"{root}/tls.pem\";\nAcquire::Retries \"0\";\n\
                 DPkg::Options {{ \"--root={root}/root\"; \"--force-not-root\"; }};\n"
            ),
        )
        .unwrap();
        guest.asks(&format!("http://{}/apt", served.address), "test");
        guest
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn asks(&self, url: &str, suite: &str) {
        let line = format!("deb [signed-by={}] {url} {suite} main\n", self.at("site.asc").display());
        fs::write(self.at("etc/sources.list"), line).unwrap();
    }

    fn apt(&self, line: &str) -> Said {
        let apt = Cmd::new("apt-get").env("APT_CONFIG", self.at("apt.conf"));
        Said::of(
            apt.args(["-o", "APT::Update::Error-Mode=any"])
                .args(line.split_whitespace()),
        )
    }

    /// What apt says when it will not.
    fn refused(&self, line: &str, words: &str) {
        let said = self.apt(line);
        let text = said.out.clone() + &said.err;
        assert_eq!(said.code, Some(100), "{text}");
        assert!(text.contains(words), "not {words:?}: {text}");
    }

    fn has(&self, package: &str) -> bool {
        fs::read_dir(self.at("cache/archives"))
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(package))
    }
}

#[test]
fn a_guest_installs_with_plain_apt() {
    let shop = Shop::new();
    let said = shop.publish("--json").ends(0).json();
    assert_eq!((&said["packages"], &said["new_packages"]), (&2.into(), &2.into()));
    let fingerprint = Site::open(site()).unwrap().facts().release_openpgp.clone();
    assert_eq!(said["fingerprint"], fingerprint);
    let files = shop.low.directory.path().display().to_string();
    served::certificate(shop.low.directory.path(), "tls");
    let plain = Served::plain(&shop.low.repository());
    let secured = Served::of(
        &shop.low.repository(),
        &format!("--tls-cert {files}/tls.pem --tls-key {files}/tls.key"),
    );
    for (served, scheme) in [(&plain, "http"), (&secured, "https")] {
        let guest = Guest::of(&plain);
        fs::copy(shop.low.at("tls.pem"), guest.at("tls.pem")).unwrap();
        guest.asks(&format!("{scheme}://{}/apt", served.address), "test");
        guest.apt("update").ends(0);
        guest.apt("-y install --download-only tool").ends(0);
        assert!(guest.has("tool_1.0") && guest.has("library_7"));
        if common::is_root() {
            guest.apt("-y install tool").ends(0);
            let installed = fs::read_to_string(guest.at("root/usr/share/doc/tool/version")).unwrap();
            assert_eq!(installed, "1.0");
        }
    }
    // The next snapshot replaces it, and who has just read the old signed list still finds the list that it names.
    let guest = Guest::of(&plain);
    guest.apt("update").ends(0);
    let old = shop.by_hash();
    shop.mirror("1.1");
    assert_eq!(shop.publish("--json").ends(0).json()["new_packages"], 1);
    assert!(old.is_file());
    guest.apt("update").ends(0);
    guest.apt("-y install --download-only tool").ends(0);
    assert!(guest.has("tool_1.1"));
    // The lists before that are gone.
    shop.mirror("1.2");
    shop.publish("").ends(0);
    assert!(!old.exists());
    // The status tells the key and the suites.
    let page = plain.get("/").text();
    assert!(
        page.contains(&fingerprint) && page.contains("2 packages of the snapshot test"),
        "{page}"
    );
    served::until(|| plain.get("/status.json").text().contains(&fingerprint));
}

#[test]
fn apt_refuses_what_was_changed_on_the_way() {
    let shop = Shop::new();
    shop.publish("").ends(0);
    let served = Served::plain(&shop.low.repository());
    let guest = Guest::of(&served);
    guest.apt("update").ends(0);
    // A package.
    for entry in common::files_below(&shop.at("pool")) {
        flip(&entry);
    }
    guest.refused("-y install --download-only tool", "Hash Sum mismatch");
    assert!(!guest.has("tool") && !guest.has("library"));
    // The list, under both of its names.
    let guest = Guest::of(&served);
    let by_hash = shop.by_hash();
    flip(&shop.packages());
    flip(&by_hash);
    guest.refused("update", "Hash Sum mismatch");
    // The signed list: a word of it.
    shop.publish("").ends(0);
    let place = shop.at("dists/test/InRelease");
    let text = fs::read_to_string(&place).unwrap();
    fs::write(&place, text.replace("of the snapshot", "of a snapshot")).unwrap();
    let guest = Guest::of(&served);
    guest.refused("update", "BADSIG");
    served::until(|| served.get("/").text().contains("the suite test for apt"));
}

#[test]
fn apt_refuses_what_is_old_or_signed_by_a_stranger() {
    let shop = Shop::new();
    shop.publish("").ends(0);
    let served = Served::plain(&shop.low.repository());
    let guest = Guest::of(&served);
    // A stranger's archive in the place of the site's.
    let stranger = tempfile::tempdir().unwrap();
    common::copy(&shop.low.repository(), stranger.path());
    fs::remove_dir_all(stranger.path().join("apt")).unwrap();
    shop.publish_by(&other_site(), &stranger.path().display().to_string(), "")
        .ends(0);
    fs::remove_dir_all(shop.at("dists")).unwrap();
    common::copy(&stranger.path().join("apt/dists"), &shop.at("dists"));
    guest.refused("update", "NO_PUBKEY");
    // One that was signed by the site, for two days, three days ago.
    let then = now() - Duration::days(3);
    let policy = Policy::of(&Spec::read(&shop.upstream.at("spec.toml")).unwrap());
    let options = Options {
        site: &Site::open(site()).unwrap(),
        passphrase: &common::passphrase(),
        policy: &policy,
        suite: "old",
        expires: then + Duration::days(2),
        now: then,
        mode: Mode::Write,
    };
    fs::remove_dir_all(shop.at("dists")).unwrap();
    let repository = Repository::open(&shop.low.repository()).unwrap();
    let store = Store::open(&shop.low.at("store")).unwrap();
    archive::publish(&repository, &store, "test", &options, &mut |_, _| ()).unwrap();
    guest.asks(&format!("http://{}/apt", served.address), "old");
    guest.refused("update", "is expired");
    let told = || served.get("/").text();
    served::until(|| told().contains("expired since"));
}

#[test]
fn nothing_is_signed_that_is_not_upstreams() {
    let shop = Shop::new();
    // Nothing is written in a dry run.
    shop.publish("--dry-run").ends(0);
    assert!(!shop.at("").exists());
    shop.publish("").ends(0);
    // The archive goes on with one key.
    let said = shop.publish_by(&other_site(), "repository", "").ends(3);
    assert!(said.err.contains("guests would refuse it"), "{}", said.err);
    // A key that is not the certificate's.
    let mixed = shop.low.at("mixed");
    common::copy(site(), &mixed);
    let key = "private/release-openpgp.asc";
    fs::remove_file(mixed.join(key)).unwrap();
    fs::copy(other_site().join(key), mixed.join(key)).unwrap();
    let said = shop.publish_by(&mixed, "repository", "").ends(3);
    assert!(said.err.contains("does not verify by its certificate"), "{}", said.err);
    // A clock before the last signature.
    let policy = Policy::of(&Spec::read(&shop.upstream.at("spec.toml")).unwrap());
    let options = Options {
        site: &Site::open(site()).unwrap(),
        passphrase: &common::passphrase(),
        policy: &policy,
        suite: "test",
        expires: now() + Duration::days(2),
        now: now() - Duration::days(1),
        mode: Mode::Write,
    };
    let repository = Repository::open(&shop.low.repository()).unwrap();
    let store = Store::open(&shop.low.at("store")).unwrap();
    let error = archive::publish(&repository, &store, "test", &options, &mut |_, _| ()).unwrap_err();
    assert!(format!("{error:#}").contains("the clock says"), "{error:#}");
    drop(store);
    let before = fs::read(shop.at("dists/test/InRelease")).unwrap();
    // A package that the archive lacks, and the store has with other bytes.
    let snapshot = Store::open(&shop.low.at("store")).unwrap().snapshot("test").unwrap();
    let tool = snapshot.packages.iter().find(|package| package.name == "tool").unwrap();
    let digits = tool.sha256.to_string();
    fs::remove_file(shop.at(&format!("pool/{}/{digits}.deb", &digits[..2]))).unwrap();
    let object = shop.low.at(&format!("store/pool/sha256/{}/{digits}", &digits[..2]));
    flip(&object);
    for more in ["", "--dry-run"] {
        let said = shop.publish(more).ends(3);
        assert!(said.err.contains("has been altered"), "{}", said.err);
    }
    flip(&object);
    // A manifest that names another package than upstream signed.
    let manifest = shop.low.at("store/snapshots/test/snapshot.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"1.0\"", "\"9.0\"")).unwrap();
    let said = shop.publish("").ends(3);
    assert!(said.err.contains("not proved to be upstream's"), "{}", said.err);
    assert_eq!(fs::read(shop.at("dists/test/InRelease")).unwrap(), before);
    // And keys that are not upstream's.
    fs::write(&manifest, text).unwrap();
    let line = format!(
        "apt publish test --store store --repo repository --site {} --passphrase-file {}",
        site().display(),
        passphrase_file().display()
    );
    shop.low.run(&line).ends(3);
    assert!(shop.publish("--suite ../x").code == Some(1));
}

#[test]
fn only_the_archive_is_served() {
    let shop = Shop::new();
    shop.publish("").ends(0);
    let served = Served::plain(&shop.low.repository());
    for name in ["InRelease", "Release", "Release.gpg", "main/binary-amd64/Packages.xz"] {
        let answer = served.get(&format!("/apt/dists/test/{name}"));
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (200, "no-cache"),
            "{name}"
        );
    }
    let package = common::files_below(&shop.at("pool")).pop().unwrap();
    let path = package
        .strip_prefix(shop.low.repository())
        .unwrap()
        .display()
        .to_string();
    let answer = served.get(&format!("/{path}"));
    assert_eq!((answer.status, answer.body), (200, fs::read(&package).unwrap()));
    assert!(answer.headers["cache-control"].contains("immutable"));
    // What a killed writer leaves, and links.
    let hidden = shop.at("dists/.incomplete-x");
    fs::create_dir(&hidden).unwrap();
    fs::write(hidden.join("InRelease"), "x").unwrap();
    fs::create_dir(shop.at("dists/link")).unwrap();
    std::os::unix::fs::symlink("../test/InRelease", shop.at("dists/link/InRelease")).unwrap();
    fs::write(shop.at("pool/note"), "x").unwrap();
    for path in [
        "dists/.incomplete-x/InRelease",
        "dists/link/InRelease",
        "pool/note",
        "dists",
        "",
        "../.lock",
    ] {
        assert_eq!(served.get(&format!("/apt/{path}")).status, 404, "{path}");
    }
}
