// SPDX-License-Identifier: GPL-3.0-or-later
//! The host image: the packages' tree under the policy, with our programs and the trust directory; its root file system,
//! hash tree and boot images.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use offline_repo::snapshot::Snapshot;
use serde::Serialize;
use signing::digest::Sha256;
use signing::output::Refused;
use signing::release::Version;
use signing::site::TRUST_DIRECTORY;

use crate::bootimage::{Bench, installer_command_line, xen_configuration};
use crate::modules::kernel_version;
use crate::policy::{self, Facts, Policy};
use crate::programs::PROGRAMS;
use crate::rootimage::{self, Identity};
use crate::sandbox::Sandbox;
use crate::{guest, initrd, normalise};

/// The boot image of the installed host, before it is signed.
pub const XEN_UNSIGNED: &str = "xen.unsigned.efi";
/// The boot image of the installer, before it is signed.
pub const INSTALLER_UNSIGNED: &str = "installer.unsigned.efi";

/// What an image is made of.
pub struct Inputs<'a> {
    /// The builder root.
    pub sandbox: &'a Sandbox,
    /// The apt view.
    pub view: &'a Path,
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// The tree of the host's packages, which stays as it is.
    pub packages: &'a Path,
    /// The directory of our programs.
    pub programs: &'a Path,
    /// The image policy's directory.
    pub policy: &'a Path,
    /// The trust directory.
    pub trust: &'a Path,
    /// The release's version.
    pub version: Version,
    /// The release's channel.
    pub channel: &'a str,
    /// Files of the site that are laid over the tree, if any.
    pub overlay: Option<&'a Path>,
    /// The digest of all inputs.
    pub seed: &'a Sha256,
}

/// What the image says of its build, `/usr/share/bastide/release.json`.
#[derive(Serialize)]
struct Built<'a> {
    version: Version,
    channel: &'a str,
    snapshot: &'a str,
    built: u64,
}

/// Makes the tree in `tree`, which must not exist yet.
///
/// # Errors
/// When a step fails.
pub fn make_tree(inputs: &Inputs<'_>, policy: &Policy, scratch: &Path, tree: &Path) -> Result<()> {
    fs::create_dir(tree).with_context(|| format!("cannot make {}", tree.display()))?;
    inputs
        .sandbox
        .step("cp")
        .args(["--archive", "--reflink=auto", "/mnt/from/.", "/mnt/to"])
        .read(inputs.packages, "/mnt/from")
        .write(tree, "/mnt/to")
        .run()
        .context("cannot copy the tree of the packages")?;
    fs::set_permissions(tree, fs::Permissions::from_mode(0o755))
        .context("cannot set the mode of the root directory")?;
    let epoch = inputs.sandbox.epoch();
    let facts = Facts {
        version: inputs.version,
        epoch,
    };
    policy::apply(policy, inputs.sandbox, tree, &facts).context("cannot apply the image policy")?;
    for program in PROGRAMS.iter().filter(|name| **name != "bastide-init") {
        put_file(
            &inputs.programs.join(program),
            tree,
            &format!("usr/bin/{program}"),
            0o755,
        )?;
    }
    trust(inputs.trust, tree)?;
    let built = Built {
        version: inputs.version,
        channel: inputs.channel,
        snapshot: &inputs.snapshot.name,
        built: epoch,
    };
    let mut text = serde_json::to_vec_pretty(&built)?;
    text.push(b'\n');
    normalise::put(tree, "usr/share/bastide/release.json", &text, 0o644)?;
    if let Some(from) = inputs.overlay {
        overlay(from, tree)?;
    }
    guest::install(inputs.sandbox, inputs.view, inputs.snapshot, scratch, tree)?;
    // The boot images carry Xen and the symbols of kernel and Xen serve no running host.
    for name in find(&tree.join("boot"), |name| {
        name.starts_with("xen") || name.starts_with("System.map")
    })? {
        normalise::remove(&name)?;
    }
    normalise::normalise(tree, epoch)
}

/// Makes everything that follows from the tree: root file system, hash tree, initrd and boot images, in `out`.
///
/// # Errors
/// When a step fails.
pub fn make_parts(inputs: &Inputs<'_>, policy: &Policy, scratch: &Path, tree: &Path, out: &Path) -> Result<Sha256> {
    let root_hash = rootimage::make(inputs.sandbox, tree, &Identity::new(inputs.seed), out)?;
    let init = inputs.programs.join("bastide-init");
    let ramdisk = initrd::make(inputs.sandbox, policy, tree, &init, scratch).context("cannot make the initrd")?;
    let version = kernel_version(tree)?;
    let kernel = tree.join(format!("boot/vmlinuz-{version}"));
    let xen = one_xen(inputs.packages)?;
    let bench = Bench::new(inputs.sandbox, scratch)?;
    bench.unified_xen(
        &xen,
        &xen_configuration(&policy.boot, &root_hash),
        &kernel,
        &ramdisk,
        &out.join(XEN_UNSIGNED),
    )?;
    bench.installer(
        &kernel,
        &ramdisk,
        &installer_command_line(&policy.boot, &root_hash),
        &tree.join("usr/lib/os-release"),
        &version,
        &out.join(INSTALLER_UNSIGNED),
    )?;
    Ok(root_hash)
}

