// SPDX-License-Identifier: GPL-3.0-or-later
//! The same snapshot and the same source give the same bits, wherever and whenever they are built.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use signing::digest::Sha256;
use signing::process::Cmd;
use signing::release::Release;

use super::build::{self, BASE};
use crate::ledger::Ledger;
use crate::workshop::Workshop;

/// Builds the first release again in another directory, with another umask, locale, host name, number of cores, and
/// without any network, and compares every part.
///
/// # Errors
/// When the step fails.
pub fn elsewhere(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let facts = shop.build(BASE.version).join("release.json");
    let inputs = shop.story()?.file(&facts)?;
    ledger.step("reproduce", "build again elsewhere: the same bits", inputs, &[], || {
        let place = shop.at("again/some-where-else");
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::create_dir_all(&place)?;
        let build = place.join("build");
        let elsewhere = "umask 077; hostname elsewhere; LC_ALL=de_DE.UTF-8 TZ=Pacific/Auckland exec \"$@\"";
        shop.environment(Cmd::new("unshare"))
            .args([
                "--net", "--uts", "--", "taskset", "-c", "0", "sh", "-c", elsewhere, "sh",
            ])
            .arg(shop.path_of("bastide-iso"))
            .args(build::arguments(shop, BASE, &build, &place.join("work")))
            .run()?;
        build::signed(shop, &build, &shop.site())?;
        let read = |path: &std::path::Path| -> Result<Release> {
            Ok(serde_json::from_slice(
                &fs::read(path).with_context(|| format!("reading {}", path.display()))?,
            )?)
        };
        let (first, second) = (read(&facts)?, read(&build.join("release.json"))?);
        let different: Vec<_> = first
            .parts
            .iter()
            .filter(|part| !second.parts.contains(part))
            .map(|part| part.part.file())
            .collect();
        if !different.is_empty() {
            bail!("other bits in {} (kept: {})", different.join(", "), place.display());
        }
        ensure!(first == second, "the facts of the build differ: {first:?} {second:?}");
        let digest = Sha256::of_file(&build.join("root.erofs"))?.0.to_string();
        fs::remove_dir_all(shop.at("again"))?;
        Ok(format!(
            "{} parts identical, signatures included; root {digest:.16}",
            first.parts.len()
        ))
    })
}
