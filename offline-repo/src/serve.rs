// SPDX-License-Identifier: GPL-3.0-or-later
//! A repository over HTTP, read only, for a network behind the gap.
//!
//! ```text
//! /metadata/NAME        the vendor's metadata; where a site's officers approve, as they approved them (REPO/site/vendor)
//! /site/metadata/NAME   the site's own
//! /targets/PATH         the targets' files
//! /apt/                 packages for guests, as [`crate::archive`] made and signed them
//! / /status.json        what is here, for people and programs
//! /healthz /metrics     for their monitoring
//! ```
//!
//! Nobody has to believe this server: whoever fetches verifies what came, by both kinds of signature. TLS keeps those who
//! listen from knowing what is fetched, and the server from being replaced by one that gives nothing.
//!
//! # Attacks faced
//! - Names that lead elsewhere, links in the tree, files that nobody published: [`place`], [`files`].
//! - Connections that are opened and not used, requests that never end, readers who take nothing: there is room for so many
//!   connections, and each must make headway ([`meter`], [`listen`]).
//! - Requests that make much work for little: one range, no content, and facts that are gathered every few seconds at most.
//! - Text of others on the status page: [`page`].
//!
//! # Defence not made
//! Nobody is asked who he is: whoever reaches the address reads all of it, the names of the hosts included. One machine may
//! take all the room there is, as long as it takes what it asked for.

pub mod facts;
pub mod files;
pub mod listen;
pub mod meter;
pub mod page;
pub mod place;
pub mod range;
pub mod site;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use signing::keys;
use tokio_rustls::TlsAcceptor;

use crate::repository::Repository;
use facts::Pinned;
use listen::{Server, Signals};
use site::Site;

/// The longest file of a certificate chain or its key.
const LARGEST_PEM: u64 = 256 << 10;

/// How much is done for others.
#[derive(Debug, Clone)]
pub struct Limits {
    /// So many connections are open at once.
    pub connections: usize,
    /// In this time a connection makes headway: its handshake and each request's header come, some of what it fetches is taken.
    pub patience: Duration,
    /// After a signal downloads may take so long to come to their end.
    pub grace: Duration,
}

/// A certificate chain and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The chain, the server's own first.
    pub certificate: PathBuf,
    /// The key, unencrypted: nobody is there to type a passphrase.
    pub key: PathBuf,
}

/// What is served, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// By which roots the status judges.
    pub pinned: Pinned,
    /// With TLS, or in plain.
    pub tls: Option<Tls>,
    /// The limits.
    pub limits: Limits,
}

/// Serves until SIGTERM or SIGINT; gives the number of downloads that were cut off. `started` is called with the address once
/// connections are taken.
///
/// # Errors
/// When certificate or key cannot be used, or the address is not free; [`signing::output::Refused`] in the chain when others
/// can read the key.
pub fn serve(
    repository: &Repository,
    options: &Options,
    started: impl FnOnce(SocketAddr) -> Result<()>,
) -> Result<usize> {
    let tls = options.tls.as_ref().map(acceptor).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()
        .context("cannot start the server")?;
    let site = Arc::new(Site::new(repository.root(), options.pinned.clone()));
    let server = Server {
        totals: Arc::clone(&site.totals),
        router: site.router(),
        tls,
        limits: options.limits.clone(),
    };
    let cut = runtime.block_on(async {
        let signals = Signals::listen().context("cannot wait for signals")?;
        let taken = || format!("cannot listen at {}", options.listen);
        let listener = listen::bind(options.listen).with_context(taken)?;
        started(listener.local_addr().with_context(taken)?)?;
        anyhow::Ok(server.run(listener, signals).await)
    });
    // A disk that hangs is not waited for.
    runtime.shutdown_background();
    cut
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    let chain = signing::digest::read_regular(&tls.certificate, LARGEST_PEM)
        .with_context(|| format!("cannot read the certificate {}", tls.certificate.display()))?;
    // One that is damaged is one too few.
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.with_context(|| format!("there is no certificate in PEM in {}", tls.certificate.display()))?;
    let key = keys::read_private(&tls.key, LARGEST_PEM)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| anyhow!("there is no unencrypted private key in PEM in {}", tls.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .with_context(|| {
            let (certificate, key) = (tls.certificate.display(), tls.key.display());
            format!("cannot use the certificate {certificate} with the key {key}")
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
