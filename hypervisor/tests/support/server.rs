// SPDX-License-Identifier: GPL-3.0-or-later
//! Servers of a site on loopback, honest or not: what they answer is said by each test.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use hypervisor::update::server::{Address, Patience, ServerSource, offer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use signing::process::Cmd;
use signing::tuf::Offer;

/// The tests wait less long.
pub fn patience() -> Patience {
    Patience {
        headway: Duration::from_secs(1),
        bytes: 1000,
        tries: 3,
        pause: Duration::from_millis(10),
        stretch: 1 << 20,
        whole: Duration::from_secs(60),
    }
}

/// A request.
pub struct Asked {
    pub path: String,
    /// The first byte that is wanted.
    pub from: usize,
    /// How many there were for this path before.
    pub before: usize,
    /// What stands there.
    pub content: Option<Vec<u8>>,
}

impl Asked {
    pub fn is_target(&self) -> bool {
        self.path.starts_with("/targets/")
    }

    /// The head of an honest answer, for so many bytes of body.
    pub fn head(&self, count: usize) -> String {
        let total = self.content.as_ref().unwrap().len();
        let range = format!("Content-Range: bytes {}-{}/{total}\r\n", self.from, total - 1);
        let (status, range) = match self.from {
            0 => ("200 OK", ""),
            _ => ("206 Partial Content", range.as_str()),
        };
        format!("HTTP/1.1 {status}\r\nContent-Length: {count}\r\nETag: \"x\"\r\n{range}\r\n")
    }

    pub fn rest(&self) -> &[u8] {
        &self.content.as_ref().unwrap()[self.from..]
    }

    pub fn honest(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.content.is_none() {
            return out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
        out.write_all(self.head(self.rest().len()).as_bytes())?;
        out.write_all(self.rest())
    }
}

/// A server of a directory, which ends with the tests' process.
pub struct Server {
    address: SocketAddr,
    pub directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<(String, usize)>>>,
}

pub type Behave = dyn Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync;

/// Makes a certificate for 127.0.0.1: its own authority, or of the one that is named.
pub fn certificate(place: &Path, name: &str, subject: &str, above: Option<&str>) {
    fs::write(place.join("req.cnf"), "[req]\ndistinguished_name=dn\n[dn]\n").unwrap();
    let is_authority = if name == "ca" { "TRUE" } else { "FALSE" };
    let signed = above.map(|above| format!("-CA {above}.pem -CAkey {above}.key"));
    let line = format!(
        "req -config req.cnf -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2 -subj /CN={name} -addext \
         subjectAltName={subject} -addext basicConstraints=critical,CA:{is_authority} -keyout {name}.key -out {name}.pem {}",
        signed.unwrap_or_default()
    );
    let openssl = Cmd::new("openssl").args(line.split_whitespace());
    openssl.dir(place).output().unwrap();
}

impl Server {
    pub fn of(repository: &Path, behave: Box<Behave>) -> Self {
        Self::with(repository, behave, |place| {
            certificate(place, "tls", "IP:127.0.0.1", None);
        })
    }

    pub fn with(repository: &Path, behave: Box<Behave>, make: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path());
        let chain = CertificateDer::pem_file_iter(directory.path().join("tls.pem")).unwrap();
        let chain = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(directory.path().join("tls.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap();
        let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            directory,
            asked: Arc::default(),
        };
        let (asked, repository) = (Arc::clone(&server.asked), repository.to_path_buf());
        let behave: Arc<Behave> = behave.into();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, asked, repository) = (Arc::clone(&config), Arc::clone(&asked), repository.clone());
                let behave = Arc::clone(&behave);
                thread::spawn(move || {
                    let connection = ServerConnection::new(config).unwrap();
                    // The other side may have gone: it says what it saw.
                    drop(answer(
                        StreamOwned::new(connection, stream.unwrap()),
                        &repository,
                        &asked,
                        &behave,
                    ));
                });
            }
        });
        server
    }

    pub fn url(&self) -> Address {
        format!("https://{}", self.address).parse().unwrap()
    }

    pub fn pem(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.pem"))
    }

    pub fn offer(&self) -> Result<Offer<ServerSource>> {
        offer(&self.url(), &self.pem("tls"), patience())
    }

    /// The bytes from which each request for a path wanted it, by the path.
    pub fn asked(&self) -> BTreeMap<String, Vec<usize>> {
        let mut all: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (path, from) in self.asked.lock().unwrap().iter() {
            all.entry(path.clone()).or_default().push(*from);
        }
        all
    }
}

fn answer(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    repository: &Path,
    asked: &Mutex<Vec<(String, usize)>>,
    behave: &Arc<Behave>,
) -> io::Result<()> {
    let (mut path, mut from) = (String::new(), 0);
    for line in BufReader::new(&mut stream).lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().unwrap().to_owned();
        } else if let Some(range) = line.strip_prefix("Range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        } else if line.is_empty() {
            break;
        }
    }
    let before = {
        let mut asked = asked.lock().unwrap();
        asked.push((path.clone(), from));
        asked.iter().filter(|(one, _)| *one == path).count() - 1
    };
    let content = fs::read(repository.join(path.trim_start_matches('/'))).ok();
    behave(
        &Asked {
            path,
            from,
            before,
            content,
        },
        &mut stream,
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}
