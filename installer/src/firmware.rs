// SPDX-License-Identifier: GPL-3.0-or-later
//! The firmware's keys: the site's db, KEK and PK, written while the firmware is in setup mode.
//!
//! The order is db, KEK, PK, because PK ends setup mode (UEFI 2.10, section 32.3): what comes after it would need a
//! signature by the keys before. Each is an authenticated update made by the site (`.auth`), so a firmware that is not in
//! setup mode refuses it by itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result};
use nix::libc;
use signing::output::Refused;
use signing::secureboot::{Variable, verify_pe, verify_update};
use signing::site::Trust;

use crate::inventory::efi_byte;

/// `FS_IMMUTABLE_FL` of linux/fs.h: efivarfs sets it on every variable that it does not know to be harmless.
const IMMUTABLE: libc::c_long = 0x10;

#[allow(missing_docs, unsafe_code)]
mod ioctl {
    use nix::libc;
    // SAFETY: both requests take a pointer to one long, see ioctl_iflags(2).
    nix::ioctl_read!(get_flags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(set_flags, b'f', 2, libc::c_long);
}

/// Checks, before anything is written, that the keys fit together and start this boot image: a machine whose firmware
/// trusts other keys than those of its own disk starts nothing.
///
/// # Errors
/// When a file of the trust directory cannot be read, is not signed as it must be, or did not sign the boot image.
pub fn check(trust: &Path, boot_image: &[u8]) -> Result<()> {
    let trust = Trust::open(trust)?;
    updates(&trust)?;
    let db = trust.certificate(Variable::Db)?;
    verify_pe(boot_image, db.to_der()).map_err(|error| {
        refuse(format!(
            "the host would not start under the site's Secure Boot keys: {error}"
        ))
    })?;
    Ok(())
}

/// The updates in their order, each verified as the firmware will.
fn updates(trust: &Trust) -> Result<Vec<(Variable, Vec<u8>)>> {
    let mut updates = Vec::new();
    for variable in Variable::ENROLMENT_ORDER {
        let update = trust.update(variable)?;
        let signer = match variable {
            Variable::Db => Variable::Kek,
            Variable::Kek | Variable::Pk => Variable::Pk,
        };
        verify_update(variable, &update, &trust.certificate(signer)?)
            .map_err(|error| refuse(format!("the site's {} is refused: {error}", variable.name())))?;
        updates.push((variable, update));
    }
    Ok(updates)
}

fn refuse(why: String) -> anyhow::Error {
    anyhow::Error::new(Refused(why))
}

/// What enrolling the keys came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The variables that were written, in order.
    pub written: Vec<String>,
    /// Whether the firmware still says that it is in setup mode: some do until they restart.
    pub still_setup_mode: bool,
}

/// Writes the site's keys.
///
/// # Errors
/// When a file of the trust directory cannot be read or the firmware refuses one.
pub fn enrol(trust: &Path, variables: &Path) -> Result<Enrolled> {
    // All are read and verified before anything is written: half a set of keys is a machine that starts nothing.
    let updates = updates(&Trust::open(trust)?)?;
    let mut written = Vec::new();
    for (variable, update) in updates {
        let name = variable.name();
        let place = variables.join(format!("{name}-{}", variable.vendor()));
        write_variable(&place, variable.attributes(), &update).with_context(|| {
            format!("the firmware refuses the site's {name}: clear its Secure Boot keys in its setup and start again")
        })?;
        written.push(name.to_owned());
    }
    Ok(Enrolled {
        written,
        still_setup_mode: efi_byte(variables, "SetupMode") == Some(1),
    })
}

/// One write of attributes and content together: efivarfs makes one call to the firmware of it.
fn write_variable(place: &Path, attributes: u32, update: &[u8]) -> Result<()> {
    if place.exists() {
        allow_change(place).with_context(|| format!("cannot unlock {}", place.display()))?;
    }
    let mut bytes = attributes.to_le_bytes().to_vec();
    bytes.extend_from_slice(update);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(place)?;
        let count = file.write(&bytes)?;
        if count != bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", place.display()))
}

#[allow(unsafe_code)]
fn allow_change(place: &Path) -> Result<()> {
    let file = File::open(place)?;
    let mut flags: libc::c_long = 0;
    // SAFETY: the descriptor is open, and the pointer is to a long that outlives the call.
    unsafe { ioctl::get_flags(file.as_raw_fd(), &raw mut flags) }?;
    if flags & IMMUTABLE != 0 {
        flags &= !IMMUTABLE;
        // SAFETY: as above.
        unsafe { ioctl::set_flags(file.as_raw_fd(), &raw const flags) }?;
    }
    Ok(())
}

/// Whether the firmware's variables can be written at all.
#[must_use]
pub fn writable(variables: &Path) -> bool {
    fs::read_dir(variables).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use signing::clock;
    use signing::keys::Passphrase;
    use signing::site;

    use super::*;

    /// A site's real trust directory, and a place for variables.
    fn places(directory: &Path) -> (PathBuf, PathBuf) {
        let plan = site::Plan {
            directory: directory.join("site"),
            name: "Test".into(),
            officers: Vec::new(),
            root: site::RootOrigin::Made {
                openpgp_threshold: 1,
                keys: 1,
                threshold: 1,
                expires: clock::now() + chrono::Duration::days(1),
            },
        };
        let passphrase = Passphrase::new(b"correct horse battery staple".to_vec()).unwrap();
        let site = site::init(&plan, &passphrase, clock::now(), &mut |_| {}).unwrap();
        let variables = directory.join("efivars");
        fs::create_dir(&variables).unwrap();
        (site.trust_dir(), variables)
    }

    #[test]
    fn writes_attributes_and_update_or_nothing_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let (trust, variables) = places(directory.path());
        let good = fs::read(trust.join("PK.auth")).unwrap();

        // Cut off, altered, another variable's, missing: refused before the first variable is written.
        let mut altered = good.clone();
        altered[good.len() - 1] ^= 1;
        let other = fs::read(trust.join("KEK.auth")).unwrap();
        for bad in [&good[..30], &altered, &other, b""] {
            fs::write(trust.join("PK.auth"), bad).unwrap();
            assert!(enrol(&trust, &variables).is_err());
        }
        fs::remove_file(trust.join("PK.auth")).unwrap();
        assert!(enrol(&trust, &variables).is_err());
        assert_eq!(fs::read_dir(&variables).unwrap().count(), 0);

        fs::write(trust.join("PK.auth"), &good).unwrap();
        let enrolled = enrol(&trust, &variables).unwrap();
        assert_eq!(enrolled.written, ["db", "KEK", "PK"]);
        let bytes = fs::read(variables.join("PK-8be4df61-93ca-11d2-aa0d-00e098032b8c")).unwrap();
        assert!(bytes[..4] == [0x27, 0, 0, 0] && bytes[4..] == good);
        assert!(variables.join("db-d719b2cb-3d3a-4596-a3bc-dad00e67656f").exists());

        assert!(check(&trust, b"MZ is no signed boot image").is_err());
    }
}
