// SPDX-License-Identifier: GPL-3.0-or-later
//! What the screens know and how keys change it: pure, so that a test can type.
//!
//! The screens make an answer as a file would give it, and the plan refuses what it always refuses: nothing is decided
//! here that the unattended way does not decide alike.

use ratatui::crossterm::event::KeyCode;

use crate::answer::{
    AdminAnswer, Answer, DiskAnswer, InstallerAnswer, InterfaceAnswer, Loaded, NetworkAnswer, SecureBootAnswer,
    Selector, SshKey, TrustAnswer,
};
use crate::inventory::{Disk, Inventory};
use crate::plan::{Plan, PlanError, ReleaseFacts};

/// The questions, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Screen {
    Disk,
    Wipe,
    Host,
    Network,
    Keys,
    Summary,
}

/// What a key led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Leave,
    Rescan,
    Install,
}

/// A line of text that is being typed.
#[derive(Debug, Clone, Default)]
pub(super) struct Field {
    pub(super) label: &'static str,
    pub(super) hint: &'static str,
    pub(super) text: String,
}

/// More than any answer's line.
const FIELD_LIMIT: usize = 8192;

impl Field {
    const fn new(label: &'static str, hint: &'static str) -> Self {
        Self {
            label,
            hint,
            text: String::new(),
        }
    }

    fn key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) if !c.is_control() && self.text.len() < FIELD_LIMIT => self.text.push(c),
            KeyCode::Backspace => drop(self.text.pop()),
            _ => {}
        }
    }

    fn value(&self) -> Option<&str> {
        Some(self.text.trim()).filter(|text| !text.is_empty())
    }
}

/// The lines of the network screen.
pub(super) const CARD: usize = 0;
pub(super) const DHCP: usize = 1;
pub(super) const BRIDGE: usize = 2;
/// The first line of the network screen that is typed.
pub(super) const FIELDS: usize = 3;

/// All that the screens know.
pub(super) struct Model {
    pub(super) inventory: Inventory,
    pub(super) release: ReleaseFacts,
    pub(super) screen: Screen,
    /// What was wrong with the last step.
    pub(super) message: String,
    pub(super) disk: usize,
    pub(super) wipe: Field,
    pub(super) host: Field,
    /// The line of the network screen that has the focus.
    pub(super) line: usize,
    /// The card, counted from 1; 0 is none.
    pub(super) card: usize,
    pub(super) dhcp: bool,
    pub(super) bridge: bool,
    /// Address, gateway, name server, VLAN.
    pub(super) fields: [Field; 4],
    /// The public keys found on media, and whether each is wanted.
    pub(super) keys: Vec<(String, String, bool)>,
    pub(super) key_line: usize,
    pub(super) typed_key: Field,
    pub(super) plan: Option<Plan>,
    pub(super) loaded: Option<Loaded>,
    /// On the last screen: whether `Install` has the focus, and not `Back`.
    pub(super) install: bool,
    pub(super) scroll: usize,
}

impl Model {
    pub(super) fn new(inventory: Inventory, release: ReleaseFacts, keys: Vec<(String, String)>) -> Self {
        Self {
            inventory,
            release,
            screen: Screen::Disk,
            message: String::new(),
            disk: 0,
            wipe: Field::new("Serial number", "type it to allow that all of this is destroyed"),
            host: Field::new("Host name", "letters, digits, hyphens, dots"),
            line: 0,
            card: 0,
            dhcp: false,
            bridge: true,
            fields: [
                Field::new("Address", "with prefix length, as in 10.0.2.15/24"),
                Field::new("Gateway", "as in 10.0.2.2, or empty"),
                Field::new("Name server", "as in 10.0.2.3, or empty"),
                Field::new("VLAN", "1 to 4094, or empty"),
            ],
            keys: keys.into_iter().map(|(name, key)| (name, key, true)).collect(),
            key_line: 0,
            typed_key: Field::new("Or type one", "ssh-ed25519 AAAA... name"),
            plan: None,
            loaded: None,
            install: false,
            scroll: 0,
        }
    }

    /// Takes a new look at the machine, as after a stick was plugged in.
    pub(super) fn rescan(&mut self, inventory: Inventory, keys: Vec<(String, String)>) {
        self.disk = self.disk.min(inventory.disks.len().saturating_sub(1));
        self.inventory = inventory;
        self.keys = keys.into_iter().map(|(name, key)| (name, key, true)).collect();
        self.key_line = 0;
        "looked again at disks, cards and sticks".clone_into(&mut self.message);
    }

