// SPDX-License-Identifier: GPL-3.0-or-later
//! Where foreign programs run: namespaces of their own, a read-only builder root, no network.
//!
//! [`enter`] moves the calling thread into private mount, network, host name and IPC namespaces, so that whatever is
//! mounted disappears with the process, however it ends, and no step can reach a network. A [`Step`] then runs one
//! program in a chroot of the builder root: the root read-only, `/tmp`, `/run` and `/dev` fresh, inputs bound at fixed
//! paths, process ids of its own, and the environment that every step of a reproducible build shares.
//!
//! The sandbox keeps the machine out of the result. It does not defend the machine against a hostile package: the
//! packages are verified before, and their scripts run as root in the chroot.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use signing::process::Cmd;

/// Directories that the builder root has for binds, beside anything below `/mnt`, which is fresh in every step.
pub const PLACES: [&str; 4] = ["src", "build", "cargo", "rust"];

const NO_DATA: Option<&str> = None;

/// Says clearly that the operation needs root.
///
/// # Errors
/// When the process is not root.
pub fn need_root(operation: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("{operation} needs root: it makes trees with owners of their own and works in a chroot; run it with sudo");
}

/// Moves the calling thread, and what it starts from now on, into namespaces of its own.
///
/// # Errors
/// When the process is not root or the kernel refuses.
pub fn enter() -> Result<()> {
    need_root("the build")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .context("cannot make namespaces for the build (mount, network, host name, IPC)")?;
    mount(NO_DATA, "/", NO_DATA, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NO_DATA)
        .context("cannot make mounts private")?;
    nix::unistd::sethostname("bastide-build").context("cannot set the build's host name")?;
    // Every file mode in the result is decided by the build, not by whoever starts it.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    Ok(())
}

/// One bind mount of a step.
struct Bind {
    from: PathBuf,
    to: PathBuf,
    writable: bool,
}

/// A builder root, in which steps run.
#[derive(Debug, Clone)]
pub struct Sandbox {
    root: PathBuf,
    mountpoint: PathBuf,
    epoch: u64,
}

impl Sandbox {
    /// A sandbox over the tree `root`, mounted at `mountpoint` while a step runs. `epoch` becomes `SOURCE_DATE_EPOCH`.
    #[must_use]
    pub fn new(root: &Path, mountpoint: &Path, epoch: u64) -> Self {
        Self {
            root: root.to_owned(),
            mountpoint: mountpoint.to_owned(),
            epoch,
        }
    }

    /// A step that runs `program`.
    #[must_use]
    pub fn step(&self, program: &str) -> Step<'_> {
        Step {
            sandbox: self,
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            directory: PathBuf::from("/"),
            binds: Vec::new(),
            overlay_root: None,
        }
    }

    /// Seconds since 1970 that the build's dates derive from.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// One program to be run in the sandbox.
pub struct Step<'a> {
    sandbox: &'a Sandbox,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    directory: PathBuf,
    binds: Vec<Bind>,
    overlay_root: Option<PathBuf>,
}

