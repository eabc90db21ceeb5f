// SPDX-License-Identifier: GPL-3.0-or-later
//! The commands of `bastide-sign`.

mod ceremony;
mod secret;
mod sign;
mod site;
#[cfg(feature = "pkcs11")]
mod token;
mod verify;
mod waiver;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use signing::keys::Passphrase;
use signing::output::Refused;
use signing::site::Trust;

/// Keys, signatures and their verification, for the vault
#[derive(Parser)]
#[command(
    name = "bastide-sign",
    version,
    max_term_width = 80,
    after_long_help = "\
Private keys are written encrypted and opened with a passphrase, which is
read from a file or the terminal, never from the command line.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused (a signature does not
hold, or an existing site would be overwritten).

Examples:
  bastide-sign site init --dir site --name Demo --passphrase-file passphrase
  bastide-sign site show --site site
  bastide-sign verify openpgp --trust site/trust site/trust/root.json"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make, show and check the keys of a site
    #[command(
        subcommand,
        after_long_help = "\
Examples:
  bastide-sign site show --site site
  bastide-sign site check --site site --passphrase-file passphrase"
    )]
    Site(site::SiteCommand),
    /// Make and change the TUF root with several custodians
    #[command(
        subcommand,
        after_long_help = "\
plan makes a request; each custodian signs it alone; assemble makes the root.

Examples:
  bastide-sign ceremony plan --root 1.root.json --days 1825 \\
    --out request.json
  bastide-sign ceremony sign request.json --root 1.root.json --dry-run"
    )]
    Ceremony(ceremony::CeremonyCommand),
    /// Make keys in a token (PKCS #11)
    #[cfg(feature = "pkcs11")]
    #[command(
        subcommand,
        after_long_help = "\
Examples:
  bastide-sign token make --out timestamp.uri \\
    'pkcs11:token=vault;object=timestamp?module-path=/usr/lib/x.so'"
    )]
    Token(token::TokenCommand),
    /// Sign a file with OpenPGP: the site's release key, or your own
    Openpgp(sign::OpenPgp),
    /// Sign a UEFI boot image with the site's db key
    Secureboot(sign::SecureBoot),
    /// Encrypt a file so that only the vault reads it; no key is needed
    Encrypt(secret::Encrypt),
    /// Decrypt what was encrypted to the site
    Decrypt(secret::Decrypt),
    /// Let hosts take stale metadata until a date
    #[command(
        subcommand,
        after_long_help = "\
A waiver is signed by as many root keys as a root is, names the very files that
it lifts, and ends by itself. Hosts take it with `bastide-host update --waiver`.

Examples:
  bastide-sign waiver show waiver.json --root site/trust/root.json
  bastide-sign waiver sign waiver.json --root site/trust/root.json --dry-run"
    )]
    Waiver(waiver::WaiverCommand),
    /// Verify signatures; no key is needed
    #[command(
        subcommand,
        after_long_help = "\
Examples:
  bastide-sign verify openpgp --trust site/trust site/trust/root.json
  bastide-sign verify secureboot --trust site/trust x.signed.efi"
    )]
    Verify(verify::VerifyCommand),
}

#[derive(Args)]
struct PassphraseArgs {
    /// File whose one line is the passphrase; asked on the terminal if not
    /// given
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    fn obtain(&self, prompt: &str) -> Result<Passphrase> {
        Ok(Passphrase::obtain(self.passphrase_file.as_deref(), prompt)?)
    }
}

#[derive(Args)]
struct Certificates {
    /// Trust directory of a site, for its release certificate
    #[arg(long, value_name = "DIR", required_unless_present = "keyring")]
    trust: Option<PathBuf>,
    /// Keyring file
    #[arg(long, value_name = "FILE", conflicts_with = "trust")]
    keyring: Option<PathBuf>,
}

impl Certificates {
    fn keyring(&self) -> Result<PathBuf> {
        Ok(match (&self.trust, &self.keyring) {
            (Some(trust), _) => Trust::open(trust)?.release_keyring(),
            (None, Some(keyring)) => keyring.clone(),
            // clap demands one of the two.
            (None, None) => PathBuf::new(),
        })
    }
}

/// Refuses to write where something is; `why` goes on after "exists".
fn free(place: &Path, why: &str) -> Result<()> {
    if place.symlink_metadata().is_ok() {
        bail!(Refused(format!("{} exists{why}", place.display())));
    }
    Ok(())
}

/// Runs the command.
pub fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Site(command) => site::run(command),
        Command::Ceremony(command) => ceremony::run(command),
        #[cfg(feature = "pkcs11")]
        Command::Token(command) => token::run(command),
        Command::Openpgp(command) => sign::openpgp(command),
        Command::Secureboot(command) => sign::secure_boot(command),
        Command::Encrypt(args) => secret::encrypt(args),
        Command::Decrypt(args) => secret::decrypt(args),
        Command::Waiver(command) => waiver::run(command),
        Command::Verify(command) => verify::run(command),
    }
}

fn open(path: &Path) -> Result<std::fs::File> {
    std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))
}
