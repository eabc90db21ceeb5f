// SPDX-License-Identifier: GPL-3.0-or-later
//! The initrd: our own init, kmod, veritysetup, losetup, their libraries and the modules that reach a root file system.
//!
//! Everything but the init comes from the host tree, so the initrd is what the snapshot says and no more: no shell, no udev, no
//! network. It is compressed: firmware reads and hashes every byte of a boot image at every start, at a tenth of the speed at
//! which a kernel unpacks it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use signing::process::Cmd;

use crate::cpio::{Archive, Entry};
use crate::modules::{Modules, kernel_version};
use crate::policy::Policy;
use crate::sandbox::Sandbox;

/// Where Debian keeps shared libraries; the loader in the initrd looks there without a cache.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// The loader.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
/// The indexes that kmod reads.
const INDEXES: [&str; 10] = [
    "modules.alias.bin",
    "modules.builtin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.builtin.modinfo",
    "modules.dep.bin",
    "modules.order",
    "modules.softdep",
    "modules.symbols.bin",
    "modules.weakdep",
];

/// What the init is told by the image policy: `/etc/bastide-init.json` in the initrd.
#[derive(Debug, Serialize)]
struct Orders<'a> {
    load: &'a [String],
    load_install: &'a [String],
    load_root: &'a [String],
}

/// What an initrd holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Entries.
    pub entries: usize,
    /// Modules.
    pub modules: usize,
    /// Bytes.
    pub size: u64,
}

/// zstd's level. On an initrd 19 takes fourteen times as long and is 11 % smaller, 3 is 12 % larger.
const LEVEL: &str = "-10";

/// Makes the initrd of a host tree to which the policy is applied, compressed, in `scratch`.
///
/// # Errors
/// As [`build`], or when the builder root's zstd fails.
pub fn make(sandbox: &Sandbox, policy: &Policy, tree: &Path, init: &Path, scratch: &Path) -> Result<PathBuf> {
    let directory = scratch.join("initrd");
    fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    build(policy, tree, init, sandbox.epoch(), &directory.join("initrd.cpio"))?;
    sandbox
        .step("zstd")
        .args([
            "--quiet",
            "--single-thread",
            "--rm",
            LEVEL,
            "initrd.cpio",
            "-o",
            "initrd.img",
        ])
        .dir("/mnt/initrd")
        .write(&directory, "/mnt/initrd")
        .run()
        .context("compress the initrd")?;
    Ok(directory.join("initrd.img"))
}

/// Builds the initrd, not compressed yet, from a host tree to which the policy is applied.
///
/// # Errors
/// When the tree lacks something that the policy names, or a file cannot be read or written.
pub fn build(policy: &Policy, tree: &Path, init: &Path, epoch: u64, out: &Path) -> Result<Summary> {
    let mut archive = Archive::default();
    for name in ["dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "usr/lib64"] {
        archive.put(name, Entry::Directory(0o755));
    }
    for (name, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("usr/sbin/modprobe", "../bin/kmod"),
    ] {
        archive.put(name, Entry::Link(target.into()));
    }
    // The kernel opens it for the init before anything is mounted.
    archive.put("dev/console", Entry::Device(0o600, 5, 1));
    archive.put("init", Entry::File(0o755, read(init)?));
    libraries(&mut archive, tree, init)?;
    for program in &policy.initrd.programs {
        let file = inside(tree, program)?;
        archive.put(program, Entry::File(0o755, read(&file)?));
        libraries(&mut archive, tree, &file)?;
    }
    let orders = serde_json::to_vec(&Orders {
        load: &policy.initrd.load,
        load_install: &policy.initrd.load_install,
        load_root: &policy.initrd.load_root,
    })?;
    archive.put("etc/bastide-init.json", Entry::File(0o644, orders));
    let modules = modules(&mut archive, policy, tree)?;
    let date = u32::try_from(epoch).context("the date of the build does not fit a cpio archive")?;
    let file = File::create(out).with_context(|| format!("create {}", out.display()))?;
    let mut writer = BufWriter::new(&file);
    archive
        .write(&mut writer, date)
        .and_then(|()| writer.flush())
        .with_context(|| format!("write {}", out.display()))?;
    Ok(Summary {
        entries: archive.paths().count(),
        modules,
        size: file.metadata()?.len(),
    })
}

