// SPDX-License-Identifier: GPL-3.0-or-later
//! The audit that every shape of a repository shares: signatures, freshness, files, boot images, packages.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

use chrono::{DateTime, Utc};
use offline_repo::upstream::Policy;
use signing::digest::{Sha256, read_to_limit};
use signing::release::{self, Custom, Part};
use signing::tuf::trail::TrailFile;
use signing::tuf::{Client, Source, TufError, VerifiedTarget};

use super::files::{accounting, openpgp, signatures};
use super::trust::Trust;
use super::tuf::{Roots, follow, roots};
use super::verity::{Superblock, Tree};
use super::{Inventory, baked, boot, bytes, history, of_tuf, packages, sbom};
use crate::medium::Image;
use crate::report::{Finding, Section};
use crate::verdict::Verdict;

/// The largest boot image and bill of materials that is read whole.
const WHOLE: u64 = 192 << 20;
/// The largest detached signature.
pub(super) const SIGNATURE: u64 = 64 << 10;

/// What is asked of a repository.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What the auditor brought along.
    pub trust: &'a Trust,
    /// Whose officers must have approved it, where the auditor brought their trust directory along too.
    pub site: Option<&'a Trust>,
    /// The time against which freshness is judged.
    pub now: DateTime<Utc>,
    /// Whether every target that is named must be there. A medium carries some releases, a repository all.
    pub complete: bool,
    /// Who may sign upstream's lists; `None` for Debian's keys, which are part of this program.
    pub upstream: Option<&'a Policy>,
}

/// What was read of one release.
#[derive(Default)]
struct Version {
    parts: BTreeMap<Part, Custom>,
    boot: Vec<Finding>,
    bill: Option<Result<Vec<u8>, Verdict>>,
    upstream: Option<Result<File, Verdict>>,
    superblock: Option<Result<Superblock, String>>,
    root: Option<Result<Sha256, String>>,
    carried: bool,
}

impl<'a> Question<'a> {
    /// What is asked of a running host, which keeps no release and no lists of upstream's.
    #[must_use]
    pub const fn of_host(trust: &'a Trust, site: Option<&'a Trust>, now: DateTime<Utc>) -> Self {
        Self {
            trust,
            site,
            now,
            complete: false,
            upstream: None,
        }
    }
}

/// What a repository audit found, and what a medium needs to know of it.
#[derive(Default)]
pub struct Audited {
    /// The chapters.
    pub sections: Vec<Section>,
    /// Digest and length of each target that is named, by its path among the targets.
    pub targets: BTreeMap<String, (Sha256, u64)>,
    /// Digests of the installers' images.
    pub installers: Vec<(String, Sha256)>,
    /// The releases that are there, whole.
    pub versions: Vec<String>,
    /// The root hash of every release that is named.
    pub(super) root_hashes: BTreeMap<release::Version, Sha256>,
    /// The metadata that was verified.
    pub(super) verified: Vec<TrailFile>,
    /// The roots that are there, none of them verified.
    pub(super) roots: Roots,
}

impl Audited {
    /// An audit of what carries no release, or that ended before anything could be followed.
    pub(crate) fn of(sections: Vec<Section>) -> Self {
        Self {
            sections,
            ..Self::default()
        }
    }
}

