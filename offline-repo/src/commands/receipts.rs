// SPDX-License-Identifier: GPL-3.0-or-later
//! `enrol`, `receive`, `receipts` and `receipt`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use offline_repo::receipts::{self, Enrolled, Name, Own, Received};
use offline_repo::reported::{Again, again};
use offline_repo::repository::Repository;
use offline_repo::words;
use serde::Serialize;
use serde_json::json;
use signing::keys::{self, Passphrase};
use signing::output::{self, Exit, Refused, Usage};
use signing::receipt::{Holder, Receipt, Signed, numbers};
use signing::{clock, durable};

use super::pinned_root;
use crate::progress::Screen;

#[derive(Args)]
#[command(
    after_long_help = "The installer shows the fingerprint of a host's key on its last screen, and
`bastide-install verify-record` from its record.

Examples:
  bastide-repo enrol rack4.receipt.json --repo gateway --name rack4 \\
      --fingerprint 5f1c09a27be3d6480f11"
)]
pub struct Enrol {
    /// The first receipt of the host or gateway
    receipt: PathBuf,
    /// The repository's directory
    #[arg(long)]
    repo: PathBuf,
    /// What it is called here [default: what it calls itself]
    #[arg(long)]
    name: Option<Name>,
    /// The fingerprint of its key, at least 20 digits of it
    #[arg(long, value_name = "HEX")]
    fingerprint: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(
    after_long_help = "A receipt that was received before changes nothing. Each is judged by itself;
one that is refused does not hold back the others.

Examples:
  bastide-repo receive rack4.receipt.json rack5.receipt.json --repo gateway"
)]
pub struct Receive {
    /// Receipts
    #[arg(required = true)]
    receipts: Vec<PathBuf>,
    /// The repository's directory
    #[arg(long)]
    repo: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(
    after_long_help = "Under a gateway that waits for volumes stands the command that makes them again.
It refuses where it would make volumes of another bundle.

Examples:
  bastide-repo receipts --repo gateway
  bastide-repo receipts --repo gateway --json"
)]
pub struct Receipts {
    /// The repository's directory
    #[arg(long)]
    repo: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(
    after_long_help = "Every part of every whole release is read and verified for it, and every volume
that waits. It also says why a bundle was refused, and what this gateway wrote
to media itself. The key is any that `bastide-sign ceremony keygen` or
`token make` makes.

Examples:
  bastide-repo receipt --repo gateway --trust site/trust --name gateway-1 \\
      --key gateway.key.pem --passphrase-file passphrase --out g1.receipt.json"
)]
pub struct Give {
    /// The repository's directory
    #[arg(long)]
    repo: PathBuf,
    /// Verify from the pinned root of this trust directory of the vendor, and
    /// not only that the repository agrees with itself
    #[arg(long, value_name = "DIR")]
    trust: Option<PathBuf>,
    /// The site's trust directory, where its officers approve
    #[arg(long, value_name = "DIR")]
    site_trust: Option<PathBuf>,
    /// What this gateway calls itself
    #[arg(long, default_value = "gateway")]
    name: Name,
    /// This gateway's private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File whose one line is the passphrase of the key
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Where the receipt goes; an existing file is not overwritten
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Enrol {
    pub fn run(&self) -> Result<Exit> {
        let signed = Signed::load(&self.receipt)?;
        let own = &signed.receipt.name;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => own
                .parse()
                .map_err(|why| Usage(format!("{own:?} calls for a --name: {why}")))?,
        };
        let repository = Repository::open(&self.repo)?;
        let received = receipts::enrol(&repository, &signed, &name, &self.fingerprint)
            .with_context(|| format!("cannot enrol {name}"))?;
        if self.json {
            output::json(&received)?;
            return Ok(Exit::Done);
        }
        output::line(&format!("{name} is enrolled with the key {}", signed.fingerprint))?;
        tell(&repository, &received)?;
        Ok(Exit::Done)
    }
}

#[derive(Serialize)]
struct Judged {
    file: PathBuf,
    #[serde(flatten)]
    received: Option<Received>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Receive {
    pub fn run(&self) -> Result<Exit> {
        let repository = Repository::open(&self.repo)?;
        let (mut all, mut worst) = (Vec::new(), Exit::Done);
        for file in &self.receipts {
            let result = Signed::load(file).and_then(|signed| receipts::receive(&repository, &signed));
            let result = result.with_context(|| format!("cannot take {}", file.display()));
            let (received, error) = match result {
                Ok(received) => (Some(received), None),
                Err(error) => {
                    // A refusal outweighs what could not be read.
                    worst = match worst {
                        _ if output::is_refusal(&error) => Exit::Refused,
                        Exit::Done => Exit::Failed,
                        worst => worst,
                    };
                    (None, Some(output::chain(&error)))
                }
            };
            if !self.json {
                match (&received, &error) {
                    (Some(received), _) => tell(&repository, received)?,
                    (None, error) => eprintln!("bastide-repo: {}", error.as_deref().unwrap_or_default()),
                }
            }
            all.push(Judged {
                file: file.clone(),
                received,
                error,
            });
        }
        if self.json {
            output::json(&all)?;
        }
        Ok(worst)
    }
}

#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    enrolled: Enrolled,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    again: Vec<Again>,
}

