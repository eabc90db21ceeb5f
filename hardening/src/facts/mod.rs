// SPDX-License-Identifier: GPL-3.0-or-later
//! The one way in which checks see a system: files, directories and the outputs of a few programs.
//!
//! A check never touches the system itself, so what it saw can be recorded, carried and judged again elsewhere, and a
//! recording is a fixture. "It is not there" is a fact; "I cannot tell" is [`Unknown`] and never passes.

mod esp;
mod live;
mod recorded;

use std::fmt;

pub use live::Live;
pub use recorded::{Recorded, Recorder};
use serde::{Deserialize, Serialize};
use signing::digest::Sha256;

/// No file that a check reads whole is longer than this.
pub const FILE_LIMIT: u64 = 16 << 20;
/// The longest section of a boot image that is read: command lines are short.
pub(crate) const SECTION_LIMIT: u64 = 1 << 20;

/// Why a fact cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown(pub String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A fact, or why it cannot be had.
pub type Known<T> = Result<T, Unknown>;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit status.
    pub code: i32,
    /// What it said.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Ran {
    /// Its output, if it succeeded.
    ///
    /// # Errors
    /// When it failed.
    pub fn ok(self, command: &[&str]) -> Known<String> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        let complaint = self.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        let complaint: String = complaint.chars().take(200).collect();
        Err(Unknown(format!(
            "`{}` ended with status {}: {complaint}",
            command.join(" "),
            self.code
        )))
    }
}

/// What a walk looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Walk {
    /// Files with setuid or setgid, and whatever everybody may write.
    Special,
    /// Everything, regular files with their digest.
    All,
}

/// The kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A character device 0/0: an overlay's mark for "removed".
    Whiteout,
    /// A device, socket or pipe.
    Other,
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Absolute path.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a file.
    pub size: u64,
    /// Digest of a file's content, in a [`Walk::All`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Whether a directory of an overlay's upper layer hides the one below it, in a [`Walk::All`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
    /// Where a link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Where facts come from.
pub trait Facts {
    /// The content of a file; `None` when there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn read(&self, path: &str) -> Known<Option<Vec<u8>>>;

    /// The names in a directory, sorted; `None` when there is no such directory.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn list(&self, path: &str) -> Known<Option<Vec<String>>>;

    /// One file's kind, mode and owner, links not followed; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be told.
    fn stat(&self, path: &str) -> Known<Option<Found>>;

    /// The digest and length of a file of any size; `None` when there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn digest(&self, path: &str) -> Known<Option<(Sha256, u64)>>;

    /// What lies under a directory on the same file system, sorted; `None` when there is no such directory.
    ///
    /// # Errors
    /// When any part of it cannot be read.
    fn walk(&self, path: &str, walk: Walk) -> Known<Option<Vec<Found>>>;

    /// The content of a section of a PE image; `None` when there is no such file or no such section.
    ///
    /// # Errors
    /// When it is there and cannot be read, or is no PE image.
    fn section(&self, path: &str, section: &str) -> Known<Option<Vec<u8>>>;

    /// Whether a boot image carries a Secure Boot signature of this certificate (DER): who signed, or why it does not hold.
    /// `None` when there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn boot_signature(&self, path: &str, certificate: &[u8]) -> Known<Option<Result<String, String>>>;

    /// Runs a program.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    fn run(&self, command: &[&str]) -> Known<Ran>;

    /// The text of a file.
    ///
    /// # Errors
    /// As [`Facts::read`].
    fn text(&self, path: &str) -> Known<Option<String>> {
        Ok(self
            .read(path)?
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The text of a file that must be there.
    ///
    /// # Errors
    /// As [`Facts::read`], and when there is none.
    fn need(&self, path: &str) -> Known<String> {
        self.text(path)?.ok_or_else(|| Unknown(format!("{path} is not there")))
    }

    /// The output of a program that must succeed.
    ///
    /// # Errors
    /// As [`Facts::run`], and when it fails.
    fn output(&self, command: &[&str]) -> Known<String> {
        self.run(command)?.ok(command)
    }
}
