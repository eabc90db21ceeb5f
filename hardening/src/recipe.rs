// SPDX-License-Identifier: GPL-3.0-or-later
//! A script that comes to the audit's verdict with other people's tools alone.
//!
//! Whoever does not believe this program reads the script instead. Nothing of an artifact gets into it: only its path, what
//! the trust directory holds, and who may sign upstream's lists. Its steps lie in `recipe/`, in the order of the report.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use offline_repo::upstream::Policy;
use signing::anchor;
use signing::output::Usage;

use crate::report::byhand::quoted;
use crate::trace::signed;
use crate::trace::trust::Trust;

/// Where Debian's package of its keys has them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const COMMON: &str = include_str!("recipe/common.sh");
const TRUST: &str = include_str!("recipe/trust.sh");
const RELEASE: &str = include_str!("recipe/release.sh");
/// What python does, by the names that the steps call it.
const PYTHON: [(&str, &str); 4] = [
    ("follow.py", include_str!("recipe/follow.py")),
    ("leads.py", include_str!("recipe/leads.py")),
    ("packages.py", include_str!("recipe/packages.py")),
    ("manifest.py", include_str!("recipe/manifest.py")),
];

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A repository in a directory.
    Repository,
    /// A bundle.
    Bundle,
    /// An installation image, or the stick that it was written to.
    Iso,
    /// One signed file.
    File,
}

impl Kind {
    /// What an artifact is, by what it begins with; it may be broken, so its name decides where that does not.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(artifact: &Path) -> Result<Self> {
        let open = || format!("cannot read {}", artifact.display());
        if artifact.metadata().with_context(open)?.is_dir() {
            return Ok(Self::Repository);
        }
        if signed::is_one(artifact)? {
            return Ok(Self::File);
        }
        let mut head = Vec::new();
        let file = File::open(artifact).with_context(open)?;
        file.take(12).read_to_end(&mut head).with_context(open)?;
        let bundle = head == *b"bundle.json\0" || artifact.extension().is_some_and(|end| end == "bundle");
        Ok(if bundle { Self::Bundle } else { Self::Iso })
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Bundle => "bundle",
            Self::Iso => "iso",
            Self::File => "file",
        }
    }

    fn steps(self) -> Result<&'static str> {
        Ok(match self {
            Self::Repository => include_str!("recipe/repository.sh"),
            Self::Bundle => include_str!("recipe/bundle.sh"),
            Self::Iso => include_str!("recipe/iso.sh"),
            Self::File => {
                let what =
                    "a recipe is for a repository, a bundle or an ISO; one file is checked with gpgv and release.asc";
                return Err(Usage(what.to_owned()).into());
            }
        })
    }
}

/// The script for an artifact. `upstream` says who may sign upstream's lists; `None` for Debian's keys.
///
/// # Errors
/// When the trust directory cannot be read.
pub fn script(kind: Kind, artifact: &Path, trust: &Trust, upstream: Option<&Policy>) -> Result<String> {
    let directory = trust.directory();
    let cannot = || format!("cannot read {}", directory.display());
    let listing = anchor::listing(directory).with_context(cannot)?;
    let fingerprint = anchor::fingerprint(directory).with_context(cannot)?;
    let (policy, keyring) = match upstream {
        Some(policy) => (policy.clone(), policy.keyring.clone()),
        None => (Policy::debian_trixie()?.0, PathBuf::from(KEYRING)),
    };
    let mut signers = String::new();
    for ((path, suite), keys) in &policy.signed_by {
        for key in keys {
            write!(signers, "\n    {path}:{suite}:{key}")?;
        }
    }
    let whole = |path: &Path| std::path::absolute(path).map(|path| quoted(&path));
    let mut script = format!(
        "#!/bin/sh\n\
         # SPDX-License-Identifier: GPL-3.0-or-later\n\
         # Checks a Bastide {name} from the pinned root to every file, with other people's tools: nothing of Bastide runs here.\n\
         # Usage: sh SCRIPT [ARTIFACT [TRUST-DIRECTORY]]. It reads those two and writes below TMPDIR only.\n\
         # Exit status: 0 it holds, 3 refused, 4 something could not be checked.\n\
         #\n\
         # The root of trust. COMPARE it by telephone with whoever keeps the keys; in the trust directory it is\n\
         #   sha256sum root.json release.asc db.der | sha256sum | cut -c 1-40\n\
         #\n\
         #   {fingerprint}\n\
         #\n\
         FINGERPRINT='{fingerprint}'\n\
         TRUSTED='{listing}'\n\
         KIND={name}\n\
         ARTIFACT=${{1:-{artifact}}}\n\
         TRUST=${{2:-{directory}}}\n\
         # Who may sign upstream's lists: archive, suite and fingerprint. The keyring only carries the keys.\n\
         SIGNERS='{signers}'\n\
         KEYRING=${{KEYRING:-{keyring}}}\n\
         # A python that has the module tuf.\n\
         PYTHON=${{PYTHON:-python3}}\n",
        name = kind.name(),
        listing = listing.trim_end(),
        artifact = whole(artifact)?,
        directory = whole(directory)?,
        signers = signers.trim_start(),
        keyring = quoted(&keyring),
    );
    script += body(COMMON);
    for (name, python) in PYTHON {
        if name != "manifest.py" || kind == Kind::Bundle {
            write!(
                script,
                "\ncat >\"$WORK/{name}\" <<'PYTHON'\n{}PYTHON\n",
                body(python).trim_start()
            )?;
        }
    }
    for part in [RELEASE, TRUST, kind.steps()?] {
        script += body(part);
    }
    Ok(script)
}

/// A part without its first line, which the whole has once.
fn body(part: &str) -> &str {
    part.split_once('\n').map_or(part, |(_, rest)| rest)
}
