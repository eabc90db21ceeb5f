// SPDX-License-Identifier: GPL-3.0-or-later
//! The policy of the host image: what leaves the tree that the packages made, what is laid over it and what starts.
//!
//! `policy.toml` and `tree/` stand in one directory ([`Policy::load`]); [`apply`] brings a tree to the policy. It touches
//! nothing outside the tree: symbolic links of the tree are never followed out of it.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use signing::release::Version;
use walkdir::WalkDir;

use crate::modules::{self, Kept};
use crate::sandbox::Sandbox;

/// `policy.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Command lines.
    pub boot: Boot,
    /// What systemd starts.
    pub units: Units,
    /// What goes.
    pub remove: Remove,
    /// Kernel modules of the image.
    pub modules: ModuleLists,
    /// What the initrd holds and does.
    pub initrd: Initrd,
    /// Where the policy was read from.
    #[serde(skip)]
    directory: PathBuf,
}

/// Command lines.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Xen's options.
    pub xen: String,
    /// dom0's kernel parameters, without the root hash.
    pub host: String,
    /// The installer's kernel parameters, without the root hash.
    pub install: String,
}

/// What systemd starts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Units {
    /// The default target.
    pub default: String,
    /// Units that a target wants.
    pub wants: BTreeMap<String, Vec<String>>,
    /// Second names of units.
    pub alias: BTreeMap<String, String>,
    /// Units that never start, by reason.
    pub mask: Mask,
}

/// Units that never start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Work that is done when the image is built.
    pub finished: Vec<String>,
    /// Ways in.
    pub doors: Vec<String>,
    /// Weight at every boot.
    pub weight: Vec<String>,
    /// Whether all unit generators are masked.
    pub generators: bool,
}

/// What goes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// Globs of paths.
    pub paths: Vec<String>,
    /// Names of files below `usr/share/doc` that stay.
    pub doc_keep: Vec<String>,
}

/// Kernel modules of the image.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleLists {
    /// Directories or modules that stay.
    pub keep: Vec<String>,
    /// Directories or modules that go whatever needs them.
    pub never: Vec<String>,
}

/// What the initrd holds and does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Initrd {
    /// Modules loaded first.
    pub load: Vec<String>,
    /// Modules loaded first when the installer boots.
    pub load_install: Vec<String>,
    /// Modules of the root file system, loaded before it starts.
    pub load_root: Vec<String>,
    /// Directories or modules in the initrd.
    pub modules: Vec<String>,
    /// Programs of the tree in the initrd.
    pub programs: Vec<String>,
}

/// What the image says of itself.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The release's version.
    pub version: Version,
    /// Seconds since 1970 of every file that is made here.
    pub epoch: u64,
}

impl Policy {
    /// Reads `policy.toml` in a directory.
    ///
    /// # Errors
    /// When it cannot be read or has a key that is not known.
    pub fn load(directory: &Path) -> Result<Self> {
        let file = directory.join("policy.toml");
        let text = fs::read_to_string(&file).with_context(|| format!("read the image policy {}", file.display()))?;
        let mut policy: Self = toml::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
        directory.clone_into(&mut policy.directory);
        Ok(policy)
    }
}

/// Brings a tree to the policy. The tree is a finished root made of packages, owned by root, in which `sandbox` can run
/// its programs.
///
/// # Errors
/// When a step fails; the tree is then neither one thing nor the other and must be made again.
pub fn apply(policy: &Policy, sandbox: &Sandbox, tree: &Path, facts: &Facts) -> Result<Kept> {
    for pattern in &policy.remove.paths {
        for path in expand(tree, pattern)? {
            remove(&path)?;
        }
    }
    thin_documentation(tree, &policy.remove.doc_keep)?;
    let kept = modules::reduce(sandbox, tree, &policy.modules.keep, &policy.modules.never)?;
    overlay(&policy.directory.join("tree"), tree)?;
    units(&policy.units, tree)?;
    identity(tree, facts)?;
    Ok(kept)
}

