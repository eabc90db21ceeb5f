// SPDX-License-Identifier: GPL-3.0-or-later
//! SHA-256 digests, and readers that hash or bound while they stream.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes moved in one step by every streaming loop: large enough that system calls do not count, small enough for a cache.
pub const BLOCK: usize = 1 << 20;

/// A SHA-256 digest (FIPS 180-4), written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

/// The text is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a SHA-256 digest (64 hexadecimal digits)")]
pub struct NotADigest(String);

impl Sha256 {
    /// The digest of bytes that are already in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish().0
    }

    /// The digest and length of a file, streamed.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn of_file(path: &Path) -> io::Result<(Self, u64)> {
        copy(&mut File::open(path)?, &mut io::sink())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl FromStr for Sha256 {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotADigest(text.chars().take(80).collect()))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// An incremental SHA-256 that also counts what it saw.
pub struct Hasher {
    context: Context,
    length: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher {
    /// An empty hash.
    #[must_use]
    pub fn new() -> Self {
        Self {
            context: Context::new(&SHA256),
            length: 0,
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// The digest and the number of bytes taken in.
    #[must_use]
    pub fn finish(self) -> (Sha256, u64) {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.context.finish().as_ref());
        (Sha256(bytes), self.length)
    }
}

/// A writer that hashes what passes through it.
pub struct Hashing<W> {
    inner: W,
    hasher: Hasher,
}

impl<W> Hashing<W> {
    /// Hashes what `inner` takes.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
        }
    }

    /// The bytes that have passed.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.hasher.length
    }

    /// What it wrote to, with the digest and the number of bytes that passed.
    #[must_use]
    pub fn finish(self) -> (W, (Sha256, u64)) {
        (self.inner, self.hasher.finish())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Streams `from` into `to` and returns the digest and length of what passed.
///
/// # Errors
/// The first error of either side; what `to` received by then must not be used.
pub fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<(Sha256, u64)> {
    copy_through(from, to, &mut vec![0; BLOCK])
}

/// As [`copy`], through a block that the caller keeps: for many small files, a fresh one each costs more than the hash.
///
/// # Errors
/// As [`copy`].
pub fn copy_through(from: &mut dyn Read, to: &mut dyn Write, block: &mut [u8]) -> io::Result<(Sha256, u64)> {
    let mut hasher = Hasher::new();
    loop {
        let count = match from.read(block) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&block[..count]);
        to.write_all(&block[..count])?;
    }
}

/// Reads a whole small file, refusing one longer than `limit` before it fills memory.
///
/// # Errors
/// When the file cannot be read, or `InvalidData` when it is longer than `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_to_limit(&mut File::open(path)?, limit)
}

/// As [`read_bounded`], of a regular file and nothing else: a pipe in its stead would be waited for without end.
///
/// # Errors
/// As [`read_bounded`] and [`open_regular`].
pub fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_to_limit(&mut open_regular(path)?, limit)
}

/// As [`read_bounded`], for any reader.
///
/// # Errors
/// As [`read_bounded`].
pub fn read_to_limit(reader: &mut dyn Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("longer than the limit of {limit} bytes"),
        ));
    }
    Ok(bytes)
}

/// Opens a regular file for reading. A device may have no end, and a pipe nobody at its other end.
///
/// # Errors
/// When it cannot be opened, or is something else.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_digest_of_abc() {
        assert_eq!(
            Sha256::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn refuses_one_byte_over_the_limit() {
        assert!(read_to_limit(&mut &b"12345"[..], 5).is_ok());
        assert!(read_to_limit(&mut &b"123456"[..], 5).is_err());
    }

    #[test]
    fn refuses_short_and_foreign_digests() {
        assert!("abc".parse::<Sha256>().is_err());
        assert!("zz".repeat(32).parse::<Sha256>().is_err());
    }

    #[test]
    fn devices_and_directories_are_no_regular_files() {
        for path in ["/dev/zero", "/dev/null", "/"] {
            assert!(open_regular(Path::new(path)).is_err(), "{path}");
        }
        assert!(open_regular(&std::env::current_exe().unwrap()).is_ok());
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        crate::process::Cmd::new("mkfifo").arg(&pipe).run().unwrap();
        assert!(read_regular(&pipe, 10).is_err());
    }
}
