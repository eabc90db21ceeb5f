// SPDX-License-Identifier: GPL-3.0-or-later

use super::*;
use crate::inventory::{Card, Firmware, Signature};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1tIxyC1d0vW4UeYnLcoaPyPzPbzKgYqFbXnQ3gVdGb admin@site";

pub(in crate::tui) fn example() -> Model {
    let disk = |serial: &str, full: bool| Disk {
        path: format!("/dev/{}", serial.to_lowercase()).into(),
        model: Some("SAMSUNG MZ7LH480HAHQ-00005".into()),
        serial: Some(serial.into()),
        size: 480_103_981_056,
        sector: 512,
        transport: Some("sata".into()),
        signatures: full
            .then(|| Signature {
                device: "/dev/sdb1".into(),
                kind: "LVM2_member".into(),
                offset: 0,
                label: Some("oldvg".into()),
            })
            .into_iter()
            .collect(),
        ..Disk::default()
    };
    let mut stick = disk("STICK", true);
    stick.medium = true;
    let inventory = Inventory {
        firmware: Firmware {
            uefi: true,
            secure_boot: Some(false),
            setup_mode: Some(true),
        },
        cards: vec![Card {
            name: "eno1".into(),
            mac: "52:54:00:12:34:56".into(),
            driver: Some("e1000e".into()),
            carrier: Some(true),
        }],
        disks: vec![disk("S4EWNX0N1", false), disk("S4EWNX0N2", true), stick],
        ..Inventory::default()
    };
    let part = |part: &str| serde_json::json!({"part": part, "size": 4096, "sha256": "0".repeat(64)});
    let release = serde_json::json!({
        "version": "1.0.0", "channel": "stable", "root_hash": "0".repeat(64),
        "parts": [part("root"), part("verity"), part("xen")],
    });
    Model::new(
        inventory,
        serde_json::from_value(release).unwrap(),
        vec![("admin.pub".into(), KEY.into())],
    )
}

pub(in crate::tui) fn type_in(model: &mut Model, text: &str) {
    for c in text.chars() {
        model.key(KeyCode::Char(c));
    }
}

pub(in crate::tui) fn enter(model: &mut Model) -> Screen {
    model.key(KeyCode::Enter);
    model.screen
}

#[test]
fn an_empty_disk_leads_to_a_plan_and_install_needs_a_choice() {
    let mut model = example();
    assert_eq!(enter(&mut model), Screen::Host);
    assert_eq!(enter(&mut model), Screen::Host, "an empty name is refused");
    assert!(model.message.contains("host name"), "{}", model.message);
    type_in(&mut model, "rack1");
    assert_eq!(enter(&mut model), Screen::Network);
    model.key(KeyCode::Right);
    for _ in 0..3 {
        model.key(KeyCode::Down);
    }
    type_in(&mut model, "10.0.2.15/24");
    assert_eq!(enter(&mut model), Screen::Keys, "{}", model.message);
    assert_eq!(enter(&mut model), Screen::Summary, "{}", model.message);
    let answer = &model.loaded.as_ref().unwrap().answer;
    assert_eq!(answer.disk.serial.as_ref().unwrap().as_str(), "S4EWNX0N1");
    assert_eq!(answer.admin.ssh_keys.len(), 1);
    assert!(answer.network.interface[0].bridge);
    assert_eq!(model.key(KeyCode::Enter), Next::Stay, "Enter alone goes back");
    assert_eq!(model.screen, Screen::Keys);
    enter(&mut model);
    model.key(KeyCode::Right);
    assert_eq!(model.key(KeyCode::Enter), Next::Install);
}

#[test]
fn a_disk_with_data_needs_its_serial_number_typed() {
    let mut model = example();
    model.key(KeyCode::Down);
    assert_eq!(enter(&mut model), Screen::Wipe);
    assert_eq!(enter(&mut model), Screen::Wipe, "nothing typed");
    type_in(&mut model, "S4EWNX0N1");
    assert_eq!(enter(&mut model), Screen::Wipe, "another disk's");
    assert!(model.message.contains("serial number"), "{}", model.message);
    model.key(KeyCode::Backspace);
    type_in(&mut model, "2");
    assert_eq!(enter(&mut model), Screen::Host, "{}", model.message);
    model.key(KeyCode::Esc);
    assert_eq!(model.screen, Screen::Wipe);
    model.key(KeyCode::Esc);
    model.key(KeyCode::Up);
    enter(&mut model);
    assert!(
        model.wipe.text.is_empty(),
        "what was typed for one disk allows nothing on another"
    );
}

#[test]
fn the_medium_cannot_be_chosen() {
    let mut model = example();
    model.key(KeyCode::Up);
    assert_eq!(enter(&mut model), Screen::Disk);
    assert!(model.message.contains("never written"), "{}", model.message);
}

#[test]
fn a_network_without_a_key_is_refused() {
    let mut model = example();
    enter(&mut model);
    type_in(&mut model, "rack1");
    enter(&mut model);
    model.key(KeyCode::Right);
    model.key(KeyCode::Down);
    model.key(KeyCode::Char(' '));
    assert!(model.dhcp);
    assert_eq!(enter(&mut model), Screen::Keys, "{}", model.message);
    model.key(KeyCode::Char(' '));
    assert_eq!(enter(&mut model), Screen::Keys);
    assert!(model.message.contains("without a key"), "{}", model.message);
    model.key(KeyCode::Down);
    type_in(&mut model, "ssh-rsa nonsense");
    assert_eq!(enter(&mut model), Screen::Keys);
    assert!(model.message.contains("not an OpenSSH public key"), "{}", model.message);
}

#[test]
fn every_key_on_every_screen_is_harmless() {
    let keys = [
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Backspace,
        KeyCode::Delete,
        KeyCode::Home,
        KeyCode::Char(' '),
        KeyCode::Char('ä'),
        KeyCode::Char('\u{7}'),
        KeyCode::F(1),
        KeyCode::Esc,
    ];
    for bare in [false, true] {
        let mut model = example();
        if bare {
            model.inventory = Inventory::default();
            model.keys.clear();
        }
        for screen in [
            Screen::Disk,
            Screen::Wipe,
            Screen::Host,
            Screen::Network,
            Screen::Keys,
            Screen::Summary,
        ] {
            for code in keys {
                for line in 0..9 {
                    model.screen = screen;
                    model.line = line % (FIELDS + 4);
                    model.key(code);
                }
            }
        }
    }
}
