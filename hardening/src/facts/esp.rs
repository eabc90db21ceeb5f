// SPDX-License-Identifier: GPL-3.0-or-later
//! The EFI system partition of a running host. It is mounted only while it is written, and an audit mounts nothing: where
//! it is not mounted, its FAT is read from the partition that the initrd reported.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use signing::digest;

use super::live::BOOT_IMAGE_LIMIT;
use super::{Facts, Found, Kind, Known, Unknown};
use crate::medium::{Extent, Image, fat};

/// Where it is mounted, when it is.
pub(super) const PLACE: &str = "/boot/efi";
/// What the initrd reported of the disk.
const BOOT: &str = "/run/bastide/boot.json";

#[derive(Deserialize)]
struct Boot {
    esp: Option<String>,
}

/// The partition, read without a mount.
#[derive(Debug)]
pub(super) struct Esp {
    image: Image,
    entries: Vec<fat::Entry>,
}

impl Esp {
    /// The partition; `None` when it is mounted, or when this is no host of ours.
    pub(super) fn find(facts: &dyn Facts) -> Known<Option<Self>> {
        // A directory that is mounted on demand is mounted by looking at it.
        drop(fs::metadata(format!("{PLACE}/EFI")));
        if is_mounted(&facts.need("/proc/self/mountinfo")?) {
            return Ok(None);
        }
        let Some(text) = facts.text(BOOT)? else { return Ok(None) };
        let boot: Boot =
            serde_json::from_str(&text).map_err(|error| Unknown(format!("{BOOT} does not read: {error}")))?;
        let Some(node) = boot.esp else { return Ok(None) };
        let image =
            Image::open(Path::new(&node)).map_err(|error| Unknown(format!("cannot open the ESP {node}: {error}")))?;
        let whole = Extent {
            start: 0,
            length: image.length(),
        };
        let entries =
            fat::read(&image, whole).map_err(|error| Unknown(format!("cannot read the ESP {node}: {error}")))?;
        Ok(Some(Self { image, entries }))
    }

    /// Everything on it.
    pub(super) fn walk(&self) -> Known<Vec<Found>> {
        let mut found = Vec::new();
        for entry in &self.entries {
            let sha256 = if entry.directory {
                None
            } else {
                let copied = digest::copy(&mut self.image.reader(&entry.extents), &mut io::sink());
                Some(
                    copied
                        .map_err(|error| Unknown(format!("cannot read {} on the ESP: {error}", entry.path)))?
                        .0,
                )
            };
            found.push(Found {
                path: format!("{PLACE}/{}", entry.path),
                kind: if entry.directory { Kind::Directory } else { Kind::File },
                mode: 0o700,
                uid: 0,
                gid: 0,
                size: entry.length,
                sha256,
                opaque: false,
                target: None,
            });
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// A file, whole.
    pub(super) fn read(&self, path: &str) -> Known<Option<Vec<u8>>> {
        let Some(entry) = self
            .entries
            .iter()
            .find(|entry| !entry.directory && entry.path.eq_ignore_ascii_case(path))
        else {
            return Ok(None);
        };
        if entry.length > BOOT_IMAGE_LIMIT {
            return Err(Unknown(format!("{path} on the ESP is too large to be a boot image")));
        }
        let mut content = Vec::with_capacity(usize::try_from(entry.length).unwrap_or_default());
        match self.image.reader(&entry.extents).read_to_end(&mut content) {
            Ok(_) => Ok(Some(content)),
            Err(error) => Err(Unknown(format!("cannot read {path} on the ESP: {error}"))),
        }
    }
}

/// Whether a file system, and not only an automount trap, is mounted there.
fn is_mounted(mountinfo: &str) -> bool {
    mountinfo.lines().any(|line| {
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        line.split(' ').nth(4) == Some(PLACE) && kind.is_some_and(|kind| kind != "autofs")
    })
}

#[cfg(test)]
mod tests {
    use signing::process::Cmd;

    use super::*;

    #[test]
    fn an_automount_trap_is_not_a_mount() {
        assert!(!is_mounted(
            "30 25 0:28 / /boot/efi rw shared:16 - autofs systemd-1 rw,fd=50\n"
        ));
        assert!(is_mounted(
            "41 30 8:1 / /boot/efi ro,nosuid shared:20 - vfat /dev/sda1 ro\n"
        ));
    }

    #[test]
    fn an_unmounted_partition_is_read_by_name_whatever_its_case() {
        let directory = tempfile::tempdir().unwrap();
        // FAT12, FAT16 and FAT32 by size; a name that needs a long entry.
        for (size, bits) in [(2_u64, "12"), (32, "16"), (66, "32")] {
            let place = directory.path().join(format!("esp{bits}"));
            let content = directory.path().join("content");
            fs::write(&content, vec![7; 300_000]).unwrap();
            fs::File::create(&place).unwrap().set_len(size << 20).unwrap();
            Cmd::new("mkfs.fat")
                .args(["-F", bits, "-s", "1"])
                .arg(&place)
                .run()
                .unwrap();
            Cmd::new("mmd")
                .arg("-i")
                .arg(&place)
                .args(["::EFI", "::EFI/bastide"])
                .run()
                .unwrap();
            Cmd::new("mcopy")
                .arg("-i")
                .arg(&place)
                .arg(&content)
                .arg("::EFI/bastide/slot-a.efi")
                .run()
                .unwrap();
            Cmd::new("mcopy")
                .arg("-i")
                .arg(&place)
                .arg(&content)
                .arg("::EFI/a rather long name.efi")
                .run()
                .unwrap();
            let image = Image::open(&place).unwrap();
            let entries = fat::read(
                &image,
                Extent {
                    start: 0,
                    length: image.length(),
                },
            )
            .unwrap();
            let esp = Esp { image, entries };
            assert_eq!(
                esp.read("efi/BASTIDE/slot-a.efi").unwrap().unwrap(),
                vec![7; 300_000],
                "FAT{bits}"
            );
            let names: Vec<String> = esp.walk().unwrap().into_iter().map(|found| found.path).collect();
            assert!(
                names.iter().any(|name| name.ends_with("/a rather long name.efi")),
                "{names:?}"
            );
            assert_eq!(names.len(), 4);
        }
    }
}
