// SPDX-License-Identifier: GPL-3.0-or-later
//! Licence names of Debian's machine-readable copyright files as SPDX expressions, where there is no doubt.
//!
//! A name that may mean several licences stays as upstream wrote it: `MIT`, `GPL` without a version, `Artistic`,
//! `BSD-4-clause` and most exceptions are such names.

/// Short names (Debian's copyright format 1.0, section 7.1: not case-sensitive) and the SPDX identifiers that they are.
const CERTAIN: [(&str, &str); 37] = [
    ("0bsd", "0BSD"),
    ("apache-1.0", "Apache-1.0"),
    ("apache-1.1", "Apache-1.1"),
    ("apache-2", "Apache-2.0"),
    ("apache-2.0", "Apache-2.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause-uc", "BSD-4-Clause-UC"),
    ("bsl-1.0", "BSL-1.0"),
    ("bzip2-1.0.6", "bzip2-1.0.6"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc0", "CC0-1.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("curl", "curl"),
    ("epl-1.0", "EPL-1.0"),
    ("epl-2.0", "EPL-2.0"),
    ("expat", "MIT"),
    ("fsfap", "FSFAP"),
    ("fsful", "FSFUL"),
    ("fsfullr", "FSFULLR"),
    ("gfdl-niv-1.3", "GFDL-1.3-no-invariants-only"),
    ("gfdl-niv-1.3+", "GFDL-1.3-no-invariants-or-later"),
    ("isc", "ISC"),
    ("mit-0", "MIT-0"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2.0", "MPL-2.0"),
    ("oldap-2.8", "OLDAP-2.8"),
    ("openldap-2.8", "OLDAP-2.8"),
    ("unicode-3.0", "Unicode-3.0"),
    ("unicode-dfs-2016", "Unicode-DFS-2016"),
    ("unlicense", "Unlicense"),
    ("w3c", "W3C"),
    ("zlib", "Zlib"),
];

/// The families whose version and `+` say which SPDX identifier is meant, with the versions that there are.
const FAMILIES: [(&str, &str, &[&str]); 4] = [
    ("agpl-", "AGPL", &["1.0", "3.0"]),
    ("lgpl-", "LGPL", &["2.0", "2.1", "3.0"]),
    ("gfdl-", "GFDL", &["1.1", "1.2", "1.3"]),
    ("gpl-", "GPL", &["1.0", "2.0", "3.0"]),
];

/// One licence's SPDX identifier.
#[must_use]
pub fn identifier(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    if let Some((_, spdx)) = CERTAIN.iter().find(|(debian, _)| *debian == name) {
        return Some((*spdx).to_owned());
    }
    let (rest, family, versions) = FAMILIES
        .iter()
        .find_map(|(prefix, family, versions)| Some((name.strip_prefix(prefix)?, family, versions)))?;
    let (number, suffix) = if let Some(number) = rest.strip_suffix('+').or_else(|| rest.strip_suffix("-or-later")) {
        (number, "or-later")
    } else {
        (rest.strip_suffix("-only").unwrap_or(rest), "only")
    };
    let version = versions
        .iter()
        .find(|version| **version == number || version.strip_suffix(".0") == Some(number))?;
    Some(format!("{family}-{version}-{suffix}"))
}

/// The SPDX expression of a licence field's first line, `A or B, and C` included. `None` where any part is in doubt.
#[must_use]
pub fn expression(synopsis: &str) -> Option<String> {
    let mut clauses = synopsis.split(',');
    let first = clause(clauses.next()?)?;
    let mut parts = vec![first];
    let mut joined: Option<&str> = None;
    for text in clauses {
        let (word, rest) = text.trim().split_once(' ')?;
        let operator = operator(word)?;
        // `A or B, and C or D`: a comma binds weaker than any operator, and two kinds of them are in doubt.
        if joined.is_some_and(|joined| joined != operator) {
            return None;
        }
        joined = Some(operator);
        parts.push(clause(rest)?);
    }
    Some(match joined {
        None => parts.concat(),
        Some(operator) => parts
            .iter()
            .map(|part| group(part))
            .collect::<Vec<_>>()
            .join(&format!(" {operator} ")),
    })
}

/// Several expressions that hold together.
#[must_use]
pub fn all_of<'a>(expressions: impl Iterator<Item = &'a str>) -> String {
    expressions.map(group).collect::<Vec<_>>().join(" AND ")
}

/// Whether an expression is one identifier.
#[must_use]
pub fn is_single(expression: &str) -> bool {
    !expression.contains(' ')
}

fn group(expression: &str) -> String {
    if is_single(expression) {
        expression.to_owned()
    } else {
        format!("({expression})")
    }
}

fn operator(word: &str) -> Option<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "or" => Some("OR"),
        "and" => Some("AND"),
        _ => None,
    }
}

