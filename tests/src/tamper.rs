// SPDX-License-Identifier: GPL-3.0-or-later
//! The recipes of the forgeries: each takes a real artifact and spoils it in one way.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use signing::keys::Passphrase;
use signing::process::Cmd;
use signing::release::{Part, PartFile, Release};
use signing::secureboot::sign_pe;
use signing::site::{Role, Site};
use signing::tuf::author;
use signing::tuf::repository::Repository;
use signing::{clock, durable};

/// Copies a bundle, giving every member that `edit` answers for its new content, and adding `added` after `bundle.json`.
fn rewrite(
    from: &Path,
    to: &Path,
    added: Option<(&str, &[u8])>,
    edit: impl Fn(&str, &mut dyn Read) -> Result<Option<Vec<u8>>>,
) -> Result<()> {
    let mut archive = tar::Archive::new(File::open(from).with_context(|| format!("opening {}", from.display()))?);
    let mut builder = tar::Builder::new(File::create(to)?);
    let mut edited = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut header = entry.header().clone();
        if let Some(content) = edit(&name, &mut entry)? {
            edited += 1;
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_slice())?;
        } else {
            builder.append(&header, &mut entry)?;
        }
        if let (Some((added, content)), "bundle.json") = (added, name.as_str()) {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, added, content)?;
            edited += 1;
        }
    }
    builder.into_inner()?.sync_all()?;
    ensure!(
        edited == 1,
        "the recipe changed {edited} members of {} and not one",
        from.display()
    );
    Ok(())
}

/// One bit of the boot image is another; the archive and the compression around it are whole.
///
/// # Errors
/// When the bundle has no such member.
pub fn flipped_bit(from: &Path, to: &Path) -> Result<()> {
    rewrite(from, to, None, |name, content| {
        if !name.ends_with(".xen.efi.zst") {
            return Ok(None);
        }
        let mut image = zstd::stream::decode_all(content)?;
        let middle = image.len() / 2;
        image[middle] ^= 1;
        Ok(Some(zstd::stream::encode_all(image.as_slice(), 3)?))
    })
}

/// The timestamp carries no signature at all.
///
/// # Errors
/// When the bundle has no such member.
pub fn unsigned_timestamp(from: &Path, to: &Path) -> Result<()> {
    rewrite(from, to, None, |name, content| {
        if name != "metadata/timestamp.json" {
            return Ok(None);
        }
        let mut signed: Value = serde_json::from_reader(content)?;
        signed["signatures"] = Value::Array(Vec::new());
        Ok(Some(serde_json::to_vec(&signed)?))
    })
}

/// A next root, signed by one of the three custodians where two are needed.
///
/// # Errors
/// When the site's key cannot be used.
pub fn root_below_threshold(from: &Path, to: &Path, site: &Path, passphrase: &Path) -> Result<()> {
    let site = Site::open(site)?;
    let one = site.signer(Role::Root(1), &Passphrase::from_file(passphrase)?)?;
    let mut root: Value = serde_json::from_slice(&fs::read(site.trust_dir().join("root.json"))?)?;
    root["signed"]["version"] = 2.into();
    root["signatures"] = Value::Array(Vec::new());
    let root = author::cosign(&serde_json::to_vec(&root)?, &one)?;
    rewrite(from, to, Some(("metadata/2.root.json", &root)), |_, _| Ok(None))
}

/// A build whose boot images are signed with a stranger's Secure Boot key, which `bastide-iso sign` refuses to do.
///
/// # Errors
/// When they cannot be signed.
pub fn foreign_boot_image(from: &Path, to: &Path, stranger: &Path, passphrase: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    Cmd::new("cp").arg("-al").arg(from).arg(to).run()?;
    let key = Site::open(stranger)?.db_key(&Passphrase::from_file(passphrase)?)?;
    let facts = to.join("release.json");
    let mut release: Release = serde_json::from_slice(&fs::read(&facts)?)?;
    for part in &mut release.parts {
        let unsigned = match part.part {
            Part::Xen => "xen.unsigned.efi",
            Part::Installer => "installer.unsigned.efi",
            _ => continue,
        };
        let signed = sign_pe(&fs::read(to.join(unsigned))?, &key)?;
        *part = PartFile::of(part.part, &signed);
        // Not written into: the honest build has hard links to the same files.
        durable::write(&to.join(part.part.file()), &signed)?;
    }
    Ok(durable::write(&facts, &serde_json::to_vec_pretty(&release)?)?)
}

