// SPDX-License-Identifier: GPL-3.0-or-later
//! The installation medium: every file and every boot path of an ISO, as a disk and as a CD.
//!
//! The attacks: a second boot image or partition that only some firmware takes; a tree that differs between the disk and
//! its first partition; a file that no signature accounts for, on the ISO, in the squashfs or on the ESP; another boot
//! image on the ESP; bytes between the files. The defence: see [`crate::medium`]; all trees must agree, the catalogue must
//! have one UEFI entry and it must be the ESP of the partition table, each file must be metadata or a named target, the
//! ESP holds the installer that the metadata names, and one answer file, which is named. What the ESP's free clusters
//! hold, only the OpenPGP signature over the whole image covers.

use std::io::{self, Read};
use std::path::Path;

use signing::digest::{self, Sha256, read_to_limit};
use signing::secureboot;
use signing::tuf::{Source, SourceError};

use super::release::{Audited, Question, audit, beside};
use super::{Held, Inventory, bytes, of_error, of_medium};
use crate::medium::squashfs::Squashfs;
use crate::medium::{Extent, Image, fat, iso9660};
use crate::report::{Finding, Section, Subject};
use crate::verdict::Verdict;

mod boot;

/// The boot image's place on an ESP (UEFI 2.10, section 3.5.1.1).
const BOOT: &str = "EFI/BOOT/BOOTX64.EFI";
/// The one file that a user may write on the medium.
const ANSWER: &str = "bastide-answer.toml";
const SQUASHFS: &str = "bastide/targets.squashfs";
const METADATA: &str = "bastide/metadata/";
const LABEL: &str = "BASTIDE";
const BOOT_IMAGE: u64 = 192 << 20;

/// The repository on an ISO.
struct IsoSource<'a> {
    image: &'a Image,
    files: &'a [iso9660::File],
    squashfs: Option<Squashfs>,
    held: Vec<Held>,
}

impl Source for IsoSource<'_> {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(file) = self
            .files
            .iter()
            .find(|file| file.path.strip_prefix(METADATA) == Some(name))
        else {
            return Ok(None);
        };
        if !file.regular {
            return Err(SourceError::NotAFile { name: name.to_owned() });
        }
        if file.length() > max {
            return Err(SourceError::TooLong {
                name: name.to_owned(),
                limit: max,
            });
        }
        read_to_limit(&mut self.image.reader(&file.extents), max)
            .map(Some)
            .map_err(|source| SourceError::Io {
                name: name.to_owned(),
                source,
            })
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        let failed = |source| SourceError::Io {
            name: path.to_owned(),
            source,
        };
        let Some(squashfs) = &self.squashfs else {
            return Err(failed(io::Error::other(
                "the targets could not be read, see the chapter on the medium",
            )));
        };
        if !self.held.iter().any(|held| held.name == path) {
            return Ok(None);
        }
        let content = squashfs
            .content(path)
            .map_err(|error| failed(io::Error::other(error.to_string())))?;
        Ok(Some(Box::new(content)))
    }
}