/// Copies `tree/` over the tree: owned by root, with modes by place.
fn overlay(from: &Path, tree: &Path) -> Result<()> {
    for entry in WalkDir::new(from).min_depth(1).sort_by_file_name() {
        let entry = entry.with_context(|| format!("walk {}", from.display()))?;
        let relative = entry.path().strip_prefix(from)?;
        let place = tree.join(relative);
        let kind = entry.file_type();
        if kind.is_dir() {
            directory(&place, 0o755)?;
        } else if kind.is_file() {
            let program = relative
                .components()
                .rev()
                .skip(1)
                .any(|part| ["bin", "sbin", "libexec"].iter().any(|name| part.as_os_str() == *name));
            let bytes = fs::read(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
            file(&place, &bytes, if program { 0o755 } else { 0o644 })?;
        } else if kind.is_symlink() {
            link(&fs::read_link(entry.path())?, &place)?;
        } else {
            bail!("{} is neither file, directory nor link", entry.path().display());
        }
    }
    Ok(())
}

fn units(units: &Units, tree: &Path) -> Result<()> {
    let system = tree.join("etc/systemd/system");
    // What packages' presets linked goes: the links below are all that starts.
    for entry in WalkDir::new(&system).min_depth(1).sort_by_file_name() {
        let entry = entry.with_context(|| format!("walk {}", system.display()))?;
        if entry.file_type().is_symlink() {
            remove(entry.path())?;
        }
    }
    let shipped = tree.join("usr/lib/systemd/system");
    let known = |unit: &str| {
        let template = unit.split_once('@').map(|(name, rest)| {
            let suffix = rest.rsplit('.').next().unwrap_or("service");
            format!("{name}@.{suffix}")
        });
        [Some(unit.to_owned()), template]
            .into_iter()
            .flatten()
            .find_map(|name| {
                [(&system, "/etc/systemd/system"), (&shipped, "/usr/lib/systemd/system")]
                    .iter()
                    .find(|(directory, _)| directory.join(&name).exists())
                    .map(|(_, target)| format!("{target}/{name}"))
            })
            .with_context(|| format!("the image has no unit {unit}: correct the image policy"))
    };
    for (target, wanted) in &units.wants {
        for unit in wanted {
            link(
                Path::new(&known(unit)?),
                &system.join(format!("{target}.wants")).join(unit),
            )?;
        }
    }
    for (name, unit) in &units.alias {
        link(Path::new(&known(unit)?), &system.join(name))?;
    }
    link(Path::new(&known(&units.default)?), &system.join("default.target"))?;
    let null = Path::new("/dev/null");
    for unit in [&units.mask.finished, &units.mask.doors, &units.mask.weight]
        .into_iter()
        .flatten()
    {
        link(null, &system.join(unit))?;
    }
    if units.mask.generators {
        let generators = tree.join("usr/lib/systemd/system-generators");
        for path in expand(tree, "usr/lib/systemd/system-generators/*")? {
            let name = path.strip_prefix(&generators)?;
            link(null, &tree.join("etc/systemd/system-generators").join(name))?;
        }
    }
    Ok(())
}

/// What the image says of itself, the directories that the initrd mounts on, and files that must exist but say nothing.
fn identity(tree: &Path, facts: &Facts) -> Result<()> {
    let version = facts.version;
    let release = format!(
        "NAME=Bastide\nID=bastide\nID_LIKE=debian\nVERSION_ID={version}\nPRETTY_NAME=\"Bastide {version}\"\nIMAGE_ID=bastide\nIMAGE_VERSION={version}\n"
    );
    remove(&tree.join("etc/os-release"))?;
    file(&tree.join("usr/lib/os-release"), release.as_bytes(), 0o644)?;
    link(Path::new("../usr/lib/os-release"), &tree.join("etc/os-release"))?;
    // Empty, not absent and not "uninitialized": that would preset all units at the first boot.
    file(&tree.join("etc/machine-id"), b"", 0o444)?;
    file(&tree.join("etc/hostname"), b"bastide\n", 0o644)?;
    link(
        Path::new("/run/systemd/resolve/resolv.conf"),
        &tree.join("etc/resolv.conf"),
    )?;
    // Without its own line, sshd and sudo-like programs ask a name server for the host's name.
    file(
        &tree.join("etc/hosts"),
        b"127.0.0.1 localhost bastide\n::1 localhost ip6-localhost\n",
        0o644,
    )?;
    for (name, mode) in [
        ("state", 0o755),
        ("boot/efi", 0o700),
        ("usr/share/bastide", 0o755),
        ("root", 0o700),
        ("proc", 0o555),
        ("sys", 0o555),
        ("dev", 0o755),
        ("run", 0o755),
        ("tmp", 0o1777),
    ] {
        directory(&tree.join(name), mode)?;
    }
    for name in ["etc/.updated", "var/.updated"] {
        file(&tree.join(name), b"# This image is finished when it is built.\n", 0o644)?;
    }
    lock_accounts(tree)?;
    // Debian's wrappers ask the running hypervisor for its version; units name one path.
    let toolstacks = expand(tree, "usr/lib/xen-4*")?;
    let [toolstack] = toolstacks.as_slice() else {
        bail!(
            "the image has {} Xen toolstacks: it carries exactly one",
            toolstacks.len()
        );
    };
    link(
        Path::new(toolstack.file_name().unwrap_or_default()),
        &tree.join("usr/lib/xen"),
    )
}

/// No account has a password: `*` in every entry.
fn lock_accounts(tree: &Path) -> Result<()> {
    let shadow = tree.join("etc/shadow");
    let text = fs::read_to_string(&shadow).with_context(|| format!("read {}", shadow.display()))?;
    let mut locked = String::new();
    for line in text.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if let Some(password) = fields.get_mut(1) {
            // `*`, not `!`: no password fits either, but sshd takes `!` for an account that is closed to keys too.
            *password = "*";
        }
        // The day of the last change would be the day of the build.
        if let Some(day) = fields.get_mut(2) {
            *day = "20000";
        }
        locked.push_str(&fields.join(":"));
        locked.push('\n');
    }
    fs::write(&shadow, locked).with_context(|| format!("write {}", shadow.display()))
}

