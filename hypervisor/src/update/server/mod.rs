// SPDX-License-Identifier: GPL-3.0-or-later
//! The site's server as a source: what `bastide-repo serve` gives, over HTTPS.
//!
//! Attacks faced: somebody else's server, or one that was taken over and gives other, older or no bytes; answers that are
//! malformed, never end, come byte by byte, break off again and again, or are longer or shorter than they say.
//! Defence: the server's certificate is pinned ([`tls`]), but nothing is believed for coming from it: the TUF client verifies
//! it all as from a stick, and takes no more bytes than are signed. An answer's head is bounded, each connection must make
//! headway ([`http`]), what breaks off goes on from where it was a few times, and the whole has an end in time.
//! Defence not made: who sits between can keep the host from updates, and sees how much is fetched, and when.

mod http;
mod tls;

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, anyhow};
use signing::output::Refused;
use signing::tuf::names::check_target_name;
use signing::tuf::{Offer, Source, SourceError};

pub use http::Address;
use http::{Answer, Connector};

/// How long the server is waited for.
#[derive(Debug, Clone)]
pub struct Patience {
    /// In so much time of waiting a connection makes headway:
    pub headway: Duration,
    /// so many bytes come.
    pub bytes: u64,
    /// How often a file that breaks off is gone on with.
    pub tries: u32,
    /// The time before the first of them, and more before each further one.
    pub pause: Duration,
    /// After so many bytes they are counted anew.
    pub stretch: u64,
    /// All of it together, from the beginning.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            headway: Duration::from_secs(30),
            bytes: 64 << 10,
            tries: 5,
            pause: Duration::from_secs(1),
            stretch: 4 << 20,
            whole: Duration::from_secs(6 * 60 * 60),
        }
    }
}

/// The repositories that the server at an address gives: the vendor's, and the site's where its officers approve.
///
/// # Errors
/// [`Refused`] in the chain when somebody else is there, or answers what is none; else when the certificate cannot be used, or
/// the server does not answer.
pub fn offer(address: &Address, certificate: &Path, patience: Patience) -> Result<Offer<ServerSource>> {
    let connector = Arc::new(Connector::new(address.clone(), certificate, patience)?);
    let below = |metadata| ServerSource {
        connector: Arc::clone(&connector),
        metadata,
    };
    let approved = Download::open(&connector, "site/metadata/timestamp.json").map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => anyhow!(Refused(format!("{address}: {error}"))),
        _ => anyhow!("cannot fetch from {address}: {error}"),
    })?;
    let site = approved.map(|_| below("site/metadata"));
    Ok(Offer {
        vendor: below("metadata"),
        site,
    })
}

/// One of the server's repositories.
#[derive(Debug)]
pub struct ServerSource {
    connector: Arc<Connector>,
    metadata: &'static str,
}

impl Source for ServerSource {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let failed = |error| SourceError::of_read(name, error);
        let path = format!("{}/{name}", self.metadata);
        let Some(mut download) = Download::open(&self.connector, &path).map_err(failed)? else {
            return Ok(None);
        };
        if download.total > max {
            return Err(SourceError::TooLong {
                name: name.to_owned(),
                limit: max,
            });
        }
        let mut bytes = Vec::new();
        download.read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        let failed = |error| SourceError::of_read(path, error);
        if check_target_name(path).is_err() {
            return Ok(None);
        }
        let download = Download::open(&self.connector, &format!("targets/{path}")).map_err(failed)?;
        Ok(download.map(|download| Box::new(download) as Box<dyn Read>))
    }
}

/// A file on its way, which goes on where it broke off.
struct Download<'a> {
    connector: &'a Connector,
    path: String,
    answer: Answer,
    at: u64,
    total: u64,
    tag: Option<String>,
    tries: Tries,
}

impl<'a> Download<'a> {
    fn open(connector: &'a Connector, path: &str) -> io::Result<Option<Self>> {
        let mut tries = Tries::default();
        let answer = loop {
            match connector.get(path, 0, None) {
                Ok(answer) => break answer,
                Err(error) => tries.again(connector, 0, error)?,
            }
        };
        Ok(answer.map(|answer| Self {
            connector,
            path: path.to_owned(),
            at: 0,
            total: answer.total,
            tag: answer.tag.clone(),
            answer,
            tries,
        }))
    }

    fn go_on(&mut self, mut error: io::Error) -> io::Result<()> {
        loop {
            self.tries.again(self.connector, self.at, error)?;
            match self.connector.get(&self.path, self.at, self.tag.as_deref()) {
                Ok(Some(answer)) if answer.total == self.total => {
                    self.answer = answer;
                    return Ok(());
                }
                Ok(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "it changed while it was fetched",
                    ));
                }
                Err(next) => error = next,
            }
        }
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at < self.total {
            match self.answer.read(buffer) {
                Ok(count) => {
                    self.at += count as u64;
                    return Ok(count);
                }
                Err(error) => self.go_on(error)?,
            }
        }
        Ok(0)
    }
}

/// How often something broke off.
#[derive(Debug, Default)]
struct Tries {
    number: u32,
    /// Where the first of them was.
    since: u64,
}

impl Tries {
    /// Waits, and lets it be tried again; not for ever, and not where the answer was wrong.
    fn again(&mut self, connector: &Connector, at: u64, error: io::Error) -> io::Result<()> {
        let patience = &connector.patience;
        if error.kind() == io::ErrorKind::InvalidData || connector.is_over() {
            return Err(error);
        }
        if at >= self.since + patience.stretch {
            *self = Self { number: 0, since: at };
        }
        if self.number == patience.tries {
            let text = format!("it broke off at byte {at} and {} times before: {error}", self.number);
            return Err(io::Error::other(text));
        }
        self.number += 1;
        sleep(patience.pause * self.number);
        Ok(())
    }
}
