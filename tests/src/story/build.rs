// SPDX-License-Identifier: GPL-3.0-or-later
//! From upstream's packages to signed releases, an installation medium and bundles.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use signing::process::Cmd;
use signing::release::{Part, Release};

use crate::ledger::{Inputs, Ledger};
use crate::workshop::Workshop;

/// A release of the story.
#[derive(Debug, Clone, Copy)]
pub struct Edition {
    /// Its version.
    pub version: &'static str,
    /// The version published before it, whose repository it continues.
    pub after: Option<&'static str>,
    /// The snapshot that it is made of.
    pub snapshot: &'static str,
    /// Files of the site laid over the image, below `tests/`.
    pub overlay: Option<&'static str>,
}

/// Trixie as it was released.
pub const BASE: Edition = Edition {
    version: "1.0.0",
    after: None,
    snapshot: "base",
    overlay: None,
};
/// With upstream's security updates: another Xen.
pub const PATCHED: Edition = Edition {
    version: "1.1.0",
    after: Some("1.0.0"),
    snapshot: "patched",
    overlay: None,
};
/// One that boots and never becomes healthy: its toolstack's store is masked.
pub const BROKEN: Edition = Edition {
    version: "1.2.0",
    after: Some("1.1.0"),
    snapshot: "patched",
    overlay: Some("fixtures/broken-overlay"),
};

/// Mirrors both snapshots.
///
/// # Errors
/// When a step fails.
pub fn mirror(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    for name in ["base", "patched"] {
        let spec = shop.source.join(format!("offline-repo/specs/{name}.toml"));
        let manifest = shop.store().join(format!("snapshots/{name}/snapshot.json"));
        ledger.step(
            &format!("mirror-{name}"),
            &format!("mirror upstream: {name}"),
            Inputs::new().file(&spec)?.tree(&shop.source.join("offline-repo/src"))?,
            &[&manifest],
            || {
                shop.program("bastide-repo")
                    .arg("mirror")
                    .arg(&spec)
                    .arg("--store")
                    .arg(shop.store())
                    .run()?;
                shop.program("bastide-repo")
                    .args(["snapshot", "verify", name, "--store"])
                    .arg(shop.store())
                    .run()?;
                let packages = packages(&manifest)?;
                Ok(format!(
                    "{} packages, signed by Debian; Xen {}",
                    packages.len(),
                    xen_version(&packages)?
                ))
            },
        )?;
    }
    Ok(())
}

fn packages(manifest: &Path) -> Result<Vec<Value>> {
    let snapshot: Value = serde_json::from_slice(&fs::read(manifest)?)?;
    Ok(snapshot["packages"]
        .as_array()
        .context("the snapshot lists no packages")?
        .clone())
}

