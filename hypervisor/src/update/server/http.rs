// SPDX-License-Identifier: GPL-3.0-or-later
//! One file by one HTTP/1.1 request on a connection of its own (RFC 9112), over TLS.
//!
//! Attacks faced: a head without end, several lengths or encodings of one body, a range other than the one that was asked for,
//! a server that keeps the connection open and gives nothing, or a byte now and then.
//! Defence: a head has a bound and is read by httparse; a body has one length, in bytes, and is never longer; the waiting for
//! the socket is counted, and so much of it must bring so many bytes, however they are spread over TLS records.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{Patience, tls};

/// The longest head of an answer.
const LARGEST_HEAD: u64 = 16 << 10;
/// How many lines it has at most.
const HEADERS: usize = 64;

/// Where the server is: `https://HOST[:PORT][/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `HOST:PORT` as the connection is made to, with brackets where the host is an IPv6 address.
    authority: String,
    /// The host alone.
    host: String,
    /// The path of the repository, without its last slash.
    path: String,
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> Result<Self> {
        let parse = || {
            let rest = url.strip_prefix("https://")?;
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((host, rest)) => (host, rest.strip_prefix(':').or(rest.is_empty().then_some("443"))?),
                None => authority.split_once(':').unwrap_or((authority, "443")),
            };
            ServerName::try_from(host).ok()?;
            let port: u16 = port.parse().ok()?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte);
            let authority = match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            };
            path.bytes().all(plain).then(|| Self {
                authority,
                host: host.to_owned(),
                path: path.trim_end_matches('/').to_owned(),
            })
        };
        match parse() {
            Some(address) => Ok(address),
            None => bail!("{url:?} is no address as https://HOST[:PORT][/PATH]"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority, self.path)
    }
}

/// Makes connections to the server.
#[derive(Debug)]
pub struct Connector {
    address: Address,
    tls: Arc<ClientConfig>,
    /// How long it is waited for.
    pub patience: Patience,
    end: Instant,
}

impl Connector {
    /// To an address, where this certificate is.
    ///
    /// # Errors
    /// As [`tls::config`].
    pub fn new(address: Address, certificate: &Path, patience: Patience) -> Result<Self> {
        Ok(Self {
            address,
            tls: Arc::new(tls::config(certificate)?),
            end: Instant::now() + patience.whole,
            patience,
        })
    }

    /// Asks for a file from this byte on, as long as it still has this tag; nothing where there is none of the name.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when somebody else is there, or the answer is none; else when it did not come.
    pub fn get(&self, path: &str, from: u64, tag: Option<&str>) -> io::Result<Option<Answer>> {
        let mut stream = self.connect()?;
        let Address {
            authority, path: base, ..
        } = &self.address;
        let mut request = format!(
            "GET {base}/{} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nAccept-Encoding: identity\r\n",
            quote(path)
        );
        if from > 0 {
            request += &format!("Range: bytes={from}-\r\n");
            request += &tag.map(|tag| format!("If-Range: {tag}\r\n")).unwrap_or_default();
        }
        stream.write_all(format!("{request}\r\n").as_bytes())?;
        stream.flush()?;
        let mut reader = BufReader::new(stream);
        let bytes = head(&mut reader)?;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        let whole = answer
            .parse(&bytes)
            .map_err(|error| wrong(format!("the answer is malformed: {error}")))?;
        if whole.is_partial() {
            return Err(wrong("the answer is malformed"));
        }
        match (answer.code, from) {
            (Some(404), _) => return Ok(None),
            (Some(200), 0) | (Some(206), 1..) => {}
            (Some(200), _) => {
                return Err(wrong(
                    "the server does not go on with it, or it changed while it was fetched",
                ));
            }
            (code, _) => {
                return Err(io::Error::other(format!(
                    "the server answers {}",
                    code.unwrap_or_default()
                )));
            }
        }
        let one = |name| one(answer.headers, name);
        if one("Transfer-Encoding")?.is_some() || one("Content-Encoding")?.is_some() {
            return Err(wrong("the answer is encoded, which was not asked for"));
        }
        let length = one("Content-Length")?.and_then(number);
        let length = length.ok_or_else(|| wrong("the answer does not say its length"))?;
        let total = if from == 0 {
            length
        } else {
            let range = one("Content-Range")?.unwrap_or_default();
            let total = from
                .checked_add(length)
                .ok_or_else(|| wrong("the answer is longer than can be"))?;
            if range != format!("bytes {from}-{}/{total}", total - 1) {
                return Err(wrong(format!(
                    "the answer has another range than was asked for: {range:?}"
                )));
            }
            total
        };
        // Only a strong one tells that it is the same file.
        let tag = one("ETag")?.filter(|tag| tag.starts_with('"')).map(str::to_owned);
        Ok(Some(Answer {
            reader,
            left: length,
            total,
            tag,
        }))
    }

