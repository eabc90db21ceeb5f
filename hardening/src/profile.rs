// SPDX-License-Identifier: GPL-3.0-or-later
//! Hardening profiles: which checks a system must pass, as typed data. A profile states; [`crate::check`] looks.

use std::collections::BTreeSet;

use serde::Deserialize;

mod words;

/// The profiles in this binary, by name.
const SHIPPED: [(&str, &str); 1] = [("base", include_str!("../profiles/base.toml"))];

/// A profile.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Always 1.
    pub format: u32,
    /// Its name.
    pub name: String,
    /// Its title.
    pub title: String,
    /// What it is for.
    pub about: String,
    /// The checks, in the order of the report.
    #[serde(rename = "check")]
    pub checks: Vec<Check>,
    /// What may differ from the signed image.
    pub drift: Drift,
}

/// The areas of a profile, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// Boot chain and kernel command line.
    Boot,
    /// The hypervisor.
    Xen,
    /// Kernel settings.
    Sysctl,
    /// Kernel modules.
    Modules,
    /// Services and sockets.
    Services,
    /// Accounts.
    Accounts,
    /// Remote access.
    Ssh,
    /// Mounts.
    Mounts,
    /// Permissions.
    Permissions,
}

impl Area {
    /// All areas.
    pub const ALL: [Self; 9] = [
        Self::Boot,
        Self::Xen,
        Self::Sysctl,
        Self::Modules,
        Self::Services,
        Self::Accounts,
        Self::Ssh,
        Self::Mounts,
        Self::Permissions,
    ];

    /// Its title in the report.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Boot => "Boot chain and kernel command line",
            Self::Xen => "Xen hypervisor",
            Self::Sysctl => "Kernel settings (sysctl)",
            Self::Modules => "Kernel modules",
            Self::Services => "Services and listening sockets",
            Self::Accounts => "Accounts",
            Self::Ssh => "Remote access (ssh)",
            Self::Mounts => "Mounts",
            Self::Permissions => "Permissions",
        }
    }
}

/// One check.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// A stable identifier, `AREA-NN`.
    pub id: String,
    /// One line.
    pub title: String,
    /// Where it belongs.
    pub area: Area,
    /// Why it matters.
    pub rationale: String,
    /// Where it is written.
    pub references: Vec<String>,
    /// What to do when it fails.
    pub remedy: String,
    /// When the question arises at all.
    #[serde(default)]
    pub when: When,
    /// What must hold.
    pub rule: Rule,
}

/// When a check applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// On every system.
    #[default]
    Always,
    /// In the control domain of a Xen host.
    Xen,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// Not there at all.
    Absent,
    /// There, with any value or none.
    Present,
    /// One of these texts.
    OneOf(Vec<String>),
    /// None of these texts; absent is fine.
    NoneOf(Vec<String>),
    /// A number not below this.
    AtLeast(i64),
    /// A number not above this.
    AtMost(i64),
    /// A text that contains this.
    Contains(String),
}

/// What must hold. Each kind is one question to the system.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rule {
    /// A kernel setting, now and after a reboot.
    Sysctl {
        /// The dotted name.
        key: String,
        /// What it must be.
        expect: Expect,
    },
    /// A parameter of the kernel command line, now and in the signed boot image.
    KernelArgument {
        /// Its name.
        name: String,
        /// What it must be.
        expect: Expect,
    },
    /// A parameter of Xen's command line, now and in the signed boot image.
    XenArgument {
        /// Its name.
        name: String,
        /// What it must be.
        expect: Expect,
    },
    /// The running command lines are those of the signed boot image, with nothing added.
    CommandLinesAreSigned,
    /// The running hypervisor's version.
    XenVersion {
        /// The oldest branch that will do, such as `4.20`.
        at_least: String,
    },
    /// The log of the hypervisor's boot holds none of these.
    XenLogLacks {
        /// Texts that must not appear.
        texts: Vec<String>,
    },
    /// The log of the hypervisor's boot holds this.
    XenLogHas {
        /// The text.
        text: String,
    },
    /// Xen uses the IOMMU, where the machine has one.
    Iommu,
    /// The toolstack answers: `xl list` shows domain 0.
    XenToolstack,
    /// The content of a small file, trimmed.
    File {
        /// Its path.
        path: String,
        /// What it must be.
        expect: Expect,
    },
    /// The firmware's Secure Boot state.
    SecureBoot,
    /// The running root file system is under dm-verity.
    Verity,
    /// Modules that must be neither loaded nor loadable.
    ModulesAbsent {
        /// Their names.
        modules: Vec<String>,
    },
    /// A unit's state, now and after a reboot.
    Unit {
        /// Its name.
        unit: String,
        /// `true`: runs and is enabled. `false`: does not run and cannot be enabled by chance.
        runs: bool,
    },
    /// No unit has failed.
    NoFailedUnits,
    /// Nothing listens but these, as `tcp/22 sshd`; sockets on loopback addresses are judged too unless `loopback` allows.
    Sockets {
        /// What may listen.
        allowed: Vec<String>,
    },
    /// Facts about accounts.
    Accounts {
        /// Which.
        must: AccountRule,
    },
    /// An effective setting of the ssh daemon (`sshd -T`).
    Sshd {
        /// Its name, in lower case.
        option: String,
        /// What it must be.
        expect: Expect,
    },
    /// The ssh daemon offers none of these algorithms.
    SshdLacks {
        /// The option with the list.
        option: String,
        /// What must not be in it.
        algorithms: Vec<String>,
    },
    /// A mount and its options, now and after a reboot.
    Mount {
        /// Where.
        point: String,
        /// Its file system types; empty for any.
        #[serde(default)]
        types: Vec<String>,
        /// Options that it must have.
        options: Vec<String>,
    },
    /// A file's owner and the most permissions that it may have.
    Permission {
        /// Its path.
        path: String,
        /// Numeric owner.
        uid: u32,
        /// The permission bits that it may have at most, in octal.
        at_most: String,
        /// Whether its absence is fine.
        #[serde(default)]
        optional: bool,
    },
    /// No setuid or setgid file but these.
    Setuid {
        /// Paths that may be.
        allowed: Vec<String>,
    },
    /// Nothing that everybody may write but these sticky directories.
    WorldWritable {
        /// Paths that may be.
        allowed: Vec<String>,
    },
    /// The question cannot be asked here, for the reason given.
    NotHere {
        /// Why.
        reason: String,
    },
}

