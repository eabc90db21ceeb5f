// SPDX-License-Identifier: GPL-3.0-or-later
//! Our own programs for the image: compiled inside the builder root by the pinned toolchain, from locked crates.
//!
//! The compiler sees the same paths, dates, libraries and C compiler on every machine: the source at `/src`, the target
//! directory at `/build`, the toolchain at `/rust`, the crates at `/cargo`. Each crate's archive is verified against
//! `Cargo.lock` before it is unpacked, and no build script can alter what was unpacked. What the compiler can see is what
//! the key covers: only the sources of the packages that are built are shown to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use signing::digest::Sha256;
use signing::process::Cmd;

use crate::crates::{self, Locked};
use crate::sandbox::Sandbox;
use crate::work::{Key, Work};

/// The programs of the image.
pub const PROGRAMS: [&str; 4] = ["bastide-audit", "bastide-host", "bastide-init", "bastide-install"];
/// The packages that hold them.
const PACKAGES: [&str; 3] = ["hardening", "hypervisor", "installer"];
/// Counts changes of the options below that change a program.
const RECIPE: u32 = 2;
/// Where the compiler sees the crates.
const CARGO_HOME: &str = "/cargo";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where the source, the compiler and the crates come from.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The workspace.
    pub source: PathBuf,
    /// The toolchain's directory (with `bin/rustc`).
    pub toolchain: PathBuf,
    /// What `rustc -vV` says.
    pub compiler: String,
    /// Cargo's home directory, for the archives in its cache.
    pub cargo_home: PathBuf,
    /// The workspace's members that the programs need.
    members: BTreeSet<String>,
    /// All members.
    all: Vec<String>,
    /// The locked crates.
    locked: Vec<Locked>,
}

#[derive(Deserialize)]
struct RootManifest {
    workspace: Workspace,
}

#[derive(Deserialize)]
struct Workspace {
    members: Vec<String>,
    dependencies: toml::Table,
}

#[derive(Deserialize)]
struct ToolchainFile {
    toolchain: Toolchain,
}

#[derive(Deserialize)]
struct Toolchain {
    channel: String,
}

impl Inputs {
    /// Looks at a workspace, finds its toolchain (`--toolchain`, else as rustup would) and cargo's home.
    ///
    /// # Errors
    /// When the workspace is not one of ours, or the pinned toolchain is not there.
    pub fn find(source: &Path, toolchain: Option<&Path>, cargo_home: Option<&Path>) -> Result<Self> {
        let source = source
            .canonicalize()
            .with_context(|| format!("cannot find the source {}", source.display()))?;
        let manifest: RootManifest = parse(&source.join("Cargo.toml"))?;
        let members = closure(&source, &manifest.workspace)?;
        let pinned: ToolchainFile = parse(&source.join("rust-toolchain.toml"))?;
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        let toolchain = match toolchain {
            Some(path) => path.to_owned(),
            None => sysroot(&source, &home)?,
        };
        let toolchain = toolchain
            .canonicalize()
            .with_context(|| format!("cannot find the toolchain {}", toolchain.display()))?;
        let said = Cmd::new(toolchain.join("bin/rustc"))
            .arg("-vV")
            .output()
            .context("cannot ask the compiler for its version")?;
        let compiler = String::from_utf8(said).context("the compiler's version is not text")?;
        let release = compiler
            .lines()
            .find_map(|line| line.strip_prefix("release: "))
            .unwrap_or("unknown");
        if release != pinned.toolchain.channel {
            bail!(
                "the toolchain {} is Rust {release}, the source is pinned to {}: install that (rustup toolchain install {}) or name it with --toolchain",
                toolchain.display(),
                pinned.toolchain.channel,
                pinned.toolchain.channel
            );
        }
        let cargo_home = cargo_home
            .map(Path::to_owned)
            .or_else(|| std::env::var_os("CARGO_HOME").map(PathBuf::from))
            .unwrap_or_else(|| home.join(".cargo"));
        let locked = crates::locked(&source.join("Cargo.lock"))?;
        Ok(Self {
            source,
            toolchain,
            compiler,
            cargo_home,
            members,
            all: manifest.workspace.members,
            locked,
        })
    }

    /// The key of everything but our own source: the crates, the compiler and the builder root.
    fn base(&self, builder: &Sha256) -> Result<Key> {
        Key::new("programs", RECIPE)
            .digest(builder)
            .with(self.compiler.as_bytes())
            .file(&self.source.join("Cargo.lock"))?
            .file(&self.source.join("Cargo.toml"))
    }

