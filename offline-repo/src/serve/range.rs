// SPDX-License-Identifier: GPL-3.0-or-later
//! The part of a file that a request asks for (RFC 9110, 14.1.2): one range, so that no request makes work for many.

/// What a `Range` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// All of it: no range, several of them, or none that can be understood. A server may ignore such a header.
    Whole,
    /// From one byte to another, both included.
    Part(u64, u64),
    /// Nothing that is there.
    Nothing,
}

/// Understands the header of a request for a file of `size` bytes.
#[must_use]
pub fn asked(header: &str, size: u64) -> Asked {
    let Some((unit, range)) = header.split_once('=') else {
        return Asked::Whole;
    };
    let Some((first, last)) = range.trim().split_once('-') else {
        return Asked::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Asked::Whole;
    }
    match (number(first), number(last)) {
        (Some(first), Some(last)) if last < first => Asked::Whole,
        (Some(first), _) if first >= size && (last.is_empty() || number(last).is_some()) => Asked::Nothing,
        (Some(first), Some(last)) => Asked::Part(first, last.min(size - 1)),
        (Some(first), None) if last.is_empty() => Asked::Part(first, size - 1),
        // So many of the last bytes.
        (None, Some(count)) if first.is_empty() => match count.min(size) {
            0 => Asked::Nothing,
            count => Asked::Part(size - count, size - 1),
        },
        _ => Asked::Whole,
    }
}

/// A number; one that is too large for any file is the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_what_the_rfc_says() {
        for (header, size, wanted) in [
            ("bytes=0-0", 10, Asked::Part(0, 0)),
            ("bytes=2-5", 10, Asked::Part(2, 5)),
            ("Bytes=2-", 10, Asked::Part(2, 9)),
            ("bytes=-3", 10, Asked::Part(7, 9)),
            ("bytes=-30", 10, Asked::Part(0, 9)),
            ("bytes=9-99", 10, Asked::Part(9, 9)),
            ("bytes=0-99999999999999999999999", 10, Asked::Part(0, 9)),
            ("bytes=10-", 10, Asked::Nothing),
            ("bytes=10-11", 10, Asked::Nothing),
            ("bytes=99999999999999999999999-", 10, Asked::Nothing),
            ("bytes=-0", 10, Asked::Nothing),
            ("bytes=0-", 0, Asked::Nothing),
            ("bytes=-1", 0, Asked::Nothing),
            ("bytes=5-2", 10, Asked::Whole),
            ("bytes=50-20", 10, Asked::Whole),
            ("bytes=0-1,3-4", 10, Asked::Whole),
            ("bytes=10-x", 10, Asked::Whole),
            ("bytes=+1-2", 10, Asked::Whole),
            ("bytes=-", 10, Asked::Whole),
            ("bytes=", 10, Asked::Whole),
            ("lines=0-1", 10, Asked::Whole),
            ("", 10, Asked::Whole),
        ] {
            assert_eq!(asked(header, size), wanted, "{header} of {size}");
        }
    }
}