    /// Takes one key.
    pub(super) fn key(&mut self, code: KeyCode) -> Next {
        if !matches!(code, KeyCode::F(_)) {
            self.message.clear();
        }
        match code {
            KeyCode::F(10) => return Next::Leave,
            KeyCode::F(5) => return Next::Rescan,
            KeyCode::Esc => self.back(),
            KeyCode::Enter if self.screen == Screen::Summary && self.install => return Next::Install,
            KeyCode::Enter if self.screen == Screen::Summary => self.back(),
            KeyCode::Enter => {
                if let Err(message) = self.forward() {
                    self.message = message;
                }
            }
            code => self.edit(code),
        }
        Next::Stay
    }

    fn edit(&mut self, code: KeyCode) {
        match self.screen {
            Screen::Disk => self.disk = moved(self.disk, self.inventory.disks.len(), code),
            Screen::Wipe => self.wipe.key(code),
            Screen::Host => self.host.key(code),
            Screen::Network => match (code, self.line) {
                (KeyCode::Up | KeyCode::Down | KeyCode::Tab | KeyCode::BackTab, _) => {
                    self.line = moved(self.line, FIELDS + self.fields.len(), code);
                }
                (KeyCode::Left | KeyCode::Right | KeyCode::Char(' '), CARD) => {
                    let code = if code == KeyCode::Left {
                        KeyCode::Up
                    } else {
                        KeyCode::Tab
                    };
                    self.card = moved(self.card, self.inventory.cards.len() + 1, code);
                }
                (KeyCode::Left | KeyCode::Right | KeyCode::Char(' '), DHCP) => self.dhcp = !self.dhcp,
                (KeyCode::Left | KeyCode::Right | KeyCode::Char(' '), BRIDGE) => self.bridge = !self.bridge,
                (code, line) => {
                    if let Some(field) = line.checked_sub(FIELDS).and_then(|index| self.fields.get_mut(index)) {
                        field.key(code);
                    }
                }
            },
            Screen::Keys => match code {
                KeyCode::Up | KeyCode::Down | KeyCode::Tab | KeyCode::BackTab => {
                    self.key_line = moved(self.key_line, self.keys.len() + 1, code);
                }
                code => match self.keys.get_mut(self.key_line) {
                    Some((.., wanted)) if code == KeyCode::Char(' ') => *wanted = !*wanted,
                    Some(_) => {}
                    None => self.typed_key.key(code),
                },
            },
            Screen::Summary => match code {
                KeyCode::Left | KeyCode::Right | KeyCode::Tab | KeyCode::BackTab => self.install = !self.install,
                KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
                KeyCode::Down => self.scroll += 1,
                _ => {}
            },
        }
    }

    fn back(&mut self) {
        self.install = false;
        self.screen = match self.screen {
            Screen::Disk | Screen::Wipe => Screen::Disk,
            Screen::Host if self.chosen().is_some_and(Disk::holds_data) => Screen::Wipe,
            Screen::Host => Screen::Disk,
            Screen::Network => Screen::Host,
            Screen::Keys => Screen::Network,
            Screen::Summary => Screen::Keys,
        };
    }

    fn forward(&mut self) -> Result<(), String> {
        match self.screen {
            Screen::Disk => {
                self.wipe.text.clear();
                let disk = self.chosen().ok_or("there is no disk: plug one in and press F5")?;
                let holds_data = disk.holds_data();
                match self.attempt_disk() {
                    Err(PlanError::HoldsData { .. }) => self.screen = Screen::Wipe,
                    Err(error) => return Err(error.to_string()),
                    Ok(()) if holds_data => self.screen = Screen::Wipe,
                    Ok(()) => self.screen = Screen::Host,
                }
            }
            Screen::Wipe => {
                self.attempt_disk().map_err(|error| match error {
                    PlanError::HoldsData { .. } | PlanError::OtherWipe { .. } => {
                        "this is not the disk's serial number".to_owned()
                    }
                    error => error.to_string(),
                })?;
                self.screen = Screen::Host;
            }
            Screen::Host => {
                self.host_answer()?;
                self.screen = Screen::Network;
            }
            Screen::Network => {
                self.checked()?;
                self.screen = Screen::Keys;
            }
            Screen::Keys => {
                let loaded = self.checked()?;
                if loaded.answer.admin.ssh_keys.is_empty() && !loaded.answer.network.interface.is_empty() {
                    return Err("without a key nobody can log in over the network: choose or type one".into());
                }
                let plan =
                    Plan::new(&self.inventory, &loaded.answer, &self.release).map_err(|error| error.to_string())?;
                self.plan = Some(plan);
                self.loaded = Some(loaded);
                self.scroll = 0;
                self.install = false;
                self.screen = Screen::Summary;
            }
            Screen::Summary => {}
        }
        Ok(())
    }

