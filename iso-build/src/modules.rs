// SPDX-License-Identifier: GPL-3.0-or-later
//! Kernel modules of a tree: which are kept, what they need, and how they lie in the image.
//!
//! The names come from the kernel package's own `modules.dep`, `modules.softdep` and `modules.alias`. Modules are laid down
//! unpacked: an update's delta of raw modules is half of one of packed modules, and the kernel has less to do at boot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::sandbox::Sandbox;

/// The largest module that is unpacked: more is no module of this kernel but a bomb.
const LARGEST: u64 = 256 << 20;

/// The modules of one kernel version and what they need of each other.
#[derive(Debug, Default)]
pub struct Modules {
    /// Path below the version's directory, as in `modules.dep` (with its suffix), by normal name.
    path: BTreeMap<String, String>,
    /// Hard dependencies by normal name.
    needs: BTreeMap<String, Vec<String>>,
    /// Soft dependencies by normal name: a module's name, or an alias that several modules answer to.
    soft: BTreeMap<String, Vec<String>>,
    /// Exact aliases (`crc32c` and the like): alias, and the modules that answer to it.
    alias: BTreeMap<String, Vec<String>>,
}

/// The version of the only kernel of a tree.
///
/// # Errors
/// When there is none or more than one.
pub fn kernel_version(tree: &Path) -> Result<String> {
    let directory = tree.join("usr/lib/modules");
    let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
    let mut names: Vec<String> = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    match names.as_slice() {
        [one] => Ok(one.clone()),
        _ => bail!(
            "{} holds {} kernels ({}): the host image carries exactly one",
            directory.display(),
            names.len(),
            names.join(", ")
        ),
    }
}

/// A module's normal name: of its file name, without suffixes, `-` as `_`.
fn normal(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split(".ko").next().unwrap_or(file);
    stem.replace('-', "_")
}

/// A module's path below `kernel/`, without suffixes, as policies name it.
fn plain(path: &str) -> &str {
    let below = path.strip_prefix("kernel/").unwrap_or(path);
    below.split(".ko").next().unwrap_or(below)
}

/// Whether a plain path is the pattern or lies below it. `-` and `_` stay distinct, as in file names.
fn under(path: &str, pattern: &str) -> bool {
    path == pattern || path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('/'))
}

impl Modules {
    /// Reads the lists of one kernel version.
    ///
    /// # Errors
    /// When `modules.dep` cannot be read; the other two may be absent.
    pub fn read(directory: &Path) -> Result<Self> {
        let dep = directory.join("modules.dep");
        let text = fs::read_to_string(&dep).with_context(|| format!("read {}", dep.display()))?;
        let optional = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
        Ok(Self::parse(
            &text,
            &optional("modules.softdep"),
            &optional("modules.alias"),
        ))
    }

    /// The pure part of [`Modules::read`].
    #[must_use]
    pub fn parse(dep: &str, softdep: &str, alias: &str) -> Self {
        let mut modules = Self::default();
        for (path, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
            let name = normal(path);
            modules
                .needs
                .insert(name.clone(), needs.split_whitespace().map(normal).collect());
            modules.path.insert(name, path.to_owned());
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some("softdep")
                && let Some(name) = words.next()
            {
                let wanted = words.filter(|word| !word.ends_with(':')).map(ToOwned::to_owned);
                modules.soft.entry(normal(name)).or_default().extend(wanted);
            }
        }
        for line in alias.lines() {
            if let ["alias", name, module] = line.split_whitespace().collect::<Vec<_>>()[..]
                && !name.contains(['*', '?', '['])
            {
                modules.alias.entry(name.to_owned()).or_default().push(normal(module));
            }
        }
        modules
    }

    /// The paths (as in `modules.dep`) of the modules that patterns select and of everything that those need, softly or not.
    /// A module under `never` is left out, and so is a module that cannot load without it.
    #[must_use]
    pub fn select(&self, patterns: &[String], never: &[String]) -> BTreeSet<String> {
        let mut chosen = BTreeSet::new();
        for (name, path) in &self.path {
            if patterns.iter().any(|pattern| under(plain(path), pattern)) {
                self.add(name, never, &mut chosen);
            }
        }
        chosen.iter().filter_map(|name| self.path.get(name).cloned()).collect()
    }

    /// Patterns that select nothing: a kernel that renamed a module must not lose it in silence.
    #[must_use]
    pub fn idle<'a>(&self, patterns: &'a [String]) -> Vec<&'a str> {
        patterns
            .iter()
            .filter(|pattern| !self.path.values().any(|path| under(plain(path), pattern)))
            .map(String::as_str)
            .collect()
    }

    fn forbidden(&self, name: &str, never: &[String]) -> bool {
        let all = self.needs.get(name).into_iter().flatten().map(String::as_str);
        all.chain([name])
            .filter_map(|name| self.path.get(name))
            .any(|path| never.iter().any(|pattern| under(plain(path), pattern)))
    }

    fn add(&self, name: &str, never: &[String], chosen: &mut BTreeSet<String>) {
        if chosen.contains(name) || !self.path.contains_key(name) || self.forbidden(name, never) {
            return;
        }
        chosen.insert(name.to_owned());
        // modules.dep already lists the whole hard closure; soft dependencies hang on each member of it.
        for needed in self.needs.get(name).into_iter().flatten() {
            self.add(needed, never, chosen);
        }
        for wanted in self.soft.get(name).into_iter().flatten() {
            self.add(&normal(wanted), never, chosen);
            for module in self.alias.get(wanted).into_iter().flatten() {
                self.add(module, never, chosen);
            }
        }
    }
}

