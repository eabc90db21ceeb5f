// SPDX-License-Identifier: GPL-3.0-or-later
//! Licences as a package's `copyright` file names them (Debian's machine-readable copyright format 1.0).
//!
//! The attacks: a file without end or with one endless line, thousands of names, a name with control characters or of a
//! megabyte, a link that leads out of the tree or in circles. The defence: the file is read up to [`LARGEST`], names are
//! counted, cut and cleaned, and links are resolved inside the tree, each of them counted. The defence not made: whether
//! a licence that is named is the one that holds is upstream's word.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The largest file that is read; Debian's largest today has about 110 kB.
pub const LARGEST: u64 = 4 << 20;
/// The most licences of one package.
const MOST: usize = 256;
/// The longest name of a licence, in characters.
const LONGEST: usize = 200;
/// The most links on the way to a file.
const LINKS: usize = 16;
/// Where Debian keeps the texts that copyright files refer to.
const COMMON: &str = "/usr/share/common-licenses/";

/// What a copyright file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copyright {
    /// It is machine-readable: the first lines of its licence fields, an empty one where a field has no name.
    Named(BTreeSet<String>),
    /// It is prose, which refers to these common licences.
    Prose(BTreeSet<String>),
}

/// Reads the copyright file of a package in a tree; `None` when there is none.
///
/// # Errors
/// When it is too large, cannot be read, or its links lead nowhere in the tree.
pub fn of_package(tree: &Path, package: &str) -> Result<Option<Copyright>> {
    let name = format!("usr/share/doc/{package}/copyright");
    let Some(path) = resolve(tree, Path::new(&name)).with_context(|| format!("cannot find {name}"))? else {
        return Ok(None);
    };
    let bytes =
        signing::digest::read_bounded(&path, LARGEST).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&String::from_utf8_lossy(&bytes))
        .map(Some)
        .with_context(|| format!("cannot understand {}", path.display()))
}

/// Understands the text of a copyright file.
///
/// # Errors
/// When it names more licences than a package can have.
pub fn parse(text: &str) -> Result<Copyright> {
    let mut paragraphs = text
        .split('\n')
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .split(|line| line.is_empty())
        .filter(|lines| !lines.is_empty())
        .map(Paragraph::read)
        .collect::<Vec<_>>()
        .into_iter();
    let header = paragraphs.next().unwrap_or_default();
    // Section 5: the first paragraph names the format; older files name it by the proposal's number.
    let format = header.format.unwrap_or_default().to_ascii_lowercase();
    if !format.contains("copyright-format") && !format.contains("dep5") && !format.contains("dep-5") {
        return common(text).map(Copyright::Prose);
    }
    let (mut named, mut texts) = (BTreeSet::new(), BTreeSet::new());
    named.extend(header.licence);
    for paragraph in paragraphs {
        let Some(licence) = paragraph.licence else { continue };
        // Section 6.2.3: a licence paragraph of its own only gives the text of a name.
        let set = if paragraph.files { &mut named } else { &mut texts };
        set.insert(licence);
        if set.len() > MOST {
            bail!("it names more than {MOST} licences");
        }
    }
    Ok(Copyright::Named(if named.is_empty() { texts } else { named }))
}

/// The fields of a paragraph that matter here.
#[derive(Default)]
struct Paragraph<'a> {
    format: Option<&'a str>,
    files: bool,
    licence: Option<String>,
}

impl<'a> Paragraph<'a> {
    fn read(lines: &[&'a str]) -> Self {
        let mut paragraph = Self::default();
        for (number, line) in lines.iter().enumerate() {
            if line.starts_with([' ', '\t', '#']) {
                continue;
            }
            let Some((field, value)) = line.split_once(':') else {
                continue;
            };
            // A short value may stand alone on the line after the field's name.
            let folded = || lines.get(number + 1).filter(|next| next.starts_with([' ', '\t']));
            match field.to_ascii_lowercase().as_str() {
                "format" | "format-specification" if value.trim().is_empty() => {
                    paragraph.format = folded().map(|next| next.trim());
                }
                "format" | "format-specification" => paragraph.format = Some(value.trim()),
                "files" => paragraph.files = true,
                "license" | "licence" => paragraph.licence = Some(clean(value)),
                _ => {}
            }
        }
        paragraph
    }
}

/// A name without control characters, with single spaces, of bounded length.
fn clean(value: &str) -> String {
    let visible: String = value
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(4 * LONGEST)
        .collect();
    let words: Vec<&str> = visible.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST).collect()
}

/// The common licences that a text refers to.
fn common(text: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for after in text.split(COMMON).skip(1) {
        let name: String = after
            .chars()
            .take(LONGEST)
            .take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '+'))
            .collect();
        let name = name.trim_end_matches(['.', '-']);
        if !name.is_empty() {
            found.insert(name.to_owned());
        }
        if found.len() > MOST {
            bail!("it refers to more than {MOST} licences");
        }
    }
    Ok(found)
}

