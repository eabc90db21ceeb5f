// SPDX-License-Identifier: GPL-3.0-or-later
//! The answer's network as files of systemd-networkd, see systemd.network(5) and systemd.netdev(5).
//!
//! Every value comes from a type whose parser knows no line breaks, so a file has exactly the lines that stand here.
//! From below to above: cards, a bond of them, a VLAN on that, the guests' bridge on that, and the addresses on the top.

use std::collections::BTreeMap;

use crate::answer::{Answer, BRIDGE, InterfaceAnswer, Member};

/// The directory below `/etc`.
pub const DIRECTORY: &str = "systemd/network";

/// An interface in one line, for the plan.
#[must_use]
pub fn words(interface: &InterfaceAnswer) -> String {
    let mut text = base_name(interface);
    if let Some(bond) = &interface.bond {
        let members: Vec<String> = bond.members.iter().map(member_name).collect();
        append(
            &mut text,
            &format!(" = bond of {} ({})", members.join(" + "), bond.mode.name()),
        );
    }
    if let Some(vlan) = interface.vlan {
        append(&mut text, &format!(", VLAN {vlan}"));
    }
    if interface.bridge {
        append(&mut text, &format!(", in the bridge {BRIDGE}"));
    }
    let addresses: Vec<String> = interface.all_addresses().map(ToString::to_string).collect();
    if interface.dhcp {
        append(&mut text, ", address by DHCP");
    } else if addresses.is_empty() {
        append(&mut text, ", no address");
    } else {
        append(&mut text, &format!(", {}", addresses.join(" ")));
    }
    if let Some(gateway) = interface.gateway {
        append(&mut text, &format!(" via {gateway}"));
    }
    text
}

/// The files, by name: what [`DIRECTORY`] is to hold.
#[must_use]
pub fn render(answer: &Answer) -> BTreeMap<String, String> {
    let mut links: BTreeMap<String, Link> = BTreeMap::new();
    for interface in &answer.network.interface {
        add(&mut links, interface);
    }
    let mut files = BTreeMap::new();
    for (name, link) in links {
        // Files are read in the order of their names; the first that matches a link is used for it. The image's own
        // files start at 80.
        let order = link.level;
        if let Some(netdev) = link.netdev {
            files.insert(format!("{order}-{name}.netdev"), netdev);
        }
        let mut text = format!("[Match]\n{}\n", link.matches);
        if let Some(mtu) = link.mtu {
            append(&mut text, &format!("\n[Link]\nMTUBytes={mtu}\n"));
        }
        append(&mut text, "\n[Network]\n");
        // Nothing is taken from the wire that the answer does not ask for.
        for setting in ["LLMNR=no", "MulticastDNS=no", "LLDP=no"] {
            append(&mut text, &format!("{setting}\n"));
        }
        if !link.network.iter().any(|line| line.starts_with("DHCP=")) {
            append(&mut text, "DHCP=no\nIPv6AcceptRA=no\n");
        }
        if !link
            .network
            .iter()
            .any(|line| line.starts_with("Address=") || line.starts_with("DHCP="))
        {
            append(&mut text, "LinkLocalAddressing=no\n");
        }
        for line in &link.network {
            append(&mut text, &format!("{line}\n"));
        }
        files.insert(format!("{order}-{name}.network"), text);
    }
    files
}

/// The resolver's file, for an image without a resolver service: the answer's name servers, if it names any.
#[must_use]
pub fn resolv_conf(answer: &Answer) -> Option<String> {
    let servers = answer.network.interface.iter().flat_map(|interface| &interface.dns);
    let text: String = servers.map(|server| format!("nameserver {server}\n")).collect();
    (!text.is_empty()).then_some(text)
}

/// One link of the kernel and what its files say.
#[derive(Default)]
struct Link {
    level: u32,
    matches: String,
    netdev: Option<String>,
    mtu: Option<u16>,
    network: Vec<String>,
}

fn add(links: &mut BTreeMap<String, Link>, interface: &InterfaceAnswer) {
    let base = base_name(interface);
    let mut top = base.clone();
    if let Some(bond) = &interface.bond {
        for member in &bond.members {
            let card = link(links, &member_file(member), 10, &card_match(member));
            card.mtu = interface.mtu;
            card.network.push(format!("Bond={base}"));
        }
        let link = link(links, &base, 20, &format!("Name={base}"));
        link.netdev = Some(format!(
            "[NetDev]\nName={base}\nKind=bond\n\n[Bond]\nMode={}\nMIIMonitorSec=100ms\n",
            bond.mode.name()
        ));
        link.mtu = interface.mtu;
    } else if let Some(mac) = interface.mac {
        top = member_file(&Member::Mac(mac));
        link(links, &top, 10, &card_match(&Member::Mac(mac))).mtu = interface.mtu;
    } else {
        // Another entry may have made this name a bond, and its file then stands.
        let level = links.get(&base).map_or(10, |known| known.level);
        link(links, &base, level, &format!("Name={base}")).mtu = interface.mtu;
    }
    if let Some(vlan) = interface.vlan {
        let name = vlan_name(interface, vlan);
        if let Some(below) = links.get_mut(&top) {
            below.network.push(format!("VLAN={name}"));
        }
        let link = link(links, &name, 30, &format!("Name={name}"));
        link.netdev = Some(format!("[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={vlan}\n"));
        link.mtu = interface.mtu;
        top = name;
    }
    if interface.bridge {
        if let Some(below) = links.get_mut(&top) {
            below.network.push(format!("Bridge={BRIDGE}"));
        }
        let link = link(links, BRIDGE, 40, &format!("Name={BRIDGE}"));
        // No spanning tree: the bridge has one way out, and a port must not wait half a minute at every boot.
        link.netdev = Some(format!(
            "[NetDev]\nName={BRIDGE}\nKind=bridge\n\n[Bridge]\nSTP=no\nForwardDelaySec=0\n"
        ));
        link.network.push("ConfigureWithoutCarrier=yes".into());
        top = BRIDGE.to_owned();
    }
    let Some(link) = links.get_mut(&top) else {
        return;
    };
    link.network
        .extend(interface.all_addresses().map(|address| format!("Address={address}")));
    link.network
        .extend(interface.gateway.map(|gateway| format!("Gateway={gateway}")));
    link.network
        .extend(interface.dns.iter().map(|server| format!("DNS={server}")));
    if interface.dhcp {
        link.network.push("DHCP=yes".into());
    }
}