/// Audits a repository, whatever carries it; its freshness as of a site's approval, where there is one.
pub fn audit<S: Source>(
    mut source: S,
    inventory: &Inventory,
    question: Question<'_>,
    approved_at: Option<DateTime<Utc>>,
) -> Audited {
    let signatures = signatures(&mut source, inventory);
    let roots = roots(&mut source, inventory);
    let mut followed = follow(source, &question.trust.root);
    let mut versions: BTreeMap<String, Version> = BTreeMap::new();
    let mut files: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    let mut named = BTreeMap::new();
    let mut installers = Vec::new();
    let mut root_hashes = BTreeMap::new();

    let mut targets = std::mem::take(&mut followed.targets);
    // The hash tree before the data that it is to be compared with.
    targets.sort_by_key(|target| {
        (
            part(target).map(|custom| (custom.version, custom.part != Part::Verity)),
            target.name.clone(),
        )
    });
    let held: BTreeMap<&str, u64> = inventory
        .targets
        .iter()
        .map(|held| (held.name.as_str(), held.length))
        .collect();
    if let Some(client) = &mut followed.client {
        let whole: BTreeMap<String, bool> = carried(client, &targets, &held);
        for target in &targets {
            let path = client.path(target);
            named.insert(path.clone(), (target.sha256, target.length));
            let custom = part(target);
            let release = release_of(target);
            if custom.as_ref().is_some_and(|custom| custom.part == Part::Installer) {
                installers.push((release.clone(), target.sha256));
            }
            let version = versions.entry(release.clone()).or_default();
            let verdict = if !question.complete && !whole.get(&release).copied().unwrap_or(false) {
                Verdict::NotApplicable(format!(
                    "release {release} is named by the metadata and not carried here"
                ))
            } else {
                version.carried = true;
                take(client, target, custom.as_ref(), version, (question.trust, &roots))
            };
            files.entry(target.role.clone()).or_default().push(
                Finding::new(format!("target.{}", target.name), &target.name, verdict)
                    .fact("sha256", target.sha256)
                    .fact("size", bytes(target.length))
                    .fact("lies at", format!("targets/{path}"))
                    .fact("named by", &target.role),
            );
            if let Some(custom) = custom {
                root_hashes.insert(custom.version, custom.root_hash);
                version.parts.insert(custom.part, custom);
            }
        }
    }
    for findings in files.values_mut() {
        for finding in findings {
            let role = finding
                .facts
                .iter()
                .find(|fact| fact.label == "named by")
                .map(|fact| fact.value.clone());
            let chain = followed.chain(role.as_deref().unwrap_or_default());
            finding.facts.retain(|fact| fact.label != "named by");
            finding.facts.push(crate::report::Fact {
                label: "vouched for by".to_owned(),
                value: chain,
            });
        }
    }

    let pinned = &question.trust.root[..];
    let tree = followed.tree(&mut |role| files.remove(role).unwrap_or_default());
    let mut fresh = followed.freshness(approved_at.unwrap_or(question.now), true);
    if approved_at.is_some() {
        fresh.title += ", when the site approved it";
    }
    let mut chain = vec![tree, fresh];
    let newest = roots.values().next_back();
    chain.extend(newest.and_then(|newest| history::behind("It", newest, pinned, &roots)));
    let mut sections = vec![
        question.trust.section(question.now),
        Section::new(
            "signatures",
            "Signatures, from the pinned root to every file",
            "Each file hangs from a role, each role from the keys that signed it and the threshold that it had to reach, and \
             everything from the pinned root (The Update Framework, version 1.0).",
            chain,
        ),
        openpgp(&followed, &signatures, &roots, question),
        accounting(&mut followed, inventory, &named, (pinned, &roots)),
    ];
    let whole: Vec<String> = versions
        .iter()
        .filter(|(_, version)| version.carried)
        .map(|(name, _)| name.clone())
        .collect();
    let mut boot_findings = Vec::new();
    let mut package_findings = Vec::new();
    for (name, version) in versions.iter_mut().filter(|(_, version)| version.carried) {
        boot_findings.push(boot_chain(name, version));
        package_findings.push(supply(name, version, question.upstream));
    }
    if boot_findings.is_empty() {
        boot_findings.push(Finding::unknown("boot", "Boot images", "no release is here whole"));
        package_findings.push(Finding::unknown("packages", "Packages", "no release is here whole"));
    }
    sections.push(Section::new(
        "boot",
        "Boot chain of each release",
        "Boot images carry the site's Secure Boot signature and name the root file system by its dm-verity hash, which is \
         computed anew here from the data; and the image trusts whom the auditor trusts.",
        boot_findings,
    ));
    sections.push(Section::new(
        "packages",
        "Packages, back to upstream's signature",
        "Each package of the image is named by the manifest, as upstream's index lists it, whose digest upstream signed with \
         keys that are part of this program; and the bill of materials names the same packages.",
        package_findings,
    ));
    Audited {
        sections,
        targets: named,
        installers,
        versions: whole,
        root_hashes,
        verified: followed.trail.files,
        roots,
    }
}

