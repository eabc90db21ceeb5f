// SPDX-License-Identifier: GPL-3.0-or-later
//! The answer file: what an operator would type, written down before, in TOML.
//!
//! Attacks faced: a file too large for memory, keys that a typing error or another version made (refused, never ignored),
//! values that would escape into a configuration file (line breaks, section headers, shell text) or name two disks, and
//! text that moves the cursor of the screen that tells what is wrong.
//! Defence: the size is bounded before parsing, unknown keys are errors, every value is a type whose parser accepts a
//! short list of characters, what spans several keys is checked by [`Answer::check`], and an error quotes no control
//! character.
//! Not defended: the file is not signed. Whoever can write the medium can choose the disk and the administrator's key;
//! the record of the installation carries the answer's hash, so that a change is seen afterwards.

mod error;
mod trust;
mod values;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use signing::digest::{self, Sha256};
use signing::output;
use signing::policy::{SITE, SiteFiles};

pub use error::{AnswerError, Problem};
pub use trust::TrustAnswer;
pub use values::{HostName, Interface, MacAddress, Prefix, Selector, Size, SshKey};

/// An answer is a page of text; more is a mistake or an attack.
pub const LIMIT: u64 = 64 * 1024;
/// As many interfaces as a server has ports, and some.
const INTERFACES: usize = 64;
/// The name of the bridge that guests attach to.
pub const BRIDGE: &str = "xenbr0";

/// The answers to all that the installer asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Which disk becomes the host's.
    pub disk: DiskAnswer,
    /// The host's name and its network.
    pub network: NetworkAnswer,
    /// Who may administer the host.
    #[serde(default)]
    pub admin: AdminAnswer,
    /// What the firmware is to trust.
    #[serde(default)]
    pub secure_boot: SecureBootAnswer,
    /// Whom the host believes beside the vendor.
    #[serde(default)]
    pub trust: TrustAnswer,
    /// How the installer itself behaves.
    #[serde(default)]
    pub installer: InstallerAnswer,
}

/// Which disk: all the keys that are given must match, and exactly one disk may match them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskAnswer {
    /// The serial number, in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Selector>,
    /// The model, in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Selector>,
    /// The name below /dev/disk/by-path, such as `pci-0000:00:1f.2-ata-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_path: Option<Selector>,
    /// The least size, such as `400 GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<Size>,
    /// The greatest size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Size>,
    /// The serial number of a disk that holds data and may be wiped. It must be the chosen disk's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe: Option<Selector>,
}

/// The host's name and network. Without an interface the host has no network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkAnswer {
    /// The host's name.
    pub hostname: HostName,
    /// The interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interface: Vec<InterfaceAnswer>,
}

/// One way into the network: a card or a bond of cards, perhaps a VLAN on it, perhaps the guests' bridge on that, and the
/// addresses on what comes out on top.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InterfaceAnswer {
    /// The card's name (such as `eno1`), or the name that a bond is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Interface>,
    /// The card's address, instead of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Makes a bond named `name` of several cards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<BondAnswer>,
    /// The VLAN's number (IEEE 802.1Q), 1 to 4094.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4094))]
    pub vlan: Option<u16>,
    /// Puts the interface into the bridge `xenbr0`, which guests attach to; the addresses are then the bridge's.
    #[serde(default)]
    pub bridge: bool,
    /// A static address with its prefix length, such as `10.0.2.15/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Prefix>,
    /// More static addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Prefix>,
    /// The default gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Asks a DHCP server for the address.
    #[serde(default)]
    pub dhcp: bool,
    /// The largest packet, 1280 to 9216 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1280, max = 9216))]
    pub mtu: Option<u16>,
}

/// The cards of a bond and how they work together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BondAnswer {
    /// The cards, by name or by MAC address; at least two.
    pub members: Vec<Member>,
    /// The mode.
    #[serde(default)]
    pub mode: BondMode,
}

/// A card of a bond.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Member {
    /// By its address.
    Mac(MacAddress),
    /// By its name.
    Name(Interface),
}

/// How the cards of a bond work together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BondMode {
    /// One works, the others wait. Needs nothing of the switch.
    #[default]
    ActiveBackup,
    /// LACP (IEEE 802.3ad); the switch must be configured for it.
    #[serde(rename = "802.3ad")]
    Lacp,
    /// Spread by the peers' addresses.
    BalanceXor,
}

impl BondMode {
    /// The mode's name for systemd.netdev(5).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ActiveBackup => "active-backup",
            Self::Lacp => "802.3ad",
            Self::BalanceXor => "balance-xor",
        }
    }
}