fn xen_version(packages: &[Value]) -> Result<String> {
    let xen = packages
        .iter()
        .find(|package| {
            package["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("xen-hypervisor-4."))
        })
        .context("the snapshot has no Xen")?;
    Ok(xen["version"].as_str().context("Xen has no version")?.to_owned())
}

/// The version of the hypervisor's package in an edition's snapshot.
///
/// # Errors
/// When the snapshot has none.
pub fn xen(shop: &Workshop, edition: Edition) -> Result<String> {
    xen_version(&packages(
        &shop
            .store()
            .join(format!("snapshots/{}/snapshot.json", edition.snapshot)),
    )?)
}

/// Makes the demonstration site's keys, those of a stranger, and those of officers who approve at a gateway.
///
/// # Errors
/// When a step fails.
pub fn sites(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    for (name, directory) in [
        ("site", shop.site()),
        ("stranger", shop.at("stranger")),
        ("office", shop.office()),
    ] {
        let root = directory.join("trust/root.json");
        ledger.step(
            &format!("keys-{name}"),
            &format!("make the keys: {name}"),
            Inputs::new(),
            &[&root],
            || {
                if directory.exists() {
                    fs::remove_dir_all(&directory)?;
                }
                shop.program("bastide-sign")
                    .args(["site", "init", "--name", name, "--dir"])
                    .arg(&directory)
                    .arg("--passphrase-file")
                    .arg(shop.passphrase())
                    .run()?;
                Ok("TUF root 2 of 3, OpenPGP, PK, KEK, db; private keys encrypted".into())
            },
        )?;
    }
    Ok(())
}

/// Builds, signs and publishes a release.
///
/// # Errors
/// When a step fails.
pub fn release(shop: &Workshop, ledger: &Ledger, edition: Edition) -> Result<()> {
    let version = edition.version;
    let build = shop.build(version);
    let facts = build.join("release.json");
    let mut inputs = shop
        .sources()?
        .file(
            &shop
                .store()
                .join(format!("snapshots/{}/snapshot.json", edition.snapshot)),
        )?
        .file(&shop.site().join("trust/root.json"))?;
    if let Some(overlay) = edition.overlay {
        inputs = inputs.tree(&shop.source.join("tests").join(overlay))?;
    }
    ledger.step(
        &format!("build-{version}"),
        &format!("build release {version}"),
        inputs,
        &[&facts],
        || {
            shop.program("bastide-iso")
                .args(arguments(shop, edition, &build, &shop.at("work")))
                .run()?;
            signed(shop, &build, &shop.site())?;
            let release: Release = serde_json::from_slice(&fs::read(&facts)?)?;
            let size = release
                .parts
                .iter()
                .find(|part| part.part == Part::Root)
                .map_or(0, |part| part.size);
            Ok(format!(
                "root image {} MB, root hash {:.16}",
                size / 1_000_000,
                release.root_hash.to_string()
            ))
        },
    )?;
    let repository = shop.repository(version);
    let timestamp = repository.join("metadata/timestamp.json");
    let bundle = shop.bundle(version);
    let mut inputs = Inputs::new().file(&facts)?;
    if let Some(after) = edition.after {
        inputs = inputs.file(&shop.repository(after).join("metadata/timestamp.json"))?;
    }
    ledger.step(
        &format!("publish-{version}"),
        &format!("publish release {version}"),
        inputs,
        &[&timestamp, &bundle],
        || {
            publish(shop, edition.after, &build, &repository, &[])?;
            export(shop, &repository, &bundle)?;
            Ok(format!(
                "TUF targets signed; bundle of {} MB",
                fs::metadata(&bundle)?.len() / 1_000_000
            ))
        },
    )
}

/// The arguments of `bastide-iso` that build an edition.
#[must_use]
pub fn arguments(shop: &Workshop, edition: Edition, build: &Path, work: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["build".into()];
    let mut option = |name: &str, value: &OsStr| arguments.extend([name.into(), value.to_owned()]);
    option("--snapshot", edition.snapshot.as_ref());
    option("--version", edition.version.as_ref());
    option("--channel", "stable".as_ref());
    option("--store", shop.store().as_ref());
    option("--trust", shop.site().join("trust").as_ref());
    option("--source", shop.source.as_ref());
    option("--work", work.as_ref());
    option("--out", build.as_ref());
    if let Some(overlay) = edition.overlay {
        option("--overlay", shop.source.join("tests").join(overlay).as_ref());
    }
    arguments
}

/// Signs a build's boot images with a site's keys.
///
/// # Errors
/// When the command fails.
pub fn signed(shop: &Workshop, build: &Path, site: &Path) -> Result<()> {
    shop.program("bastide-iso")
        .arg("sign")
        .arg("--build")
        .arg(build)
        .arg("--site")
        .arg(site)
        .arg("--passphrase-file")
        .arg(shop.passphrase())
        .run()?;
    Ok(())
}

/// Publishes a build into a new repository that continues the one of `after`.
///
/// # Errors
/// When a command fails.
pub fn publish(shop: &Workshop, after: Option<&str>, build: &Path, repository: &Path, more: &[&str]) -> Result<()> {
    continued(shop, after, repository)?;
    shop.program("bastide-repo")
        .arg("publish")
        .arg("--repo")
        .arg(repository)
        .arg("--release")
        .arg(build)
        .arg("--site")
        .arg(shop.site())
        .arg("--passphrase-file")
        .arg(shop.passphrase())
        .args(more)
        .run()?;
    Ok(())
}

/// Makes place for a repository that continues the one of `after`.
///
/// # Errors
/// When files cannot be made.
pub fn continued(shop: &Workshop, after: Option<&str>, repository: &Path) -> Result<()> {
    if repository.exists() {
        fs::remove_dir_all(repository)?;
    }
    if let Some(parent) = repository.parent() {
        fs::create_dir_all(parent)?;
    }
    if let Some(after) = after {
        // Hard links: what is published replaces files and never writes into one.
        Cmd::new("cp")
            .arg("-al")
            .arg(shop.repository(after))
            .arg(repository)
            .run()?;
    }
    Ok(())
}

/// Exports a repository's newest release as a bundle.
///
/// # Errors
/// When the command fails.
pub fn export(shop: &Workshop, repository: &Path, bundle: &Path) -> Result<()> {
    if let Some(parent) = bundle.parent() {
        fs::create_dir_all(parent)?;
    }
    drop(fs::remove_file(bundle));
    shop.program("bastide-repo")
        .arg("export")
        .arg("--repo")
        .arg(repository)
        .arg("--out")
        .arg(bundle)
        .run()?;
    Ok(())
}

/// Exports a repository's newest release as deltas to the one that the receiver holds, and gives the bundle.
///
/// # Errors
/// When the command fails.
pub fn export_deltas(shop: &Workshop, edition: Edition, held: Edition) -> Result<PathBuf> {
    let bundle = shop.bundle(&format!("{}-since-{}", edition.version, held.version));
    drop(fs::remove_file(&bundle));
    shop.program("bastide-repo")
        .arg("export")
        .arg("--repo")
        .arg(shop.repository(edition.version))
        .arg("--out")
        .arg(&bundle)
        .args(["--since", held.version])
        .run()?;
    Ok(bundle)
}

/// Makes the installation medium of the first release.
///
/// # Errors
/// When the step fails.
pub fn medium(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let inputs = shop
        .sources()?
        .file(&shop.repository(BASE.version).join("metadata/timestamp.json"))?;
    let iso = shop.iso();
    ledger.step("medium", "make the installation medium", inputs, &[&iso], || {
        assemble(shop, &shop.build(BASE.version), &shop.at("work"), &iso)?;
        shop.program("bastide-iso").arg("inspect").arg(&iso).run()?;
        Ok(format!(
            "hybrid ISO, {} MB, signed",
            fs::metadata(&iso)?.len() / 1_000_000
        ))
    })
}

/// Assembles and signs the ISO of the first release.
///
/// # Errors
/// When the command fails.
pub fn assemble(shop: &Workshop, build: &Path, work: &Path, iso: &Path) -> Result<()> {
    shop.program("bastide-iso")
        .arg("assemble")
        .arg("--build")
        .arg(build)
        .arg("--repo")
        .arg(shop.repository(BASE.version))
        .arg("--work")
        .arg(work)
        .arg("--site")
        .arg(shop.site())
        .arg("--passphrase-file")
        .arg(shop.passphrase())
        .arg("--out")
        .arg(iso)
        .run()?;
    Ok(())
}
