// SPDX-License-Identifier: GPL-3.0-or-later
//! Reads JSON that nobody has verified yet, and writes the canonical form that signatures cover.
//!
//! Attacks: an object with one key twice, which two readers understand differently; nesting that exhausts the stack; many
//! tiny values that fill memory from a small file; numbers that lose digits here or, beyond 63 bits, elsewhere; two spellings of one text in Unicode, which
//! canonical JSON makes equal, so that a signature would cover a name that is not the one that is read.
//!
//! Defence: one strict reader that refuses all of these before anything is interpreted; the reader of roles and the
//! canonical form then work on the very same tree.
//!
//! Not defended here: the length of the input (callers bound what they read) and what the values mean.

use std::fmt;

use olpc_cjson::CanonicalFormatter;
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use unicode_normalization::is_nfc;

/// Bounds of one document.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Objects and arrays inside one another.
    pub depth: usize,
    /// Values of any kind, keys of objects included.
    pub values: usize,
}

/// Parses with the bounds that fit metadata of our own making.
pub(crate) fn parse_default(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let limits = super::limits::Limits::default();
    parse(bytes, limits.json())
}

/// Parses one document, which must end where the bytes end.
pub(super) fn parse(bytes: &[u8], bounds: Bounds) -> Result<Value, serde_json::Error> {
    let mut left = bounds.values;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict {
        depth: bounds.depth,
        left: &mut left,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The canonical form (OLPC canonical JSON) of a value.
pub(crate) fn canonical(value: &Value) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes,
        CanonicalFormatter::new(),
    ))?;
    Ok(bytes)
}

struct Strict<'a> {
    depth: usize,
    left: &'a mut usize,
}

impl Strict<'_> {
    fn inner<E: serde::de::Error>(&mut self) -> Result<Strict<'_>, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Strict { depth, left: self.left }),
            None => Err(E::custom("nested too deeply")),
        }
    }

    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        match self.left.checked_sub(1) {
            Some(left) => *self.left = left,
            None => return Err(E::custom("too many values")),
        }
        Ok(())
    }
}

/// Canonical JSON normalises text to NFC: text that would change under the signature is refused.
fn stable<E: serde::de::Error>(text: &str) -> Result<(), E> {
    if text.is_ascii() || is_nfc(text) {
        Ok(())
    } else {
        Err(E::custom("text that is not in Unicode normalization form C"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: serde::de::Error>(mut self, value: bool) -> Result<Value, E> {
        self.count()?;
        Ok(Value::Bool(value))
    }

    fn visit_unit<E: serde::de::Error>(mut self) -> Result<Value, E> {
        self.count()?;
        Ok(Value::Null)
    }

    fn visit_u64<E: serde::de::Error>(mut self, value: u64) -> Result<Value, E> {
        self.count()?;
        // Others read signed integers, or lose digits: a version that they do not see is none.
        if i64::try_from(value).is_err() {
            return Err(E::custom("a number that is not an integer of 64 bits with its sign"));
        }
        Ok(Value::Number(Number::from(value)))
    }

    fn visit_i64<E: serde::de::Error>(mut self, value: i64) -> Result<Value, E> {
        self.count()?;
        Ok(Value::Number(Number::from(value)))
    }

    fn visit_f64<E: serde::de::Error>(self, _value: f64) -> Result<Value, E> {
        Err(E::custom("a number that is not an integer of 64 bits with its sign"))
    }

    fn visit_str<E: serde::de::Error>(mut self, value: &str) -> Result<Value, E> {
        self.count()?;
        stable(value)?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(mut self, value: String) -> Result<Value, E> {
        self.count()?;
        stable(&value)?;
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        self.count()?;
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(Strict {
            depth: inner.depth,
            left: &mut *inner.left,
        })? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        self.count()?;
        let mut inner = self.inner()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            inner.count()?;
            stable(&key)?;
            if map.contains_key(&key) {
                let shown: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format!(
                    "the key {shown:?} stands twice in one object"
                )));
            }
            let value = access.next_value_seed(Strict {
                depth: inner.depth,
                left: inner.left,
            })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { depth: 4, values: 10 };

    fn refused(text: &str, why: &str) {
        let error = parse(text.as_bytes(), BOUNDS).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }

    #[test]
    fn reads_what_metadata_is_made_of() {
        let value = parse(br#"{"a":[1,-2,true,null,"x"]}"#, BOUNDS).unwrap();
        assert_eq!(value, serde_json::json!({"a": [1, -2, true, null, "x"]}));
    }

    #[test]
    fn refuses_one_key_twice_at_any_depth() {
        refused(r#"{"a":1,"a":1}"#, "stands twice");
        refused(r#"[{"a":{"b":1,"b":2}}]"#, "stands twice");
        refused(r#"{"a":1,"\u0061":2}"#, "stands twice");
    }

    #[test]
    fn refuses_deep_nesting_and_many_values() {
        assert!(parse(b"[[[[]]]]", BOUNDS).is_ok());
        refused("[[[[[]]]]]", "nested");
        refused(&"[".repeat(100_000), "nested");
        refused("[1,1,1,1,1,1,1,1,1,1]", "too many");
    }

    #[test]
    fn refuses_numbers_that_are_no_integers_of_64_bits() {
        for number in [
            "1.0",
            "1e3",
            "-0",
            "9223372036854775808",
            "18446744073709551616",
            "-9223372036854775809",
        ] {
            refused(&format!("[{number}]"), "integer");
        }
        assert!(parse(b"[9223372036854775807]", BOUNDS).is_ok());
        // serde_json itself gives up on this one.
        assert!(parse(b"[1e999]", BOUNDS).is_err());
    }

    #[test]
    fn refuses_text_that_changes_under_the_signature() {
        // The letter with its accent as two characters; canonical JSON would sign the composed one.
        refused("[\"e\u{301}\"]", "normalization");
        refused("{\"e\u{301}\":1}", "normalization");
        assert!(parse("[\"\u{e9}\"]".as_bytes(), BOUNDS).is_ok());
    }

    #[test]
    fn refuses_bytes_after_the_end() {
        assert!(parse(b"{} {}", BOUNDS).is_err());
        assert!(parse(b"", BOUNDS).is_err());
        assert!(parse(b"\xff", BOUNDS).is_err());
    }
}