/// Who may administer the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminAnswer {
    /// OpenSSH public keys that may log in as root. There is no password.
    #[serde(default)]
    pub ssh_keys: Vec<SshKey>,
}

/// What the firmware is to trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecureBootAnswer {
    /// Writes the site's keys into a firmware that is in setup mode.
    #[serde(default = "yes")]
    pub enrol: bool,
    /// Refuses to install on a machine that will not start the host under Secure Boot.
    #[serde(default)]
    pub require: bool,
}

impl Default for SecureBootAnswer {
    fn default() -> Self {
        Self {
            enrol: true,
            require: false,
        }
    }
}

const fn yes() -> bool {
    true
}

/// How the installer itself behaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallerAnswer {
    /// What comes after a whole installation.
    #[serde(default)]
    pub finish: Then,
    /// Opens a root shell on the ninth console. For faults only.
    #[serde(default)]
    pub shell: bool,
    /// Copies the signed record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_to: Option<RecordTo>,
}

/// Where the signed record is copied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RecordTo {
    /// The medium that the answer was on.
    Medium,
}

/// What comes after a whole installation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Start the new host.
    #[default]
    Reboot,
    /// Switch the machine off.
    Poweroff,
    /// Stay, with the result on the screen.
    Wait,
}

/// An answer with the digest of the bytes that it was read from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The answer, checked.
    pub answer: Answer,
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub sha256: Sha256,
    /// The files of the site that the answer names, from beside it.
    pub site: Option<SiteFiles>,
}

impl Answer {
    /// Reads and checks an answer file.
    ///
    /// # Errors
    /// When it cannot be read, is not of the schema, or its values do not go together.
    pub fn load(path: &Path) -> Result<Loaded, AnswerError> {
        let bytes = digest::read_bounded(path, LIMIT).map_err(|source| AnswerError::Read {
            path: path.display().to_string(),
            source,
        })?;
        let mut loaded = Self::from_bytes(bytes)?;
        if loaded.answer.trust.site_root.is_some() {
            let beside = path.parent().unwrap_or(Path::new(""));
            let site = SiteFiles::read(&beside.join(SITE));
            loaded.site = Some(site.map_err(|error| AnswerError::Site(output::chain(&error)))?);
        }
        Ok(loaded)
    }

    /// Parses and checks an answer.
    ///
    /// # Errors
    /// As [`Answer::load`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Loaded, AnswerError> {
        if bytes.len() as u64 > LIMIT {
            return Err(AnswerError::Syntax(format!("it is longer than {LIMIT} bytes")));
        }
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            AnswerError::Syntax(format!(
                "byte {} is not UTF-8: save the file as plain text",
                error.valid_up_to()
            ))
        })?;
        let answer: Self =
            toml::from_str(text).map_err(|error| AnswerError::Syntax(error::place_and_message(text, &error)))?;
        let problems = answer.check();
        if !problems.is_empty() {
            return Err(AnswerError::Values(problems));
        }
        let sha256 = Sha256::of(&bytes);
        Ok(Loaded {
            answer,
            bytes,
            sha256,
            site: None,
        })
    }

    /// The answer as a file, as the terminal screens make it.
    ///
    /// # Errors
    /// When the result would not be a valid answer.
    pub fn to_loaded(&self) -> Result<Loaded, AnswerError> {
        let text = toml::to_string(self).map_err(|error| AnswerError::Syntax(error.to_string()))?;
        Self::from_bytes(text.into_bytes())
    }

    /// Everything that is wrong between values that are each right alone.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut say = |key: String, message: String| problems.push(Problem { key, message });
        let disk = &self.disk;
        if disk.serial.is_none() && disk.model.is_none() && disk.by_path.is_none() && disk.min_size.is_none() {
            say(
                "disk".into(),
                "names no disk: give serial, model, by_path or min_size".into(),
            );
        }
        if let (Some(least), Some(greatest)) = (&disk.min_size, &disk.max_size)
            && least.bytes() > greatest.bytes()
        {
            say("disk.max_size".into(), format!("is less than disk.min_size ({least})"));
        }
        if let (Some(serial), Some(wipe)) = (&disk.serial, &disk.wipe)
            && serial != wipe
        {
            say(
                "disk.wipe".into(),
                format!("is {wipe}, but disk.serial is {serial}: only the chosen disk may be wiped"),
            );
        }
        if self.network.interface.len() > INTERFACES {
            say(
                "network.interface".into(),
                format!("has more than {INTERFACES} entries"),
            );
        }
        for (index, interface) in self.network.interface.iter().enumerate() {
            interface.check(&format!("network.interface[{index}]"), &mut say);
        }
        check_between(&self.network.interface, &mut say);
        problems
    }
}

