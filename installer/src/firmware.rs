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

use anyhow::{Context, Result, bail};
use signing::digest;

use crate::inventory::efi_byte;

/// Where the kernel shows the firmware's variables.
pub const VARIABLES: &str = "/sys/firmware/efi/efivars";

/// Non-volatile, boot services, runtime services, time-based authenticated write (UEFI 2.10, section 8.2).
const ATTRIBUTES: u32 = 0x27;
/// The firmware's stores hold some tens of kilobytes.
const LIMIT: u64 = 64 * 1024;

/// The variables in their order: name, vendor GUID, file of the trust directory.
const KEYS: [(&str, &str, &str); 3] = [
    ("db", "d719b2cb-3d3a-4596-a3bc-dad00e67656f", "db.auth"),
    ("KEK", "8be4df61-93ca-11d2-aa0d-00e098032b8c", "KEK.auth"),
    ("PK", "8be4df61-93ca-11d2-aa0d-00e098032b8c", "PK.auth"),
];

/// `FS_IMMUTABLE_FL` of linux/fs.h: efivarfs sets it on every variable that it does not know to be harmless.
const IMMUTABLE: libc::c_long = 0x10;

use nix::libc;

#[allow(missing_docs, unsafe_code)]
mod ioctl {
    use nix::libc;
    // SAFETY: both requests take a pointer to one long, see ioctl_iflags(2).
    nix::ioctl_read!(get_flags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(set_flags, b'f', 2, libc::c_long);
}

/// Writes the site's keys and checks that the firmware left setup mode.
///
/// # Errors
/// When a file of the trust directory cannot be read or the firmware refuses one.
pub fn enrol(trust: &Path, variables: &Path) -> Result<Vec<String>> {
    // All files are read before anything is written: half a set of keys is a machine that starts nothing.
    let mut updates = Vec::new();
    for (name, vendor, file) in KEYS {
        let place = trust.join(file);
        let update = digest::read_bounded(&place, LIMIT)
            .with_context(|| format!("cannot read the site's key update {}", place.display()))?;
        if update.len() < 40 {
            bail!("the site's key update {} is cut off", place.display());
        }
        updates.push((name, variables.join(format!("{name}-{vendor}")), update));
    }
    let mut written = Vec::new();
    for (name, place, update) in updates {
        write_variable(&place, &update)
            .with_context(|| format!("the firmware refuses the site's {name}: leave setup mode and enter it again"))?;
        written.push(name.to_owned());
    }
    if efi_byte(variables, "SetupMode") == Some(1) {
        bail!("the firmware took the keys and is still in setup mode: restart it and look into its setup");
    }
    Ok(written)
}

/// One write of attributes and content together: efivarfs makes one call to the firmware of it.
fn write_variable(place: &Path, update: &[u8]) -> Result<()> {
    if place.exists() {
        allow_change(place).with_context(|| format!("cannot unlock {}", place.display()))?;
    }
    let mut bytes = ATTRIBUTES.to_le_bytes().to_vec();
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
    use super::*;

    #[test]
    fn writes_db_first_and_pk_last_with_attributes_in_front() {
        let directory = tempfile::tempdir().unwrap();
        let (trust, variables) = (directory.path().join("trust"), directory.path().join("efivars"));
        fs::create_dir(&trust).unwrap();
        fs::create_dir(&variables).unwrap();
        for (name, _, file) in KEYS {
            fs::write(trust.join(file), name.repeat(40)).unwrap();
        }
        assert_eq!(enrol(&trust, &variables).unwrap(), ["db", "KEK", "PK"]);
        let bytes = fs::read(variables.join("db-d719b2cb-3d3a-4596-a3bc-dad00e67656f")).unwrap();
        assert_eq!(bytes[..6], [0x27, 0, 0, 0, b'd', b'b']);
    }

    #[test]
    fn writes_nothing_when_one_update_is_missing_or_cut() {
        let directory = tempfile::tempdir().unwrap();
        let (trust, variables) = (directory.path().join("trust"), directory.path().join("efivars"));
        fs::create_dir(&trust).unwrap();
        fs::create_dir(&variables).unwrap();
        for (_, _, file) in &KEYS[..2] {
            fs::write(trust.join(file), "x".repeat(40)).unwrap();
        }
        assert!(enrol(&trust, &variables).is_err());
        fs::write(trust.join("PK.auth"), "short").unwrap();
        assert!(enrol(&trust, &variables).is_err());
        assert_eq!(fs::read_dir(&variables).unwrap().count(), 0);
    }
}