    /// The disk that has the focus.
    pub(super) fn chosen(&self) -> Option<&Disk> {
        self.inventory.disks.get(self.disk)
    }

    /// What the plan says of the disk alone.
    fn attempt_disk(&self) -> Result<(), PlanError> {
        let network = NetworkAnswer {
            hostname: "host".parse().map_err(|_| PlanError::NoUefi)?,
            interface: Vec::new(),
        };
        Plan::new(
            &self.inventory,
            &self.answer(network, AdminAnswer::default()),
            &self.release,
        )
        .map(drop)
    }

    fn answer(&self, network: NetworkAnswer, admin: AdminAnswer) -> Answer {
        Answer {
            disk: self.disk_answer(),
            network,
            admin,
            secure_boot: SecureBootAnswer::default(),
            trust: TrustAnswer::default(),
            installer: InstallerAnswer::default(),
        }
    }

    /// The chosen disk by what names it alone: its serial number, else its place and model.
    fn disk_answer(&self) -> DiskAnswer {
        let Some(disk) = self.chosen() else {
            return DiskAnswer::default();
        };
        let selector = |text: Option<&String>| text.and_then(|text| text.parse::<Selector>().ok());
        let serial = selector(disk.serial.as_ref());
        let by_path = selector(disk.by_path.first()).filter(|_| serial.is_none());
        DiskAnswer {
            model: selector(disk.model.as_ref()),
            by_path,
            wipe: self.wipe.value().and_then(|text| text.parse().ok()),
            serial,
            ..DiskAnswer::default()
        }
    }

    fn host_answer(&self) -> Result<NetworkAnswer, String> {
        let name = self.host.value().unwrap_or_default();
        Ok(NetworkAnswer {
            hostname: name.parse()?,
            interface: Vec::new(),
        })
    }

    /// The answer as a file would give it, checked as a file is.
    fn checked(&self) -> Result<Loaded, String> {
        let mut network = self.host_answer()?;
        network.interface.extend(self.interface()?);
        let admin = AdminAnswer {
            ssh_keys: if self.screen == Screen::Keys {
                self.ssh_keys()?
            } else {
                Vec::new()
            },
        };
        let answer = self.answer(network, admin);
        if let Some(problem) = answer.check().first() {
            return Err(problem.to_string());
        }
        answer.to_loaded().map_err(|error| error.to_string())
    }

    fn interface(&self) -> Result<Option<InterfaceAnswer>, String> {
        let Some(card) = self
            .card
            .checked_sub(1)
            .and_then(|index| self.inventory.cards.get(index))
        else {
            return Ok(None);
        };
        let [address, gateway, server, vlan] = &self.fields;
        let ip = |field: &Field| {
            let parse = |text: &str| {
                text.parse()
                    .map_err(|_| format!("{}: {text:?} is no address", field.label))
            };
            field.value().map(parse).transpose()
        };
        let interface = InterfaceAnswer {
            mac: Some(card.mac.parse()?),
            dhcp: self.dhcp,
            bridge: self.bridge,
            address: match address.value().filter(|_| !self.dhcp) {
                Some(text) => Some(text.parse()?),
                None => None,
            },
            gateway: ip(gateway)?.filter(|_| !self.dhcp),
            dns: ip(server)?.into_iter().collect(),
            vlan: match vlan.value() {
                Some(text) => Some(text.parse().map_err(|_| format!("VLAN: {text:?} is no number"))?),
                None => None,
            },
            ..InterfaceAnswer::default()
        };
        if !self.dhcp && interface.address.is_none() && !self.bridge {
            return Err("give an address, switch DHCP on, or choose no card".into());
        }
        Ok(Some(interface))
    }

    fn ssh_keys(&self) -> Result<Vec<SshKey>, String> {
        let wanted = self.keys.iter().filter(|(.., wanted)| *wanted);
        let texts = wanted.map(|(_, key, _)| key.as_str()).chain(self.typed_key.value());
        texts.map(str::parse).collect()
    }
}

/// The focus after a key, in a list of `count`.
fn moved(at: usize, count: usize, code: KeyCode) -> usize {
    match code {
        KeyCode::Up | KeyCode::BackTab => at.checked_sub(1).unwrap_or(count.saturating_sub(1)),
        KeyCode::Down | KeyCode::Tab if at + 1 < count => at + 1,
        KeyCode::Down | KeyCode::Tab => 0,
        _ => at,
    }
}

#[cfg(test)]
pub(super) mod tests;
