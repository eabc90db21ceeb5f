// SPDX-License-Identifier: GPL-3.0-or-later
//! Upstream's text formats: `Packages` (stanzas of fields) and `Release` (one stanza with lists of hashes).
//!
//! Attacks: a line or stanza without end, to fill memory; the same field twice, so that two readers see two values; a
//! file name that leaves its directory (`../`, absolute, NUL); two packages of one identity with two hashes; numbers
//! that overflow; bytes that are no UTF-8.
//! Defence: lines and stanzas are bounded and a stanza is given out as soon as it is whole, so memory does not grow with
//! the file; a field that stands twice is an error; names are checked where they are taken out; a text that is not
//! UTF-8 is an error.
//! Not defended: what a field says. Whoever signed the file may name any package; the signature is checked in
//! [`crate::upstream`] before a byte comes here.

use std::io::{self, BufRead, Write};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, NaiveDateTime, Utc};
use signing::digest::Sha256;

/// The longest line; Debian's longest today (a `Provides`) is under 40 kB.
pub const LONGEST_LINE: usize = 1 << 20;
/// The largest stanza of a `Packages` file.
pub const LARGEST_STANZA: usize = 4 << 20;

/// One stanza: fields in their order, continuation lines joined by a newline.
#[derive(Debug, Default)]
pub struct Stanza {
    text: String,
    /// Name and value as ranges of `text`.
    fields: Vec<(std::ops::Range<usize>, std::ops::Range<usize>)>,
}

impl Stanza {
    /// The value of a field; names compare without case (Debian Policy 5.1).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| self.text[field.clone()].eq_ignore_ascii_case(name))
            .map(|(_, value)| self.text[value.clone()].trim())
    }

    /// The value of a field that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn need(&self, name: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| anyhow!("a stanza has no field {name}"))
    }

    /// The fields in their order, each with its value as it stands behind the colon, line ends included.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields
            .iter()
            .map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]))
    }

    fn add_line(&mut self, line: &str) -> Result<()> {
        if self.text.len() + line.len() > LARGEST_STANZA {
            bail!("a stanza is longer than {LARGEST_STANZA} bytes");
        }
        let start = self.text.len();
        self.text.push_str(line);
        self.text.push('\n');
        if line.starts_with([' ', '\t']) {
            let (_, value) = self
                .fields
                .last_mut()
                .context("a stanza begins with a continuation line")?;
            value.end = self.text.len();
            return Ok(());
        }
        let colon = line
            .find(':')
            .ok_or_else(|| anyhow!("a line is no field: {:?}", shorten(line)))?;
        let name = &line[..colon];
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("{:?} is no name of a field", shorten(name));
        }
        if self.get(name).is_some() {
            bail!("the field {name} stands twice in a stanza");
        }
        self.fields
            .push((start..start + colon, start + colon + 1..self.text.len()));
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
    }
}

/// A sink for a `Packages` file: give it the bytes, it gives out stanzas. After the last byte call [`Stanzas::finish`].
pub struct Stanzas<F: FnMut(&Stanza) -> Result<()>> {
    line: Vec<u8>,
    stanza: Stanza,
    give: F,
}

impl<F: FnMut(&Stanza) -> Result<()>> Stanzas<F> {
    /// A sink that calls `give` with each stanza; an error of `give` ends the parse.
    pub fn new(give: F) -> Self {
        Self {
            line: Vec::new(),
            stanza: Stanza::default(),
            give,
        }
    }

    /// Gives out the last stanza.
    ///
    /// # Errors
    /// As the parse.
    pub fn finish(mut self) -> Result<()> {
        self.end_of_line()?;
        self.end_of_stanza()
    }

    fn end_of_line(&mut self) -> Result<()> {
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        }
        let line = std::str::from_utf8(&self.line).context("a line is not UTF-8 text")?;
        if line.is_empty() {
            self.end_of_stanza()?;
        } else {
            self.stanza.add_line(line)?;
        }
        self.line.clear();
        Ok(())
    }

    fn end_of_stanza(&mut self) -> Result<()> {
        if !self.stanza.is_empty() {
            (self.give)(&self.stanza)?;
            self.stanza.clear();
        }
        Ok(())
    }
}

