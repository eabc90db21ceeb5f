// SPDX-License-Identifier: GPL-3.0-or-later
//! A bundle of deltas between two real releases that differ in their kernel, beside zstd's patch of the whole root image.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use offline_repo::bundle::BundleSource;
use offline_repo::debversion;
use offline_repo::repository::Repository;
use signing::process::Cmd;
use signing::release::Part;
use signing::tuf::Source;

use super::Measure;
use super::transport::{emptied, timed};
use crate::story::build::{self, BASE, PATCHED};
use crate::workshop::Workshop;

/// All bytes that cross, beside the peer's.
const SMALL: f64 = 0.6;
/// The version of the release with the older kernel.
const PRIOR: &str = "0.9.0";

/// From a release with the kernel before the newest one to the patched release.
pub fn delta(shop: &Workshop) -> Result<Vec<Measure>> {
    let place = emptied(shop, "bench/delta")?;
    let at = |name: &str| place.join(name);
    let prior = prior(shop, &place)?;
    let repository = at("repository");
    build::publish(shop, None, &prior, &repository, &[])?;
    let publish = shop
        .program("bastide-repo")
        .arg("publish")
        .arg("--repo")
        .arg(&repository);
    let publish = publish.arg("--release").arg(shop.build(PATCHED.version));
    publish
        .arg("--site")
        .arg(shop.site())
        .arg("--passphrase-file")
        .arg(shop.passphrase())
        .run()?;

    let export = |out: &str, more: &[&str]| {
        let export = shop
            .program("bastide-repo")
            .arg("export")
            .arg("--repo")
            .arg(&repository);
        timed(export.arg("--out").arg(at(out)).args(more))
    };
    export("whole.bundle", &["--version", PATCHED.version])?;
    let ours = export("delta.bundle", &["--since", PRIOR])?;
    let [old, new] = [&prior, &shop.build(PATCHED.version)].map(|build| build.join(Part::Root.file()));
    let patch = at("root.patch");
    let from = || format!("--patch-from={}", old.display());
    let peer = timed(
        Cmd::new("zstd")
            .args(["-q", "-19", "--long=30", "-T0", &from()])
            .arg(&new)
            .arg("-o")
            .arg(&patch),
    )?;
    let making = Measure::time("make the delta / zstd --patch-from", ours, peer, 1.0);

    let whole = BundleSource::open(&at("whole.bundle"))?;
    let carried = |source: &BundleSource, part: Part| {
        let paths = source.target_paths();
        let path = paths.iter().find(|path| path.ends_with(&format!(".{}", part.file())));
        path.cloned()
            .with_context(|| format!("the bundle has no {}", part.file()))
    };
    let mut bytes = fs::metadata(&patch)?.len();
    for part in [Part::Xen, Part::Installer] {
        let path = carried(&whole, part)?;
        bytes += whole.carried_size(&path).unwrap_or(0);
    }
    #[allow(clippy::cast_precision_loss)]
    let peer = bytes as f64 / 1e6;
    let crossing = Measure::bytes(
        "delta bundle / zstd's patch and boot images",
        fs::metadata(at("delta.bundle"))?.len(),
        peer,
        SMALL,
    );

    let held = Repository::open(&repository)?;
    let apply = || -> Result<Duration> {
        let start = Instant::now();
        let mut source = BundleSource::open(&at("delta.bundle"))?.with_bases(held.holdings());
        let path = carried(&source, Part::Root)?;
        let mut made = source.target(&path)?.context("the bundle has no root")?;
        io::copy(&mut made, &mut File::create(at("made"))?)?;
        Ok(start.elapsed())
    };
    let unpatch = || {
        let zstd = Cmd::new("zstd").args(["-q", "-d", "-f", "--long=30", &from()]);
        timed(zstd.arg(&patch).arg("-o").arg(at("unpatched")))
    };
    // Once for the cache.
    apply()?;
    let (ours, peer) = (apply()?, unpatch()?);
    Cmd::new("cmp").arg(at("made")).arg(&new).output()?;
    let applying = Measure::time("apply the root's delta / zstd -d", ours, peer, 1.0);
    fs::remove_dir_all(&place)?;
    Ok(vec![crossing, making, applying])
}

/// A signed build of the demonstration's packages with the kernel before the newest.
fn prior(shop: &Workshop, place: &Path) -> Result<PathBuf> {
    let spec = fs::read_to_string(shop.source.join("offline-repo/specs/base.toml"))?;
    let kernel = older_kernel(shop)?;
    let keyrings = shop.source.join("offline-repo/keyrings");
    let spec = spec
        .replace("name = \"base\"", "name = \"prior\"")
        .replace("\"linux-image-amd64\"", &format!("{kernel:?}"))
        .replace("../keyrings", &keyrings.display().to_string());
    ensure!(spec.contains(&kernel), "the specification names no kernel");
    let file = place.join("prior.toml");
    fs::write(&file, spec)?;
    let mirror = shop.program("bastide-repo").arg("mirror").arg(&file);
    mirror.arg("--store").arg(shop.store()).run()?;
    let edition = build::Edition {
        version: PRIOR,
        after: None,
        snapshot: "prior",
        overlay: None,
    };
    let build = place.join("prior");
    shop.program("bastide-iso")
        .args(build::arguments(shop, edition, &build, &shop.at("work")))
        .run()?;
    build::signed(shop, &build, &shop.site())?;
    Ok(build)
}

/// The package of the kernel before the newest, which upstream keeps beside it.
fn older_kernel(shop: &Workshop) -> Result<String> {
    let lists = shop.store().join("work").join(BASE.snapshot).join("apt/lists");
    let mut kernels = Vec::new();
    for entry in fs::read_dir(&lists).with_context(|| format!("cannot read {}", lists.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with("_Packages") {
            let text = fs::read_to_string(&path)?;
            let names = text
                .lines()
                .filter_map(|line| line.strip_prefix("Package: linux-image-"));
            let signed = names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit()));
            let plain =
                signed.filter(|name| name.ends_with("-amd64") && !name.contains("-rt") && !name.contains("-cloud"));
            kernels.extend(plain.map(str::to_owned));
        }
    }
    kernels.sort_by(|one, other| debversion::compare(one, other));
    let older = kernels
        .iter()
        .rev()
        .nth(1)
        .context("upstream has only one kernel today")?;
    Ok(format!("linux-image-{older}"))
}