/// Audits an ISO image or the disk that it was written to.
///
/// # Errors
/// When it cannot be opened.
pub fn iso(path: &Path, question: Question<'_>, subject: &mut Subject) -> io::Result<Audited> {
    let image = Image::open(path)?;
    subject.fact("size", bytes(image.length()));
    let mut findings = Vec::new();
    let mut used = Vec::new();

    let volume = match iso9660::read(&image, 0) {
        Ok(volume) => volume,
        Err(error) => {
            let finding = Finding::new("medium.iso", "The file is an ISO 9660 image", of_medium(&error));
            let section = Section::new("medium", "Medium", "What the medium is.", vec![finding]);
            return Ok(Audited::of(vec![section]));
        }
    };
    findings.push(if volume.label == LABEL {
        Finding::pass(
            "medium.iso",
            "The disk holds a volume of the installer",
            format!("label {}, {} files", volume.label, volume.files.len()),
        )
    } else {
        Finding::fail(
            "medium.iso",
            "The disk holds a volume of the installer",
            format!("its label is {:?}, not {LABEL}", volume.label),
        )
    });
    used.extend(&volume.used);
    let esp = boot::paths(&image, &volume, &mut used, &mut findings);

    let squashfs = volume.files.iter().find(|file| file.path == SQUASHFS);
    let (squashfs, held) = targets(&image, squashfs, &mut findings);
    let mut inventory = Inventory {
        metadata: Vec::new(),
        targets: held.clone(),
    };
    for file in &volume.files {
        used.extend(file.extents.iter().map(|extent| Extent {
            length: extent.length.next_multiple_of(iso9660::BLOCK),
            ..*extent
        }));
        if let Some(name) = file.path.strip_prefix(METADATA) {
            inventory.metadata.push(Held {
                name: name.to_owned(),
                length: file.length(),
            });
        } else if file.path != SQUASHFS && !is_catalogue(file, &volume) {
            findings.push(stranger("the ISO", &file.path, file.length()));
        }
    }
    for directory in volume
        .directories
        .iter()
        .filter(|name| !matches!(name.as_str(), "bastide" | "bastide/metadata"))
    {
        findings.push(stranger("the ISO", &format!("{directory}/"), 0));
    }
    let mut audited = audit(
        IsoSource {
            image: &image,
            files: &volume.files,
            squashfs,
            held,
        },
        &inventory,
        question,
        None,
    );

    // A target's name is not to be found on the medium: whoever looks for the damage needs the file that holds it.
    for finding in audited.sections.iter_mut().flat_map(|section| &mut section.findings) {
        finding.amend(&mut |finding| {
            if let Some(Verdict::Fail(why)) = &mut finding.verdict
                && finding.id.starts_with("target.")
            {
                *why += &format!("; on the medium it lies in {SQUASHFS}");
            }
        });
    }
    let mut answer = None;
    if let Some(esp) = esp {
        used.push(esp);
        answer = system_partition(&image, esp, &audited, question, &mut findings);
    }
    // Without the partition table nobody can say what belongs to something.
    if esp.is_some() {
        findings.push(slack(&image, used));
    }
    findings.push(whole(&image, answer.as_deref(), question, subject));
    audited.sections.insert(
        1,
        Section::new(
            "medium",
            "Medium: every file and every way to boot",
            "The image is read as a disk and as a CD. Each file must be metadata that was verified or a target that it names; there \
             is one boot image, the installer that the metadata names; and one place that a user may write.",
            findings,
        ),
    );
    Ok(audited)
}

fn is_catalogue(file: &iso9660::File, volume: &iso9660::Volume) -> bool {
    let Some(block) = volume.catalogue else { return false };
    // xorriso shows the boot catalogue as a file.
    matches!(file.extents[..], [extent] if extent.start == u64::from(block) * iso9660::BLOCK && extent.length <= iso9660::BLOCK)
}

fn stranger(place: &str, name: &str, length: u64) -> Finding {
    Finding::fail(
        format!("medium.stranger.{name}"),
        format!("{name} on {place}"),
        format!("{}; no signature accounts for it", bytes(length)),
    )
    .guide(
        "An extra file is how something crosses the gap, or boots, that nobody approved.",
        &["ANSSI BP-028 R59"],
        "Find out who put it there; write the medium anew from the signed image.",
    )
}

fn targets(image: &Image, file: Option<&iso9660::File>, findings: &mut Vec<Finding>) -> (Option<Squashfs>, Vec<Held>) {
    let title = "The file system of the targets";
    let Some(file) = file else {
        findings.push(Finding::fail(
            "medium.squashfs",
            title,
            format!("{SQUASHFS} is not there"),
        ));
        return (None, Vec::new());
    };
    // xorriso lays a file down in one run.
    let [extent] = file.extents[..] else {
        findings.push(Finding::fail("medium.squashfs", title, "it does not lie in one run"));
        return (None, Vec::new());
    };
    let squashfs = Squashfs {
        image: image.path().to_path_buf(),
        offset: extent.start,
    };
    match squashfs.members() {
        Ok(members) => {
            findings.push(Finding::pass(
                "medium.squashfs",
                title,
                format!("{} plain files and nothing else", members.len()),
            ));
            let held = members
                .into_iter()
                .map(|member| Held {
                    name: member.path,
                    length: member.length,
                })
                .collect();
            (Some(squashfs), held)
        }
        Err(error) => {
            findings.push(Finding::new("medium.squashfs", title, of_medium(&error)));
            (None, Vec::new())
        }
    }
}