impl Step<'_> {
    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory, a path inside.
    #[must_use]
    pub fn dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Shows a file or directory of the machine inside, read-only, at an absolute path: one of [`PLACES`] or below `/mnt`.
    #[must_use]
    pub fn read(self, from: &Path, to: &str) -> Self {
        self.bind(from, to, false)
    }

    /// As [`Step::read`], writable.
    #[must_use]
    pub fn write(self, from: &Path, to: &str) -> Self {
        self.bind(from, to, true)
    }

    /// Runs in another tree than the builder root, writable: the host tree, for what only its own programs can do.
    #[must_use]
    pub fn in_tree(mut self, tree: &Path) -> Self {
        self.overlay_root = Some(tree.to_owned());
        self
    }

    fn bind(mut self, from: &Path, to: &str, writable: bool) -> Self {
        self.binds.push(Bind {
            from: from.to_owned(),
            to: PathBuf::from(to.trim_start_matches('/')),
            writable,
        });
        self
    }

    /// Runs to the end and returns standard output, which the caller knows to be small.
    ///
    /// # Errors
    /// When a mount fails or the program does.
    pub fn output(self) -> Result<Vec<u8>> {
        let (_mounts, command) = self.prepare()?;
        Ok(command.output()?)
    }

    /// Runs to the end, standard output ignored.
    ///
    /// # Errors
    /// As [`Step::output`].
    pub fn run(self) -> Result<()> {
        self.output().map(drop)
    }

    /// Runs to the end with both outputs appended to a log.
    ///
    /// # Errors
    /// As [`Step::output`].
    pub fn run_logged(self, log: &Path) -> Result<()> {
        let (_mounts, command) = self.prepare()?;
        Ok(command.run_logged(log)?)
    }

    fn prepare(self) -> Result<(Mounts, Cmd)> {
        let mounts = Mounts::make(&self)?;
        // setpriv and unshare tie the whole family to us: when we are killed, nothing goes on behind our back.
        let mut command = Cmd::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child"])
            .arg("--mount-proc")
            .arg(joined("--root=", &mounts.0))
            .arg(joined("--wd=", &self.directory))
            .arg("--")
            .arg(&self.program)
            .args(&self.args)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", "/tmp")
            .env("SOURCE_DATE_EPOCH", self.sandbox.epoch.to_string());
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        Ok((mounts, command))
    }
}

fn joined(prefix: &str, path: &Path) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path);
    text
}

/// The mounts of a step, taken down when dropped. What cannot be taken down goes with the namespace.
struct Mounts(PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

impl Mounts {
    fn make(step: &Step<'_>) -> Result<Self> {
        let place = &step.sandbox.mountpoint;
        fs::create_dir_all(place).with_context(|| format!("cannot make the mount point {}", place.display()))?;
        let (root, writable) = match &step.overlay_root {
            Some(tree) => (tree, true),
            None => (&step.sandbox.root, false),
        };
        bind(root, place, writable)?;
        // From here on every failure takes the mounts down again.
        let mounts = Self(place.clone());
        let fresh = |name: &str, mode: &str| {
            let options = format!("mode={mode},size=8g");
            mount(
                Some("tmpfs"),
                &place.join(name),
                Some("tmpfs"),
                MsFlags::empty(),
                Some(options.as_str()),
            )
            .with_context(|| format!("cannot mount a fresh /{name} in {}", root.display()))
        };
        for (name, mode) in [("tmp", "1777"), ("run", "0755"), ("dev", "0755"), ("mnt", "0755")] {
            fresh(name, mode)?;
        }
        fs::create_dir(place.join("dev/shm")).context("cannot make /dev/shm")?;
        for device in ["null", "zero", "full", "random", "urandom"] {
            let node = place.join("dev").join(device);
            fs::write(&node, b"").with_context(|| format!("cannot make /dev/{device}"))?;
            bind(&Path::new("/dev").join(device), &node, true)?;
        }
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "fd/0"),
            ("stdout", "fd/1"),
            ("stderr", "fd/2"),
        ] {
            std::os::unix::fs::symlink(target, place.join("dev").join(name)).context("cannot fill /dev")?;
        }
        for one in &step.binds {
            let to = place.join(&one.to);
            if !to.exists() && one.to.starts_with("mnt") {
                let parent = to.parent().unwrap_or(place);
                fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
                if one.from.is_dir() {
                    fs::create_dir(&to)
                } else {
                    fs::write(&to, b"")
                }
                .with_context(|| format!("cannot make {}", to.display()))?;
            }
            bind(&one.from, &to, one.writable)?;
        }
        Ok(mounts)
    }
}

fn bind(from: &Path, to: &Path, writable: bool) -> Result<()> {
    let failed = || format!("cannot show {} as {}", from.display(), to.display());
    mount(Some(from), to, NO_DATA, MsFlags::MS_BIND | MsFlags::MS_REC, NO_DATA).with_context(failed)?;
    if !writable {
        mount(
            NO_DATA,
            to,
            NO_DATA,
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
            NO_DATA,
        )
        .with_context(failed)?;
    }
    Ok(())
}
