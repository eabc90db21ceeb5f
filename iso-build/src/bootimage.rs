// SPDX-License-Identifier: GPL-3.0-or-later
//! The two boot images, unsigned: Xen with its configuration, kernel and initrd inside, and the installer's kernel image.
//!
//! Both are made by programs of the builder root, in a directory inside it. Xen loads a file from the EFI system partition, which
//! nothing verifies, for every section that is missing: so all three sections are always there.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail};
use signing::digest::Sha256;
use signing::secureboot::{PeHeaders, PeSection};
use tempfile::TempDir;

use crate::policy::Boot;
use crate::sandbox::Sandbox;

/// A directory, shown to the tools of the builder root, where boot images are made.
pub struct Bench<'a> {
    sandbox: &'a Sandbox,
    place: TempDir,
}

/// Where the tools see the directory.
const PLACE: &str = "/mnt/boot";
/// The kernel stub of the builder root for the installer.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

impl<'a> Bench<'a> {
    /// A fresh directory in `work`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(sandbox: &'a Sandbox, work: &Path) -> Result<Self> {
        let place = tempfile::tempdir_in(work)
            .with_context(|| format!("make a directory for boot images in {}", work.display()))?;
        Ok(Self { sandbox, place })
    }

    /// Makes the unified Xen image.
    ///
    /// # Errors
    /// When a tool of the builder root fails, or Xen's binary is not what is expected.
    pub fn unified_xen(&self, xen: &Path, configuration: &str, kernel: &Path, initrd: &Path, out: &Path) -> Result<()> {
        let place = self.place.path();
        copy(xen, &place.join("xen.efi"))?;
        copy(kernel, &place.join("kernel"))?;
        copy(initrd, &place.join("ramdisk"))?;
        write(&place.join("config"), configuration.as_bytes())?;
        self.run("strip", &["-s", "-p", "-o", "stripped.efi", "xen.efi"])?;
        let stripped = fs::read(place.join("stripped.efi")).context("read the stripped Xen image")?;
        let image = Sections::parse(&stripped).with_context(|| format!("read {}", xen.display()))?;
        let sizes = ["config", "kernel", "ramdisk"].map(|name| size(&place.join(name)));
        let [config_size, kernel_size, ramdisk_size] = sizes;
        let addresses = image.place(&[config_size?, kernel_size?, ramdisk_size?])?;
        let mut arguments = vec!["-p".to_owned()];
        for (name, address) in ["config", "kernel", "ramdisk"].iter().zip(addresses) {
            arguments.extend([
                "--add-section".to_owned(),
                format!(".{name}={name}"),
                "--change-section-vma".to_owned(),
                format!(".{name}={address:#x}"),
                "--set-section-flags".to_owned(),
                format!(".{name}=alloc,contents,load,readonly,data"),
            ]);
        }
        arguments.extend(["stripped.efi".to_owned(), "unified.efi".to_owned()]);
        self.run("objcopy", &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        let made = fs::read(place.join("unified.efi")).context("read the unified Xen image")?;
        Sections::parse(&made)?.expect(&[".config", ".kernel", ".ramdisk"])?;
        copy(&place.join("unified.efi"), out)
    }

    /// Makes the installer's unified kernel image.
    ///
    /// # Errors
    /// When `ukify` of the builder root fails.
    pub fn installer(
        &self,
        kernel: &Path,
        initrd: &Path,
        command_line: &str,
        os_release: &Path,
        version: &str,
        out: &Path,
    ) -> Result<()> {
        let place = self.place.path();
        copy(kernel, &place.join("kernel"))?;
        copy(initrd, &place.join("ramdisk"))?;
        copy(os_release, &place.join("os-release"))?;
        write(&place.join("cmdline"), command_line.as_bytes())?;
        self.run(
            "ukify",
            &[
                "build",
                "--linux=kernel",
                "--initrd=ramdisk",
                "--cmdline=@cmdline",
                "--os-release=@os-release",
                "--uname",
                version,
                "--stub",
                STUB,
                "--output=installer.efi",
            ],
        )?;
        copy(&place.join("installer.efi"), out)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        self.sandbox
            .step(program)
            .args(arguments)
            .write(self.place.path(), PLACE)
            .dir(PLACE)
            .run()
            .context("make a boot image")
    }
}

/// Xen's configuration: one entry, everything in it from the sections.
#[must_use]
pub fn xen_configuration(boot: &Boot, root_hash: &Sha256) -> String {
    format!(
        "[global]\ndefault=bastide\n\n[bastide]\noptions={}\nkernel=vmlinuz bastide.roothash={root_hash} {}\nramdisk=initrd.img\n",
        boot.xen, boot.host
    )
}

/// The installer's kernel command line.
#[must_use]
pub fn installer_command_line(boot: &Boot, root_hash: &Sha256) -> String {
    format!("bastide.roothash={root_hash} {}", boot.install)
}