impl InterfaceAnswer {
    /// All static addresses.
    pub fn all_addresses(&self) -> impl Iterator<Item = &Prefix> {
        self.address.iter().chain(&self.addresses)
    }

    fn check(&self, place: &str, say: &mut impl FnMut(String, String)) {
        let key = |name: &str| format!("{place}.{name}");
        match (&self.bond, &self.name, &self.mac) {
            (Some(bond), name, mac) => {
                if name.is_none() {
                    say(key("name"), "is missing: a bond needs a name, such as bond0".into());
                }
                if mac.is_some() {
                    say(
                        key("mac"),
                        "does not go with bond: name its cards in bond.members".into(),
                    );
                }
                let distinct: BTreeSet<_> = bond.members.iter().collect();
                if distinct.len() < 2 || distinct.len() != bond.members.len() {
                    say(key("bond.members"), "needs at least two different cards".into());
                }
            }
            (None, None, None) => say(place.to_owned(), "names no card: give name, mac or bond".into()),
            (None, Some(_), Some(_)) => say(key("mac"), "does not go with name: give one of them".into()),
            (None, ..) => {}
        }
        if let Some(vlan) = self.vlan
            && !(1..=4094).contains(&vlan)
        {
            say(key("vlan"), format!("{vlan} is not between 1 and 4094"));
        }
        if let Some(mtu) = self.mtu
            && !(1280..=9216).contains(&mtu)
        {
            say(key("mtu"), format!("{mtu} is not between 1280 and 9216"));
        }
        if self.dhcp && (self.all_addresses().next().is_some() || self.gateway.is_some()) {
            say(key("dhcp"), "does not go with address or gateway".into());
        }
        if let Some(gateway) = self.gateway
            && !self.all_addresses().any(|prefix| prefix.contains(gateway))
        {
            say(
                key("gateway"),
                format!("{gateway} is not in the network of any address of this interface"),
            );
        }
    }
}

/// What no interface can see alone: a card, a VLAN or the bridge used twice.
fn check_between(interfaces: &[InterfaceAnswer], say: &mut impl FnMut(String, String)) {
    let mut cards = BTreeSet::new();
    let mut tops = BTreeSet::new();
    let mut gateways = BTreeSet::new();
    let mut bridges = 0;
    for (index, interface) in interfaces.iter().enumerate() {
        let place = format!("network.interface[{index}]");
        let base = match (&interface.name, &interface.mac) {
            (Some(name), _) => name.to_string(),
            (None, Some(mac)) => mac.to_string(),
            (None, None) => continue,
        };
        let members = interface.bond.iter().flat_map(|bond| &bond.members);
        for member in members {
            let member = match member {
                Member::Mac(mac) => mac.to_string(),
                Member::Name(name) => name.to_string(),
            };
            if !cards.insert(member.clone()) {
                say(format!("{place}.bond.members"), format!("{member} is used twice"));
            }
        }
        if !tops.insert((base.clone(), interface.vlan)) {
            say(place.clone(), format!("{base} is used twice"));
        }
        if base == BRIDGE {
            say(
                format!("{place}.name"),
                format!("{BRIDGE} is the bridge's own name: set bridge = true on a card"),
            );
        }
        bridges += usize::from(interface.bridge);
        if bridges > 1 && interface.bridge {
            say(
                format!("{place}.bridge"),
                "there is one bridge: set it on one interface".into(),
            );
        }
        if let Some(gateway) = interface.gateway
            && !gateways.insert(gateway.is_ipv4())
        {
            say(
                format!("{place}.gateway"),
                "there is a default gateway already: give it on one interface".into(),
            );
        }
    }
    for (base, _) in &tops {
        if cards.contains(base) {
            say(
                "network.interface".into(),
                format!("{base} is a member of a bond and used alone"),
            );
        }
    }
}

/// The JSON schema of an answer, as published.
///
/// # Errors
/// Never in practice: when the schema is not JSON.
pub fn schema() -> serde_json::Result<String> {
    let mut schema = schemars::schema_for!(Answer);
    schema.insert("title".into(), "Bastide answer file".into());
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

#[cfg(test)]
mod tests;
