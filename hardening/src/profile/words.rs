// SPDX-License-Identifier: GPL-3.0-or-later
//! Rules and expectations in words, for `profile explain` and for verdicts.

use super::{Expect, Rule};

impl Rule {
    /// What is looked at, in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Sysctl { key, expect } => {
                format!(
                    "{key} under /proc/sys, and the last file of sysctl.d that sets it: {}",
                    expect.words()
                )
            }
            Self::KernelArgument { name, expect } => {
                format!(
                    "{name} in /proc/cmdline and in the signed boot image: {}",
                    expect.words()
                )
            }
            Self::XenArgument { name, expect } => {
                format!(
                    "{name} in Xen's command line (xl info) and in the signed boot image: {}",
                    expect.words()
                )
            }
            Self::CommandLinesAreSigned => {
                "/proc/cmdline and xl info, word for word with the signed boot image".to_owned()
            }
            Self::XenVersion { at_least } => format!("xen_major and xen_minor in xl info: at least {at_least}"),
            Self::XenLogLacks { texts } => format!("xl dmesg: none of {}", texts.join("; ")),
            Self::XenLogHas { text } => format!("xl dmesg: {text}"),
            Self::Iommu => {
                "xl dmesg: I/O virtualisation enabled, where the firmware has a table of an IOMMU".to_owned()
            }
            Self::XenToolstack => "xl list: domain 0".to_owned(),
            Self::File { path, expect } => format!("{path}: {}", expect.words()),
            Self::SecureBoot => "the firmware's variables SecureBoot and SetupMode".to_owned(),
            Self::Verity => "dmsetup's verity table and state, against bastide.roothash in /proc/cmdline".to_owned(),
            Self::ModulesAbsent { modules } => {
                format!(
                    "/proc/modules, modules.dep and modprobe.d: none of {}",
                    modules.join(", ")
                )
            }
            Self::Unit { unit, runs: true } => format!("systemctl show {unit}: active, and started at boot"),
            Self::Unit { unit, runs: false } => format!("systemctl show {unit}: neither active nor started at boot"),
            Self::NoFailedUnits => "systemctl list-units --failed: empty".to_owned(),
            Self::Sockets { allowed } => format!("ss -lntup: only {}", allowed.join(", ")),
            Self::Accounts { .. } => "/etc/passwd and /etc/shadow".to_owned(),
            Self::Sshd { option, expect } => format!("{option} in sshd -T: {}", expect.words()),
            Self::SshdLacks { option, algorithms } => format!("{option} in sshd -T: none of {}", algorithms.join(", ")),
            Self::Mount { point, types, options } => {
                format!(
                    "{point} in /proc/self/mountinfo: {} {}",
                    types.join(" or "),
                    options.join(",")
                )
            }
            Self::Permission { path, uid, at_most, .. } => format!("{path}: owner {uid}, mode at most {at_most}"),
            Self::Setuid { allowed } => format!("all files with setuid or setgid: only {}", allowed.join(", ")),
            Self::WorldWritable { allowed } => format!("all that everybody may write: only {}", allowed.join(", ")),
            Self::NotHere { reason } => format!("nothing: {reason}"),
        }
    }
}

impl Expect {
    /// What must be, in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Absent => "absent".to_owned(),
            Self::Present => "present".to_owned(),
            Self::OneOf(texts) => texts.join(" or "),
            Self::NoneOf(texts) => format!("not {}", texts.join(" nor ")),
            Self::AtLeast(least) => format!("at least {least}"),
            Self::AtMost(most) => format!("at most {most}"),
            Self::Contains(part) => format!("containing {part}"),
        }
    }
}
