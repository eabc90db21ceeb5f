// SPDX-License-Identifier: GPL-3.0-or-later
//! A script that comes to the audit's verdict with other people's tools alone.
//!
//! Whoever does not believe this program reads the script instead. Nothing of an artifact gets into it: only its path, what
//! the trust directory holds, and who may sign upstream's lists. Its steps lie in `recipe/`, in the order of the report.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use offline_repo::upstream::Policy;
use signing::anchor;
use signing::output::{Refused, Usage};

use crate::report::byhand::quoted;
use crate::trace::repository;
use crate::trace::signed::signature_of;
use crate::trace::trust::Trust;

/// Where Debian's package of its keys has them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const COMMON: &str = include_str!("recipe/common.sh");
const TRUST: &str = include_str!("recipe/trust.sh");
const APPROVAL: &str = include_str!("recipe/approval.sh");
const UNASKED: &str = include_str!("recipe/unasked.sh");
const RELEASE: &str = include_str!("recipe/release.sh");
/// What python does, by the names that the steps call it.
const PYTHON: [(&str, &str); 7] = [
    ("follow.py", include_str!("recipe/follow.py")),
    ("leads.py", include_str!("recipe/leads.py")),
    ("packages.py", include_str!("recipe/packages.py")),
    ("manifest.py", include_str!("recipe/manifest.py")),
    ("approval.py", include_str!("recipe/approval.py")),
    ("receipts.py", include_str!("recipe/receipts.py")),
    ("agree.py", include_str!("recipe/agree.py")),
];

/// Where the first volume descriptor of an ISO begins (ECMA-119, section 8.1).
const ISO_MARK: u64 = 16 * 2048;

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
        let kind = artifact.metadata().with_context(open)?;
        if kind.is_dir() {
            return Ok(Self::Repository);
        }
        let (mut head, mut mark) = (Vec::new(), Vec::new());
        let mut file = File::open(artifact).with_context(open)?;
        (&mut file).take(12).read_to_end(&mut head).with_context(open)?;
        let named = |suffix: &str| artifact.extension().is_some_and(|end| end == suffix);
        if head == *b"bundle.json\0" || named("bundle") {
            return Ok(Self::Bundle);
        }
        file.seek(SeekFrom::Start(ISO_MARK + 1)).with_context(open)?;
        file.take(5).read_to_end(&mut mark).with_context(open)?;
        // A stick is an ISO, whatever lies on it.
        if named("iso") || mark == b"CD001" || !kind.is_file() {
            return Ok(Self::Iso);
        }
        if head.starts_with(b"{") || signature_of(artifact).is_file() {
            return Ok(Self::File);
        }
        let what = "it is of no kind that is known: neither an ISO, a bundle or a repository's directory, nor one signed file \
                    with its .asc beside it";
        Err(Refused(format!("{}: {what}", artifact.display())).into())
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

/// Who is trusted.
#[derive(Debug, Clone, Copy)]
pub struct Trusted<'a> {
    /// The publisher.
    pub vendor: &'a Trust,
    /// The site whose officers must have approved it; without it the script judges no approval.
    pub site: Option<&'a Trust>,
}

/// The script for an artifact. `upstream` says who may sign upstream's lists; `None` for Debian's keys.
///
/// # Errors
/// When a trust directory cannot be read.
pub fn script(kind: Kind, artifact: &Path, trusted: Trusted<'_>, upstream: Option<&Policy>) -> Result<String> {
    if kind == Kind::Repository {
        repository::recognise(artifact).with_context(|| format!("cannot check {}", artifact.display()))?;
    }
    let directory = trusted.vendor.directory();
    let (fingerprint, listing) = anchors(directory)?;
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
    let site = trusted.site.map(of_site).transpose()?;
    let mut script = format!(
        "#!/bin/sh\n\
         # SPDX-License-Identifier: GPL-3.0-or-later\n\
         # Checks a Bastide {name} from the pinned root to every file, with other people's tools: nothing of Bastide runs here.\n\
         # Usage: sh SCRIPT [ARTIFACT [TRUST-DIRECTORY{usage}]]. It reads those and writes below TMPDIR only.\n\
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
         {site}\
         # Who may sign upstream's lists: archive, suite and fingerprint. The keyring only carries the keys.\n\
         SIGNERS='{signers}'\n\
         KEYRING=${{KEYRING:-{keyring}}}\n\
         # A python that has the module tuf.\n\
         PYTHON=${{PYTHON:-python3}}\n",
        name = kind.name(),
        usage = if site.is_some() { " [THE-SITE'S]" } else { "" },
        site = site.as_deref().unwrap_or("SITE= SITE_FINGERPRINT=\n"),
        artifact = whole(artifact)?,
        directory = whole(directory)?,
        signers = signers.trim_start(),
        keyring = quoted(&keyring),
    );
    script += body(COMMON);
    for (name, python) in PYTHON {
        let needed = match name {
            "manifest.py" => kind == Kind::Bundle,
            "receipts.py" => kind == Kind::Repository,
            "approval.py" | "agree.py" => site.is_some(),
            _ => true,
        };
        if needed {
            write!(
                script,
                "\ncat >\"$WORK/{name}\" <<'PYTHON'\n{}PYTHON\n",
                body(python).trim_start()
            )?;
        }
    }
    let approval = if site.is_some() { APPROVAL } else { UNASKED };
    for part in [RELEASE, approval, TRUST, kind.steps()?] {
        script += body(part);
    }
    Ok(script)
}

/// The fingerprint of a trust directory, and what `sha256sum` prints in it.
fn anchors(directory: &Path) -> Result<(String, String)> {
    let cannot = || format!("cannot read {}", directory.display());
    let listing = anchor::listing(directory).with_context(cannot)?;
    let fingerprint = anchor::fingerprint(directory).with_context(cannot)?;
    Ok((fingerprint, listing.trim_end().to_owned()))
}

/// The lines of the script's head that name the site.
fn of_site(site: &Trust) -> Result<String> {
    let directory = site.directory();
    let (fingerprint, listing) = anchors(directory)?;
    Ok(format!(
        "# The site's root of trust, whose officers must have approved it. COMPARE it in the same way:\n\
         #\n\
         #   {fingerprint}\n\
         #\n\
         SITE_FINGERPRINT='{fingerprint}'\n\
         SITE_TRUSTED='{listing}'\n\
         SITE=${{3:-{directory}}}\n",
        directory = whole(directory)?,
    ))
}

/// A path that means the same elsewhere, as one word of the shell.
fn whole(path: &Path) -> Result<String> {
    Ok(quoted(&std::path::absolute(path)?))
}

/// A part without its first line, which the whole has once.
fn body(part: &str) -> &str {
    part.split_once('\n').map_or(part, |(_, rest)| rest)
}
