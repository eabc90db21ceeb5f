// SPDX-License-Identifier: GPL-3.0-or-later
//! The medium: its size, and the time that it takes to make.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use offline_repo::aptview;
use offline_repo::spec::Role;
use offline_repo::store::Store;
use signing::durable;
use signing::process::Cmd;

use super::Measure;
use crate::story::build::{self, BASE};
use crate::workshop::Workshop;

/// The ISO, which carries no hardware firmware, against its limit.
pub fn size(shop: &Workshop) -> Result<Vec<Measure>> {
    let bytes = fs::metadata(shop.iso())?.len();
    Ok(vec![Measure::size("ISO / limit", bytes, 450.0)])
}

/// What mmdebstrap makes a root of: the sources.list of a snapshot's view, and the packages of its host, with commas.
pub fn sources(shop: &Workshop, snapshot: &str) -> Result<(PathBuf, String)> {
    let store = Store::open(&shop.store())?;
    let snapshot = store.snapshot(snapshot)?;
    let view = shop.at(&format!("bench/view-{}", snapshot.name));
    if !view.exists() {
        let keyring = shop.source.join("offline-repo/keyrings/debian-trixie.asc");
        aptview::materialise(&store, &snapshot, &view, &keyring)?;
    }
    // apt inside of the new root sees no file outside of it: the packages are copied in.
    let list = fs::read_to_string(view.join("sources.list"))?.replace("file:", "copy:");
    let place = shop.at(&format!("bench/{}.list", snapshot.name));
    durable::write(&place, list.as_bytes())?;
    let packages: Vec<_> = snapshot.of(Role::Host).map(|package| package.name.as_str()).collect();
    Ok((place, packages.join(",")))
}

/// The image and the ISO, the builder root at hand and everything else made anew, against a bare mmdebstrap of the same
/// packages.
pub fn build(shop: &Workshop) -> Result<Vec<Measure>> {
    let (sources, packages) = sources(shop, BASE.snapshot)?;
    let root = shop.at("bench/bare");
    let start = Instant::now();
    Cmd::new("mmdebstrap")
        .args(["--quiet", "--mode=root", "--variant=minbase", "--skip=check/empty"])
        .args([
            "--aptopt=Acquire::Check-Valid-Until \"false\"",
            "--aptopt=APT::Sandbox::User \"root\"",
        ])
        .arg(format!("--include={packages}"))
        .arg("trixie")
        .arg(&root)
        .arg(sources)
        .run()?;
    let peer = start.elapsed();
    fs::remove_dir_all(&root)?;

    let work = shop.at("bench/work");
    keep_builder(&shop.at("work"), &work)?;
    let out = shop.at("bench/build");
    let start = Instant::now();
    shop.program("bastide-iso")
        .args(build::arguments(shop, BASE, &out, &work))
        .run()?;
    build::signed(shop, &out, &shop.site())?;
    build::assemble(shop, &out, &work, &shop.at("bench/bench.iso"))?;
    let ours = start.elapsed();
    for place in ["bench/work", "bench/build", "bench/bench.iso"] {
        let place = shop.at(place);
        if place.is_dir() {
            fs::remove_dir_all(place)?;
        } else {
            fs::remove_file(place)?;
        }
    }
    Ok(vec![Measure::time(
        "image and ISO, builder at hand / mmdebstrap",
        ours,
        peer,
        2.5,
    )])
}

/// Copies what counts as at hand: the view, the builder root and the compiled programs.
fn keep_builder(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["view", "builder", "programs"]
            .iter()
            .any(|kept| name.starts_with(kept))
        {
            Cmd::new("cp").arg("-a").arg(entry.path()).arg(to).run()?;
        }
    }
    Ok(())
}
