// SPDX-License-Identifier: GPL-3.0-or-later
//! Whom a host believes: the vendor alone, or the vendor and the site together.
//!
//! ```text
//! TRUST/policy.json             the policy
//! TRUST/site/root.json          with both: the site's pinned root, its OpenPGP signature and certificate
//! TRUST/site/root.json.asc
//! TRUST/site/release.asc
//! ```
//!
//! Attacks: a bundle, or an image of the vendor, that brings a weaker policy; a site's root that is exchanged for another; a
//! policy that is lost, so that the vendor's word would suffice again.
//!
//! Defence: a policy is read from the host's state, where the installer wrote it, and from nowhere else: neither bundle nor
//! image has a place for one. It names the digests of the site's files. The install record, signed, repeats it, and the
//! host compares the two; a missing policy is an error, and no default.
//!
//! Not defended: whoever may write a running host's state directory may also write another host's into it.

use std::path::Path;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::digest::{Sha256, read_bounded};
use crate::openpgp::{self, Cert, OpenPgpError};
use crate::output::Refused;

/// The policy's file.
pub const POLICY: &str = "policy.json";
/// The directory beside it with the site's files.
pub const SITE: &str = "site";

const ROOT: &str = "root.json";
const ROOT_SIGNATURE: &str = "root.json.asc";
const CERTIFICATE: &str = "release.asc";
/// No file of a policy is near this long.
pub const MAX_FILE: u64 = 1 << 20;

/// Whose agreement is demanded, as it stands in the policy's file and in the install record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "demands", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Policy {
    /// The vendor's alone.
    Vendor,
    /// The vendor's and the site's.
    VendorAndSite {
        /// The site.
        site: Pinned,
    },
}

/// A site as a policy pins it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// The digest of its root.
    pub root_sha256: Sha256,
    /// The digest of its OpenPGP certificate's file.
    pub certificate_sha256: Sha256,
}

/// One who is believed: by TUF's signatures from a root on, with OpenPGP's beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sovereign {
    /// The pinned root.
    pub root: Vec<u8>,
    /// The OpenPGP release certificate, as a keyring file.
    pub certificate: Vec<u8>,
}

/// A policy with whom it pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sovereigns {
    /// The vendor alone.
    Vendor(Sovereign),
    /// Both.
    Both {
        /// The vendor.
        vendor: Sovereign,
        /// The site.
        site: Sovereign,
    },
}

impl Sovereign {
    /// The certificates whose OpenPGP signatures count.
    ///
    /// # Errors
    /// When there is none, or something else.
    pub fn release(&self) -> Result<Vec<Cert>, OpenPgpError> {
        openpgp::parse_keyring(Path::new(CERTIFICATE), &self.certificate)
    }
}

impl Policy {
    /// Reads the policy in a directory.
    ///
    /// # Errors
    /// When there is none, or it is malformed.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(POLICY);
        let what = || format!("cannot read the trust policy {}", path.display());
        serde_json::from_slice(&read_bounded(&path, MAX_FILE).with_context(what)?).with_context(what)
    }

    /// The policy as a file.
    ///
    /// # Errors
    /// When it has no JSON form, which does not happen.
    pub fn to_file(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Whom to follow: the vendor as given, the site from `directory`, where it must be the pinned one.
    ///
    /// # Errors
    /// [`Refused`] in the chain when a file is not the pinned one; else when it cannot be read.
    pub fn sovereigns(&self, directory: &Path, vendor: Sovereign) -> Result<Sovereigns> {
        let Self::VendorAndSite { site } = self else {
            return Ok(Sovereigns::Vendor(vendor));
        };
        let files = SiteFiles::read(&directory.join(SITE))?;
        if files.pinned() != *site {
            return Err(Refused(format!(
                "the site's root or certificate in {} is not the one that the trust policy pins: restore it, or install the \
                 host anew",
                directory.display()
            ))
            .into());
        }
        Ok(Sovereigns::Both {
            vendor,
            site: Sovereign {
                root: files.root,
                certificate: files.certificate,
            },
        })
    }
}

/// The files of a site that is to be pinned.
#[derive(Debug, Clone)]
pub struct SiteFiles {
    root: Vec<u8>,
    signature: Vec<u8>,
    certificate: Vec<u8>,
}

