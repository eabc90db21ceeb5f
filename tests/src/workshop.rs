// SPDX-License-Identifier: GPL-3.0-or-later
//! Where everything lies, and the commands under test.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use signing::durable;
use signing::process::Cmd;

use crate::accel::Accelerator;
use crate::ledger::Inputs;

/// The rooms whose sources decide the image's bits.
const ROOMS: [&str; 6] = [
    "signing",
    "offline-repo",
    "hardening",
    "hypervisor",
    "installer",
    "iso-build",
];

/// The places of one journey: the sources, the programs and everything that is made under `out/`.
pub struct Workshop {
    /// The workspace's root.
    pub source: PathBuf,
    /// Where everything is made.
    pub out: PathBuf,
    programs: PathBuf,
    /// What runs the virtual machines.
    pub accelerator: Accelerator,
}

impl Workshop {
    /// Opens the workshop, making what a first run needs: the demonstration site's passphrase and the administrator's key.
    ///
    /// # Errors
    /// When files cannot be made or QEMU is not there.
    pub fn open(source: &Path, out: &Path) -> Result<Self> {
        fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
        let out = fs::canonicalize(out)?;
        let programs = std::env::current_exe()?
            .parent()
            .context("the programs' directory")?
            .to_path_buf();
        let accelerator = Accelerator::detect()?;
        let workshop = Self {
            source: fs::canonicalize(source)?,
            out,
            programs,
            accelerator,
        };
        if !workshop.passphrase().exists() {
            let random = Cmd::new("openssl").args(["rand", "-hex", "24"]).output()?;
            durable::write_private(&workshop.passphrase(), &random)?;
        }
        if !workshop.admin_key().exists() {
            let key = workshop.admin_key();
            Cmd::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "administrator", "-f"])
                .arg(key)
                .run()?;
        }
        Ok(workshop)
    }

    /// Where one of our programs lies: beside this one.
    #[must_use]
    pub fn path_of(&self, program: &str) -> PathBuf {
        self.programs.join(program)
    }

    /// One of our programs, with the environment that cargo and rustup are found by.
    #[must_use]
    pub fn program(&self, name: &str) -> Cmd {
        self.environment(Cmd::new(self.path_of(name)))
    }

    /// Adds the environment that cargo and rustup are found by.
    #[must_use]
    pub fn environment(&self, cmd: Cmd) -> Cmd {
        ["HOME", "CARGO_HOME", "RUSTUP_HOME"]
            .into_iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)))
            .fold(cmd, |cmd, (name, value)| cmd.env(name, value))
    }

    /// A place under `out/`.
    #[must_use]
    pub fn at(&self, place: &str) -> PathBuf {
        self.out.join(place)
    }

    /// The passphrase of the demonstration site's keys.
    #[must_use]
    pub fn passphrase(&self) -> PathBuf {
        self.at("passphrase")
    }

    /// The administrator's ssh key.
    #[must_use]
    pub fn admin_key(&self) -> PathBuf {
        self.at("admin-key")
    }

    /// The demonstration site.
    #[must_use]
    pub fn site(&self) -> PathBuf {
        self.at("site")
    }

    /// The site whose officers approve at a gateway.
    #[must_use]
    pub fn office(&self) -> PathBuf {
        self.at("office")
    }

    /// The store of upstream packages.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.at("store")
    }

    /// A build's directory.
    #[must_use]
    pub fn build(&self, version: &str) -> PathBuf {
        self.at("build").join(version)
    }

    /// The TUF repository as it stood after this version was published.
    #[must_use]
    pub fn repository(&self, version: &str) -> PathBuf {
        self.at("repository").join(version)
    }

    /// The bundle that carries this version.
    #[must_use]
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.at("bundles").join(format!("{name}.bundle"))
    }

    /// The installation medium.
    #[must_use]
    pub fn iso(&self) -> PathBuf {
        self.at("bastide-1.0.0.iso")
    }

    /// The sources that decide the image's bits, as a step's inputs.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn sources(&self) -> Result<Inputs> {
        let mut inputs = Inputs::new();
        for room in ROOMS {
            inputs = inputs.text(room).tree(&self.source.join(room))?;
        }
        inputs.file(&self.source.join("Cargo.lock"))
    }

    /// The story's own sources, as a step's inputs: a changed story is told again.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn story(&self) -> Result<Inputs> {
        Inputs::new().tree(&self.source.join("tests"))
    }

    /// The story's sources and the stamp of an earlier step, whose product is used as it was left: a step that was done
    /// again leaves another stamp.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn after(&self, step: &str) -> Result<Inputs> {
        self.story()?.file(&self.at(&format!("steps/{step}.json")))
    }

    /// Writes the answer file of the test's site for the disk with this serial.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn answer(&self, name: &str, wipe: bool) -> Result<PathBuf> {
        let key = fs::read_to_string(self.admin_key().with_extension("pub"))?;
        ensure!(
            key.starts_with("ssh-ed25519 "),
            "the administrator's public key is not one"
        );
        let serial = "BASTIDE-DISK-1";
        let wipe = if wipe {
            format!("wipe = \"{serial}\"\n")
        } else {
            String::new()
        };
        let text = format!(
            r#"[disk]
serial = "{serial}"
{wipe}
[network]
hostname = "rack1"

[[network.interface]]
mac = "52:54:00:ba:57:1d"
address = "10.0.2.15/24"
gateway = "10.0.2.2"

[admin]
ssh_keys = ["{}"]

[secure_boot]
enrol = true

[installer]
finish = "poweroff"
"#,
            key.trim()
        );
        let place = self.at(&format!("{name}.toml"));
        durable::write(&place, text.as_bytes())?;
        Ok(place)
    }
}