/// What became of a tree's modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The kernel's version.
    pub version: String,
    /// How many modules stay.
    pub kept: usize,
    /// How many went.
    pub removed: usize,
}

/// Removes the modules that are not kept, unpacks the others and rebuilds the index with the tree's own `depmod`.
///
/// # Errors
/// When a pattern selects nothing, a module cannot be unpacked or `depmod` fails.
pub fn reduce(sandbox: &Sandbox, tree: &Path, keep: &[String], never: &[String]) -> Result<Kept> {
    let version = kernel_version(tree)?;
    let directory = tree.join("usr/lib/modules").join(&version);
    let modules = Modules::read(&directory)?;
    let idle = modules.idle(keep);
    if !idle.is_empty() {
        bail!(
            "kernel {version} has no module under {}: correct modules.keep of the image policy",
            idle.join(", ")
        );
    }
    let chosen = modules.select(keep, never);
    let mut removed = 0;
    for path in modules.path.values() {
        let file = directory.join(path);
        if chosen.contains(path) {
            unpack(&file).with_context(|| format!("unpack {}", file.display()))?;
        } else {
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
            removed += 1;
        }
    }
    remove_empty(&directory.join("kernel"))?;
    sandbox.step("depmod").arg(&version).in_tree(tree).run()?;
    Ok(Kept {
        version,
        kept: chosen.len(),
        removed,
    })
}

/// Unpacks `x.ko.xz` to `x.ko`, with its date; any other file stays.
fn unpack(packed: &Path) -> Result<()> {
    if packed.extension().is_none_or(|extension| extension != "xz") {
        return Ok(());
    }
    let place: PathBuf = packed.with_extension("");
    let from = File::open(packed)?;
    let date = from.metadata()?.modified()?;
    let mut to = Bounded(File::create(&place)?, LARGEST);
    lzma_rs::xz_decompress(&mut BufReader::new(from), &mut to).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    to.0.set_modified(date)?;
    fs::remove_file(packed)?;
    Ok(())
}

/// A writer with an end.
struct Bounded<W>(W, u64);

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1 = self
            .1
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| std::io::Error::other("the module is larger than any module"))?;
        self.0.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn remove_empty(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    if fs::read_dir(directory)?.next().is_none() {
        fs::remove_dir(directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/libcrc32c.ko.xz\n\
        kernel/fs/jbd2/jbd2.ko.xz:\n\
        kernel/lib/libcrc32c.ko.xz:\n\
        kernel/crypto/crc32c_generic.ko.xz:\n\
        kernel/fs/ext4-other/other.ko.xz: kernel/net/old/old-bus.ko.xz\n\
        kernel/net/old/old-bus.ko.xz:\n";
    const SOFT: &str = "# Soft dependencies\nsoftdep libcrc32c pre: crc32c\n";
    const ALIAS: &str = "alias crc32c crc32c_generic\nalias pci:v*d* other\n";

    fn select(keep: &[&str], never: &[&str]) -> Vec<String> {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Modules::parse(DEP, SOFT, ALIAS)
            .select(&own(keep), &own(never))
            .into_iter()
            .collect()
    }

    #[test]
    fn a_directory_brings_hard_and_soft_dependencies() {
        assert_eq!(
            select(&["fs/ext4"], &[]),
            [
                "kernel/crypto/crc32c_generic.ko.xz",
                "kernel/fs/ext4/ext4.ko.xz",
                "kernel/fs/jbd2/jbd2.ko.xz",
                "kernel/lib/libcrc32c.ko.xz"
            ]
        );
    }

    #[test]
    fn a_pattern_is_a_whole_component() {
        assert_eq!(select(&["fs/ext4-other/oth"], &[]), Vec::<String>::new());
        assert_eq!(select(&["fs/jbd2/jbd2"], &[]), ["kernel/fs/jbd2/jbd2.ko.xz"]);
    }

    #[test]
    fn what_needs_the_forbidden_is_left_out_too() {
        assert_eq!(select(&["fs/ext4-other", "net"], &["net/old"]), Vec::<String>::new());
    }

    #[test]
    fn idle_patterns_are_named() {
        let patterns = ["fs/ext4".to_owned(), "fs/gone".to_owned()];
        assert_eq!(Modules::parse(DEP, SOFT, ALIAS).idle(&patterns), ["fs/gone"]);
    }
}
