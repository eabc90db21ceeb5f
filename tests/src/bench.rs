// SPDX-License-Identifier: GPL-3.0-or-later
//! Times and sizes as ratios beside a peer that runs in the same minutes on the same machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use offline_repo::aptview;
use offline_repo::spec::Role;
use offline_repo::store::Store;
use signing::process::Cmd;

use crate::story::build::{self, BASE};
use crate::story::{host, install};
use crate::vm::{Machine, Plugged};
use crate::workshop::Workshop;

/// One printed line: what was measured, ours, the peer's, and the target.
struct Line {
    what: &'static str,
    ours: String,
    peer: String,
    ratio: f64,
    target: f64,
}

/// Measures everything and prints it.
///
/// # Errors
/// When what is measured is not there (run the demonstration first) or does not work.
pub fn run(shop: &Workshop) -> Result<()> {
    ensure!(
        install::installed(shop).disk().exists(),
        "there is no installed host: run `make demo` first"
    );
    let lines = [size(shop)?, image(shop)?, boot(shop)?];
    for line in lines {
        let verdict = if line.ratio <= line.target { "met" } else { "MISSED" };
        println!(
            "{:<52} {:>12}  peer {:>12}  ratio {:.2}  target {:.2}  {verdict}",
            line.what, line.ours, line.peer, line.ratio, line.target
        );
    }
    Ok(())
}

fn size(shop: &Workshop) -> Result<Line> {
    let bytes = fs::metadata(shop.iso())?.len();
    let limit = 450_000_000.0;
    #[allow(clippy::cast_precision_loss)]
    let ratio = bytes as f64 / limit;
    let ours = format!("{} MB", bytes / 1_000_000);
    Ok(Line {
        what: "ISO against its limit",
        ours,
        peer: "450 MB".into(),
        ratio,
        target: 1.0,
    })
}

fn view(shop: &Workshop) -> Result<PathBuf> {
    let store = Store::open(&shop.store())?;
    let snapshot = store.snapshot(BASE.snapshot)?;
    let view = shop.at("bench/view");
    aptview::materialise(
        &store,
        &snapshot,
        &view,
        &shop.source.join("offline-repo/keyrings/debian-trixie.asc"),
    )?;
    Ok(view)
}

/// The image and the ISO, the builder root at hand and everything else made anew, against a bare mmdebstrap of the same
/// packages.
fn image(shop: &Workshop) -> Result<Line> {
    let view = view(shop)?;
    let snapshot = Store::open(&shop.store())?.snapshot(BASE.snapshot)?;
    let packages: Vec<_> = snapshot.of(Role::Host).map(|package| package.name.as_str()).collect();
    let root = shop.at("bench/bare");
    let start = Instant::now();
    Cmd::new("mmdebstrap")
        .args(["--quiet", "--mode=root", "--variant=minbase", "--skip=check/empty"])
        .args([
            "--aptopt=Acquire::Check-Valid-Until \"false\"",
            "--aptopt=APT::Sandbox::User \"root\"",
        ])
        .arg(format!("--include={}", packages.join(",")))
        .arg("trixie")
        .arg(&root)
        .arg(view.join("sources.list"))
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
    fs::remove_dir_all(shop.at("bench"))?;
    Ok(compared(
        "image and ISO, builder root at hand / mmdebstrap",
        ours,
        peer,
        2.5,
    ))
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

/// Power-on until `xl list` shows Domain-0, against a stock Debian with the same packages in the same machine.
fn boot(shop: &Workshop) -> Result<Line> {
    let place = shop.at("vm/stock");
    let stock = Machine::bare(&place, 6, shop.accelerator)?;
    let raw = place.join("stock.raw");
    Cmd::new("sh")
        .arg(shop.source.join("tests/fixtures/stock-host"))
        .arg(view(shop)?.join("sources.list"))
        .arg(shop.admin_key().with_extension("pub"))
        .arg(&raw)
        .arg(place.join("work"))
        .run()?;
    Cmd::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .arg(&raw)
        .arg(stock.disk())
        .run()?;
    fs::remove_file(&raw)?;
    let peer = until_xl(shop, &stock)?;
    let ours = until_xl(shop, &install::installed(shop).branch(&shop.at("vm/bench"))?)?;
    Ok(compared("power-on to xl list / stock Debian with Xen", ours, peer, 0.6))
}

fn until_xl(shop: &Workshop, machine: &Machine) -> Result<Duration> {
    let key = shop.admin_key();
    let mut running = machine.power_on("bench", &Plugged::default())?;
    running.wait_for_ssh(&key, host::BOOT)?;
    loop {
        if running
            .ssh(&key, "xl list")
            .is_ok_and(|answer| answer.stdout.contains("Domain-0"))
        {
            let elapsed = running.since.elapsed();
            running.cut_power()?;
            return Ok(elapsed);
        }
        ensure!(running.since.elapsed() < host::BOOT, "xl never listed Domain-0");
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn compared(what: &'static str, ours: Duration, peer: Duration, target: f64) -> Line {
    let seconds = |time: Duration| format!("{:.0} s", time.as_secs_f64());
    Line {
        what,
        ours: seconds(ours),
        peer: seconds(peer),
        ratio: ours.as_secs_f64() / peer.as_secs_f64(),
        target,
    }
}