/// Names joined by `or` and `and`, of which `and` binds stronger, as in SPDX.
fn clause(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut said = Vec::new();
    for part in words.split(|word| operator(word).is_some()) {
        said.push(match part {
            [name] => identifier(name)?,
            // The kernel's is the only exception whose name is SPDX's own in practice.
            [name, with, note] | [name, with, note, "exception"]
                if with.eq_ignore_ascii_case("with") && note.eq_ignore_ascii_case("Linux-syscall-note") =>
            {
                format!("{} WITH Linux-syscall-note", identifier(name)?)
            }
            _ => return None,
        });
    }
    let operators = words.iter().filter_map(|word| operator(word)).chain([""]);
    let mut text = String::new();
    for (name, operator) in said.iter().zip(operators) {
        text.push_str(name);
        if !operator.is_empty() {
            text.push_str(&format!(" {operator} "));
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_doubt_become_identifiers() {
        for (debian, spdx) in [
            ("GPL-2", "GPL-2.0-only"),
            ("GPL-2+", "GPL-2.0-or-later"),
            ("GPL-2.0+", "GPL-2.0-or-later"),
            ("LGPL-2.1+", "LGPL-2.1-or-later"),
            ("LGPL-2.0-or-later", "LGPL-2.0-or-later"),
            ("GFDL-1.3+", "GFDL-1.3-or-later"),
            ("bsd-3-clause", "BSD-3-Clause"),
            ("Expat", "MIT"),
        ] {
            assert_eq!(identifier(debian).as_deref(), Some(spdx));
        }
    }

    #[test]
    fn names_in_doubt_stay_names() {
        for name in [
            "MIT",
            "GPL",
            "GPL-4",
            "GPL-2.5+",
            "LGPL-1",
            "Artistic",
            "BSD",
            "public-domain",
            "",
            "gpl-",
            "GPL-2+-with-link-exception",
        ] {
            assert_eq!(identifier(name), None, "{name}");
        }
    }

    #[test]
    fn choices_and_conjunctions_keep_their_meaning() {
        for (debian, spdx) in [
            ("LGPL-3+ or GPL-2+", "LGPL-3.0-or-later OR GPL-2.0-or-later"),
            (
                "GPL-2+ or BSD-2-clause, and Expat",
                "(GPL-2.0-or-later OR BSD-2-Clause) AND MIT",
            ),
            (
                "GPL-2 with Linux-syscall-note exception",
                "GPL-2.0-only WITH Linux-syscall-note",
            ),
            ("curl and ISC", "curl AND ISC"),
        ] {
            assert_eq!(expression(debian).as_deref(), Some(spdx));
        }
        for doubtful in [
            "GPL-1+ or Artistic",
            "GPL-2+ with OpenSSL exception",
            "GPL-2+ or",
            "or",
            "GPL-2+,",
            "GPL-2+, Expat",
            "ISC, and Expat, or Zlib",
            "MIT/X11 (BSD like) LGPL-2+",
        ] {
            assert_eq!(expression(doubtful), None, "{doubtful}");
        }
    }

    #[test]
    fn a_conjunction_of_choices_is_grouped() {
        assert_eq!(all_of(["ISC", "MIT OR Zlib"].into_iter()), "ISC AND (MIT OR Zlib)");
    }
}