/// The questions about accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountRule {
    /// Only root has user id 0.
    OnlyRootIsZero,
    /// No account has an empty password.
    NoEmptyPassword,
    /// No account has a password that works: access is by key.
    PasswordsLocked,
    /// Service accounts have no shell.
    ServiceShells,
    /// No name and no user id is given twice.
    Unique,
    /// No password or hash stands in the world-readable file.
    Shadowed,
}

/// What may differ from the signed image in the overlay over `/etc`. A `*` stands for any part of a path.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// What installer and first boot write on every host.
    pub expected: Vec<String>,
    /// What decides over access and code: a change here fails.
    pub critical: Vec<String>,
}

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No profile of that name.
    #[error("there is no profile {0:?}: the profiles are {1}")]
    Unknown(String, String),
    /// It does not read.
    #[error("the profile {0} does not read: {1}")]
    Malformed(String, String),
}

impl Profile {
    /// The names of the shipped profiles.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|&(name, _)| name)
    }

    /// A shipped profile.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn shipped(name: &str) -> Result<Self, ProfileError> {
        let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) else {
            return Err(ProfileError::Unknown(
                name.to_owned(),
                Self::names().collect::<Vec<_>>().join(", "),
            ));
        };
        Self::parse(name, text)
    }

    /// A profile from its text.
    ///
    /// # Errors
    /// When it has unknown keys, a check twice, or permissions that are not octal.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let malformed = |why: String| ProfileError::Malformed(name.to_owned(), why);
        let profile: Self = toml::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if profile.format != 1 {
            return Err(malformed(format!(
                "its format is {}, this program knows 1",
                profile.format
            )));
        }
        let mut ids = BTreeSet::new();
        for check in &profile.checks {
            if !ids.insert(&check.id) {
                return Err(malformed(format!("the check {} stands there twice", check.id)));
            }
            if let Rule::Permission { at_most, .. } = &check.rule
                && u32::from_str_radix(at_most, 8).is_err()
            {
                return Err(malformed(format!("{}: {at_most:?} is not octal", check.id)));
            }
        }
        Ok(profile)
    }

    /// A check by its identifier.
    #[must_use]
    pub fn check(&self, id: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.id.eq_ignore_ascii_case(id))
    }
}

impl Expect {
    /// Whether a value is what it must be; `None` stands for "not there".
    #[must_use]
    pub fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.trim().parse::<i64>().ok());
        match self {
            Self::Absent => value.is_none(),
            Self::Present => value.is_some(),
            Self::OneOf(texts) => value.is_some_and(|value| texts.iter().any(|text| text == value)),
            Self::NoneOf(texts) => value.is_none_or(|value| !texts.iter().any(|text| text == value)),
            Self::AtLeast(least) => number().is_some_and(|number| number >= *least),
            Self::AtMost(most) => number().is_some_and(|number| number <= *most),
            Self::Contains(part) => value.is_some_and(|value| value.contains(part)),
        }
    }
}

/// Whether a path matches a pattern in which `*` stands for any text.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| path.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_profiles_read_and_are_complete() {
        for name in Profile::names() {
            let profile = Profile::shipped(name).unwrap();
            assert_eq!(profile.name, name);
            for check in &profile.checks {
                assert!(!check.rationale.is_empty() && !check.remedy.is_empty(), "{}", check.id);
                assert!(!check.references.is_empty(), "{} has no reference", check.id);
            }
            for area in Area::ALL {
                assert!(
                    profile.checks.iter().any(|check| check.area == area),
                    "nothing checks {area:?}"
                );
            }
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_ed25519_key"));
        assert!(!matches("/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_ed25519_key.pub"));
        assert!(matches("/etc/hostname", "/etc/hostname"));
        assert!(!matches("/etc/hostname", "/etc/hostname2"));
        assert!(matches("/etc/systemd/*", "/etc/systemd/network/10.network"));
    }

    #[test]
    fn an_unknown_key_or_a_second_check_of_one_name_is_refused() {
        let text = include_str!("../profiles/base.toml");
        assert!(Profile::parse("x", &format!("colour = 1\n{text}")).is_err());
        let first = text.find("[[check]]").unwrap();
        let second = text[first + 5..].find("[[check]]").unwrap() + first + 5;
        let doubled = format!("{}{}{}", &text[..first], &text[first..second], &text[first..]);
        assert!(Profile::parse("x", &doubled).unwrap_err().to_string().contains("twice"));
    }
}
