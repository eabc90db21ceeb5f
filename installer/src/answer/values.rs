// SPDX-License-Identifier: GPL-3.0-or-later
//! The values of an answer: each is a type whose parser is the only way in, so that no text from the file reaches a
//! configuration file, a command line or a screen unchecked.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Serde's way in and out of a text value: through its `FromStr` and `Display`.
macro_rules! text_value {
    ($name:ident, $pattern:literal) => {
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    };
}

/// How much of a wrong value is quoted.
fn quote(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}

/// A disk's serial number, model or path: printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(String);

impl Selector {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Selector {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if text.is_empty() || text.len() > 128 || !printable || text.trim() != text {
            return Err(format!(
                "{} is not 1 to 128 printable characters without blanks around them",
                quote(text)
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(Selector, "^[!-~]([ -~]{0,126}[!-~])?$");

/// A size in bytes, written with a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size {
    bytes: u64,
    text: String,
}

impl Size {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let no = || {
            format!(
                "{} is not a size: write a number and MB, GB, TB, MiB, GiB or TiB, as in \"400 GiB\"",
                quote(text)
            )
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| no())?;
        let unit: u64 = match text[digits..].trim_start_matches(' ') {
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(no()),
        };
        let bytes = number.checked_mul(unit).ok_or_else(no)?;
        Ok(Self {
            bytes,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_value!(Size, "^[0-9]{1,18} *([MGT]i?B)$");

/// A host name: labels of letters, digits and hyphens (RFC 1123), at most 64 characters, as Linux keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl FromStr for HostName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() > 64 || !text.split('.').all(label) {
            return Err(format!(
                "{} is not a host name: letters, digits, hyphens and dots, at most 64",
                quote(text)
            ));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(
    HostName,
    "^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"
);

/// A network interface's name: at most 15 characters, without pattern characters of systemd.network(5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interface(String);

impl FromStr for Interface {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fits = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        // "." and ".." are directories, and the name becomes part of a file name.
        if text.is_empty() || text.len() > 15 || !fits || text.starts_with('.') || text.starts_with('-') {
            return Err(format!(
                "{} is not an interface name: 1 to 15 letters, digits, hyphens, dots",
                quote(text)
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(Interface, "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$");

/// An Ethernet address, as six pairs of hexadecimal digits between colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl FromStr for MacAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let no = || format!("{} is not a MAC address, as in 52:54:00:12:34:56", quote(text));
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .ok_or_else(no)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| no())?;
        }
        if pairs.next().is_some() {
            Err(no())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

text_value!(MacAddress, "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$");

/// An IP address with its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// Whether an address is in this network.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(own.to_bits().into(), other.to_bits().into(), 32, self.length),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128, self.length),
            _ => false,
        }
    }
}

/// Whether the first `length` of `width` bits are the same.
fn same(one: u128, other: u128, width: u32, length: u8) -> bool {
    (one ^ other)
        .checked_shr(width - u32::from(length))
        .is_none_or(|rest| rest == 0)
}

impl FromStr for Prefix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let no = || {
            format!(
                "{} is not an address with its prefix length, as in 10.0.2.15/24",
                quote(text)
            )
        };
        let (address, length) = text.split_once('/').ok_or_else(no)?;
        let address: IpAddr = address.parse().map_err(|_| no())?;
        let digits = !length.is_empty() && length.len() <= 3 && length.bytes().all(|byte| byte.is_ascii_digit());
        let length: u8 = length.parse().ok().filter(|_| digits).ok_or_else(no)?;
        if length == 0 || length > if address.is_ipv4() { 32 } else { 128 } {
            return Err(no());
        }
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(format!("{} is not the address of a host", quote(text)));
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

text_value!(Prefix, "^[0-9A-Fa-f.:]+/[0-9]{1,3}$");

/// An OpenSSH public key, one line: kind, key in base64, comment. Options before the kind are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SshKey(String);

/// The kinds of keys that a hardened OpenSSH accepts.
const KEY_KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

impl FromStr for SshKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim_end();
        let no = |why: &str| {
            format!(
                "{} is not an OpenSSH public key ({why}): paste the one line of the .pub file",
                quote(text)
            )
        };
        if text.len() > 8192 || text.chars().any(char::is_control) {
            return Err(no("it is not one line of text"));
        }
        let mut words = text.split(' ');
        let kind = words.next().unwrap_or_default();
        if text.contains("PRIVATE KEY") {
            return Err("a private key does not belong in an answer: paste the one line of the .pub file".into());
        }
        if !KEY_KINDS.contains(&kind) {
            return Err(no("its kind is not known"));
        }
        let body = words.next().unwrap_or_default();
        let base64 = body
            .trim_end_matches('=')
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
        // Every kind's encoding starts with the length of its own name as four bytes, the first two of them zero.
        if body.len() < 64 || !base64 || !body.starts_with("AAAA") {
            return Err(no("its key is cut or altered"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(SshKey, "^(ssh|ecdsa|sk)-[a-z0-9@.-]+ AAAA[A-Za-z0-9+/]+=* ?.*$");
