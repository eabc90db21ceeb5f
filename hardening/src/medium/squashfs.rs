// SPDX-License-Identifier: GPL-3.0-or-later
//! The squashfs that holds the targets, read by Debian's `unsquashfs` from where it lies in the image: nothing is unpacked.
//!
//! The attacks: a crafted file system against the tool (an ordinary process; its crash is an error here), names that look
//! like lines of its listing, an endless listing. The defence: every line must be a directory or a regular file whose name
//! has only the characters of a target's, and anything else is an error; the content is taken as a stream and hashed.

use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use signing::digest::read_to_limit;
use signing::process::{Cmd, ProcessError};

use super::{MediumError, malformed};

const LISTING: u64 = 4 << 20;

/// A squashfs inside an image.
#[derive(Debug, Clone)]
pub struct Squashfs {
    /// The image.
    pub image: PathBuf,
    /// Where in it the file system begins.
    pub offset: u64,
}

/// A regular file in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path from the root, without a leading slash.
    pub path: String,
    /// Length in bytes.
    pub length: u64,
}

fn tool(error: ProcessError) -> MediumError {
    match error {
        ProcessError::Start { .. } => MediumError::Tool(format!(
            "{error} (install Debian's package squashfs-tools on the machine that audits)"
        )),
        ProcessError::Failed { .. } | ProcessError::TooMuch { .. } => {
            malformed(format!("the squashfs does not read: {error}"))
        }
    }
}

impl Squashfs {
    fn command(&self, list: bool) -> Cmd {
        let cmd = Cmd::new("unsquashfs")
            .arg("-no-progress")
            .arg("-offset")
            .arg(self.offset.to_string())
            // Its caches would take half a gigabyte.
            .args(["-data-queue", "32", "-frag-queue", "32"]);
        if list { cmd.arg("-lln") } else { cmd.arg("-cat") }
    }

    /// Every regular file.
    ///
    /// # Errors
    /// When the tool is missing, the file system does not read, or it holds anything else.
    pub fn members(&self) -> Result<Vec<Member>, MediumError> {
        let mut child = self
            .command(true)
            .arg(&self.image)
            .spawn(Stdio::piped(), Stdio::null())
            .map_err(tool)?;
        let mut output = child
            .stdout
            .take()
            .ok_or_else(|| malformed("the listing has no output"))?;
        let listing = read_to_limit(&mut output, LISTING);
        drop(output);
        let status = child.wait()?;
        let listing =
            String::from_utf8(listing.map_err(|error| malformed(format!("the squashfs's listing is {error}")))?)
                .map_err(|_| malformed("a name in the squashfs is not UTF-8"))?;
        if !status.success() {
            return Err(malformed(format!(
                "the squashfs does not read: unsquashfs ended with {status}"
            )));
        }
        parse(&listing)
    }

    /// The content of a file, as a stream. What was read counts only once it ended and [`Content::finish`] agrees.
    ///
    /// # Errors
    /// When the tool cannot be started.
    pub fn content(&self, path: &str) -> Result<Content, MediumError> {
        let mut child = self
            .command(false)
            .arg(&self.image)
            .arg(path)
            .spawn(Stdio::piped(), Stdio::null())
            .map_err(tool)?;
        let output = child.stdout.take().ok_or_else(|| malformed("the file has no output"))?;
        Ok(Content { child, output })
    }
}

/// A file's content as the tool gives it.
pub struct Content {
    child: std::process::Child,
    output: std::process::ChildStdout,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        // A reader that stops early must leave no process behind. Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn parse(listing: &str) -> Result<Vec<Member>, MediumError> {
    let mut members = Vec::new();
    for line in listing.lines().filter(|line| !line.is_empty()) {
        // MODE OWNER/GROUP SIZE DATE TIME squashfs-root/PATH
        let words: Vec<&str> = line.split_whitespace().collect();
        let odd = || {
            malformed(format!(
                "the squashfs holds something that is not a plain file: {line:?}"
            ))
        };
        let [mode, _, size, _, _, path] = words[..] else {
            return Err(odd());
        };
        let path = path
            .strip_prefix("squashfs-root")
            .ok_or_else(odd)?
            .trim_start_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/+".contains(c);
        if !path.chars().all(plain) || path.split('/').any(|part| part == "..") {
            return Err(odd());
        }
        match mode.as_bytes().first() {
            Some(b'd') => {}
            Some(b'-') => members.push(Member {
                path: path.to_owned(),
                length: size.parse().map_err(|_| odd())?,
            }),
            _ => return Err(odd()),
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_gives_its_files() {
        let listing = "drwxr-xr-x 0/0 27 2026-11-22 16:38 squashfs-root\n\
                       -rw-r--r-- 0/0 1000 2026-11-22 16:38 squashfs-root/host/1.0.0/abc.root.erofs\n";
        let expected = Member {
            path: "host/1.0.0/abc.root.erofs".to_owned(),
            length: 1000,
        };
        assert_eq!(parse(listing).unwrap(), [expected]);
    }

    #[test]
    fn links_and_crafted_names_are_refused() {
        for line in [
            "lrwxrwxrwx 0/0 3 2026-11-22 16:38 squashfs-root/a -> b",
            "crw-r--r-- 0/0 1, 3 2026-11-22 16:38 squashfs-root/null",
            "-rw-r--r-- 0/0 3 2026-11-22 16:38 squashfs-root/../a",
            "-rw-r--r-- 0/0 3 2026-11-22 16:38 squashfs-root/a b",
            "and a rest of a name",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