impl SiteFiles {
    /// Reads them from a directory, which may be a whole trust directory.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(directory: &Path) -> Result<Self> {
        Self::gather(|name| {
            let path = directory.join(name);
            read_bounded(&path, MAX_FILE).with_context(|| format!("cannot read {} of the site", path.display()))
        })
    }

    /// Takes them from somewhere else: `give` gives a file by its name.
    ///
    /// # Errors
    /// When it cannot give one.
    pub fn gather(give: impl Fn(&str) -> Result<Vec<u8>>) -> Result<Self> {
        Ok(Self {
            root: give(ROOT)?,
            signature: give(ROOT_SIGNATURE)?,
            certificate: give(CERTIFICATE)?,
        })
    }

    /// Checks that the root is signed by its own threshold and by the certificate.
    ///
    /// # Errors
    /// When it is not.
    pub fn verify(&self, now: DateTime<Utc>) -> Result<()> {
        let what = "cannot pin the site's root";
        crate::tuf::Datastore::ephemeral(&self.root).context(what)?;
        let certificate = openpgp::parse_keyring(Path::new(CERTIFICATE), &self.certificate).context(what)?;
        openpgp::verify_detached_by(&certificate, self.root.as_slice(), &self.signature, now).context(what)?;
        Ok(())
    }

    /// What a policy says of them.
    #[must_use]
    pub fn pinned(&self) -> Pinned {
        Pinned {
            root_sha256: Sha256::of(&self.root),
            certificate_sha256: Sha256::of(&self.certificate),
        }
    }

    /// The pinned root.
    #[must_use]
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// The files by their names.
    #[must_use]
    pub fn files(&self) -> [(&'static str, &[u8]); 3] {
        [
            (ROOT, &self.root),
            (ROOT_SIGNATURE, &self.signature),
            (CERTIFICATE, &self.certificate),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    fn site(directory: &Path) -> Policy {
        fs::create_dir(directory.join(SITE)).unwrap();
        for name in [ROOT, ROOT_SIGNATURE, CERTIFICATE] {
            fs::write(directory.join(SITE).join(name), name).unwrap();
        }
        let site = SiteFiles::read(&directory.join(SITE)).unwrap().pinned();
        Policy::VendorAndSite { site }
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        for policy in [Policy::Vendor, site(directory.path())] {
            fs::write(directory.path().join(POLICY), policy.to_file().unwrap()).unwrap();
            assert_eq!(Policy::read(directory.path()).unwrap(), policy);
        }
        let sovereigns = site_and(directory.path(), b"the vendor's");
        let (vendor, site) = (named(b"the vendor's"), named(ROOT.as_bytes()));
        assert_eq!(sovereigns.unwrap(), Sovereigns::Both { vendor, site });
    }

    fn site_and(directory: &Path, vendor: &[u8]) -> Result<Sovereigns> {
        Policy::read(directory)?.sovereigns(directory, named(vendor))
    }

    fn named(root: &[u8]) -> Sovereign {
        Sovereign {
            root: root.to_vec(),
            certificate: CERTIFICATE.into(),
        }
    }

    #[test]
    fn a_missing_or_a_strange_policy_is_no_default() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Policy::read(directory.path()).is_err());
        for text in [
            "",
            "{}",
            r#"{"demands":"nobody"}"#,
            r#"{"demands":"vendor-and-site"}"#,
            r#"{"demands":"vendor-and-site","site":{"root_sha256":"00"}}"#,
        ] {
            fs::write(directory.path().join(POLICY), text).unwrap();
            assert!(Policy::read(directory.path()).is_err(), "{text}");
        }
    }

    #[test]
    fn another_site_than_the_pinned_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let policy = site(directory.path());
        fs::write(directory.path().join(POLICY), policy.to_file().unwrap()).unwrap();
        for name in [ROOT, CERTIFICATE] {
            let place = directory.path().join(SITE).join(name);
            fs::write(&place, "another").unwrap();
            let error = site_and(directory.path(), b"").unwrap_err();
            assert!(error.chain().any(|cause| cause.is::<Refused>()), "{error}");
            fs::write(&place, name).unwrap();
        }
        fs::remove_file(directory.path().join(SITE).join(ROOT)).unwrap();
        assert!(site_and(directory.path(), b"").is_err());
    }
}
