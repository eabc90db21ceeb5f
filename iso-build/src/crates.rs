// SPDX-License-Identifier: GPL-3.0-or-later
//! The crates of `Cargo.lock`, taken from cargo's own cache, verified and unpacked as a home directory for cargo that needs
//! no registry.
//!
//! The attacks: an archive in the cache that is not the locked one; an archive that unpacks without end, leads out of its
//! directory, or plants links and devices. The defence: an archive is read once, its digest is compared, and the same bytes
//! are unpacked: regular files below `NAME-VERSION/`, each made anew, counted and summed. The defence not made: what a
//! locked crate's source does is for whoever locks it to review.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use serde::Deserialize;
use signing::digest::{Sha256, read_bounded};
use signing::output::Refused;
use tar::EntryType;

/// The directory of the crates in cargo's home.
pub const VENDOR: &str = "vendor";
/// The largest archive; registries accept far less.
const LARGEST: u64 = 128 << 20;
/// The most that an archive unpacks to.
const UNPACKED: u64 = 1 << 30;
/// The most files in an archive.
const FILES: usize = 1 << 17;

/// A crate of a registry, locked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Locked {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Digest of its archive; our own packages have none.
    pub checksum: Option<Sha256>,
}

#[derive(Deserialize)]
struct LockFile {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    source: Option<String>,
    #[serde(flatten)]
    locked: Locked,
}

/// The crates of a `Cargo.lock` that come from a registry.
///
/// # Errors
/// When it cannot be read or understood, or locks a crate without a digest.
pub fn locked(path: &Path) -> Result<Vec<Locked>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lock: LockFile = toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    let mut crates = Vec::new();
    for package in lock.package {
        let Locked { name, version, .. } = &package.locked;
        let plain = |text: &str| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
            text.starts_with(|letter: char| letter.is_ascii_alphanumeric()) && text.bytes().all(good)
        };
        if package.source.is_none() {
            continue;
        }
        if package.locked.checksum.is_none() || !plain(name) || !plain(version) {
            bail!(
                "{} locks {name} {version} without a digest: take it from a registry, not from a repository",
                path.display()
            );
        }
        crates.push(package.locked);
    }
    Ok(crates)
}

/// Fills `to` with a cargo home that holds the locked crates and nothing else, and that cargo sees at `seen`.
///
/// # Errors
/// When a crate is not in the cache, or its archive is not the locked one or not a plain one (refused).
pub fn collect(cargo_home: &Path, locked: &[Locked], to: &Path, seen: &Path) -> Result<()> {
    let caches = caches(&cargo_home.join("registry/cache"))?;
    let vendor = to.join(VENDOR);
    fs::create_dir(&vendor).with_context(|| format!("cannot make {}", vendor.display()))?;
    // Cargo resolves for every platform, and a directory must hold all that it may meet.
    let missing = locked
        .iter()
        .filter(|one| archives(&caches, one).next().is_none())
        .collect::<Vec<_>>();
    if let Some(first) = missing.first() {
        bail!(
            "cargo's cache {} lacks {} of the crates of Cargo.lock, such as {} {}: run `cargo fetch --locked` in the source",
            cargo_home.display(),
            missing.len(),
            first.name,
            first.version
        );
    }
    for one in locked {
        let (archive, bytes) = genuine(&caches, one)?;
        let name = format!("{}-{}", one.name, one.version);
        unpack(&bytes, &name, &vendor).with_context(|| format!("cannot unpack {}", archive.display()))?;
        let checksum = BTreeMap::from([
            ("files", serde_json::json!({})),
            ("package", serde_json::json!(one.checksum)),
        ]);
        let file = vendor.join(&name).join(".cargo-checksum.json");
        fs::write(&file, serde_json::to_vec(&checksum)?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let config = format!(
        "[source.crates-io]\nreplace-with = \"vendored\"\n\n[source.vendored]\ndirectory = {}\n",
        toml::Value::String(seen.join(VENDOR).to_string_lossy().into_owned())
    );
    let file = to.join("config.toml");
    fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))
}

/// The registries' directories in cargo's cache, mirrors included.
fn caches(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| {
        format!(
            "cargo's cache {} cannot be read: run `cargo fetch --locked` in the source",
            directory.display()
        )
    })?;
    let mut caches = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    caches.sort();
    Ok(caches)
}

/// Where a crate's archive lies, once for each registry that has it.
fn archives<'a>(caches: &'a [PathBuf], one: &'a Locked) -> impl Iterator<Item = PathBuf> + 'a {
    let places = caches
        .iter()
        .map(move |cache| cache.join(format!("{}-{}.crate", one.name, one.version)));
    places.filter(|place| place.is_file())
}