fn link<'a>(links: &'a mut BTreeMap<String, Link>, name: &str, level: u32, matches: &str) -> &'a mut Link {
    let link = links.entry(name.to_owned()).or_default();
    link.level = level;
    link.matches = matches.to_owned();
    link
}

/// Only hardware: a bridge, a bond and a VLAN carry the address of the card below them.
fn card_match(member: &Member) -> String {
    match member {
        Member::Mac(mac) => format!("MACAddress={mac}\nType=ether\nKind=!*"),
        Member::Name(name) => format!("Name={name}"),
    }
}

fn member_name(member: &Member) -> String {
    match member {
        Member::Mac(mac) => mac.to_string(),
        Member::Name(name) => name.to_string(),
    }
}

fn member_file(member: &Member) -> String {
    member_name(member).replace(':', "")
}

fn base_name(interface: &InterfaceAnswer) -> String {
    match (&interface.name, &interface.mac) {
        (Some(name), _) => name.to_string(),
        (None, Some(mac)) => mac.to_string(),
        (None, None) => "unnamed".into(),
    }
}

/// A VLAN's name must fit into the kernel's 15 characters: the card's name and the number, or the number alone.
fn vlan_name(interface: &InterfaceAnswer, vlan: u16) -> String {
    let long = interface.name.as_ref().map(|name| format!("{name}.{vlan}"));
    long.filter(|name| name.len() <= 15)
        .unwrap_or_else(|| format!("vlan{vlan}"))
}

fn append(text: &mut String, more: &str) {
    text.push_str(more);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn rendered(lines: &str) -> BTreeMap<String, String> {
        let text = format!("[disk]\nserial = \"S\"\n[network]\nhostname = \"h\"\n{lines}");
        render(&Answer::from_bytes(text.into_bytes()).unwrap().answer)
    }

    #[test]
    fn without_an_interface_there_is_no_network() {
        assert!(rendered("").is_empty());
    }

    #[test]
    fn a_static_address_on_the_bridge() {
        let files = rendered(
            "[[network.interface]]\nmac = \"52:54:00:12:34:56\"\nbridge = true\naddress = \"10.0.2.15/24\"\n\
             gateway = \"10.0.2.2\"\ndns = [\"10.0.2.3\"]\n",
        );
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            ["10-525400123456.network", "40-xenbr0.netdev", "40-xenbr0.network"]
        );
        let card = &files["10-525400123456.network"];
        assert!(
            card.contains("MACAddress=52:54:00:12:34:56\nType=ether\nKind=!*\n"),
            "{card}"
        );
        assert!(card.contains("Bridge=xenbr0") && !card.contains("Address=10"), "{card}");
        let bridge = &files["40-xenbr0.network"];
        for line in ["Address=10.0.2.15/24", "Gateway=10.0.2.2", "DNS=10.0.2.3", "DHCP=no"] {
            assert!(bridge.lines().any(|own| own == line), "{bridge}");
        }
    }

    #[test]
    fn a_bond_carries_a_vlan_that_carries_the_address() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bond-vlan.toml");
        let files = render(&Answer::load(&example).unwrap().answer);
        assert!(files["10-eno1.network"].contains("Bond=bond0"));
        assert!(files["20-bond0.netdev"].contains("Kind=bond\n\n[Bond]\nMode=802.3ad"));
        assert!(files["20-bond0.network"].contains("VLAN=bond0.10"));
        assert!(files["30-bond0.10.netdev"].contains("Id=10"));
        assert!(files["30-bond0.10.network"].contains("Address=2001:db8:10::13/64"));
        assert!(files["30-bond0.10.network"].contains("MTUBytes=9000"));
        assert!(files["30-eno3.20.network"].contains("Bridge=xenbr0"));
        assert!(!files["40-xenbr0.network"].contains("Address="));
    }

    #[test]
    fn two_vlans_share_a_card() {
        let files = rendered(
            "[[network.interface]]\nname = \"averylongname15\"\nvlan = 7\naddress = \"10.0.0.1/24\"\n\
             [[network.interface]]\nname = \"averylongname15\"\nvlan = 8\ndhcp = true\n",
        );
        let card = &files["10-averylongname15.network"];
        assert!(card.contains("VLAN=vlan7") && card.contains("VLAN=vlan8"), "{card}");
        assert!(files["30-vlan8.network"].contains("DHCP=yes"));
    }
}