    /// Whether there is no time left for anything more.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    fn connect(&self) -> io::Result<Stream> {
        let mut last = io::Error::other("the name has no address");
        for address in self.address.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.patience.headway) {
                Ok(stream) => return self.secure(stream),
                Err(error) => last = error,
            }
        }
        Err(io::Error::new(
            last.kind(),
            format!("cannot connect to {}: {last}", self.address.authority),
        ))
    }

    fn secure(&self, stream: TcpStream) -> io::Result<Stream> {
        stream.set_write_timeout(Some(self.patience.headway))?;
        let name = ServerName::try_from(self.address.host.clone()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let mut stream = Paced {
            stream,
            headway: self.patience.headway,
            bytes: self.patience.bytes,
            end: self.end,
            waited: Duration::ZERO,
            came: 0,
        };
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).map_err(|error| {
                let text = format!(
                    "{} is not the server whose certificate is pinned, or speaks no TLS 1.3: {error}",
                    self.address.authority
                );
                io::Error::new(
                    error.kind(),
                    if error.kind() == io::ErrorKind::InvalidData {
                        text
                    } else {
                        error.to_string()
                    },
                )
            })?;
        }
        Ok(StreamOwned::new(tls, stream))
    }
}

type Stream = StreamOwned<ClientConnection, Paced>;

/// The body of an answer. It gives an error where it ends too early, and no more than it said.
#[derive(Debug)]
pub struct Answer {
    reader: BufReader<Stream>,
    left: u64,
    /// How long the whole file is.
    pub total: u64,
    /// The tag of just this content.
    pub tag: Option<String>,
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.reader).take(self.left).read(buffer);
        // What TLS finds wrong here is no answer: the connection is broken, and another one may do.
        let broken = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => io::Error::other(error),
            _ => error,
        };
        match count.map_err(broken)? {
            0 if self.left > 0 && !buffer.is_empty() => Err(io::Error::other("the connection ended")),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

/// A socket that must bring so many bytes in so much time of waiting for it.
#[derive(Debug)]
struct Paced {
    stream: TcpStream,
    headway: Duration,
    bytes: u64,
    end: Instant,
    waited: Duration,
    came: u64,
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let now = Instant::now();
            if now >= self.end {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the server took too long for the whole",
                ));
            }
            if self.waited >= self.headway {
                if self.came < self.bytes {
                    let text = format!("only {} bytes came in {} seconds", self.came, self.waited.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                (self.waited, self.came) = (Duration::ZERO, 0);
            }
            // Zero would be for ever.
            let left = (self.headway - self.waited).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            let read = self.stream.read(buffer);
            self.waited += now.elapsed();
            match read {
                Ok(count) => {
                    self.came += count as u64;
                    return Ok(count);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The value of a header that stands there once at most.
fn one<'a>(headers: &[httparse::Header<'a>], name: &str) -> io::Result<Option<&'a str>> {
    let mut values = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    let value = values.next().map(|header| str::from_utf8(header.value)).transpose();
    match (value, values.next()) {
        (Ok(value), None) => Ok(value.map(str::trim)),
        _ => Err(wrong(format!("the answer has no one {name}"))),
    }
}

/// Reads a head to the empty line at its end.
fn head(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut bounded = reader.take(LARGEST_HEAD);
    while !bytes.ends_with(b"\r\n\r\n") {
        if bounded.read_until(b'\n', &mut bytes)? == 0 {
            return match bounded.limit() {
                0 => Err(wrong("the head of the answer does not end")),
                _ => Err(io::Error::other("the connection ended")),
            };
        }
    }
    Ok(bytes)
}

fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// A path in an address, every byte in percent signs that has a meaning there.
fn quote(path: &str) -> String {
    let quoted = |byte: u8| match byte {
        b'/' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    path.bytes().map(quoted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_and_nothing_hidden() {
        for (url, authority, path) in [
            ("https://gateway", "gateway:443", ""),
            ("https://gateway.site/", "gateway.site:443", ""),
            ("https://10.0.0.5:8443/x/y/", "10.0.0.5:8443", "/x/y"),
            ("https://[fd00::1]:8443", "[fd00::1]:8443", ""),
            ("https://[fd00::1]", "[fd00::1]:443", ""),
        ] {
            let address: Address = url.parse().unwrap();
            assert_eq!((address.authority.as_str(), address.path.as_str()), (authority, path));
        }
        for url in [
            "http://gateway",
            "gateway",
            "https://",
            "https://a@gateway",
            "https://gateway:x",
            "https://gateway:99999",
            "https://gateway/a b",
            "https://gateway/?x",
            "https://gateway/a\r\nX: y",
            "https://[fd00::1]x",
        ] {
            assert!(url.parse::<Address>().is_err(), "{url}");
        }
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote("metadata/7.a%2Fb.json"), "metadata/7.a%252Fb.json");
        assert_eq!(quote("targets/a b?#\r\n"), "targets/a%20b%3F%23%0D%0A");
    }

    #[test]
    fn a_head_has_an_end() {
        assert_eq!(head(&mut &b"a\r\nb\r\n\r\nbody"[..]).unwrap(), b"a\r\nb\r\n\r\n");
        let endless = vec![b'x'; 1 << 20];
        assert_eq!(head(&mut &endless[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(head(&mut &b"a\r\n"[..]).unwrap_err().kind(), io::ErrorKind::Other);
    }
}