/// A crate's archive that is the locked one.
fn genuine(caches: &[PathBuf], one: &Locked) -> Result<(PathBuf, Vec<u8>)> {
    let mut other = None;
    for archive in archives(caches, one) {
        let bytes = read_bounded(&archive, LARGEST).with_context(|| format!("cannot read {}", archive.display()))?;
        let found = Sha256::of(&bytes);
        if Some(found) == one.checksum {
            return Ok((archive, bytes));
        }
        other = Some((archive, found));
    }
    match other {
        Some((archive, found)) => bail!(Refused(format!(
            "{} has SHA-256 {found}, which is not the one in Cargo.lock: remove it and fetch again (cargo fetch --locked)",
            archive.display()
        ))),
        None => bail!("{} {} has left cargo's cache meanwhile", one.name, one.version),
    }
}

/// Unpacks an archive whose every entry is a file below `name` into `directory`.
fn unpack(archive: &[u8], name: &str, directory: &Path) -> Result<()> {
    let mut stream = tar::Archive::new(GzDecoder::new(archive).take(UNPACKED));
    let (mut count, mut sum) = (0, 0_u64);
    for entry in stream.entries().context("it is no archive")? {
        let mut entry = entry.context("it is damaged")?;
        let path = entry.path().context("it names a path that is none")?.into_owned();
        let refuse = |why: &str| Refused(format!("its entry {} {why}", path.display()));
        count += 1;
        sum = sum.saturating_add(entry.size());
        if count > FILES || sum > UNPACKED {
            bail!(refuse("is one too many, or too large"));
        }
        let mut parts = path.components();
        let inside = parts.next() == Some(Component::Normal(name.as_ref()))
            && parts.all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            bail!(refuse(&format!("is not below {name}")));
        }
        let place = directory.join(&path);
        match entry.header().entry_type() {
            EntryType::Directory => {
                fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
            }
            EntryType::Regular => {
                let parent = place.parent().unwrap_or(directory);
                fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
                let program = entry.header().mode().unwrap_or(0) & 0o111 != 0;
                let date = entry.header().mtime().unwrap_or(0);
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(if program { 0o755 } else { 0o644 })
                    .open(&place)
                    .with_context(|| format!("cannot make {}", place.display()))?;
                io::copy(&mut entry, &mut file)
                    .and_then(|_| finish(&mut file, date))
                    .with_context(|| format!("cannot write {}", place.display()))?;
            }
            _ => bail!(refuse("is neither a file nor a directory")),
        }
    }
    if count == 0 {
        bail!("it is empty");
    }
    Ok(())
}

