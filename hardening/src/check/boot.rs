// SPDX-License-Identifier: GPL-3.0-or-later
//! The boot chain and the hypervisor.

use super::kernel::argument_verdict;
use super::offenders;
use crate::facts::{Facts, Known, Unknown};
use crate::profile::Expect;
use crate::verdict::Verdict;

/// The unified Xen images of the two slots.
pub(crate) const SLOT_IMAGES: [&str; 2] = ["/boot/efi/EFI/bastide/slot-a.efi", "/boot/efi/EFI/bastide/slot-b.efi"];

/// The GUID of the variables that the UEFI specification defines.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The command lines inside a unified Xen image.
pub(crate) struct SignedLines {
    /// Which image.
    pub(crate) image: String,
    /// Xen's.
    pub(crate) xen: String,
    /// dom0's kernel's.
    pub(crate) kernel: String,
}

/// The root hash on the kernel's command line.
pub(crate) fn running_root_hash(facts: &dyn Facts) -> Known<String> {
    let line = facts.need("/proc/cmdline")?;
    super::kernel::argument(&line, "bastide.roothash")
        .map(str::to_owned)
        .ok_or_else(|| {
            Unknown("the kernel's command line names no bastide.roothash: this is no Bastide host".to_owned())
        })
}

/// The command lines of the boot image on the disk that belongs to the running root.
pub(crate) fn signed_lines(facts: &dyn Facts) -> Known<SignedLines> {
    let root = running_root_hash(facts)?;
    let mut seen = Vec::new();
    for image in SLOT_IMAGES {
        let Some(config) = facts.section(image, ".config")? else {
            seen.push(format!("{image} is not there"));
            continue;
        };
        let lines = parse_config(image, &String::from_utf8_lossy(&config));
        if super::kernel::argument(&lines.kernel, "bastide.roothash") == Some(&root) {
            return Ok(lines);
        }
        seen.push(format!("{image} boots another root"));
    }
    Err(Unknown(format!(
        "no boot image of the running root on the ESP ({})",
        seen.join("; ")
    )))
}

fn parse_config(image: &str, config: &str) -> SignedLines {
    let value = |key: &str| {
        config
            .lines()
            .filter_map(|line| line.trim_matches(['\0', ' ', '\t', '\r']).split_once('='))
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let kernel = value("kernel");
    // `kernel=NAME ARGUMENTS`
    let kernel = kernel
        .split_once(char::is_whitespace)
        .map(|(_, rest)| rest.trim().to_owned())
        .unwrap_or_default();
    SignedLines {
        image: image.to_owned(),
        xen: value("options"),
        kernel,
    }
}

pub(super) fn kernel_argument(facts: &dyn Facts, name: &str, expect: &Expect) -> Known<Verdict> {
    let running = facts.need("/proc/cmdline")?;
    argument_verdict(name, &running, signed_lines(facts).map(|lines| lines.kernel), expect)
}

pub(super) fn xen_argument(facts: &dyn Facts, name: &str, expect: &Expect) -> Known<Verdict> {
    let running = info(facts, "xen_commandline")?.unwrap_or_default();
    argument_verdict(name, &running, signed_lines(facts).map(|lines| lines.xen), expect)
}

pub(super) fn command_lines_are_signed(facts: &dyn Facts) -> Known<Verdict> {
    let signed = signed_lines(facts)?;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut bad = Vec::new();
    let mut kernel = words(&facts.need("/proc/cmdline")?);
    // Xen puts the name of the section that the kernel came from before its arguments.
    if kernel.first().is_some_and(|word| word == "kernel") {
        kernel.remove(0);
    }
    let xen = words(&info(facts, "xen_commandline")?.unwrap_or_default());
    for (who, running, signed) in [
        ("Xen", xen, words(&signed.xen)),
        ("the kernel", kernel, words(&signed.kernel)),
    ] {
        if running != signed {
            let odd: Vec<String> = running.iter().filter(|word| !signed.contains(word)).cloned().collect();
            let gone: Vec<String> = signed.iter().filter(|word| !running.contains(word)).cloned().collect();
            bad.push(match (odd.is_empty(), gone.is_empty()) {
                (false, _) => format!("{who} was given `{}`, which no signature covers", odd.join(" ")),
                (true, false) => format!("{who} was not given `{}`", gone.join(" ")),
                (true, true) => format!("{who}'s arguments stand in another order or number"),
            });
        }
    }
    Ok(offenders(
        format!("both are word for word those of {}", signed.image),
        "not as signed",
        &bad,
    ))
}

/// A field of `xl info`.
fn info(facts: &dyn Facts, field: &str) -> Known<Option<String>> {
    let text = facts.output(&["xl", "info"])?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == field)
        .map(|(_, value)| value.trim().to_owned()))
}

pub(super) fn xen_version(facts: &dyn Facts, at_least: &str) -> Known<Verdict> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let field = |name: &str| -> Known<u32> {
        let value = info(facts, name)?;
        value
            .as_deref()
            .and_then(number)
            .ok_or_else(|| Unknown(format!("`xl info` names no {name}")))
    };
    let running = (field("xen_major")?, field("xen_minor")?);
    let wanted = at_least
        .split_once('.')
        .and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    let wanted = wanted.ok_or_else(|| Unknown(format!("{at_least:?} is no version")))?;
    let extra = info(facts, "xen_extra")?.unwrap_or_default();
    let seen = format!("Xen {}.{}{extra}", running.0, running.1);
    Ok(if running >= wanted {
        Verdict::Pass(seen)
    } else {
        Verdict::Fail(format!("{seen}; must be at least {at_least}"))
    })
}