/// What a release target says of itself in its signed metadata.
fn part(target: &VerifiedTarget) -> Option<Custom> {
    target
        .custom
        .clone()
        .and_then(|custom| serde_json::from_value(custom).ok())
}

/// The release that a target belongs to, by its name.
fn release_of(target: &VerifiedTarget) -> String {
    match target.name.split('/').collect::<Vec<_>>()[..] {
        ["host", version, _] => version.to_owned(),
        _ => "other".to_owned(),
    }
}

/// Which releases have at least one of their files here: a release of which a part is missing is broken, not absent.
fn carried<S: Source>(
    client: &Client<S>,
    targets: &[VerifiedTarget],
    held: &BTreeMap<&str, u64>,
) -> BTreeMap<String, bool> {
    let mut whole = BTreeMap::new();
    for target in targets {
        let here = held.contains_key(client.path(target).as_str());
        *whole.entry(release_of(target)).or_default() |= here;
    }
    whole
}

/// Fetches a target, every byte of it verified, and keeps what later questions need.
fn take<S: Source>(
    client: &mut Client<S>,
    target: &VerifiedTarget,
    custom: Option<&Custom>,
    version: &mut Version,
    (trust, roots): (&Trust, &Roots),
) -> Verdict {
    let Some(custom) = custom else {
        return verdict(target, client.fetch(target, &mut io::sink()));
    };
    if custom.part.target(custom.version) != target.name || custom.size != target.length {
        return Verdict::Fail("the signed description of this target speaks of another file".to_owned());
    }
    let kept = |result: &Result<(), TufError>| result.as_ref().err().map(of_tuf);
    let result;
    match custom.part {
        Part::Xen | Part::Installer | Part::Sbom | Part::Verity if target.length > WHOLE => {
            return Verdict::CouldNotCheck(format!("it is larger than the {} that are read", bytes(WHOLE)));
        }
        Part::Xen | Part::Installer => {
            // Judged at once: two boot images in memory would be one too many.
            let mut content = Vec::with_capacity(usize::try_from(target.length).unwrap_or_default());
            result = client.fetch(target, &mut content);
            let id = format!("boot.{}.{}", custom.version, custom.part.file());
            let title = if custom.part == Part::Xen {
                "Unified Xen image of the host"
            } else {
                "Image of the installer"
            };
            version.boot.push(match kept(&result) {
                None => boot::image(&id, title, &content, Some(custom.root_hash), trust),
                Some(verdict) => Finding::new(id, title, verdict),
            });
        }
        Part::Sbom => {
            let mut content = Vec::new();
            result = client.fetch(target, &mut content);
            version.bill = Some(kept(&result).map_or(Ok(content), Err));
        }
        Part::Upstream => {
            let mut file = match tempfile::tempfile() {
                Ok(file) => file,
                Err(error) => return Verdict::CouldNotCheck(format!("cannot make a temporary file: {error}")),
            };
            result = client.fetch(target, &mut file);
            let rewound = file.rewind().map_err(|error| Verdict::CouldNotCheck(error.to_string()));
            version.upstream = Some(kept(&result).map_or(rewound.map(|()| file), Err));
        }
        Part::Verity => {
            let mut head = Head::default();
            result = client.fetch(target, &mut head);
            version.superblock = Some(match &result {
                Ok(()) => Superblock::parse(&head.0),
                Err(error) => Err(error.reason()),
            });
        }
        Part::Root => {
            let superblock = version
                .superblock
                .as_ref()
                .and_then(|superblock| superblock.as_ref().ok());
            let mut root = RootReader {
                tree: superblock.map(Tree::new),
                copy: tempfile::tempfile(),
            };
            result = client.fetch(target, &mut root);
            version.root = root.tree.map(|tree| match &result {
                Ok(()) => tree.finish(),
                Err(error) => Err(error.reason()),
            });
            let id = format!("boot.{}.trust", custom.version);
            version.boot.extend(match kept(&result) {
                None => baked::image(&id, root.copy.and_then(Image::nameless), trust, roots),
                Some(verdict) => vec![Finding::new(id, "The image's trust directory", verdict)],
            });
        }
    }
    verdict(target, result)
}