impl Receipts {
    pub fn run(&self) -> Result<Exit> {
        let repository = Repository::open(&self.repo)?;
        let all = receipts::inventory(&repository)?;
        if self.json {
            let listed = all.into_iter().map(|enrolled| Listed {
                again: enrolled
                    .newest
                    .iter()
                    .flat_map(|newest| again(&repository, newest))
                    .collect(),
                enrolled,
            });
            output::json(&listed.collect::<Vec<_>>())?;
            return Ok(Exit::Done);
        }
        if all.is_empty() {
            output::line("nobody is enrolled: see `bastide-repo enrol`")?;
        }
        for Enrolled {
            name,
            fingerprint,
            newest,
        } in all
        {
            let said = newest.as_ref().map_or("no receipt yet".to_owned(), words::receipt);
            output::line(&format!("{name}: {said}\n  key {fingerprint}"))?;
            if let Some(newest) = &newest {
                bundles(&repository, newest)?;
            }
        }
        Ok(Exit::Done)
    }
}

impl Give {
    pub fn run(&self) -> Result<Exit> {
        if self.out.symlink_metadata().is_ok() {
            bail!(Refused(format!("{} exists: name another --out", self.out.display())));
        }
        let repository = Repository::open_waiting(&self.repo)?;
        let site = match repository.is_approved() {
            true => Some(pinned_root(self.site_trust.as_deref(), || repository.own_site_root())?),
            false => None,
        };
        let passphrase = Passphrase::obtain(self.passphrase_file.as_deref(), "Passphrase of this gateway's key: ")?;
        let key = keys::open_file(&self.key, &passphrase)?;
        // Who waits for the first bundle has a word to say about its volumes.
        let vendor = match repository.is_blank()? {
            true => None,
            false => Some(pinned_root(self.trust.as_deref(), || repository.own_root())?),
        };
        let own = Own {
            vendor: vendor.as_deref(),
            site: site.as_deref(),
            name: &self.name.to_string(),
            key: &key,
            now: clock::now(),
        };
        let screen = Screen::new(!self.json);
        let given = receipts::give(&repository, &own, &mut |done, total| {
            screen.bytes("reading parts", done, total);
        });
        screen.end();
        let given = given.with_context(|| format!("cannot give a receipt of {}", self.repo.display()))?;
        durable::write(&self.out, &given.bytes).with_context(|| format!("cannot write {}", self.out.display()))?;
        if self.json {
            output::json(&json!({"file": self.out, "fingerprint": given.fingerprint, "receipt": given.receipt}))?;
            return Ok(Exit::Done);
        }
        output::line(&format!(
            "{}: {}\n  key {}",
            self.out.display(),
            words::receipt(&given.receipt),
            given.fingerprint
        ))?;
        Ok(Exit::Done)
    }
}

fn tell(repository: &Repository, received: &Received) -> Result<()> {
    match received {
        Received::Taken { name, receipt } => {
            output::line(&format!("{name}: {}", words::receipt(receipt)))?;
            bundles(repository, receipt)
        }
        Received::Known { name, sequence } => Ok(output::line(&format!(
            "{name}: receipt {sequence} was received before"
        ))?),
    }
}

/// What a gateway's receipt says of bundles, and what helps.
fn bundles(repository: &Repository, receipt: &Receipt) -> Result<()> {
    let Holder::Gateway(gateway) = &receipt.holder else {
        return Ok(());
    };
    for (seen, again) in gateway.sets.iter().zip(again(repository, receipt)) {
        output::line(&format!("  {}", seen.words()))?;
        match again.command {
            Some(command) => output::line(&format!("    again: bastide-repo {}", shell(&command)))?,
            None if again.volumes.is_empty() => {}
            None => output::line("    no log of that export is here: look where it was made")?,
        }
    }
    for export in &gateway.exports {
        let set = export.set.to_string();
        let written: Vec<u32> = export.volumes.iter().map(|volume| volume.number).collect();
        let written = numbers(&written);
        output::line(&format!(
            "  exported set {set:.16}: volume {written} of {} read back",
            export.of
        ))?;
    }
    if gateway.untold > 0 {
        output::line(&format!(
            "  and {} more, for which the receipt had no room",
            gateway.untold
        ))?;
    }
    Ok(())
}

/// Words for a shell.
fn shell(words: &[String]) -> String {
    let plain = |word: &&String| {
        word.bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-_./:=+".contains(&c))
    };
    let quote = |word: &String| match plain(&word) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}
