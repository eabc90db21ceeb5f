// SPDX-License-Identifier: GPL-3.0-or-later
//! Memory, processors, network cards and firmware, from sysfs.

use std::fs;
use std::path::Path;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use super::{Card, Firmware, clean};

/// Where the kernel shows the firmware.
pub const EFI: &str = "/sys/firmware/efi";
/// The vendor GUID of the variables that UEFI itself defines (UEFI 2.10, section 3.3).
pub const EFI_GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

pub(super) fn memory() -> u64 {
    System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()))
        .map_or(0, |system| system.total_memory())
}

pub(super) fn processors() -> usize {
    System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()))
        .map_or(0, |system| system.cpus().len())
}

pub(super) fn product() -> Vec<String> {
    ["sys_vendor", "product_name", "product_serial"]
        .iter()
        .filter_map(|name| read(&Path::new("/sys/class/dmi/id").join(name)))
        .collect()
}

pub(super) fn cards() -> Vec<Card> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else {
        return Vec::new();
    };
    let mut cards: Vec<Card> = entries
        .flatten()
        // Only hardware has a device below it; bridges, tunnels and the loopback have none.
        .filter(|entry| entry.path().join("device").exists())
        .filter_map(|entry| {
            let path = entry.path();
            Some(Card {
                name: clean(&entry.file_name().to_string_lossy())?,
                mac: read(&path.join("address"))?,
                driver: fs::read_link(path.join("device/driver"))
                    .ok()
                    .and_then(|link| clean(&link.file_name()?.to_string_lossy())),
                carrier: read(&path.join("carrier")).map(|carrier| carrier == "1"),
            })
        })
        .collect();
    cards.sort_by(|one, other| one.name.cmp(&other.name));
    cards
}

/// The firmware's state as the kernel shows it below `efi`, which is `/sys/firmware/efi` but for tests.
#[must_use]
pub fn firmware(efi: &Path) -> Firmware {
    let variables = efi.join("efivars");
    let flag = |name| efi_byte(&variables, name).map(|byte| byte == 1);
    Firmware {
        uefi: efi.exists(),
        secure_boot: flag("SecureBoot"),
        setup_mode: flag("SetupMode"),
    }
}

/// The one byte of a global variable: efivarfs puts four bytes of attributes before the value.
#[must_use]
pub fn efi_byte(variables: &Path, name: &str) -> Option<u8> {
    match fs::read(variables.join(format!("{name}-{EFI_GLOBAL}")))
        .ok()?
        .as_slice()
    {
        [_, _, _, _, value] => Some(*value),
        _ => None,
    }
}

fn read(path: &Path) -> Option<String> {
    clean(&String::from_utf8_lossy(&fs::read(path).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_firmware_s_flags_and_nothing_from_strange_ones() {
        let efi = tempfile::tempdir().unwrap();
        let place = |name: &str| efi.path().join("efivars").join(format!("{name}-{EFI_GLOBAL}"));
        fs::create_dir(efi.path().join("efivars")).unwrap();
        fs::write(place("SetupMode"), [6, 0, 0, 0, 1]).unwrap();
        fs::write(place("SecureBoot"), [6, 0, 0, 0]).unwrap();
        let state = firmware(efi.path());
        assert_eq!(
            (state.uefi, state.setup_mode, state.secure_boot),
            (true, Some(true), None)
        );
        assert!(!firmware(&efi.path().join("nothing")).uefi);
    }
}