/// The date is the archive's, so that cargo finds unchanged what is unpacked a second time.
fn finish(file: &mut File, date: u64) -> io::Result<()> {
    file.flush()?;
    let date = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(date.min(u64::from(u32::MAX))));
    file.set_modified(date.unwrap_or(SystemTime::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use signing::process::Cmd;

    use super::*;

    /// An archive with these entries: a path as its raw bytes say, a kind and a content.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Set by hand: the library refuses to write what is tested here.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_mtime(1_000_000_000);
            if kind.is_file() {
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            } else {
                header.set_size(0);
                header.set_link_name(content).unwrap();
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            }
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn honest() -> Vec<u8> {
        let manifest = "[package]\nname = \"demo\"\nversion = \"1.0.0\"\nedition = \"2021\"\n";
        archive(&[
            ("demo-1.0.0/Cargo.toml", EntryType::Regular, manifest),
            ("demo-1.0.0/src/lib.rs", EntryType::Regular, "pub fn demo() {}\n"),
        ])
    }

    /// A cargo home with one crate in a mirror's directory.
    fn home(bytes: &[u8]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let cache = home.path().join("registry/cache/mirror-1");
        fs::create_dir_all(&cache).unwrap();
        fs::write(cache.join("demo-1.0.0.crate"), bytes).unwrap();
        home
    }

    fn demo(bytes: &[u8]) -> Vec<Locked> {
        vec![Locked {
            name: "demo".to_owned(),
            version: "1.0.0".to_owned(),
            checksum: Some(Sha256::of(bytes)),
        }]
    }

    #[test]
    fn cargo_takes_the_crates_without_a_registry() {
        let bytes = honest();
        let (home, to) = (home(&bytes), tempfile::tempdir().unwrap());
        collect(home.path(), &demo(&bytes), to.path(), to.path()).unwrap();
        let project = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(project.path().join(name), text).unwrap();
        fs::create_dir(project.path().join("src")).unwrap();
        file("src/lib.rs", "pub use demo::demo;\n");
        file(
            "Cargo.toml",
            "[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ndemo = \"1\"\n",
        );
        let cargo = |command: &str| {
            Cmd::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args([command, "--offline"])
                .env("CARGO_HOME", to.path())
                .dir(project.path())
                .run()
        };
        cargo("generate-lockfile").unwrap();
        let lock = project.path().join("Cargo.lock");
        assert_eq!(locked(&lock).unwrap(), demo(&bytes));
        cargo("check").unwrap();
        // Cargo holds the digest of the archive against the lock.
        let text = fs::read_to_string(&lock).unwrap();
        let other = Sha256::of(b"other").to_string();
        fs::write(&lock, text.replace(&Sha256::of(&bytes).to_string(), &other)).unwrap();
        assert!(cargo("check").is_err());
    }

    #[test]
    fn an_altered_crate_is_refused_unless_another_cache_has_the_locked_one() {
        let bytes = honest();
        let (home, to) = (home(b"altered"), tempfile::tempdir().unwrap());
        let error = collect(home.path(), &demo(&bytes), to.path(), to.path()).unwrap_err();
        assert!(
            error.is::<Refused>() && error.to_string().contains("demo-1.0.0.crate"),
            "{error:#}"
        );
        let second = home.path().join("registry/cache/mirror-2");
        fs::create_dir(&second).unwrap();
        fs::write(second.join("demo-1.0.0.crate"), &bytes).unwrap();
        let to = tempfile::tempdir().unwrap();
        collect(home.path(), &demo(&bytes), to.path(), to.path()).unwrap();
        let file = to.path().join("vendor/demo-1.0.0/src/lib.rs");
        let date = fs::metadata(file).unwrap().modified().unwrap();
        assert_eq!(date, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    }

    #[test]
    fn a_crate_that_was_never_fetched_says_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        for cache in [false, true] {
            if cache {
                fs::create_dir_all(home.path().join("registry/cache/mirror-1")).unwrap();
            }
            let error = collect(home.path(), &demo(b""), to.path(), to.path()).unwrap_err();
            assert!(error.to_string().contains("cargo fetch --locked"), "{error:#}");
        }
    }

    #[test]
    fn an_archive_that_leads_out_or_plants_links_is_refused() {
        let (file, deep) = (EntryType::Regular, "demo-1.0.0/../../escaped");
        for entry in [
            ("/escaped", file, "x"),
            (deep, file, "x"),
            ("escaped", file, "x"),
            ("other-1.0.0/file", file, "x"),
            ("demo-1.0.0/link", EntryType::Symlink, "/etc"),
            ("demo-1.0.0/link", EntryType::Link, "/etc/passwd"),
            ("demo-1.0.0/pipe", EntryType::Fifo, "unused"),
        ] {
            let bytes = archive(&[entry]);
            let (home, to) = (home(&bytes), tempfile::tempdir().unwrap());
            let inner = to.path().join("deep/home");
            fs::create_dir_all(&inner).unwrap();
            let error = collect(home.path(), &demo(&bytes), &inner, &inner).unwrap_err();
            assert!(error.downcast_ref::<Refused>().is_some(), "{entry:?}: {error:#}");
            let made = walkdir::WalkDir::new(to.path()).into_iter().flatten();
            assert_eq!(made.filter(|made| !made.file_type().is_dir()).count(), 0, "{entry:?}");
        }
    }

    #[test]
    fn a_file_is_never_written_twice_and_a_cut_archive_is_an_error() {
        let twice = archive(&[
            ("demo-1.0.0/a", EntryType::Regular, "1"),
            ("demo-1.0.0/a", EntryType::Regular, "2"),
        ]);
        let cut = honest()[..60].to_vec();
        for bytes in [twice, cut, Vec::new()] {
            let (home, to) = (home(&bytes), tempfile::tempdir().unwrap());
            assert!(collect(home.path(), &demo(&bytes), to.path(), to.path()).is_err());
        }
    }

    #[test]
    fn a_crate_without_a_digest_is_not_built() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join("Cargo.lock");
        for package in [
            "name = \"a\"\nversion = \"1.0.0\"\nsource = \"git+file:///a#1\"",
            "name = \"../a\"\nversion = \"1.0.0\"\nsource = \"registry+file:///a\"",
        ] {
            fs::write(&lock, format!("version = 4\n[[package]]\n{package}\n")).unwrap();
            assert!(locked(&lock).is_err(), "{package}");
        }
    }
}