/// The ESP holds the installer, and perhaps an answer, whose digest is given back.
fn system_partition(
    image: &Image,
    esp: Extent,
    audited: &Audited,
    question: Question<'_>,
    findings: &mut Vec<Finding>,
) -> Option<String> {
    let entries = match fat::read(image, esp) {
        Ok(entries) => entries,
        Err(error) => {
            findings.push(Finding::new("medium.esp", "EFI system partition", of_medium(&error)));
            return None;
        }
    };
    let mut answer = None;
    let mut boot = None;
    for entry in entries.iter().filter(|entry| !entry.directory) {
        if entry.path.eq_ignore_ascii_case(BOOT) {
            boot = Some(entry);
        } else if entry.path.eq_ignore_ascii_case(ANSWER) {
            let title = format!("{ANSWER}: an answer for the installer");
            let digest = match digest::copy(&mut image.reader(&entry.extents), &mut io::sink()) {
                Ok((sha256, _)) => sha256.to_string(),
                Err(error) => {
                    findings.push(Finding::unknown(
                        "medium.answer",
                        title,
                        format!("cannot read it: {error}"),
                    ));
                    continue;
                }
            };
            findings.push(
                Finding::pass(
                    "medium.answer",
                    title,
                    "the one file that a user may write here; no signature covers it: read it",
                )
                .fact("sha256", &digest)
                .fact("size", bytes(entry.length)),
            );
            answer = Some(digest);
        } else {
            findings.push(stranger("the ESP", &entry.path, entry.length));
        }
    }
    for entry in entries.iter().filter(|entry| entry.directory) {
        if !matches!(entry.path.to_ascii_uppercase().as_str(), "EFI" | "EFI/BOOT") {
            findings.push(stranger("the ESP", &format!("{}/", entry.path), 0));
        }
    }
    let title = "The boot image on the ESP is the installer that the metadata names";
    let Some(boot) = boot else {
        findings.push(Finding::fail("medium.boot", title, format!("{BOOT} is not there")));
        return answer;
    };
    if boot.length > BOOT_IMAGE {
        findings.push(Finding::unknown(
            "medium.boot",
            title,
            format!("it is larger than the {} that are read", bytes(BOOT_IMAGE)),
        ));
        return answer;
    }
    let mut content = Vec::with_capacity(usize::try_from(boot.length).unwrap_or_default());
    if let Err(error) = image.reader(&boot.extents).read_to_end(&mut content) {
        findings.push(Finding::unknown(
            "medium.boot",
            title,
            format!("cannot read it: {error}"),
        ));
        return answer;
    }
    let sha256 = Sha256::of(&content);
    findings.push(
        match audited.installers.iter().find(|(_, installer)| *installer == sha256) {
            Some((version, _)) => Finding::pass(
                "medium.boot",
                title,
                format!("{BOOT} is the installer of release {version}"),
            )
            .fact("sha256", sha256),
            None => Finding::fail("medium.boot", title, "no verified metadata names this image").fact("sha256", sha256),
        },
    );
    let title = "The boot image on the ESP carries the site's Secure Boot signature";
    findings.push(match &question.trust.db {
        None => Finding::unknown("medium.boot.signature", title, "the trust directory has no db.der"),
        Some(db) => match secureboot::verify_pe(&content, db) {
            Ok(signature) => Finding::pass(
                "medium.boot.signature",
                title,
                format!("signed with {}", signature.signer),
            ),
            Err(error) => Finding::new("medium.boot.signature", title, of_error(error)),
        },
    });
    answer
}

/// What no structure explains must be zero.
fn slack(image: &Image, used: Vec<Extent>) -> Finding {
    let title = "Nothing lies between the files";
    match image.unexplained(used, 4) {
        Ok(found) if found.is_empty() => Finding::pass(
            "medium.slack",
            title,
            "every byte that belongs to no file or structure is zero",
        ),
        Ok(found) => {
            let places: Vec<String> = found.iter().map(|extent| format!("byte {}", extent.start)).collect();
            Finding::fail(
                "medium.slack",
                title,
                format!("bytes that belong to nothing, at {}", places.join(", ")),
            )
        }
        Err(error) => Finding::new("medium.slack", title, of_medium(&error)),
    }
}

/// The detached OpenPGP signature over the whole image.
fn whole(image: &Image, answer: Option<&str>, question: Question<'_>, subject: &mut Subject) -> Finding {
    let (id, title) = (
        "medium.openpgp",
        "The whole image carries the release key's OpenPGP signature",
    );
    let everything = [Extent {
        start: 0,
        length: image.length(),
    }];
    if let Ok((sha256, _)) = digest::copy(&mut image.reader(&everything), &mut io::sink()) {
        subject.fact("sha256", sha256);
    }
    match beside(image.path()) {
        Ok(None) => Finding::unknown(
            id,
            title,
            format!("there is no {}.asc beside it", image.path().display()),
        )
        .guide(
            "It covers every byte, those that no file uses included.",
            &["ANSSI BP-028 R59"],
            "Fetch the signature that was published with the image and put it beside it.",
        ),
        Err(error) => Finding::unknown(id, title, format!("cannot read its signature: {error}")),
        Ok(Some(_)) if answer.is_some() => Finding::unknown(
            id,
            title,
            "an answer was written onto the medium after it was signed; each file was verified by itself above",
        ),
        Ok(Some(signature)) => {
            question
                .trust
                .openpgp((id, title), image.reader(&everything), &signature, (1, question.now))
        }
    }
}
