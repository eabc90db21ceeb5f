// SPDX-License-Identifier: GPL-3.0-or-later
//! Updates of such a host.

use anyhow::Result;
use hypervisor::events::Event;
use hypervisor::update::{self, Depth, Outcome, Step};
use offline_repo::repository::offer;
use tempfile::TempDir;

use super::Host;
use super::repository::{Release, Terms};

pub fn repository(host: &Host, releases: &[&Release], terms: Terms) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    host.site.publish(directory.path(), releases, terms);
    directory
}

pub fn run(host: &Host, repository: &TempDir, depth: Depth) -> Result<Outcome> {
    let mut events = |_: Event<Step>| Ok(());
    update::update(&host.machine, offer(repository.path()), depth, &mut events)
}

pub fn install(host: &Host, repository: &TempDir) -> Result<Outcome> {
    run(host, repository, Depth::Install)
}

pub fn updated() -> Option<(Host, Release)> {
    let host = Host::install()?;
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&host.installed, &new], Terms::version(2));
    install(&host, &repository).unwrap();
    Some((host, new))
}