fn xen_log(facts: &dyn Facts) -> Known<String> {
    let log = facts.output(&["xl", "dmesg"])?;
    // The ring keeps the end only. Without its first line it proves the presence of a line, never its absence.
    if log.contains("Xen version") {
        Ok(log)
    } else {
        Err(Unknown(
            "the beginning of the hypervisor's log has been overwritten: look after a boot".to_owned(),
        ))
    }
}

pub(super) fn xen_log_lacks(facts: &dyn Facts, texts: &[String]) -> Known<Verdict> {
    let log = xen_log(facts)?;
    let bad: Vec<String> = log
        .lines()
        .filter(|line| texts.iter().any(|text| line.contains(text)))
        .map(|line| line.trim().to_owned())
        .collect();
    Ok(offenders(
        "no such line in the hypervisor's log",
        "the hypervisor says",
        &bad,
    ))
}

pub(super) fn xen_log_has(facts: &dyn Facts, text: &str) -> Known<Verdict> {
    let log = xen_log(facts)?;
    Ok(match log.lines().find(|line| line.contains(text)) {
        Some(line) => Verdict::Pass(format!("the hypervisor says: {}", line.trim())),
        None => Verdict::Fail(format!("the hypervisor's log has no line with {text:?}")),
    })
}

pub(super) fn iommu(facts: &dyn Facts) -> Known<Verdict> {
    let log = xen_log(facts)?;
    if log.lines().any(|line| line.contains("I/O virtualisation enabled")) {
        return Ok(Verdict::Pass(
            "the hypervisor says: I/O virtualisation enabled".to_owned(),
        ));
    }
    // The firmware's tables of Intel's and AMD's IOMMU. Xen hides them from dom0 only when it uses them.
    let tables = facts.list("/sys/firmware/acpi/tables")?.unwrap_or_default();
    Ok(if tables.iter().any(|table| table == "DMAR" || table == "IVRS") {
        Verdict::Fail("the machine has an IOMMU and Xen does not use it".to_owned())
    } else {
        Verdict::NotApplicable(
            "this machine has no IOMMU, or its firmware hides it: give no device to a guest".to_owned(),
        )
    })
}

pub(super) fn xen_toolstack(facts: &dyn Facts) -> Known<Verdict> {
    let list = facts.output(&["xl", "list"])?;
    let domains: Vec<Vec<&str>> = list
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    Ok(match domains.iter().find(|words| words.get(1) == Some(&"0")) {
        Some(words) => Verdict::Pass(format!("{} answers with {} domains", words[0], domains.len())),
        None => Verdict::Fail("`xl list` shows no domain 0".to_owned()),
    })
}

/// A UEFI variable of one byte, after its four bytes of attributes.
fn flag(facts: &dyn Facts, name: &str) -> Known<Option<u8>> {
    let bytes = facts.read(&format!("/sys/firmware/efi/efivars/{name}-{GLOBAL}"))?;
    Ok(bytes.and_then(|bytes| bytes.get(4).copied()))
}

pub(super) fn secure_boot(facts: &dyn Facts) -> Known<Verdict> {
    if facts
        .list("/sys/firmware/efi/efivars")?
        .is_none_or(|names| names.is_empty())
    {
        return Err(Unknown(
            "there are no UEFI variables under /sys/firmware/efi/efivars".to_owned(),
        ));
    }
    let secure = flag(facts, "SecureBoot")?;
    let setup = flag(facts, "SetupMode")?;
    Ok(match (secure, setup) {
        (Some(1), Some(0) | None) => {
            Verdict::Pass("SecureBoot = 1, SetupMode = 0: the firmware refuses unsigned images".to_owned())
        }
        (_, Some(1)) => Verdict::Fail("the firmware is in setup mode: anybody may enrol keys".to_owned()),
        (Some(_), _) => Verdict::Fail("Secure Boot is off: the firmware starts any image".to_owned()),
        (None, _) => Verdict::Fail("the firmware has no Secure Boot".to_owned()),
    })
}

pub(super) fn verity(facts: &dyn Facts) -> Known<Verdict> {
    let root = running_root_hash(facts)?;
    let table = facts.output(&["dmsetup", "table", "--target", "verity"])?;
    // NAME: START LENGTH verity VERSION DATA HASH BLOCK BLOCK BLOCKS START ALGORITHM DIGEST SALT [OPTIONS]
    let Some(words) = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| {
            words.get(3) == Some(&"verity") && words.get(12).is_some_and(|digest| digest.eq_ignore_ascii_case(&root))
        })
    else {
        return Ok(Verdict::Fail(format!("no dm-verity device has the root hash {root}")));
    };
    let name = words[0].trim_end_matches(':');
    let status = facts.output(&["dmsetup", "status", "--target", "verity"])?;
    let state = status
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.first().is_some_and(|first| first.trim_end_matches(':') == name))
        .and_then(|words| words.get(4).map(|&state| state.to_owned()));
    let device = facts.output(&["findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", "-M", "/"])?;
    if !words
        .iter()
        .any(|word| word.starts_with("panic_on_") || word.starts_with("restart_on_"))
    {
        return Ok(Verdict::Fail(format!(
            "{name} does not stop the host on corruption ({})",
            words.join(" ")
        )));
    }
    Ok(match state.as_deref() {
        Some("V") => Verdict::Pass(format!(
            "{name} has the root hash {root}, no corruption seen; / is {}",
            device.trim()
        )),
        Some("C") => Verdict::Fail(format!("{name}: corruption was seen")),
        _ => return Err(Unknown(format!("the state of {name} does not read: {}", status.trim()))),
    })
}