/// What of an image's layout decides where further sections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sections {
    base: u64,
    alignment: u64,
    end: u64,
    names: Vec<String>,
}

impl Sections {
    /// Reads the headers of an image.
    ///
    /// # Errors
    /// When it is no 64-bit PE image.
    pub fn parse(image: &[u8]) -> Result<Self> {
        let headers = PeHeaders::read(&mut Cursor::new(image))?;
        if !headers.alignment.is_power_of_two() {
            bail!(
                "the PE image aligns its sections to {}, which is no power of two",
                headers.alignment
            );
        }
        // The raw size counts too: a loader copies that much.
        let end =
            |section: &PeSection| u64::from(section.address) + u64::from(section.virtual_size.max(section.stored));
        Ok(Self {
            base: headers.base,
            alignment: headers.alignment.into(),
            end: headers.sections.iter().map(end).max().unwrap_or(0),
            names: headers.sections.into_iter().map(|section| section.name).collect(),
        })
    }

    /// Addresses behind the last section for sections of these sizes, each at the image's own alignment.
    ///
    /// # Errors
    /// When they do not fit into the 2 GiB that a PE image can span.
    pub fn place(&self, sizes: &[u64]) -> Result<Vec<u64>> {
        let mut at = self.end.next_multiple_of(self.alignment);
        let mut addresses = Vec::new();
        for size in sizes {
            addresses.push(
                self.base
                    .checked_add(at)
                    .context("the PE image's base is out of range")?,
            );
            at = at
                .checked_add(*size)
                .filter(|end| *end < 1 << 31)
                .context("kernel and initrd are too large for a PE image")?
                .next_multiple_of(self.alignment);
        }
        Ok(addresses)
    }

    fn expect(&self, wanted: &[&str]) -> Result<()> {
        for name in wanted {
            if self.names.iter().filter(|have| have == name).count() != 1 {
                bail!("the boot image does not have exactly one section {name}");
            }
        }
        Ok(())
    }
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)
        .with_context(|| format!("find {}", path.display()))?
        .len())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest image with sections at these addresses: name, address, virtual size, raw size.
    fn image(alignment: u32, sections: &[(&str, u32, u32, u32)]) -> Vec<u8> {
        let mut bytes = vec![0; 0x40];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes.extend(b"PE\0\0\x64\x86");
        bytes.extend(u16::try_from(sections.len()).unwrap().to_le_bytes());
        bytes.extend([0; 12]);
        bytes.extend([0xf0, 0, 0, 0]);
        let mut optional = vec![0; 0xf0];
        optional[..2].copy_from_slice(&[0x0b, 0x02]);
        optional[24..32].copy_from_slice(&0xffff_82d0_4000_0000_u64.to_le_bytes());
        optional[32..36].copy_from_slice(&alignment.to_le_bytes());
        bytes.extend(optional);
        for (name, address, virtual_size, raw) in sections {
            let mut header = [0; 40];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[8..12].copy_from_slice(&virtual_size.to_le_bytes());
            header[12..16].copy_from_slice(&address.to_le_bytes());
            header[16..20].copy_from_slice(&raw.to_le_bytes());
            bytes.extend(header);
        }
        bytes
    }

    #[test]
    fn sections_are_placed_behind_the_last_and_aligned() {
        let image = image(
            0x20_0000,
            &[(".text", 0x1000, 0x300, 0x400), (".data", 0x20_0000, 0x10, 0x200)],
        );
        let sections = Sections::parse(&image).unwrap();
        let addresses = sections.place(&[100, 0x20_0001, 5]).unwrap();
        assert_eq!(
            addresses,
            [0xffff_82d0_4040_0000, 0xffff_82d0_4060_0000, 0xffff_82d0_40a0_0000]
        );
    }

    #[test]
    fn hostile_images_are_refused() {
        let good = image(0x1000, &[(".text", 0x1000, 1, 1)]);
        for length in 0..good.len() {
            assert!(Sections::parse(&good[..length]).is_err(), "cut at {length}");
        }
        assert!(Sections::parse(&image(0, &[])).is_err());
        assert!(Sections::parse(&image(0x1001, &[])).is_err());
        let mut far = good;
        far[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert!(Sections::parse(&far).is_err());
    }

    #[test]
    fn an_image_has_an_end() {
        let sections = Sections::parse(&image(0x1000, &[(".text", 0xffff_f000, 0xfff, 0)])).unwrap();
        assert!(sections.place(&[1]).is_err());
    }

    #[test]
    fn a_missing_section_is_found() {
        let sections = Sections::parse(&image(0x1000, &[(".config", 0x1000, 1, 1)])).unwrap();
        assert!(sections.expect(&[".config"]).is_ok());
        assert!(sections.expect(&[".config", ".ramdisk"]).is_err());
    }
}
