// SPDX-License-Identifier: GPL-3.0-or-later
//! A private bridge: a network namespace that holds a Linux bridge, the machines that are plugged into it, and nothing else.

use anyhow::Result;
use signing::process::Cmd;

/// The bridge. Dropping it takes its namespace away.
#[derive(Debug)]
pub struct Bridge {
    namespace: String,
}

/// A place on it for one machine.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    bridge: &'a Bridge,
    number: u8,
}

impl Bridge {
    /// Makes the bridge.
    ///
    /// # Errors
    /// When this process may not (it must be root), or the kernel has none.
    pub fn make() -> Result<Self> {
        let namespace = format!("bastide-{}", std::process::id());
        Cmd::new("ip").args(["netns", "add", &namespace]).run()?;
        let bridge = Self { namespace };
        bridge.ip(&["link", "set", "lo", "up"])?;
        bridge.ip(&["link", "add", "bridge", "type", "bridge"])?;
        bridge.ip(&["link", "set", "bridge", "up"])?;
        Ok(bridge)
    }

    /// Adds a port.
    ///
    /// # Errors
    /// When it cannot be made, or there is one of this number.
    pub fn port(&self, number: u8) -> Result<Port<'_>> {
        let port = Port { bridge: self, number };
        let tap = port.tap();
        self.ip(&["tuntap", "add", &tap, "mode", "tap"])?;
        self.ip(&["link", "set", &tap, "master", "bridge", "up"])?;
        Ok(port)
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        Ok(Cmd::new("ip").args(["-n", &self.namespace]).args(arguments).run()?)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // What cannot be taken away holds nothing but itself.
        drop(Cmd::new("ip").args(["netns", "del", &self.namespace]).run());
    }
}

impl Port<'_> {
    /// The address of the network card that is plugged in here.
    #[must_use]
    pub fn mac(&self) -> String {
        format!("52:54:00:ba:58:{:02x}", self.number)
    }

    /// The namespace that the machine runs in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.bridge.namespace
    }

    /// QEMU's arguments for that card.
    #[must_use]
    pub fn arguments(&self) -> [String; 4] {
        [
            "-netdev".to_owned(),
            format!("tap,id=bridge,ifname={},script=no,downscript=no", self.tap()),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev=bridge,mac={},romfile=", self.mac()),
        ]
    }

    fn tap(&self) -> String {
        format!("tap{}", self.number)
    }
}

/// A program, in a network namespace where one is named.
#[must_use]
pub fn within(namespace: Option<&str>, program: &str) -> Cmd {
    match namespace {
        Some(namespace) => Cmd::new("ip").args(["netns", "exec", namespace, program]),
        None => Cmd::new(program),
    }
}
