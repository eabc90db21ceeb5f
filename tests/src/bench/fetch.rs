// SPDX-License-Identifier: GPL-3.0-or-later
//! The targets of a local TUF repository, fetched and verified into a directory, beside tuftool, which makes that repository
//! too. Ours is the client that gateways and hosts run, called as a function; tuftool is a process, of cargo's release profile.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signing::clock;
use signing::process::Cmd;
use signing::tuf::{Client, Datastore, DirectorySource, Limits};

use super::Measure;
use super::transport::{emptied, timed};
use crate::workshop::Workshop;

/// The peer, as cargo names it.
pub(super) const TUFTOOL: &str = "tuftool@0.17.0";
/// Targets like images, and targets like packages: how many, and the bytes of each.
const TARGETS: [(u32, u64); 2] = [(4, 192 << 20), (256, 1 << 20)];
/// At least four times as fast.
const SLOWEST: f64 = 1.0 / 4.0;

/// 1 GiB of targets in memory's cache; each twice, and the better one counts.
pub fn tuf(shop: &Workshop) -> Result<Vec<Measure>> {
    let tuftool = installed(shop)?;
    let place = emptied(shop, "bench/tuf")?;
    let repository = made(&tuftool, &place)?;
    let root = place.join("root.json");
    let mut times = Vec::new();
    for _ in 0..2 {
        let (ours, peers) = (emptied(shop, "bench/tuf/ours")?, place.join("peers"));
        if peers.exists() {
            fs::remove_dir_all(&peers)?;
        }
        let url = |name: &str| format!("file://{}", repository.join(name).display());
        let download = Cmd::new(&tuftool)
            .args(["download", "--root"])
            .arg(&root)
            .args(["--metadata-url", &url("metadata"), "--targets-url", &url("targets")])
            .arg(&peers);
        let peer = timed(download)?;
        times.push((fetch(&repository, &fs::read(&root)?, &ours)?, peer));
        for fetched in [&ours, &peers] {
            Cmd::new("diff")
                .args(["-r", "-q"])
                .arg(place.join("targets"))
                .arg(fetched)
                .output()?;
        }
    }
    let best = |of: fn(&(Duration, Duration)) -> Duration| times.iter().map(of).min().context("nothing was measured");
    let measure = Measure::time(
        "fetch 1 GiB of TUF targets / tuftool download",
        best(|(ours, _)| *ours)?,
        best(|(_, peer)| *peer)?,
        SLOWEST,
    );
    fs::remove_dir_all(&place)?;
    Ok(vec![measure])
}

fn fetch(repository: &Path, root: &[u8], into: &Path) -> Result<Duration> {
    let start = Instant::now();
    let source = DirectorySource::below(repository);
    let mut client = Client::open(Datastore::ephemeral(root)?, source, Limits::default(), clock::now())?;
    for target in client.targets()? {
        client.fetch(&target, &mut File::create(into.join(&target.name))?)?;
    }
    Ok(start.elapsed())
}

/// Makes a repository of one key, whose targets are random bytes.
fn made(tuftool: &Path, place: &Path) -> Result<PathBuf> {
    let targets = place.join("targets");
    fs::create_dir(&targets)?;
    for (number, bytes) in TARGETS {
        for index in 0..number {
            let mut random = File::open("/dev/urandom")?.take(bytes);
            io::copy(
                &mut random,
                &mut File::create(targets.join(format!("{bytes}-{index}")))?,
            )?;
        }
    }
    let tool = |line: &str| Cmd::new(tuftool).args(line.split_whitespace()).dir(place).output();
    let line = "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out key.pem";
    Cmd::new("openssl").args(line.split_whitespace()).dir(place).output()?;
    tool("root init root.json")?;
    let expires = (clock::now() + chrono::Duration::days(30)).to_rfc3339();
    tool(&format!("root expire root.json {expires}"))?;
    for role in ["root", "snapshot", "targets", "timestamp"] {
        tool(&format!("root set-threshold root.json {role} 1"))?;
    }
    tool("root add-key root.json --key key.pem --role root --role snapshot --role targets --role timestamp")?;
    tool("root sign root.json --key key.pem")?;
    tool(&format!(
        "create --root root.json --key key.pem --add-targets targets --outdir repository --targets-version 1 \
         --snapshot-version 1 --timestamp-version 1 --targets-expires {expires} --snapshot-expires {expires} \
         --timestamp-expires {expires}"
    ))?;
    // It links the targets, and a link is nothing that ours follows.
    Cmd::new("cp")
        .args(["-r", "--dereference", "repository", "copied"])
        .dir(place)
        .output()?;
    Ok(place.join("copied"))
}

/// The peer's program, which cargo builds at the first time.
fn installed(shop: &Workshop) -> Result<PathBuf> {
    let root = shop.at("peers");
    let program = root.join("bin/tuftool");
    if !program.exists() {
        println!("installing {TUFTOOL} with cargo, which takes some minutes");
        let cargo = shop.environment(Cmd::new("cargo").args(["install", "--quiet", "--locked", TUFTOOL, "--root"]));
        cargo.arg(&root).output()?;
    }
    Ok(program)
}
