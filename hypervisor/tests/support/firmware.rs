// SPDX-License-Identifier: GPL-3.0-or-later
//! The firmware's variables in a directory, in the form that efivarfs shows them in, with the real efibootmgr upon them.
//! What the firmware does by itself is done here, and what it would start is read from the variables and not from what
//! efibootmgr prints of them.

use std::fs;
use std::path::{Path, PathBuf};

use signing::digest::Sha256;
use signing::process::Cmd;

const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept, and seen before and after the boot services have ended.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];
const ACTIVE: [u8; 4] = [1, 0, 0, 0];
/// The firmware's own setup, in the firmware's volume: `FvVol(...)/FvFile(...)`.
const SETUP: &[u8] = b"04071400c9bdb87cebf8344faaea3ee4af6516a10406140021aa2c4614760345836e8ab6f46623317fff0400";

pub struct Firmware {
    variables: PathBuf,
}

impl Firmware {
    /// A firmware without any boot entry, and `program`, which edits its entries.
    pub fn new(variables: &Path, program: &Path) -> Self {
        fs::create_dir(variables).unwrap();
        let script = format!(
            "#!/bin/sh\nEFIVARFS_PATH='{}/' exec efibootmgr \"$@\"\n",
            variables.display()
        );
        // Not written here: a process that another test starts meanwhile would hold it open, and it could not be run.
        Cmd::new("install")
            .args(["-m", "755", "/dev/stdin"])
            .arg(program)
            .input(script)
            .run()
            .unwrap();
        Self {
            variables: variables.to_owned(),
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.variables.join(format!("{name}-{GLOBAL}"))
    }

    /// A variable's value, behind its attributes.
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        let bytes = fs::read(self.place(name)).ok()?;
        assert_eq!(bytes[..4], ATTRIBUTES, "{name}");
        Some(bytes[4..].to_vec())
    }

    fn set(&self, name: &str, value: &[u8]) {
        fs::write(self.place(name), [&ATTRIBUTES, value].concat()).unwrap();
    }

    /// An entry that the firmware made by itself.
    pub fn add(&self, number: &str, label: &str) {
        let (digits, _) = SETUP.as_chunks::<2>();
        let digits = digits.iter().map(|two| std::str::from_utf8(two).unwrap());
        let path: Vec<u8> = digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
        let mut option = ACTIVE.to_vec();
        option.extend(u16::try_from(path.len()).unwrap().to_le_bytes());
        option.extend(label.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        option.extend(path);
        self.set(&format!("Boot{number}"), &option);
    }

    /// The firmware drops an entry, as of a stick that was pulled.
    pub fn forget(&self, number: &str) {
        fs::remove_file(self.place(&format!("Boot{number}"))).unwrap();
    }

    pub fn set_order(&self, numbers: &[u16]) {
        let bytes: Vec<u8> = numbers.iter().copied().flat_map(u16::to_le_bytes).collect();
        self.set("BootOrder", &bytes);
    }

    /// It starts the entry of this label, and the order for one start is used up.
    pub fn start(&self, label: &str) {
        drop(fs::remove_file(self.place("BootNext")));
        let mut numbers = (0..0x20).filter(|number| self.get(&format!("Boot{number:04X}")).is_some());
        let number: u16 = numbers
            .find(|number| self.label(&format!("{number:04X}")) == label)
            .unwrap();
        self.set("BootCurrent", &number.to_le_bytes());
    }

    fn numbers(&self, name: &str) -> Option<Vec<String>> {
        let value = self.get(name)?;
        let (numbers, rest) = value.as_chunks::<2>();
        assert!(rest.is_empty(), "{name}: {value:?}");
        Some(
            numbers
                .iter()
                .map(|number| format!("{:04X}", u16::from_le_bytes(*number)))
                .collect(),
        )
    }

    pub fn next(&self) -> Option<String> {
        let numbers = self.numbers("BootNext")?;
        assert_eq!(numbers.len(), 1, "{numbers:?}");
        numbers.into_iter().next()
    }

    pub fn order(&self) -> Vec<String> {
        self.numbers("BootOrder").unwrap()
    }

    /// An entry's label: after its attributes and the length of its path, up to a zero.
    pub fn label(&self, number: &str) -> String {
        let option = self.get(&format!("Boot{number}")).unwrap();
        assert_eq!(option[..4], ACTIVE, "Boot{number} may be started");
        let (units, _) = option[6..].as_chunks::<2>();
        let units = units.iter().copied().map(u16::from_le_bytes);
        char::decode_utf16(units.take_while(|unit| *unit != 0))
            .map(Result::unwrap)
            .collect()
    }

    /// All variables, to see that none was changed.
    pub fn fingerprint(&self) -> String {
        let mut variables: Vec<_> = fs::read_dir(&self.variables)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), Sha256::of(&fs::read(path).unwrap())))
            .collect();
        variables.sort();
        format!("{variables:?}")
    }
}
