// SPDX-License-Identifier: GPL-3.0-or-later
//! What lies on a device, told by wipefs, mdadm and lvm, all of which only read here.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use signing::process::Cmd;

use super::{Signature, clean};

/// How much of each end of a disk must be empty for it to count as empty.
const END: u64 = 1 << 20;

#[derive(Deserialize)]
struct Listing {
    signatures: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    offset: String,
    #[serde(rename = "type")]
    kind: String,
    uuid: Option<String>,
    label: Option<String>,
}

/// All signatures on a node: every one that wipefs finds, not only the strongest.
pub(super) fn of(node: &Path) -> Result<Vec<Signature>> {
    let output = Cmd::new("wipefs")
        .args(["--json", "--no-act"])
        .arg(node)
        .output()
        .with_context(|| format!("cannot look for signatures on {}", node.display()))?;
    let mut found = parse(node, &output)?;
    for signature in &mut found {
        if let Some(name) = owner(node, &signature.kind) {
            signature.label = Some(name);
        }
    }
    Ok(found)
}

fn parse(node: &Path, output: &[u8]) -> Result<Vec<Signature>> {
    if output.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let listing: Listing = serde_json::from_slice(output)
        .with_context(|| format!("cannot understand what wipefs says of {}", node.display()))?;
    listing
        .signatures
        .into_iter()
        .map(|listed| {
            let digits = listed.offset.trim_start_matches("0x");
            Ok(Signature {
                device: node.to_path_buf(),
                kind: clean(&listed.kind).unwrap_or_else(|| "unknown".into()),
                offset: u64::from_str_radix(digits, 16)
                    .with_context(|| format!("wipefs tells a strange offset for {}", node.display()))?,
                label: listed.label.or(listed.uuid).as_deref().and_then(clean),
            })
        })
        .collect()
}

/// The array or the volume group that a member belongs to: a name that its owner recognises. Decoration only, so a tool
/// that is missing or refuses leaves the signature as it is.
fn owner(node: &Path, kind: &str) -> Option<String> {
    let text = |command: Cmd| {
        let (status, output, _) = command.status().ok()?;
        status.success().then(|| String::from_utf8_lossy(&output).into_owned())
    };
    if kind.ends_with("_raid_member") {
        let listing = text(Cmd::new("mdadm").args(["--examine", "--export"]).arg(node))?;
        let value = |key: &str| {
            listing
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        let name = value("MD_NAME").or_else(|| value("MD_UUID"))?;
        let level = value("MD_LEVEL").unwrap_or("array");
        return clean(&format!("{name} {level}"));
    }
    if kind == "LVM2_member" {
        return clean(&text(
            Cmd::new("pvs")
                .args(["--noheadings", "--readonly", "-o", "vg_name"])
                .arg(node),
        )?);
    }
    None
}

/// Whether either end of the device holds anything but zeros: what no tool recognises may still be somebody's data.
pub(super) fn has_bytes(node: &Path, size: u64) -> Result<bool> {
    let look = || -> std::io::Result<bool> {
        let mut file = File::open(node)?;
        let mut bytes = Vec::new();
        for start in [0, size.saturating_sub(END)] {
            file.seek(SeekFrom::Start(start))?;
            bytes.clear();
            (&mut file).take(END).read_to_end(&mut bytes)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    look().with_context(|| format!("cannot read {}", node.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_wipefs_and_its_silence() {
        let node = Path::new("/dev/x");
        let said =
            br#"{"signatures":[{"device":"x","offset":"0x438","type":"ext4","uuid":"u","label":"a\u001b[2Jb"}]}"#;
        let found = parse(node, said).unwrap();
        assert_eq!((found[0].offset, found[0].label.as_deref()), (0x438, Some("a?[2Jb")));
        assert!(parse(node, b"\n").unwrap().is_empty());
        assert!(parse(node, b"{\"signatures\":[{\"offset\":\"z\",\"type\":\"ext4\"}]}").is_err());
        assert!(parse(node, b"oops").is_err());
    }
}
