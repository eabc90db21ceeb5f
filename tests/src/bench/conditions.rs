// SPDX-License-Identifier: GPL-3.0-or-later
//! Where and with what was measured: without it a ratio cannot be repeated.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;

use anyhow::{Context, Result};
use serde::Serialize;
use signing::process::Cmd;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// Debian's packages that are measured beside, or that everything runs on.
const PACKAGES: [&str; 7] = [
    "aptly",
    "coreutils",
    "mmdebstrap",
    "openssl",
    "qemu-system-x86",
    "reprepro",
    "zstd",
];

/// The machine, and the versions of what is on it.
#[derive(Debug, Serialize)]
pub struct Conditions {
    processor: String,
    cores: usize,
    /// In bytes.
    memory: u64,
    kernel: String,
    /// How our programs were built.
    profile: &'static str,
    /// The installed ones of the peers' packages.
    packages: BTreeMap<&'static str, String>,
    /// The peer that cargo builds.
    tuftool: &'static str,
}

impl Conditions {
    /// Looks.
    ///
    /// # Errors
    /// When dpkg cannot be asked.
    pub fn now() -> Result<Self> {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(what).context("cannot look at the machine")?;
        let mut packages = BTreeMap::new();
        for package in PACKAGES {
            let query = Cmd::new("dpkg-query").args(["-W", "-f", "${db:Status-Status} ${Version}", package]);
            let (_, said, _) = query.status()?;
            if let Some(version) = String::from_utf8_lossy(&said).strip_prefix("installed ") {
                packages.insert(package, version.to_owned());
            }
        }
        Ok(Self {
            processor: system
                .cpus()
                .first()
                .map_or_else(String::new, |cpu| cpu.brand().to_owned()),
            cores: thread::available_parallelism()?.get(),
            memory: system.total_memory(),
            kernel: System::kernel_version().unwrap_or_default(),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" },
            packages,
            tuftool: super::fetch::TUFTOOL,
        })
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} cores, {} MB of memory, Linux {}",
            self.processor,
            self.cores,
            self.memory / 1_000_000,
            self.kernel
        )?;
        let packages: Vec<_> = self
            .packages
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        write!(
            f,
            "beside {}; {}; our programs by cargo's profile {}",
            packages.join(", "),
            self.tuftool,
            self.profile
        )
    }
}