/// Removes everything below `usr/share/doc` but files of some names.
fn thin_documentation(tree: &Path, keep: &[String]) -> Result<()> {
    let doc = tree.join("usr/share/doc");
    for entry in WalkDir::new(&doc).min_depth(1).contents_first(true).sort_by_file_name() {
        let entry = entry.with_context(|| format!("walk {}", doc.display()))?;
        if entry.file_type().is_dir() {
            match fs::remove_dir(entry.path()) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
                done => done.with_context(|| format!("remove {}", entry.path().display()))?,
            }
            continue;
        }
        // A link beside the packages' directories points one package's licence to another's.
        let stays = keep.iter().any(|name| entry.file_name() == name.as_str())
            || (entry.depth() == 1 && entry.file_type().is_symlink());
        if !stays {
            remove(entry.path())?;
        }
    }
    Ok(())
}

/// The paths below a tree that a glob names: `*`, `?` and `[..]` within a component, `**` for any depth. Links are never followed.
fn expand(tree: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let mut found = vec![tree.to_path_buf()];
    for part in Path::new(pattern).components() {
        let Component::Normal(part) = part else {
            bail!("the path {pattern:?} of the image policy does not stay below the root");
        };
        let part = part.to_string_lossy();
        let mut next = Vec::new();
        for place in found {
            if part == "**" {
                let below = WalkDir::new(&place).sort_by_file_name().into_iter().flatten();
                next.extend(
                    below
                        .filter(|entry| entry.file_type().is_dir())
                        .map(walkdir::DirEntry::into_path),
                );
            } else if part.contains(['*', '?', '[']) {
                let glob =
                    glob::Pattern::new(&part).with_context(|| format!("the glob {pattern:?} of the image policy"))?;
                next.extend(children(&place)?.into_iter().filter(|child| {
                    child
                        .file_name()
                        .is_some_and(|name| glob.matches(&name.to_string_lossy()))
                }));
            } else if place.join(&*part).symlink_metadata().is_ok() {
                next.push(place.join(&*part));
            }
        }
        found = next;
    }
    Ok(found)
}

