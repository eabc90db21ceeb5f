// SPDX-License-Identifier: GPL-3.0-or-later
//! `serve`: a repository over HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use offline_repo::repository::Repository;
use offline_repo::serve::facts::Pinned;
use offline_repo::serve::{self, Limits, Options, Tls};
use serde_json::json;
use signing::output::{self, Exit};
use signing::site::Trust;

#[derive(Args)]
#[command(
    after_long_help = "Gives /metadata/ and /targets/ to TUF clients, and /site/metadata/ too where
officers approve (/metadata/ then has what they approved, its timestamp as
N.timestamp.json); to guests /apt/, where `apt publish` made it. / is a page for
people, /status.json the same for programs, /healthz and /metrics are for
monitoring. It only reads, needs no right but to read the repository, asks
nobody who he is, and ends in good order on SIGTERM.
TLS is 1.3; a new certificate is read at the next start.

Examples:
  bastide-repo serve --repo gateway --plain
  bastide-repo serve --repo gateway --listen 10.0.0.5:8443 \\
      --tls-cert gateway.pem --tls-key gateway.key --trust site/trust"
)]
pub struct Serve {
    /// The repository's directory
    #[arg(long)]
    repo: PathBuf,
    /// The address to listen at; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// The server's certificate, and those above it, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key", required_unless_present = "plain")]
    tls_cert: Option<PathBuf>,
    /// Its key in PEM, unencrypted, readable by its owner alone
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Without TLS: who listens sees what is fetched
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    plain: bool,
    /// Let the status judge from the pinned root of this trust directory of the
    /// vendor
    #[arg(long, value_name = "DIR")]
    trust: Option<PathBuf>,
    /// The site's trust directory, where its officers approve
    #[arg(long, value_name = "DIR")]
    site_trust: Option<PathBuf>,
    /// How many connections are open at once
    #[arg(long, value_name = "NUMBER", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    connections: u32,
    /// Seconds in which a connection must make headway
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    /// Seconds that downloads have left when the server is to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    grace: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Serve {
    pub fn run(&self) -> Result<Exit> {
        let repository = Repository::open(&self.repo)?;
        let root = |trust: &Option<PathBuf>| trust.as_deref().map(|place| Trust::open(place)?.root()).transpose();
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        let options = Options {
            listen: self.listen,
            pinned: Pinned {
                vendor: root(&self.trust)?,
                site: root(&self.site_trust)?,
            },
            tls: tls.map(|(certificate, key)| Tls { certificate, key }),
            limits: Limits {
                connections: usize::try_from(self.connections)?,
                patience: Duration::from_secs(self.patience),
                grace: Duration::from_secs(self.grace),
            },
        };
        let scheme = if self.plain { "http" } else { "https" };
        let cut = serve::serve(&repository, &options, |address| {
            let url = format!("{scheme}://{address}/");
            match self.json {
                true => output::json(&json!({"repository": self.repo, "listening": url})),
                false => output::line(&format!("{} is served at {url}", self.repo.display())),
            }?;
            Ok(())
        })?;
        if cut > 0 {
            serve::site::complain(&format!("{} cut off", output::count(cut, "connection")));
        }
        Ok(Exit::Done)
    }
}
