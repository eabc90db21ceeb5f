// SPDX-License-Identifier: GPL-3.0-or-later
//! The order of Debian's versions (deb-version(7)): `[epoch:]upstream[-revision]`.
//!
//! Attacks: a version of nothing but digits, to overflow a number. Defence: runs of digits are compared as text, by their
//! length and then digit by digit, and never become numbers. Not defended: what is no version at all has a place in the order
//! too.

use std::cmp::Ordering;

/// Which of two versions is the newer one.
#[must_use]
pub fn compare(one: &str, other: &str) -> Ordering {
    let (one, other) = (parts(one), parts(other));
    part(one.0, other.0)
        .then_with(|| part(one.1, other.1))
        .then_with(|| part(one.2, other.2))
}

/// Epoch, upstream's version, revision. What is not there is as good as zero.
fn parts(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

fn part(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while !one.is_empty() || !other.is_empty() {
        let (left, right);
        (left, one) = one.split_at(text_length(one));
        (right, other) = other.split_at(text_length(other));
        let longer = left.len().max(right.len());
        let weights = |text: &[u8]| (0..longer).map(|at| weight(text.get(at))).collect::<Vec<_>>();
        let order = weights(left).cmp(&weights(right));
        if order.is_ne() {
            return order;
        }
        let (left, right);
        (left, one) = one.split_at(number_length(one));
        (right, other) = other.split_at(number_length(other));
        let (left, right) = (significant(left), significant(right));
        let order = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn text_length(text: &[u8]) -> usize {
    text.iter().take_while(|byte| !byte.is_ascii_digit()).count()
}

fn number_length(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn significant(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&byte| byte == b'0').count();
    &digits[zeros..]
}

/// A tilde sorts before the end, the end before letters, letters before all else.
fn weight(byte: Option<&u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(letter) if letter.is_ascii_alphabetic() => u16::from(*letter),
        Some(other) => u16::from(*other) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signing::process::Cmd;

    /// The judge is dpkg itself.
    #[test]
    fn the_order_is_that_of_dpkg() {
        let versions = [
            "1.0-1",
            "1.0-1+deb13u1",
            "1.0-1~deb13u1",
            "1.0-1+b1",
            "1:0.9",
            "0:1.0-1",
            "1.0",
            "1.0-0",
            "1.0~rc1-1",
            "1.00-1",
            "1.10-1",
            "1.9-1",
            "1.a",
            "1.a+",
            "1.0+really0.9-1",
            "1.0.1-1",
            "20000000000000000000000000000001",
            "20000000000000000000000000000010",
            "2-1-1",
        ];
        for one in versions {
            for other in versions {
                let mut found = None;
                for (word, order) in [
                    ("lt", Ordering::Less),
                    ("eq", Ordering::Equal),
                    ("gt", Ordering::Greater),
                ] {
                    let cmd = Cmd::new("dpkg").args(["--compare-versions", one, word, other]);
                    if cmd.status().unwrap().0.success() {
                        found = Some(order);
                    }
                }
                assert_eq!(Some(compare(one, other)), found, "{one} {other}");
            }
        }
    }
}