fn verdict(target: &VerifiedTarget, result: Result<(), TufError>) -> Verdict {
    match result {
        Ok(()) => Verdict::Pass(format!(
            "all {} have the digest that {} signed",
            bytes(target.length),
            target.role
        )),
        Err(error @ TufError::Missing { .. }) => Verdict::Fail(error.reason()),
        Err(error) => of_tuf(&error),
    }
}

/// The first block of what is written to it.
#[derive(Default)]
struct Head(Vec<u8>);

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let want = 4096_usize.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend(&bytes[..want]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes in a root file system: for its hash tree, and as a copy to look into. A copy that fails is no failure of the file.
struct RootReader {
    tree: Option<Tree>,
    copy: io::Result<File>,
}

impl Write for RootReader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tree) = &mut self.tree {
            tree.write_all(bytes)?;
        }
        if let Ok(file) = &mut self.copy
            && let Err(error) = file.write_all(bytes)
        {
            self.copy = Err(error);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn boot_chain(name: &str, version: &mut Version) -> Finding {
    let mut findings = std::mem::take(&mut version.boot);
    let hash = version.parts.values().next().map(|custom| custom.root_hash);
    let id = format!("boot.{name}.verity");
    let title = "Root file system and its dm-verity hash";
    findings.push(match (&version.root, &version.superblock, hash) {
        (Some(Ok(found)), _, Some(hash)) if *found == hash => Finding::pass(
            id,
            title,
            "the hash computed from the data is the one that the boot image and the metadata name",
        )
        .fact("root hash", hash),
        (Some(Ok(found)), _, Some(hash)) => Finding::fail(
            id,
            title,
            format!("the data has the root hash {found}, the signed metadata says {hash}"),
        ),
        (Some(Err(why)), ..) | (None, Some(Err(why)), _) => Finding::fail(id, title, why.clone()),
        _ => Finding::unknown(id, title, "root or hash tree could not be read"),
    });
    if version.parts.values().any(|custom| Some(custom.root_hash) != hash) {
        findings.push(Finding::fail(
            format!("boot.{name}.one"),
            "All parts belong together",
            "they name different root hashes",
        ));
    }
    Finding::heading(format!("boot.{name}"), format!("Release {name}"), findings)
}

fn supply(name: &str, version: &mut Version, upstream: Option<&Policy>) -> Finding {
    let mut findings = Vec::new();
    let id = format!("packages.{name}");
    let proof = match version.upstream.take() {
        None => Err(Verdict::CouldNotCheck(format!(
            "the release has no {}",
            Part::Upstream.file()
        ))),
        Some(Err(verdict)) => Err(verdict),
        Some(Ok(mut file)) => packages::prove(&mut file, upstream),
    };
    match proof {
        Ok(proof) => {
            findings.extend(packages::findings(&id, &proof));
            findings.push(match &version.bill {
                None => Finding::unknown(
                    format!("{id}.sbom"),
                    "Bill of materials",
                    format!("the release has no {}", Part::Sbom.file()),
                ),
                Some(Err(verdict)) => Finding::new(format!("{id}.sbom"), "Bill of materials", verdict.clone()),
                Some(Ok(bill)) => sbom::compare(&format!("{id}.sbom"), bill, &proof.snapshot),
            });
        }
        Err(verdict) => findings.push(Finding::new(
            format!("{id}.upstream"),
            "Packages are upstream's",
            verdict,
        )),
    }
    Finding::heading(id, format!("Release {name}"), findings)
}

/// Reads a detached signature that lies beside a file.
pub(crate) fn beside(path: &std::path::Path) -> io::Result<Option<Vec<u8>>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".asc");
    match File::open(&name) {
        Ok(file) => read_to_limit(&mut file.take(SIGNATURE + 1), SIGNATURE).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