    /// The key of the programs.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn key(&self, builder: &Sha256) -> Result<Sha256> {
        let mut key = self.base(builder)?;
        for member in &self.all {
            key = key
                .with(member.as_bytes())
                .file(&self.source.join(member).join("Cargo.toml"))?;
        }
        for member in &self.members {
            key = key.with(member.as_bytes()).tree(&self.source.join(member))?;
        }
        Ok(key.finish())
    }

    /// The crates of `Cargo.lock`.
    #[must_use]
    pub fn locked(&self) -> &[Locked] {
        &self.locked
    }

    /// Compiles the programs into `directory`.
    ///
    /// # Errors
    /// When a crate is missing or altered, or the compiler fails; the log is named.
    pub fn compile(
        &self,
        work: &Work,
        sandbox: &Sandbox,
        builder: &Sha256,
        directory: &Path,
        log: &Path,
    ) -> Result<()> {
        let source = directory.join("src");
        self.copy_source(&source)?;
        let crates = work.once(
            "cargo",
            &Key::new("cargo", RECIPE)
                .file(&self.source.join("Cargo.lock"))?
                .finish(),
            |place| crates::collect(&self.cargo_home, &self.locked, place, Path::new(CARGO_HOME)),
        )?;
        // Compiled crates serve as long as crates, compiler and builder root are the same; our own packages are always
        // compiled anew, because cargo tells sources apart by date.
        let base = self.base(builder)?.finish();
        let target = work.place("target", &base);
        let fresh = !target.is_dir();
        fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
        let cargo = |arguments: &[&str]| {
            sandbox
                .step("/rust/bin/cargo")
                .args(arguments)
                .read(&source, "/src")
                .read(&self.toolchain, "/rust")
                .read(&crates.path, CARGO_HOME)
                .write(&target, "/build")
                .dir("/src")
                .env("PATH", "/rust/bin:/usr/bin:/bin")
                .env("CARGO_HOME", CARGO_HOME)
                .env("CARGO_TARGET_DIR", "/build")
                .env("CARGO_TERM_COLOR", "never")
                .env(
                    "RUSTFLAGS",
                    "--remap-path-prefix=/cargo/vendor=/crates --remap-path-prefix=/src=/bastide",
                )
        };
        if !fresh {
            let mut clean = vec!["clean", "--release", "--frozen", "--target", TARGET];
            self.members
                .iter()
                .for_each(|member| clean.extend(["--package", member]));
            cargo(&clean)
                .run_logged(log)
                .context("cannot clear our own packages before compiling")?;
        }
        let mut build = vec!["build", "--release", "--frozen", "--target", TARGET];
        PACKAGES.iter().for_each(|package| build.extend(["--package", package]));
        PROGRAMS.iter().for_each(|program| build.extend(["--bin", program]));
        cargo(&build)
            .run_logged(log)
            .context("cannot compile the programs of the image")?;

        let mut tree = vec![
            "tree", "--frozen", "--target", TARGET, "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}",
        ];
        PACKAGES.iter().for_each(|package| tree.extend(["--package", package]));
        let used = cargo(&tree)
            .output()
            .context("cannot list the crates of the programs")?;
        fs::write(directory.join("crates"), used).context("cannot write the list of crates")?;
        for program in PROGRAMS {
            let from = target.join(TARGET).join("release").join(program);
            fs::copy(&from, directory.join(program)).with_context(|| format!("cannot take {}", from.display()))?;
        }
        fs::remove_dir_all(&source).with_context(|| format!("cannot remove {}", source.display()))
    }

    /// Copies what the key covers, and stand-ins for the targets of members that are not compiled, which cargo wants to see.
    fn copy_source(&self, to: &Path) -> Result<()> {
        for name in ["Cargo.toml", "Cargo.lock"] {
            copy(&self.source.join(name), &to.join(name))?;
        }
        for member in &self.all {
            let from = self.source.join(member);
            if !self.members.contains(member) {
                copy(&from.join("Cargo.toml"), &to.join(member).join("Cargo.toml"))?;
                for target in targets(&from.join("Cargo.toml"))? {
                    write(&to.join(member).join(target), b"fn main() {}\n")?;
                }
                continue;
            }
            for entry in walkdir::WalkDir::new(&from).sort_by_file_name() {
                let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
                let place = to.join(member).join(entry.path().strip_prefix(&from)?);
                if entry.file_type().is_file() {
                    copy(entry.path(), &place)?;
                }
            }
        }
        Ok(())
    }
}

/// The paths of a package's targets that its manifest names, and its library's usual one.
fn targets(manifest: &Path) -> Result<BTreeSet<String>> {
    let table: toml::Table = parse(manifest)?;
    let mut paths = BTreeSet::from(["src/lib.rs".to_owned()]);
    for kind in ["lib", "bin", "test", "bench", "example"] {
        let one = |value: &toml::Value| value.get("path").and_then(|path| path.as_str().map(str::to_owned));
        match table.get(kind) {
            Some(toml::Value::Array(many)) => paths.extend(many.iter().filter_map(one)),
            Some(value) => paths.extend(one(value)),
            None => {}
        }
    }
    Ok(paths)
}

/// The members that [`PACKAGES`] need, by name (which is the directory's name here).
fn closure(source: &Path, workspace: &Workspace) -> Result<BTreeSet<String>> {
    let mut needed = BTreeSet::new();
    let mut waiting: Vec<String> = PACKAGES.iter().map(|&name| name.to_owned()).collect();
    while let Some(name) = waiting.pop() {
        if !needed.insert(name.clone()) {
            continue;
        }
        let manifest: toml::Table = parse(&source.join(&name).join("Cargo.toml"))?;
        for kind in ["dependencies", "build-dependencies"] {
            let Some(toml::Value::Table(table)) = manifest.get(kind) else {
                continue;
            };
            let ours = table.keys().filter(|key| {
                workspace
                    .dependencies
                    .get(*key)
                    .is_some_and(|value| value.get("path").is_some())
            });
            waiting.extend(ours.cloned());
        }
    }
    Ok(needed)
}

fn sysroot(source: &Path, home: &Path) -> Result<PathBuf> {
    let mut command = Cmd::new("rustc")
        .args(["--print", "sysroot"])
        .dir(source)
        .env("HOME", home);
    for name in ["RUSTUP_HOME", "CARGO_HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command = command.env(name, value);
        }
    }
    let said = command
        .output()
        .context("cannot find the Rust toolchain: name its directory with --toolchain")?;
    Ok(PathBuf::from(String::from_utf8_lossy(&said).trim()))
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &bytes)
}

fn write(to: &Path, bytes: &[u8]) -> Result<()> {
    let parent = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}