/// The snapshot's only Xen as an EFI program.
fn one_xen(packages: &Path) -> Result<PathBuf> {
    let found = find(&packages.join("boot"), |name| {
        name.starts_with("xen-") && name.ends_with(".efi")
    })?;
    // Packages link the plain name to the versioned one.
    let real: Vec<_> = found.into_iter().filter(|path| !path.is_symlink()).collect();
    match real.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            bail!("the host's packages hold no boot/xen-*.efi: put xen-system-amd64 on the specification's host list")
        }
        many => bail!(
            "the host's packages hold {} Xen images: keep one version on the specification's host list",
            many.len()
        ),
    }
}

/// Copies the trust directory, and refuses anything that is not public.
fn trust(from: &Path, tree: &Path) -> Result<()> {
    check_trust(from)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read the trust directory {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        put_file(
            &path,
            tree,
            &format!("{}/{name}", TRUST_DIRECTORY.trim_start_matches('/')),
            0o644,
        )?;
    }
    Ok(())
}

/// Checks that a trust directory can be baked in: it has the files that a verifier needs and no private key.
///
/// # Errors
/// When a file is missing, is not a plain file, or holds a private key (refused).
pub fn check_trust(directory: &Path) -> Result<()> {
    for name in ["root.json", "release.asc"] {
        if !directory.join(name).is_file() {
            bail!(
                "the trust directory {} has no {name}: give the directory `trust` of a site (bastide-sign site init)",
                directory.display()
            );
        }
    }
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if !path.symlink_metadata().is_ok_and(|data| data.is_file()) {
            bail!("{} in the trust directory is not a plain file", path.display());
        }
        let bytes =
            signing::digest::read_bounded(&path, 1 << 20).with_context(|| format!("cannot read {}", path.display()))?;
        if bytes
            .windows(17)
            .any(|window| window == b"PRIVATE KEY BLOCK" || window.starts_with(b"PRIVATE KEY-----"))
        {
            bail!(Refused(format!(
                "{} holds a private key: it must not go into an image that everybody can read",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Lays a site's files over the tree: plain files, executable or not, and symbolic links, owned by root.
fn overlay(from: &Path, tree: &Path) -> Result<()> {
    for entry in walkdir::WalkDir::new(from).sort_by_file_name() {
        let entry = entry.with_context(|| format!("cannot read the overlay {}", from.display()))?;
        let name = entry.path().strip_prefix(from).unwrap_or(entry.path());
        let kind = entry.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            let place = tree.join(name);
            normalise::remove(&place)?;
            fs::create_dir_all(place.parent().unwrap_or(tree))
                .and_then(|()| std::os::unix::fs::symlink(target, &place))
                .with_context(|| format!("cannot make the link {}", place.display()))?;
        } else if kind.is_file() {
            let executable = entry.metadata()?.permissions().mode() & 0o111 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            put_file(entry.path(), tree, &name.to_string_lossy(), mode)?;
        } else if !kind.is_dir() {
            bail!("{} in the overlay is neither a file nor a link", entry.path().display());
        }
    }
    Ok(())
}

fn put_file(from: &Path, tree: &Path, name: &str, mode: u32) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    normalise::put(tree, name, &bytes, mode)
}

fn find(directory: &Path, fits: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        if fits(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in ["root.json", "release.asc"] {
            fs::write(directory.path().join(name), "public").unwrap();
        }
        directory
    }

    #[test]
    fn a_private_key_is_never_baked_in() {
        for text in [
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\n",
        ] {
            let site = site();
            assert!(check_trust(site.path()).is_ok());
            fs::write(site.path().join("extra"), text).unwrap();
            assert!(check_trust(site.path()).unwrap_err().is::<Refused>(), "{text}");
        }
    }

    #[test]
    fn an_incomplete_trust_directory_says_what_is_missing() {
        let site = site();
        fs::remove_file(site.path().join("release.asc")).unwrap();
        let error = check_trust(site.path()).unwrap_err().to_string();
        assert!(
            error.contains("release.asc") && error.contains("bastide-sign site init"),
            "{error}"
        );
    }
}
