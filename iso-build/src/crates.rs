// SPDX-License-Identifier: GPL-3.0-or-later
//! The crates of `Cargo.lock`, taken from cargo's own cache and verified, laid out as a home directory for cargo.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use signing::digest::Sha256;
use signing::output::Refused;

/// The name that cargo gives to its public registry's directories.
const REGISTRY: &str = "index.crates.io-1949cf8c6b5b557f";

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
    package: Vec<Locked>,
}

/// The crates of a `Cargo.lock` that come from a registry.
///
/// # Errors
/// When it cannot be read or understood.
pub fn locked(path: &Path) -> Result<Vec<Locked>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lock: LockFile = toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    Ok(lock
        .package
        .into_iter()
        .filter(|package| package.checksum.is_some())
        .collect())
}

/// Fills `to` with a cargo home that holds the locked crates and their index entries and nothing else. A crate that is not
/// in the cache is left out: other platforms need some that this one never fetches, and cargo names one that it misses.
///
/// # Errors
/// When the cache has no registry, or a crate's archive is not the locked one (refused).
pub fn collect(cargo_home: &Path, locked: &[Locked], to: &Path) -> Result<()> {
    let (index, cache) = registry(&cargo_home.join("registry"))?;
    let new_index = to.join("registry/index").join(REGISTRY);
    let new_cache = to.join("registry/cache").join(REGISTRY);
    for directory in [&new_index, &new_cache] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    copy(&index.join("config.json"), &new_index.join("config.json"))?;
    for one in locked {
        let entry = Path::new(".cache").join(index_path(&one.name));
        if index.join(&entry).is_file() {
            let place = new_index.join(&entry);
            let parent = place.parent().unwrap_or(&new_index);
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            copy(&index.join(&entry), &place)?;
        }
        let file = format!("{}-{}.crate", one.name, one.version);
        let archive = cache.join(&file);
        if !archive.is_file() {
            continue;
        }
        let place = new_cache.join(&file);
        // Copied, then hashed: what cargo unpacks is what was verified.
        copy(&archive, &place)?;
        let (found, _) = Sha256::of_file(&place).with_context(|| format!("cannot read {}", place.display()))?;
        if Some(found) != one.checksum {
            bail!(Refused(format!(
                "{} has SHA-256 {found}, which is not the one in Cargo.lock: remove it and fetch again (cargo fetch --locked)",
                archive.display()
            )));
        }
    }
    Ok(())
}

/// The index and the cache of the registry that the crates came from, a mirror's included.
fn registry(registry: &Path) -> Result<(PathBuf, PathBuf)> {
    let index = registry.join("index");
    let mut names = Vec::new();
    for entry in fs::read_dir(&index).with_context(|| {
        format!(
            "cargo's cache {} cannot be read: run `cargo fetch --locked` in the source first",
            index.display()
        )
    })? {
        let entry = entry?;
        let has_crates = registry.join("cache").join(entry.file_name()).is_dir();
        if has_crates && entry.path().join("config.json").is_file() {
            names.push(entry.file_name());
        }
    }
    names.sort();
    let name = names
        .iter()
        .find(|name| *name == REGISTRY)
        .or_else(|| names.first())
        .with_context(|| {
            format!(
                "{} has no registry: run `cargo fetch --locked` in the source first",
                registry.display()
            )
        })?;
    Ok((index.join(name), registry.join("cache").join(name)))
}

/// Where an index keeps a crate's entry: by the first letters of its name.
fn index_path(name: &str) -> PathBuf {
    let name = name.to_lowercase();
    match name.len() {
        1 => Path::new("1").join(name),
        2 => Path::new("2").join(name),
        3 => Path::new("3").join(&name[..1]).join(name),
        _ => Path::new(&name[..2]).join(&name[2..4]).join(&name),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cargo home with one crate whose archive holds `bytes`.
    fn home(bytes: &[u8]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let registry = home.path().join("registry");
        for part in ["index/mirror-1/.cache/de/mo", "cache/mirror-1"] {
            fs::create_dir_all(registry.join(part)).unwrap();
        }
        fs::write(registry.join("index/mirror-1/config.json"), "{}").unwrap();
        fs::write(registry.join("index/mirror-1/.cache/de/mo/demo"), "entry").unwrap();
        fs::write(registry.join("cache/mirror-1/demo-1.0.0.crate"), bytes).unwrap();
        home
    }

    fn demo() -> Vec<Locked> {
        vec![Locked {
            name: "demo".to_owned(),
            version: "1.0.0".to_owned(),
            checksum: Some(Sha256::of(b"whole")),
        }]
    }

    #[test]
    fn a_mirrors_crate_is_taken_under_the_public_name() {
        let (home, to) = (home(b"whole"), tempfile::tempdir().unwrap());
        collect(home.path(), &demo(), to.path()).unwrap();
        let cache = to.path().join("registry/cache").join(REGISTRY);
        assert_eq!(fs::read(cache.join("demo-1.0.0.crate")).unwrap(), b"whole");
        assert!(
            to.path()
                .join("registry/index")
                .join(REGISTRY)
                .join(".cache/de/mo/demo")
                .is_file()
        );
    }

    #[test]
    fn an_altered_crate_is_refused() {
        let (home, to) = (home(b"wh0le"), tempfile::tempdir().unwrap());
        let error = collect(home.path(), &demo(), to.path()).unwrap_err();
        assert!(
            error.is::<Refused>() && error.to_string().contains("demo-1.0.0.crate"),
            "{error:#}"
        );
    }

    #[test]
    fn an_empty_cache_says_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let error = collect(home.path(), &demo(), home.path()).unwrap_err().to_string();
        assert!(error.contains("cargo fetch --locked"), "{error}");
    }
}
