// SPDX-License-Identifier: GPL-3.0-or-later
//! Mounts of the initrd, and the switch to the root file system.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::MsFlags;

use super::{SYSROOT, console};
use crate::layout;

const NOTHING: Option<&str> = None;
/// The root file system's own init.
const INIT: &str = "/usr/lib/systemd/systemd";
/// What moves along into the root file system.
const KERNEL: [&str; 4] = ["dev", "proc", "sys", "run"];

/// Mounts a file system on a directory, which is made.
///
/// # Errors
/// When the kernel refuses.
pub fn mount(source: &Path, place: &Path, kind: &str, flags: MsFlags, options: &str) -> Result<()> {
    let what = || format!("cannot mount {} ({kind}) on {}", source.display(), place.display());
    if !place.is_dir() {
        fs::create_dir_all(place).with_context(what)?;
    }
    nix::mount::mount(Some(source), place, Some(kind), flags, Some(options)).with_context(what)
}

/// The kernel's own file systems.
///
/// # Errors
/// When one cannot be mounted.
pub fn kernel() -> Result<()> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let one = |name: &str, kind: &str, flags, options| mount(Path::new(kind), Path::new(name), kind, flags, options);
    one("/dev", "devtmpfs", MsFlags::MS_NOSUID, "mode=0755")?;
    one("/proc", "proc", quiet, "")?;
    one("/sys", "sysfs", quiet, "")?;
    one(
        "/run",
        "tmpfs",
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        "mode=0755,size=20%",
    )
}

/// The toolstack's window on Xen, where there is a Xen.
///
/// # Errors
/// When it cannot be mounted.
pub fn xen() -> Result<()> {
    let place = Path::new("/proc/xen");
    if !place.is_dir() {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Path::new("xenfs"), place, "xenfs", flags, "")
}

/// The verified root file system.
///
/// # Errors
/// When it cannot be mounted.
pub fn root() -> Result<()> {
    let device = Path::new("/dev/mapper").join(layout::ROOT_MAPPING);
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(&device, Path::new(SYSROOT), "erofs", flags, "")
}

/// A directory of the root file system with its changes kept in `upper`, and the overlay's own work beside it.
///
/// # Errors
/// When it cannot be mounted.
pub fn overlay(name: &str, upper: &Path, flags: MsFlags) -> Result<()> {
    let place = Path::new(SYSROOT).join(name);
    let work = upper.with_file_name(format!("{name}-work"));
    for directory in [upper, work.as_path()] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    // The upper directory's mode and owner are the merged directory's.
    fs::set_permissions(upper, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot set the mode of {}", upper.display()))?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        place.display(),
        upper.display(),
        work.display()
    );
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Path::new("overlay"), &place, "overlay", flags, &options)
}

/// The administrator's home.
///
/// # Errors
/// When it cannot be mounted.
pub fn home(from: &Path) -> Result<()> {
    let place = Path::new(SYSROOT).join("root");
    fs::create_dir_all(from)
        .and_then(|()| fs::set_permissions(from, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("cannot make {}", from.display()))?;
    nix::mount::mount(Some(from), &place, NOTHING, MsFlags::MS_BIND, NOTHING)
        .with_context(|| format!("cannot mount {} on {}", from.display(), place.display()))
}

/// What lives in memory while the system runs: `/tmp`, and the sign for the journal that its place on disk is there already.
///
/// # Errors
/// When it cannot be made.
pub fn memory() -> Result<()> {
    let place = Path::new(SYSROOT).join("tmp");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Path::new("tmpfs"), &place, "tmpfs", flags, "mode=1777,size=50%")?;
    let flushed = Path::new("/run/systemd/journal/flushed");
    fs::create_dir_all("/run/systemd/journal")
        .and_then(|()| fs::write(flushed, b""))
        .with_context(|| format!("cannot write {}", flushed.display()))
}

/// Leaves the initrd, whose files are removed to give their memory back, and becomes the root file system's init.
///
/// # Errors
/// When a mount cannot be moved or the init cannot be started.
pub fn switch(root: &Path) -> Result<Infallible> {
    for name in KERNEL {
        let (from, to) = (Path::new("/").join(name), root.join(name));
        nix::mount::mount(Some(&from), &to, NOTHING, MsFlags::MS_MOVE, NOTHING)
            .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))?;
    }
    let device = fs::metadata("/").context("cannot look at the initrd")?.dev();
    empty(Path::new("/"), device);
    let step = |what: &'static str| format!("cannot switch to the root file system: {what}");
    std::env::set_current_dir(root).with_context(|| step("enter it"))?;
    nix::mount::mount(Some("."), "/", NOTHING, MsFlags::MS_MOVE, NOTHING).with_context(|| step("move it"))?;
    nix::unistd::chroot(".").with_context(|| step("make it the root"))?;
    std::env::set_current_dir("/").with_context(|| step("enter its root"))?;
    let init = CString::new(INIT)?;
    let environment = ["PATH=/usr/sbin:/usr/bin", "TERM=linux"].map(CString::new);
    let environment: Vec<CString> = environment.into_iter().collect::<Result<_, _>>()?;
    nix::unistd::execve(&init, std::slice::from_ref(&init), &environment)
        .with_context(|| format!("cannot start {INIT}: the root file system is not whole"))
}

/// Removes what lies on the initrd's own file system; other file systems are not entered.
fn empty(directory: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(data) = path.symlink_metadata() else { continue };
        if data.dev() != device {
            continue;
        }
        let removed = if data.is_dir() {
            empty(&path, device);
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
        // Mount points stay behind, as they must.
        if let Err(error) = removed
            && !data.is_dir()
        {
            console::note(&format!("{} stays in memory: {error}", path.display()));
        }
    }
}