/// The regular file that a path means inside a tree, links resolved as if the tree were the root.
fn resolve(tree: &Path, path: &Path) -> Result<Option<PathBuf>> {
    let parts = |path: &Path| -> Vec<OsString> {
        let parts = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
        parts.collect()
    };
    let (mut waiting, mut place, mut links) = (parts(path), PathBuf::new(), 0);
    while let Some(part) = waiting.pop() {
        if part == ".." {
            place.pop();
            continue;
        }
        let next = place.join(&part);
        let full = tree.join(&next);
        let data = match fs::symlink_metadata(&full) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            data => data.with_context(|| format!("cannot read {}", full.display()))?,
        };
        if !data.is_symlink() {
            place = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            bail!("more than {LINKS} links lead to it");
        }
        let target = fs::read_link(&full).with_context(|| format!("cannot read {}", full.display()))?;
        if target.is_absolute() {
            place = PathBuf::new();
        }
        waiting.extend(parts(&target));
    }
    let full = tree.join(place);
    Ok(full.is_file().then_some(full))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const HEADER: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n";

    fn names(text: &str) -> Vec<String> {
        match parse(text).unwrap() {
            Copyright::Named(names) => names.into_iter().collect(),
            prose => panic!("{prose:?}"),
        }
    }

    #[test]
    fn licences_of_files_are_named_and_texts_are_not() {
        let text = format!(
            "{HEADER}Comment: License: none\n License: trap\n\nFiles: *\nCopyright: someone\nLicense: GPL-2+\n text\n\n\
             Files: debian/*\nLicense:   Expat  \n\nFiles: odd\nLicense:\n its text\n\nLicense: Unused\n Its text\n"
        );
        assert_eq!(names(&text), ["", "Expat", "GPL-2+"]);
    }

    #[test]
    fn a_licence_of_the_whole_is_in_the_header_or_alone() {
        assert_eq!(names(&format!("{HEADER}License: ISC\n")), ["ISC"]);
        assert_eq!(names(&format!("{HEADER}\nLicense: Zlib\n text\n")), ["Zlib"]);
        assert_eq!(names(&HEADER.replace(": ", ":\n ")), Vec::<String>::new());
    }

    #[test]
    fn prose_says_what_it_refers_to() {
        let text = "This package is free:\nLicense: GPL, see /usr/share/common-licenses/GPL-2.\nAlso `/usr/share/common-licenses/LGPL-2.1'";
        let expected = ["GPL-2", "LGPL-2.1"].map(str::to_owned).into();
        assert_eq!(parse(text).unwrap(), Copyright::Prose(expected));
        assert_eq!(parse("").unwrap(), Copyright::Prose(BTreeSet::new()));
    }

    #[test]
    fn hostile_names_are_bounded_and_cleaned() {
        let long = format!("{HEADER}License: {}\u{1b}[31m\r\n", "x".repeat(1 << 20));
        assert!(names(&long).iter().all(|name| name.chars().count() <= LONGEST));
        assert_eq!(names(&format!("{HEADER}License: a\u{1b}[2J\u{0}b\n")), ["a [2J b"]);
        let mut many = HEADER.to_owned();
        let mut prose = String::new();
        for number in 0..=MOST {
            many.push_str(&format!("\nFiles: *\nLicense: L{number}\n"));
            prose.push_str(&format!("{COMMON}L{number} "));
        }
        assert!(parse(&many).is_err() && parse(&prose).is_err());
    }

    #[test]
    fn links_stay_in_the_tree() {
        let tree = tempfile::tempdir().unwrap();
        let doc = tree.path().join("usr/share/doc");
        fs::create_dir_all(doc.join("real")).unwrap();
        fs::create_dir_all(doc.join("out")).unwrap();
        fs::write(doc.join("real/copyright"), format!("{HEADER}License: ISC\n")).unwrap();
        symlink("real", doc.join("relative")).unwrap();
        symlink("/usr/share/doc/real", doc.join("absolute")).unwrap();
        symlink("loop", doc.join("loop")).unwrap();
        symlink("../../../../../../../../etc/hostname", doc.join("out/copyright")).unwrap();
        for name in ["real", "relative", "absolute"] {
            assert!(of_package(tree.path(), name).unwrap().is_some(), "{name}");
        }
        assert!(of_package(tree.path(), "loop").is_err());
        assert_eq!(of_package(tree.path(), "out").unwrap(), None);
        assert_eq!(of_package(tree.path(), "absent").unwrap(), None);
    }

    #[test]
    fn an_endless_file_is_refused() {
        let tree = tempfile::tempdir().unwrap();
        let place = tree.path().join("usr/share/doc/large");
        fs::create_dir_all(&place).unwrap();
        let file = fs::File::create(place.join("copyright")).unwrap();
        file.set_len(LARGEST + 1).unwrap();
        assert!(of_package(tree.path(), "large").is_err());
    }
}
