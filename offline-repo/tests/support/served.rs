// SPDX-License-Identifier: GPL-3.0-or-later
//! The server as its users see it: started as a program, asked over loopback by requests that the tests write themselves.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use signing::process::Cmd;
use signing::tuf::{Source, SourceError};

use super::PROGRAM;

/// A target of no release.
pub const BIG: &str = "targets/host/9.9.9/5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a.big";

/// A server, which ends with its test.
pub struct Served {
    child: Child,
    pub told: Value,
    pub address: SocketAddr,
}

/// Makes a certificate `NAME.pem` that names 127.0.0.1, and its key `NAME.key`.
pub fn certificate(place: &Path, name: &str) {
    let line = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2 -subj /CN=gateway -addext \
         subjectAltName=IP:127.0.0.1 -keyout {name}.key -out {name}.pem"
    );
    let openssl = Cmd::new("openssl").args(line.split_whitespace());
    openssl.dir(place).output().unwrap();
    fs::set_permissions(place.join(format!("{name}.key")), fs::Permissions::from_mode(0o600)).unwrap();
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Served {
    pub fn of(repository: &Path, more: &str) -> Self {
        Self::by(Cmd::new(PROGRAM), repository, more)
    }

    /// By a command that takes the server's arguments.
    pub fn by(cmd: Cmd, repository: &Path, more: &str) -> Self {
        Self::started(
            cmd.args(["serve", "--repo"])
                .arg(repository)
                .args(more.split_whitespace()),
        )
    }

    /// By a command that lacks nothing but where to listen.
    pub fn started(cmd: Cmd) -> Self {
        let cmd = cmd.args(["--json", "--listen", "127.0.0.1:0"]);
        let mut child = cmd.spawn(Stdio::piped(), Stdio::inherit()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut text = String::new();
        while !text.ends_with('}') {
            text += &lines.next().unwrap().unwrap();
        }
        let told: Value = serde_json::from_str(&text).unwrap();
        let url = told["listening"].as_str().unwrap();
        let address = url.split('/').nth(2).unwrap().parse().unwrap();
        Self { child, told, address }
    }

    pub fn plain(repository: &Path) -> Self {
        Self::of(repository, "--plain")
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        // No test waits without end.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends these bytes and reads to the end.
    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        Answer::read(stream)
    }

    /// Asks for a path, with further header lines.
    pub fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let mut lines = headers.join("\r\n");
        if !headers.is_empty() {
            lines += "\r\n";
        }
        self.raw(format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{lines}\r\n").as_bytes())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    /// The value of a sample in the metrics.
    pub fn metric(&self, sample: &str) -> u64 {
        let text = String::from_utf8(self.get("/metrics").body).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap().trim().parse().unwrap()
    }

    /// Waits until a sample has this value.
    pub fn await_metric(&self, sample: &str, wanted: u64) {
        until(|| self.metric(sample) == wanted);
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end.
    pub fn ends(&mut self, code: i32) {
        until(|| self.ended().is_some());
        let status = self.ended().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(code), None));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for something that comes soon.
pub fn until(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Answer {
    /// Reads an answer to the end of the connection.
    pub fn read(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let (status, headers) = head(&mut reader).unwrap();
        let mut body = Vec::new();
        reader.read_to_end(&mut body).unwrap();
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// Reads the status and the headers of an answer, names in lower case.
pub fn head(reader: &mut impl BufRead) -> io::Result<(u16, BTreeMap<String, String>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status in {line:?}")))?;
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            return Ok((status, headers));
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
}

/// A repository behind an address, as a client sees it.
pub struct Http {
    pub address: SocketAddr,
    /// Where its metadata are, such as `/metadata`.
    pub metadata: &'static str,
}

impl Http {
    fn get(&self, path: &str) -> io::Result<Option<BufReader<TcpStream>>> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
        )?;
        let mut reader = BufReader::new(stream);
        match head(&mut reader)?.0 {
            200 => Ok(Some(reader)),
            404 => Ok(None),
            other => Err(io::Error::other(format!("HTTP status {other}"))),
        }
    }
}

impl Source for Http {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let read = || {
            let Some(reader) = self.get(&format!("{}/{name}", self.metadata))? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            reader.take(max + 1).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        };
        read().map_err(|error| SourceError::of_read(name, error))
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        let reader = self.get(&format!("/targets/{path}"));
        let reader = reader.map_err(|error| SourceError::of_read(path, error))?;
        Ok(reader.map(|reader| Box::new(reader) as Box<dyn Read>))
    }
}
