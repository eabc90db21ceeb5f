// SPDX-License-Identifier: GPL-3.0-or-later
//! The specification of a snapshot: which suites, whose signatures, which packages. A short TOML file, written by hand.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// A specification is written by hand: more than this is some other file.
const LARGEST: u64 = 1 << 20;

/// What a package is fetched for. The three closures are resolved apart, so that none shapes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The host's root image.
    Host,
    /// The root in which the images are built.
    Builder,
    /// The smallest guest.
    Guest,
}

impl Role {
    /// All roles, in the order in which they are resolved and listed.
    pub const ALL: [Self; 3] = [Self::Host, Self::Builder, Self::Guest];

    /// The name, as in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Builder => "builder",
            Self::Guest => "guest",
        }
    }
}

/// One suite of an upstream archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The archive's directory below the mirror: `debian` or `debian-security`.
    pub path: String,
    /// The suite, by codename.
    pub name: String,
    /// Components, such as `main`.
    pub components: Vec<String>,
    /// Fingerprints of the keys that may sign it, each of which is in the keyring. One good signature is needed.
    pub signed_by: Vec<String>,
}

/// The package lists, one for each role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// See [`Role::Host`].
    #[serde(default)]
    pub host: Vec<String>,
    /// See [`Role::Guest`].
    #[serde(default)]
    pub guest: Vec<String>,
    /// See [`Role::Builder`].
    #[serde(default)]
    pub builder: Vec<String>,
}

impl Packages {
    /// The list of a role.
    #[must_use]
    pub fn of(&self, role: Role) -> &[String] {
        match role {
            Role::Host => &self.host,
            Role::Guest => &self.guest,
            Role::Builder => &self.builder,
        }
    }
}

/// A specification, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The snapshot's name.
    pub name: String,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// The pinned keyring. In the file it is relative to the file; after [`Spec::read`] it can be opened.
    pub keyring: PathBuf,
    /// The suites. Of two that carry the same package in the same version, the first is named in the snapshot.
    pub suite: Vec<Suite>,
    /// The lists.
    pub packages: Packages,
}

impl Spec {
    /// Reads and checks a specification.
    ///
    /// # Errors
    /// When it cannot be read, has unknown keys, or holds a name that could not be part of a path or a command line.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = signing::digest::read_bounded(path, LARGEST)
            .with_context(|| format!("cannot read the specification {}", path.display()))?;
        let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", path.display()))?;
        let mut spec = Self::parse(&text).with_context(|| format!("the specification {} is wrong", path.display()))?;
        spec.keyring = path.parent().unwrap_or(Path::new(".")).join(&spec.keyring);
        if !spec.keyring.is_file() {
            bail!(
                "{} names the keyring {}, which is not there",
                path.display(),
                spec.keyring.display()
            );
        }
        Ok(spec)
    }

    /// Parses and checks the text of a specification.
    ///
    /// # Errors
    /// As [`Spec::read`].
    pub fn parse(text: &str) -> Result<Self> {
        let spec: Self = toml::from_str(text)?;
        if !is_name(&spec.name) {
            bail!(
                "name = {:?}: use lower-case letters, digits, '.', '+' and '-'",
                spec.name
            );
        }
        if !spec.architecture.bytes().all(|byte| byte.is_ascii_alphanumeric()) || spec.architecture.is_empty() {
            bail!("architecture = {:?} is no Debian architecture", spec.architecture);
        }
        if spec.suite.is_empty() {
            bail!("no [[suite]] is named");
        }
        for suite in &spec.suite {
            let parts = [&suite.path, &suite.name].into_iter().chain(&suite.components);
            if let Some(bad) = parts.into_iter().find(|part| !is_name(part)) {
                bail!("suite {:?}: {bad:?} is not a plain name", suite.name);
            }
            if suite.components.is_empty() || suite.signed_by.is_empty() {
                bail!(
                    "suite {:?} needs at least one component and one key in signed_by",
                    suite.name
                );
            }
            if let Some(bad) = suite.signed_by.iter().find(|key| !is_fingerprint(key)) {
                bail!(
                    "suite {:?}: {bad:?} is not a fingerprint (40 or 64 upper-case hexadecimal digits)",
                    suite.name
                );
            }
        }
        for (index, suite) in spec.suite.iter().enumerate() {
            // Kept files lie in a directory named after the suite.
            if spec.suite[..index].iter().any(|other| other.name == suite.name) {
                bail!("suite {:?} is named twice", suite.name);
            }
        }
        if Role::ALL.iter().all(|role| spec.packages.of(*role).is_empty()) {
            bail!("[packages] names no package");
        }
        for role in Role::ALL {
            if let Some(bad) = spec.packages.of(role).iter().find(|name| !is_wish(name)) {
                bail!("[packages] {}: {bad:?} is not a package's name", role.name());
            }
        }
        Ok(spec)
    }
}

/// A name that is safe as a directory and as an argument: Debian Policy 5.6.1 allows no more for packages.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && text.len() <= 128
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte))
}

fn is_wish(text: &str) -> bool {
    // apt reads a trailing + or - as an order to install or to remove, but takes an existing package's name first
    // (g++). A name that apt must not guess about is refused for the minus alone.
    text == "?essential" || (is_name(text) && !text.ends_with('-'))
}

fn is_fingerprint(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(name: &str) -> Spec {
        Spec::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("specs/{name}.toml"))).unwrap()
    }

    #[test]
    fn the_shipped_specifications_differ_in_their_suites_only() {
        let (base, patched) = (shipped("base"), shipped("patched"));
        assert_eq!(base.packages, patched.packages);
        assert_eq!(base.suite[..], patched.suite[..1]);
        assert!(patched.suite.len() > 1);
    }

    #[test]
    fn names_that_could_leave_a_path_or_become_an_option_are_refused() {
        for (good, bad) in [
            ("name = \"base\"", "name = \"../base\""),
            ("path = \"debian\"", "path = \"/debian\""),
            ("name = \"trixie\"", "name = \"trixie/..\""),
            ("components = [\"main\"]", "components = []"),
            ("\"busybox-static\"", "\"--reinstall\""),
            ("\"busybox-static\"", "\"busybox-static-\""),
            ("\"busybox-static\"", "\"busybox=1\""),
            ("signed_by = [\"04B5", "signed_by = [\"04b5"),
            ("[packages]", "[packages]\nother = []"),
        ] {
            let text = include_str!("../specs/base.toml");
            assert!(text.contains(good), "{good}");
            assert!(Spec::parse(&text.replacen(good, bad, 1)).is_err(), "{bad}");
        }
    }
}