/// A release signed by somebody with the TUF keys, whatever its boot images are: `bastide-repo publish` refuses them.
///
/// # Errors
/// When the repository cannot be continued or the keys cannot be used.
pub fn published_by_an_insider(repository: &Path, build: &Path, site: &Path, passphrase: &Path) -> Result<()> {
    let site = Site::open(site)?;
    let passphrase = Passphrase::from_file(passphrase)?;
    let mut editor = Repository::open(repository, &fs::read(site.trust_dir().join("root.json"))?)?;
    let release: Release = serde_json::from_slice(&fs::read(build.join("release.json"))?)?;
    for part in &release.parts {
        let custom = serde_json::to_value(release.custom(part))?;
        let name = part.part.target(release.version);
        editor.add_file(&name, &build.join(part.part.file()), custom.as_object().cloned())?;
    }
    let now = clock::now();
    site.publish(&mut editor, &passphrase, now + Duration::from_secs(365 * 86_400), now)?;
    Ok(())
}

/// An installation medium one of whose metadata files was altered: the type of the timestamp, in place.
///
/// # Errors
/// When the medium holds no such bytes.
pub fn altered_iso(from: &Path, to: &Path) -> Result<()> {
    Cmd::new("cp").arg("--sparse=always").arg(from).arg(to).run()?;
    let pattern = b"\"_type\": \"timestamp\"";
    let mut file = File::options().read(true).write(true).open(to)?;
    let mut window = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        file.seek(SeekFrom::Start(offset))?;
        let count = file.read(&mut window)?;
        ensure!(count > pattern.len(), "the medium holds no timestamp");
        if let Some(at) = window[..count]
            .windows(pattern.len())
            .position(|bytes| bytes == pattern)
        {
            file.seek(SeekFrom::Start(offset + at as u64))?;
            file.write_all(b"\"_type\": \"timestomp\"")?;
            file.sync_all()?;
            return Ok(());
        }
        offset += (count - pattern.len()) as u64;
    }
}

/// The superblock of an array's member as `md` writes it (version 1.2): mdadm alone makes one only on a kernel with md,
/// which a container's or a cloud's may lack.
fn md_superblock() -> Vec<u8> {
    const SUM: usize = 216;
    let mut block = vec![0_u8; 512];
    for (at, bytes) in [
        (0, &0xa92b_4efc_u32.to_le_bytes()[..]),
        (4, &1_u32.to_le_bytes()),
        (16, &[0x42; 16]),
        (32, b"oldhost:7"),
        (72, &1_u32.to_le_bytes()),
        (80, &65536_u64.to_le_bytes()),
        (92, &2_u32.to_le_bytes()),
        (128, &2048_u64.to_le_bytes()),
        (136, &65536_u64.to_le_bytes()),
        (144, &8_u64.to_le_bytes()),
        (168, &[0x43; 16]),
        (200, &9_u64.to_le_bytes()),
        (208, &u64::MAX.to_le_bytes()),
        (220, &2_u32.to_le_bytes()),
        (258, &1_u16.to_le_bytes()),
    ] {
        block[at..at + bytes.len()].copy_from_slice(bytes);
    }
    // The sum of the words up to the last device's role, folded to 32 bits.
    let words = block[..260].chunks_exact(4);
    let sum: u64 = words
        .map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])))
        .sum();
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    block[SUM..SUM + 4].copy_from_slice(&folded.to_le_bytes()[..4]);
    block
}

/// A disk that was part of a RAID and of a volume group: signatures that the real tools make or know, at their real places.
///
/// # Errors
/// When the tools fail.
pub fn stale_signatures(disk: &Path, raw: &Path) -> Result<()> {
    let size: u64 = 10 << 30;
    File::create(raw)?.set_len(size)?;
    let script = r#"set -e
image=$1
member=$2
whole=$(losetup --show -f -P "$image")
trap 'losetup -d "$whole"' EXIT
sfdisk -q "$whole" <<END
label: gpt
size=1G, type=A19D880F-05FC-4D3B-A006-743F0F84911E
size=1G, type=E6D6D379-F507-44C2-A23C-238F2A3DF928
END
partx -u "$whole" || true
start=$(sfdisk -J "$whole" | sed -n 's/.*"start": \([0-9]*\).*/\1/p')
set -- $start
one=$(losetup --show -f -o $(($1 * 512)) --sizelimit 1073741824 "$whole")
two=$(losetup --show -f -o $(($2 * 512)) --sizelimit 1073741824 "$whole")
trap 'losetup -d "$one"; losetup -d "$two"; losetup -d "$whole"' EXIT
dd if="$member" of="$one" bs=512 seek=8 conv=notrunc status=none
mdadm --examine "$one" >/dev/null
blkid -p "$one" | grep -q linux_raid_member
pvcreate -q -ff -y --config 'devices { filter=["a|.*|"] }' "$two" >/dev/null
"#;
    let member = raw.with_extension("md");
    fs::write(&member, md_superblock())?;
    Cmd::new("sh").args(["-c", script, "sh"]).arg(raw).arg(&member).run()?;
    fs::remove_file(&member)?;
    Cmd::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .arg(raw)
        .arg(disk)
        .run()?;
    fs::remove_file(raw)?;
    Ok(())
}