fn modules(archive: &mut Archive, policy: &Policy, tree: &Path) -> Result<usize> {
    let version = kernel_version(tree)?;
    let name = format!("usr/lib/modules/{version}");
    let directory = tree.join(&name);
    let modules = Modules::read(&directory)?;
    let idle = modules.idle(&policy.initrd.modules);
    if !idle.is_empty() {
        bail!(
            "the image has no module under {}: correct initrd.modules of its policy",
            idle.join(", ")
        );
    }
    let chosen = modules.select(&policy.initrd.modules, &policy.modules.never);
    for path in &chosen {
        archive.put(
            &format!("{name}/{path}"),
            Entry::File(0o644, read(&directory.join(path))?),
        );
    }
    // The whole image's indexes: a module that is not here is not found and not needed before the switch to the root.
    for index in INDEXES {
        match fs::read(directory.join(index)) {
            Ok(bytes) => archive.put(&format!("{name}/{index}"), Entry::File(0o644, bytes)),
            Err(error) if index == "modules.dep.bin" || index == "modules.alias.bin" => {
                return Err(error).with_context(|| format!("read {}", directory.join(index).display()));
            }
            Err(_) => {}
        }
    }
    let refused = "etc/modprobe.d/bastide.conf";
    archive.put(refused, Entry::File(0o644, read(&tree.join(refused))?));
    Ok(chosen.len())
}

/// Adds the shared libraries of a program, as the tree's own loader finds them in the tree.
fn libraries(archive: &mut Archive, tree: &Path, program: &Path) -> Result<()> {
    let loader = inside(tree, LOADER)?;
    let place = tree.join(LIBRARIES);
    let listing = Cmd::new(&loader)
        .args(["--inhibit-cache", "--library-path"])
        .arg(&place)
        .arg("--list")
        .arg(program)
        .output()
        .with_context(|| format!("list the libraries of {}", program.display()))?;
    for library in needed(&String::from_utf8_lossy(&listing)) {
        if library.ends_with("/ld-linux-x86-64.so.2") {
            continue;
        }
        let file = Path::new(library);
        let Ok(name) = file.strip_prefix(&place) else {
            bail!(
                "{} needs {library}, which the host tree does not have in /{LIBRARIES}",
                program.display()
            );
        };
        let name = format!("{LIBRARIES}/{}", name.display());
        if !archive.has(&name) {
            let bytes = read(&inside(tree, &name)?)?;
            archive.put(&name, Entry::File(0o644, bytes));
        }
    }
    if !archive.has(LOADER) {
        archive.put(LOADER, Entry::File(0o755, read(&loader)?));
    }
    Ok(())
}

/// The paths in the loader's listing: `name => path (address)` or `path (address)`.
fn needed(listing: &str) -> Vec<&str> {
    listing
        .lines()
        .filter_map(|line| {
            let line = line.trim();
            let path = line.split_once(" => ").map_or(line, |(_, path)| path);
            let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
            // The kernel's own page has no file.
            (!path.starts_with("linux-vdso")).then_some(path)
        })
        .collect()
}

/// A path of the tree with the tree's own symbolic links followed inside it.
fn inside(tree: &Path, path: &str) -> Result<PathBuf> {
    let mut name = PathBuf::from(path);
    for _ in 0..16 {
        let place = tree.join(name.strip_prefix("/").unwrap_or(&name));
        let data = place
            .symlink_metadata()
            .with_context(|| format!("find /{path} in the host tree"))?;
        if !data.is_symlink() {
            return Ok(place);
        }
        let target = fs::read_link(&place)?;
        name = name
            .parent()
            .map_or_else(|| target.clone(), |parent| parent.join(&target));
    }
    bail!("/{path} in the host tree is a chain of links without an end")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_of_the_loader_is_read() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /t/usr/lib/libz.so.1 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibgone.so => not found\n";
        assert_eq!(
            needed(listing),
            ["/t/usr/lib/libz.so.1", "/lib64/ld-linux-x86-64.so.2", "not found"]
        );
    }

    #[test]
    fn links_stay_inside() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        fs::create_dir_all(root.join("usr/lib/sub")).unwrap();
        fs::write(root.join("usr/lib/sub/real"), "x").unwrap();
        std::os::unix::fs::symlink("/usr/lib/sub/real", root.join("usr/lib/absolute")).unwrap();
        std::os::unix::fs::symlink("sub/real", root.join("usr/lib/relative")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("usr/lib/loop")).unwrap();
        for name in ["usr/lib/absolute", "usr/lib/relative"] {
            assert_eq!(inside(root, name).unwrap(), root.join("usr/lib/sub/real"));
        }
        assert!(inside(root, "usr/lib/loop").is_err());
        assert!(inside(root, "usr/lib/gone").is_err());
    }
}
