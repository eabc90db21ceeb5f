// SPDX-License-Identifier: GPL-3.0-or-later
//! The trust directory: all that a verifier brings along, and everything hangs from it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use signing::anchor;
use signing::digest::{self, Sha256};
use signing::openpgp;
use signing::secureboot::Certificate;

use super::{date, of_error};
use crate::report::{Finding, Section};

/// The largest file of a trust directory.
pub(super) const LIMIT: u64 = 4 << 20;

/// A trust directory.
#[derive(Debug, Clone)]
pub struct Trust {
    directory: PathBuf,
    /// The pinned root, as it is.
    pub root: Vec<u8>,
    /// The Secure Boot certificate that boot images must be signed with, if there is one.
    pub db: Option<Vec<u8>>,
}

/// The trust directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {} (name a trust directory with --trust: it holds root.json, release.asc and db.der)", path.display())]
pub struct TrustError {
    path: PathBuf,
    source: io::Error,
}

impl Trust {
    /// Reads a trust directory.
    ///
    /// # Errors
    /// When it has no root, or a file in it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, TrustError> {
        let read = |name: &str| {
            let path = directory.join(name);
            digest::read_bounded(&path, LIMIT).map_err(|source| TrustError { path, source })
        };
        let db = match read("db.der") {
            Ok(bytes) => Some(bytes),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            directory: directory.to_path_buf(),
            root: read("root.json")?,
            db,
        })
    }

    /// The OpenPGP certificate of releases.
    #[must_use]
    pub fn release_certificate(&self) -> PathBuf {
        self.directory.join("release.asc")
    }

    /// Checks a file's detached OpenPGP signatures as of `now`: at least `need` of the trust directory's certificates signed.
    #[must_use]
    pub fn openpgp(
        &self,
        (id, title): (&str, &str),
        data: impl io::Read + Send + Sync,
        signature: &[u8],
        (need, now): (u64, DateTime<Utc>),
    ) -> Finding {
        let judged = openpgp::read_keyring(&self.release_certificate())
            .and_then(|certs| openpgp::verify_threshold(&certs, data, signature, need, now));
        match judged {
            Ok(signers) => {
                let said = match (need, signers.len()) {
                    (..=1, 1) => "1 good OpenPGP signature by the release key".to_owned(),
                    (_, have) => format!("{have} certificates signed, of which {need} must"),
                };
                let mut finding = Finding::pass(id, title, said);
                for signer in signers {
                    finding = finding
                        .fact("OpenPGP certificate", signer.fingerprint)
                        .fact("signed", date(signer.signed_at));
                }
                finding
            }
            Err(error) => Finding::new(id, title, of_error(error)),
        }
    }

    /// The values that a person compares with what was handed over, for the head of a report; the first is enough.
    #[must_use]
    pub fn anchors(&self) -> Vec<(&'static str, String)> {
        let mut anchors = Vec::new();
        if let Ok(fingerprint) = anchor::fingerprint(&self.directory) {
            anchors.push((anchor::COMPARE, fingerprint));
        }
        anchors.push(("sha256 of the pinned root", Sha256::of(&self.root).to_string()));
        if let Ok(certs) = openpgp::read_keyring(&self.release_certificate()) {
            anchors.extend(
                certs
                    .iter()
                    .map(|cert| ("OpenPGP release key", cert.fingerprint().to_hex())),
            );
        }
        anchors
    }

    /// Whether the release key vouches for the pinned root as well.
    pub(super) fn pinned(&self, now: DateTime<Utc>) -> Finding {
        let signature = self.directory.join("root.json.asc");
        let root = match digest::read_bounded(&signature, LIMIT) {
            Ok(signature) => self.openpgp(
                ("trust.root", "The pinned root carries the release key's signature"),
                &self.root[..],
                &signature,
                (1, now),
            ),
            Err(error) => Finding::unknown(
                "trust.root",
                "The pinned root carries the release key's signature",
                format!("cannot read {}: {error}", signature.display()),
            ),
        };
        root.fact("sha256 of root.json", Sha256::of(&self.root)).guide(
            "Everything in this report hangs from this file. That it is the right one is the one thing that no program can tell.",
            &["TUF 1.0.34, section 5.2", "ANSSI BP-028 R59"],
            "Compare the digest of root.json and the OpenPGP fingerprint with those that were handed over by another way.",
        )
    }

    /// What this directory says, and whether it agrees with itself. Only a person can compare it with what was handed over.
    #[must_use]
    pub fn section(&self, now: DateTime<Utc>) -> Section {
        let mut findings = vec![self.pinned(now)];
        for (name, what) in [
            ("pk.der", "platform key"),
            ("kek.der", "key exchange key"),
            ("db.der", "boot image key"),
        ] {
            let id = format!("trust.{name}");
            let title = format!("Secure Boot certificate {name}: {what}");
            findings.push(match digest::read_bounded(&self.directory.join(name), LIMIT) {
                Err(error) => Finding::unknown(id, title, format!("cannot read {name}: {error}")),
                Ok(bytes) => match Certificate::from_der(&bytes) {
                    Err(error) => Finding::new(id, title, of_error(error)),
                    Ok(certificate) => Finding::pass(id, title, certificate.subject())
                        .fact("sha256 of the certificate", certificate.fingerprint()),
                },
            });
        }
        Section::new(
            "trust",
            "What is trusted",
            "The pinned root, the release key and the Secure Boot certificates that the auditor brought along. Compare the digests \
             with those handed over on paper or by another way: all else is derived from them.",
            findings,
        )
    }

    /// The names of its files.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    /// Reads a file of the directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        digest::read_bounded(&self.directory.join(name), LIMIT)
    }

    /// Opens a file of the directory.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn file(&self, name: &str) -> io::Result<File> {
        File::open(self.directory.join(name))
    }

    /// Where it lies.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
