// SPDX-License-Identifier: GPL-3.0-or-later
//! GUIDs as EFI has them: in partition tables, variables and signature lists.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text is not a GUID.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a GUID (32 hexadecimal digits grouped 8-4-4-4-12)")]
pub struct NotAGuid(String);

/// A GUID, kept as the sixteen bytes in the order in which EFI stores them (the first three groups little-endian; UEFI 2.10,
/// appendix A) and written in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// A GUID from its digits as one number: `of(0x8be4df61_93ca_…)`.
    #[must_use]
    pub const fn of(digits: u128) -> Self {
        Self::from_text_order(digits.to_be_bytes())
    }

    /// A GUID from its sixteen bytes in the order in which its text shows them.
    #[must_use]
    pub const fn from_text_order(bytes: [u8; 16]) -> Self {
        Self(swap_groups(bytes))
    }

    /// Whether all bits are zero, which marks an unused partition entry.
    #[must_use]
    pub fn is_nil(self) -> bool {
        self.0 == [0; 16]
    }
}

/// From one order into the other.
const fn swap_groups(b: [u8; 16]) -> [u8; 16] {
    [
        b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
    ]
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in swap_groups(self.0).iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

impl FromStr for Guid {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        let groups = text.split('-').map(str::len);
        let mut bytes = [0; 16];
        if groups.ne([8, 4, 4, 4, 12]) || hex::decode_to_slice(text.replace('-', ""), &mut bytes).is_err() {
            return Err(NotAGuid(text.chars().take(60).collect()));
        }
        Ok(Self::from_text_order(bytes))
    }
}

impl Serialize for Guid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Guid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_groups_are_stored_little_endian() {
        let text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
        let guid: Guid = text.to_uppercase().parse().unwrap();
        assert_eq!(guid.to_string(), text);
        assert_eq!(guid.0[..8], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11]);
        assert_eq!(guid, Guid::of(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b));
    }

    #[test]
    fn refuses_what_is_no_guid() {
        for text in [
            "",
            "c12a7328",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93g",
            "c12a7328f81f-11d2-ba4b-00a0-c93ec93b",
            "8be4df6193-ca-11d2-aa0d-00e098032b8c",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93",
            "\u{e9}12a732-f81f-11d2-ba4b-00a0c93ec93b",
        ] {
            assert!(text.parse::<Guid>().is_err(), "{text}");
        }
    }
}
