// SPDX-License-Identifier: GPL-3.0-or-later
//! A release of the host image: the facts of a build and the `custom` part of its TUF targets.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;

mod offered;

pub use offered::{Offered, newest, offered};

/// A release's version: three decimal numbers, compared as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Changes when a host must be installed anew.
    pub major: u32,
    /// Changes with every set of upstream packages.
    pub minor: u32,
    /// Changes when the same packages are built again.
    pub patch: u32,
}

/// The text is not a version.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a version (three numbers, as in 1.2.0)")]
pub struct NotAVersion(String);

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let no = || NotAVersion(text.chars().take(40).collect());
        let mut numbers = text.split('.').map(|part| match part {
            // One spelling for one version: it becomes part of a target's name.
            "0" => Ok(0),
            _ if part.starts_with('0') || !part.bytes().all(|byte| byte.is_ascii_digit()) => Err(no()),
            _ => part.parse().map_err(|_| no()),
        });
        let mut next = || numbers.next().ok_or_else(no)?;
        let version = Self {
            major: next()?,
            minor: next()?,
            patch: next()?,
        };
        if numbers.next().is_some() {
            Err(no())
        } else {
            Ok(version)
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.major, self.minor, self.patch).cmp(&(other.major, other.minor, other.patch))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The parts of a release, each one file and one TUF target `host/VERSION/FILE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The root file system, a raw erofs image.
    Root,
    /// Its dm-verity hash tree.
    Verity,
    /// The unified Xen image of the installed host, signed for Secure Boot.
    Xen,
    /// The unified kernel image of the installer, signed for Secure Boot.
    Installer,
    /// The bill of materials, CycloneDX 1.6 JSON.
    Sbom,
    /// The snapshot's manifest and upstream's own signed files.
    Upstream,
}

impl Part {
    /// Every part, in the order in which they are listed.
    pub const ALL: [Self; 6] = [
        Self::Root,
        Self::Verity,
        Self::Xen,
        Self::Installer,
        Self::Sbom,
        Self::Upstream,
    ];

    /// The file name of the part.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Root => "root.erofs",
            Self::Verity => "root.verity",
            Self::Xen => "xen.efi",
            Self::Installer => "installer.efi",
            Self::Sbom => "sbom.cdx.json",
            Self::Upstream => "upstream.tar",
        }
    }

    /// Of a boot image, the section that holds the kernel's command line.
    #[must_use]
    pub const fn command_line(self) -> Option<&'static str> {
        match self {
            Self::Xen => Some(".config"),
            Self::Installer => Some(".cmdline"),
            _ => None,
        }
    }

    /// The name of the part's TUF target in a release.
    #[must_use]
    pub fn target(self, version: Version) -> String {
        format!("host/{version}/{}", self.file())
    }
}

/// The `custom` object of a release's targets (TUF 1.0.34, section 4.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custom {
    /// The release's version.
    pub version: Version,
    /// The channel, such as `stable`.
    pub channel: String,
    /// Which part this target is.
    pub part: Part,
    /// The dm-verity root hash of the release's root file system.
    pub root_hash: Sha256,
    /// The part's size in bytes, as it is laid down.
    pub size: u64,
}

/// One part of a build as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFile {
    /// Which part.
    pub part: Part,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the content.
    pub sha256: Sha256,
}

impl PartFile {
    /// The part with this content.
    #[must_use]
    pub fn of(part: Part, content: &[u8]) -> Self {
        Self {
            part,
            size: content.len() as u64,
            sha256: Sha256::of(content),
        }
    }
}

/// The largest boot image that a host takes; ours are about a third of it.
pub const MAX_BOOT_IMAGE: u64 = 160 << 20;

/// The kernel's parameter that names the root file system which a boot image starts.
pub const ROOT_HASH_PARAMETER: &str = "bastide.roothash";

/// The facts of a build, `release.json` in its directory. Unsigned: signatures come with publishing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Always 1.
    pub format: u32,
    /// The release's version.
    pub version: Version,
    /// The channel.
    pub channel: String,
    /// The dm-verity root hash.
    pub root_hash: Sha256,
    /// The snapshot's name.
    pub snapshot: String,
    /// Seconds since 1970 that every date in the build derives from.
    pub source_date_epoch: u64,
    /// The files of the build, in the order of [`Part::ALL`].
    pub parts: Vec<PartFile>,
}

impl Release {
    /// What the targets metadata say of one of its parts.
    #[must_use]
    pub fn custom(&self, part: &PartFile) -> Custom {
        Custom {
            version: self.version,
            channel: self.channel.clone(),
            part: part.part,
            root_hash: self.root_hash,
            size: part.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let parse = |text: &str| text.parse::<Version>().unwrap();
        assert!(parse("1.10.0") > parse("1.9.9"));
        assert_eq!(parse("1.2.3").to_string(), "1.2.3");
    }

    #[test]
    fn a_version_has_one_spelling() {
        for text in [
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.+2.3",
            "1.2.-3",
            "",
            "1..3",
            "1.2.99999999999",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