impl<F: FnMut(&Stanza) -> Result<()>> Write for Stanzas<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest.read_until(b'\n', &mut self.line)?;
            if self.line.len() > LONGEST_LINE {
                return Err(io::Error::other(format!("a line is longer than {LONGEST_LINE} bytes")));
            }
            if self.line.last() == Some(&b'\n') {
                self.end_of_line()
                    .map_err(|error| io::Error::other(format!("{error:#}")))?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that a `Release` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFile {
    /// Its digest.
    pub sha256: Sha256,
    /// Its size.
    pub size: u64,
}

/// A `Release` file, parsed from a text whose signature has been verified.
#[derive(Debug)]
pub struct Release {
    stanza: Stanza,
    /// When upstream made it.
    pub date: DateTime<Utc>,
    /// Until when upstream vouches for its freshness, where it says so.
    pub valid_until: Option<DateTime<Utc>>,
}

impl Release {
    /// Parses it.
    ///
    /// # Errors
    /// When it is not one stanza with a date, or as the parse.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let mut found = Vec::new();
        let mut sink = Stanzas::new(|stanza: &Stanza| {
            found.push(Stanza {
                text: stanza.text.clone(),
                fields: stanza.fields.clone(),
            });
            Ok(())
        });
        sink.write_all(text)?;
        sink.finish()?;
        let stanza = match (found.pop(), found.is_empty()) {
            (Some(stanza), true) => stanza,
            _ => bail!("it is not one stanza"),
        };
        let date = parse_date(stanza.need("Date")?)?;
        let valid_until = stanza.get("Valid-Until").map(parse_date).transpose()?;
        Ok(Self {
            stanza,
            date,
            valid_until,
        })
    }

    /// A field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.stanza.get(name)
    }

    /// The digest and size of a file of the suite, from the SHA256 list.
    ///
    /// # Errors
    /// When the list is malformed, or names the file twice with different values.
    pub fn file(&self, name: &str) -> Result<Option<IndexFile>> {
        let mut found: Option<IndexFile> = None;
        for line in self.stanza.need("SHA256")?.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(digest), Some(size), Some(path), None) = (words.next(), words.next(), words.next(), words.next())
            else {
                bail!("the SHA256 list has a line that is no entry: {:?}", shorten(line));
            };
            if path != name {
                continue;
            }
            let entry = IndexFile {
                sha256: digest.parse()?,
                size: size
                    .parse()
                    .with_context(|| format!("the size of {name} is no number"))?,
            };
            if found.as_ref().is_some_and(|earlier| *earlier != entry) {
                bail!("the SHA256 list names {name} twice, with different values");
            }
            found = Some(entry);
        }
        Ok(found)
    }
}

/// A path below an archive's root, as `Filename` gives it: relative, without `..`, of printable characters.
///
/// # Errors
/// When it is anything else.
pub fn safe_path(text: &str) -> Result<&str> {
    let good = !text.is_empty()
        && text.len() <= 1024
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good {
        Ok(text)
    } else {
        bail!("{:?} is not a path below the archive", shorten(text))
    }
}

/// RFC 5322 dates as Debian writes them, always in UTC.
fn parse_date(text: &str) -> Result<DateTime<Utc>> {
    let bare = text
        .strip_suffix("UTC")
        .or_else(|| text.strip_suffix("GMT"))
        .or_else(|| text.strip_suffix("+0000"))
        .ok_or_else(|| anyhow!("the date {:?} is not in UTC", shorten(text)))?;
    let naive = NaiveDateTime::parse_from_str(bare.trim(), "%a, %d %b %Y %H:%M:%S")
        .with_context(|| format!("the date {:?} cannot be read", shorten(text)))?;
    Ok(naive.and_utc())
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8], step: usize) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut sink = Stanzas::new(|stanza: &Stanza| {
            names.push(format!(
                "{}={}",
                stanza.need("Package")?,
                stanza.get("version").unwrap_or("-")
            ));
            Ok(())
        });
        for bytes in text.chunks(step) {
            sink.write_all(bytes)?;
        }
        sink.finish()?;
        Ok(names)
    }

    #[test]
    fn stanzas_do_not_depend_on_how_the_bytes_arrive() {
        let text = b"Package: a\nVersion: 1\nDescription: x\n more\n .\n text\n\n\nPackage: b\n";
        for step in [1, 2, 7, 1000] {
            assert_eq!(parse(text, step).unwrap(), ["a=1", "b=-"]);
        }
    }

    #[test]
    fn hostile_stanzas_are_errors() {
        let long = [b"Package: ".as_slice(), &vec![b'a'; LONGEST_LINE + 1]].concat();
        let endless = [b"Package: a\n".to_vec(), b" x\n".repeat(LARGEST_STANZA / 3)].concat();
        let cases: [&[u8]; 6] = [
            b"Package: a\nPackage: b\n",
            b" a continuation\n",
            b"no colon\n",
            b"Package: \xff\n",
            &long,
            &endless,
        ];
        for case in cases {
            assert!(parse(case, 4096).is_err());
        }
    }

    #[test]
    fn a_release_gives_its_dates_and_hashes() {
        let text = format!(
            "Date: Sat, 12 Sep 2026 07:55:41 UTC\nSHA256:\n {0}  12 main/x\n {1} 13 main/y\n {1} 14 main/y\n",
            "00".repeat(32),
            "11".repeat(32)
        );
        let release = Release::parse(text.as_bytes()).unwrap();
        assert_eq!(release.date.to_rfc3339(), "2026-09-12T07:55:41+00:00");
        assert_eq!(release.file("main/x").unwrap().unwrap().size, 12);
        assert!(release.file("main/z").unwrap().is_none());
        assert!(release.file("main/y").is_err(), "two sizes for one file");
    }

    #[test]
    fn paths_that_leave_the_archive_are_refused() {
        assert!(safe_path("pool/main/g/gcc-14/libgcc-s1_14.2.0-19_amd64.deb").is_ok());
        for bad in [
            "",
            "/etc/passwd",
            "a/../b",
            "a//b",
            "./a",
            "a\\b",
            "a b",
            "a\0b",
            "a\u{e9}",
        ] {
            assert!(safe_path(bad).is_err(), "{bad:?}");
        }
    }
}
