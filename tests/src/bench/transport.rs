// SPDX-License-Identifier: GPL-3.0-or-later
//! What crosses the gap and where it is kept: a pool verified beside openssl and dd, and the memory of export and import.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use offline_repo::store::Store;
use serde_json::{Value, json};
use signing::digest::{Hashing, Sha256};
use signing::durable;
use signing::process::Cmd;

use super::Measure;
use super::memory::watched;
use crate::story::build::BASE;
use crate::workshop::Workshop;

const MIB: u64 = 1 << 20;
/// A pool of 4 GiB in objects of 1 MiB, about the mean of Debian's packages.
const OBJECTS: u64 = 4096;
/// At least 0.9 of the peer's speed.
const SLOWEST: f64 = 1.0 / 0.9;
/// What export and import may take at most, in MB.
const PEAK: f64 = 128.0 * 1.048_576;

/// `verify` of 4 GiB beside `openssl dgst` on all cores, all of it in memory, and beside `dd`, all of it on the disk.
pub fn pool(shop: &Workshop) -> Result<Vec<Measure>> {
    let place = emptied(shop, "bench/pool")?;
    let store = Store::create(&place.join("store"))?;
    let lock = store.lock()?;
    let mut random = File::open("/dev/urandom")?;
    let mut block = vec![0; MIB as usize];
    for _ in 0..OBJECTS {
        random.read_exact(&mut block)?;
        store.ingest(&lock, &mut block.as_slice(), &Sha256::of(&block), MIB, "random bytes")?;
    }
    drop(lock);
    let objects = store.root().join("pool/sha256");
    let verify = || {
        let cmd = shop
            .program("bastide-repo")
            .arg("verify")
            .arg("--store")
            .arg(store.root());
        timed(cmd.arg("--json"))
    };
    let shell = |script: &str, cores: usize| {
        let script = script.replace("{cores}", &cores.to_string());
        timed(Cmd::new("sh").args(["-c", &script, "sh"]).arg(&objects))
    };
    let cores = thread::available_parallelism()?.get();
    let openssl = "find \"$1\" -type f -print0 | xargs -0 -P {cores} -n 64 openssl dgst -sha256 >/dev/null";
    // Once for the cache, and then each twice: the better one counts.
    shell(openssl, cores)?;
    let best = |one: Duration, other: Duration| one.min(other);
    let peer = best(shell(openssl, cores)?, shell(openssl, cores)?);
    let warm = Measure::time(
        "verify 4 GiB, warm / openssl dgst",
        best(verify()?, verify()?),
        peer,
        SLOWEST,
    );
    let cold = |run: &dyn Fn() -> Result<Duration>| {
        Cmd::new("sync").output()?;
        fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")?;
        run()
    };
    let dd = || {
        shell(
            "find \"$1\" -type f -print0 | xargs -0 cat | dd of=/dev/null bs=1M status=none",
            cores,
        )
    };
    let peer = best(cold(&dd)?, cold(&dd)?);
    let ours = best(cold(&verify)?, cold(&verify)?);
    fs::remove_dir_all(&place)?;
    Ok(vec![
        warm,
        Measure::time("verify 4 GiB, cold / dd", ours, peer, SLOWEST),
    ])
}

/// The peaks of export and import at 1 GiB and at 8 GiB, in volumes, and the growth between them.
pub fn carry(shop: &Workshop) -> Result<Vec<Measure>> {
    let mut measures = Vec::new();
    let mut peaks = Vec::new();
    for gib in [1, 8] {
        let place = emptied(shop, "bench/carry")?;
        let build = large_build(shop, &place, gib << 30)?;
        let at = |name: &str| place.join(name);
        let signed = |cmd: Cmd| {
            cmd.arg("--site")
                .arg(shop.site())
                .arg("--passphrase-file")
                .arg(shop.passphrase())
        };
        let publish = shop
            .program("bastide-repo")
            .args(["publish", "--repo"])
            .arg(at("repository"));
        signed(publish.arg("--release").arg(&build)).output()?;
        // Each further copy of 8 GiB asks for a larger disk.
        fs::remove_dir_all(&build)?;
        fs::create_dir(at("discs"))?;
        let export = shop
            .program("bastide-repo")
            .args(["export", "--level", "1", "--volume-size", "1G", "--repo"]);
        let export = signed(export.arg(at("repository")).arg("--out").arg(at("discs/x.bundle")));
        let import = shop
            .program("bastide-repo")
            .arg("import")
            .arg(at("discs"))
            .arg("--repo")
            .arg(at("gateway"));
        let import = import.arg("--trust").arg(shop.site().join("trust"));
        for (what, cmd) in [("export", export), ("import", import)] {
            let peak = watched(cmd, &at("log"))?;
            measures.push(Measure::size(
                &format!("memory of {what}, {gib} GiB / limit"),
                peak,
                PEAK,
            ));
            peaks.push(peak);
        }
        fs::remove_dir_all(&place)?;
    }
    let [export, import, large_export, large_import] = peaks[..] else {
        bail!("a step was not measured");
    };
    for (what, small, large) in [("export", export, large_export), ("import", import, large_import)] {
        measures.push(Measure::growth(
            &format!("memory of {what}, 8 GiB / 1 GiB"),
            large,
            small,
            1.1,
        ));
    }
    Ok(measures)
}

/// The build of the demonstration with a root file system of random bytes in the place of its own.
fn large_build(shop: &Workshop, place: &Path, bytes: u64) -> Result<PathBuf> {
    let build = place.join("build");
    Cmd::new("cp")
        .args(["-a", "--reflink=auto"])
        .arg(shop.build(BASE.version))
        .arg(&build)
        .output()?;
    let mut root = Hashing::new(File::create(build.join("root.erofs"))?);
    io::copy(&mut File::open("/dev/urandom")?.take(bytes), &mut root)?;
    let (_, (sha256, size)) = root.finish();
    let facts = build.join("release.json");
    let mut release: Value = serde_json::from_slice(&fs::read(&facts)?)?;
    let parts = release["parts"].as_array_mut().context("a release has parts")?;
    let part = parts
        .iter_mut()
        .find(|part| part["part"] == "root")
        .context("a release has a root")?;
    (part["size"], part["sha256"]) = (json!(size), json!(sha256));
    durable::write(&facts, &serde_json::to_vec(&release)?)?;
    Ok(build)
}

pub(super) fn emptied(shop: &Workshop, name: &str) -> Result<PathBuf> {
    let place = shop.at(name);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    Ok(place)
}

pub(super) fn timed(cmd: Cmd) -> Result<Duration> {
    let start = Instant::now();
    cmd.output()?;
    let time = start.elapsed();
    ensure!(time > Duration::ZERO, "the clock stood");
    Ok(time)
}