/// A directory's entries in order; none when it is no directory or a link to one.
fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    if !directory.symlink_metadata().is_ok_and(|data| data.is_dir()) {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn remove(path: &Path) -> Result<()> {
    let done = match path.symlink_metadata() {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    done.with_context(|| format!("remove {}", path.display()))
}

fn directory(path: &Path, mode: u32) -> Result<()> {
    parent(path)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => fs::set_permissions(path, Permissions::from_mode(mode)),
    }
    .with_context(|| format!("make {}", path.display()))
}

/// Makes the directories above a path that are not there, with a mode that the umask does not decide.
fn parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.exists() => directory(parent, 0o755),
        _ => Ok(()),
    }
}

/// Writes a file in the place of whatever is there: a link is replaced, not followed.
fn file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    remove(path)?;
    parent(path)?;
    fs::write(path, bytes)
        .and_then(|()| File::open(path)?.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| chown(path, Some(0), Some(0)))
        .with_context(|| format!("write {}", path.display()))
}

fn link(target: &Path, place: &Path) -> Result<()> {
    remove(place)?;
    parent(place)?;
    symlink(target, place).with_context(|| format!("link {} to {}", place.display(), target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Policy {
        Policy::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("image")).unwrap()
    }

    #[test]
    fn the_shipped_policy_is_whole() {
        let policy = shipped();
        assert_eq!(policy.units.default, "multi-user.target");
        for started in policy.units.wants.values().flatten() {
            let mask = &policy.units.mask;
            let masked = [&mask.finished, &mask.doors, &mask.weight];
            assert!(
                !masked.into_iter().flatten().any(|unit| unit == started),
                "{started} is started and masked"
            );
        }
        for line in [&policy.boot.host, &policy.boot.install] {
            assert!(line.contains("lockdown=integrity"), "{line}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(shipped().directory.join("policy.toml")).unwrap();
        fs::write(directory.path().join("policy.toml"), text + "\nsurprise = 1\n").unwrap();
        let error = format!("{:#}", Policy::load(directory.path()).unwrap_err());
        assert!(error.contains("surprise"), "{error}");
    }

    #[test]
    fn globs_stay_in_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "x").unwrap();
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        fs::create_dir_all(root.join("a/b/__pycache__")).unwrap();
        fs::write(root.join("a/one.txt"), "x").unwrap();
        symlink(outside.path(), root.join("a/out")).unwrap();
        let names = |pattern| {
            expand(root, pattern)
                .unwrap()
                .iter()
                .map(|path| path.strip_prefix(root).unwrap().display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names("a/*.txt"), ["a/one.txt"]);
        assert_eq!(names("a/**/__pycache__"), ["a/b/__pycache__"]);
        assert_eq!(names("a/out/*"), Vec::<String>::new());
        assert_eq!(names("absent/*"), Vec::<String>::new());
        assert!(expand(root, "../etc").is_err());
        remove(&root.join("a/out")).unwrap();
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn no_account_keeps_a_password() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("etc")).unwrap();
        let shadow = tree.path().join("etc/shadow");
        fs::write(&shadow, "root:$y$j9T$secret:20400:0:99999:7:::\nsshd:!:20400::::::\n").unwrap();
        lock_accounts(tree.path()).unwrap();
        assert_eq!(
            fs::read_to_string(&shadow).unwrap(),
            "root:*:20000:0:99999:7:::\nsshd:*:20000::::::\n"
        );
    }
}
