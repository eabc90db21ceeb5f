// SPDX-License-Identifier: GPL-3.0-or-later
//! The init of the initrd: from a kernel to a verified root file system, and nothing besides.
//!
//! Attacks faced: a disk or medium that was changed offline, in its partition tables, file system headers or content; two
//! disks that claim to hold the same release; a device that never appears. Defence: the root hash comes with the signed boot
//! image on the kernel's command line, and everything else is judged by it: partition tables and labels only say where to look,
//! the top of the hash tree is compared before it is used, and dm-verity panics at the first block that does not fit. There is
//! no shell and no way on after an error: one line says what was wrong, then the machine restarts (host) or stops (installer).
//!
//! Defence not made: the state partition is not authenticated. Who can change it offline can change `/etc` and `/var`.

pub mod console;
pub mod devices;
pub mod host;
pub mod install;
pub mod iso;
pub mod mounts;
pub mod report;
pub mod verity;

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::reboot::{RebootMode, reboot};
use serde::Deserialize;
use signing::digest::Sha256;
use signing::output::chain;
use signing::release::ROOT_HASH_PARAMETER;

use crate::layout;

/// Where the root file system is put together.
pub const SYSROOT: &str = "/sysroot";
/// How long a message stays before the machine restarts.
const BEFORE_RESTART: Duration = Duration::from_secs(10);
/// How long a message stays before the machine stops: somebody stands in front of it.
const BEFORE_STOP: Duration = Duration::from_secs(120);

/// What the image's policy tells the init.
#[derive(Debug, Default, Deserialize)]
pub struct Orders {
    /// Modules loaded first.
    pub load: Vec<String>,
    /// Modules loaded besides when the installer boots.
    pub load_install: Vec<String>,
    /// Modules of the root file system loaded before it starts.
    pub load_root: Vec<String>,
}

/// What the image boots for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An installed host.
    Host,
    /// The installer, from its medium.
    Install,
}

/// What the kernel's command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What the image boots for.
    pub mode: Mode,
    /// The root hash of the root file system.
    pub root_hash: Sha256,
}

impl Request {
    /// Reads the command line. A parameter that is there twice is refused: one of the two is somebody else's.
    ///
    /// # Errors
    /// When a parameter is missing, doubled or not what it should be.
    pub fn parse(line: &str) -> Result<Self> {
        let mode = match only(line, layout::PARAM_MODE)? {
            layout::MODE_HOST => Mode::Host,
            layout::MODE_INSTALL => Mode::Install,
            other => bail!("the kernel parameter {}={other} is not known", layout::PARAM_MODE),
        };
        let root_hash = only(line, ROOT_HASH_PARAMETER)?
            .parse()
            .with_context(|| format!("the kernel parameter {}", ROOT_HASH_PARAMETER))?;
        Ok(Self { mode, root_hash })
    }
}

fn only<'a>(line: &'a str, name: &str) -> Result<&'a str> {
    let mut values = line
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let value = values
        .next()
        .with_context(|| format!("the kernel parameter {name} is missing"))?;
    if values.next().is_some() {
        bail!("the kernel parameter {name} is there twice");
    }
    Ok(value)
}

/// Runs as the first process and never comes back.
pub fn main() {
    if std::process::id() != 1 {
        eprintln!("bastide-init is the first process of the initrd and does nothing elsewhere");
        std::process::exit(2);
    }
    let mut mode = Mode::Host;
    let Err(error) = run(&mut mode);
    console::error(&chain(&error));
    let (what, wait, how) = match mode {
        Mode::Host => ("restarts", BEFORE_RESTART, RebootMode::RB_AUTOBOOT),
        Mode::Install => ("stops", BEFORE_STOP, RebootMode::RB_POWER_OFF),
    };
    console::error(&format!("this machine {what} in {} seconds", wait.as_secs()));
    std::thread::sleep(wait);
    nix::unistd::sync();
    let _ = reboot(how);
    // The first process must not end: the kernel would panic, which restarts too, but with a page of noise.
    loop {
        std::thread::sleep(BEFORE_STOP);
    }
}

fn run(mode: &mut Mode) -> Result<Infallible> {
    mounts::kernel()?;
    let line = fs::read_to_string("/proc/cmdline").context("cannot read the kernel's command line")?;
    let request = Request::parse(&line).context("this boot image is not whole")?;
    *mode = request.mode;
    console::note("looking for the root file system");
    let orders = orders(Path::new("/etc/bastide-init.json"))?;
    let found = match request.mode {
        Mode::Host => host::prepare(&request.root_hash, &orders)?,
        Mode::Install => install::prepare(&request.root_hash, &orders)?,
    };
    found.write(Path::new(report::BOOT_FILE))?;
    found.link_esp(Path::new(report::ESP_LINK))?;
    console::note("starting the root file system");
    mounts::switch(Path::new(SYSROOT))
}

fn orders(path: &Path) -> Result<Orders> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {} of the initrd", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("cannot understand {} of the initrd", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";

    #[test]
    fn a_request_is_read() {
        let request = Request::parse(&format!("quiet bastide.mode=install bastide.roothash={HASH}\n")).unwrap();
        assert_eq!(request.mode, Mode::Install);
        assert_eq!(request.root_hash.to_string(), HASH);
    }

    #[test]
    fn doubtful_requests_are_refused() {
        for line in [
            String::new(),
            format!("bastide.roothash={HASH}"),
            "bastide.mode=host".to_owned(),
            "bastide.mode=host bastide.roothash=12".to_owned(),
            format!("bastide.mode=rescue bastide.roothash={HASH}"),
            format!("bastide.mode=host bastide.roothash={HASH} bastide.roothash={HASH}"),
        ] {
            assert!(Request::parse(&line).is_err(), "{line}");
        }
    }
}
