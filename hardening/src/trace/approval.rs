// SPDX-License-Identifier: GPL-3.0-or-later
//! What a site's officers approved: two repositories with roots of their own that must agree (TAP 4).
//!
//! The attacks: a stolen key of the site, which approves what the vendor never signed; an approval of one content beside
//! another; one that was taken away. The defence: the site's chain is followed from the root that the auditor brought along,
//! as of now; the vendor's as of the approval, by the very metadata that were approved; and both must name each target with
//! one length, one digest and one description. It is all done by what an import does it with ([`signing::tuf::multi`]).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use signing::anchor;
use signing::digest::Sha256;
use signing::tuf::multi::agreement;
use signing::tuf::trail::TrailFile;
use signing::tuf::{Approval, Datastore, Limits, MultiClient, Offer, Source, Stores, Trail, TufError, VerifiedTarget};

use super::files::{accounting, openpgp, signatures};
use super::release::Question;
use super::trust::Trust;
use super::tuf::{Followed, Roots, follow, roots};
use super::{Inventory, date, history, of_tuf};
use crate::report::{Finding, Section};
use crate::verdict::Verdict;

/// What was found out about an approval.
#[derive(Default)]
pub(super) struct Judged {
    /// The findings, for [`section`].
    pub(super) findings: Vec<Finding>,
    /// The newest approval, where site and vendor were followed to it.
    pub(super) approval: Option<Approval>,
    /// The paths of the targets that both agree on, where they agree.
    pub(super) agreed: Option<BTreeSet<String>>,
    /// The site's metadata that were verified, and its roots.
    pub(super) site: (Vec<TrailFile>, Roots),
    /// The vendor's metadata, as they were verified for the approval.
    pub(super) vendor: Vec<TrailFile>,
    /// Every digest of the vendor's metadata that a standing approval names.
    pub(super) seen: BTreeSet<Sha256>,
}

impl Judged {
    /// As of when the vendor's metadata are to be judged, if those that are served are the approved ones.
    pub(super) fn as_of<S: Source>(&self, served: &mut S) -> Option<DateTime<Utc>> {
        let approval = self.approval.as_ref()?;
        let timestamp = served.metadata("timestamp.json", Limits::default().timestamp_bytes);
        let served = Sha256::of(&timestamp.ok()??);
        let approved = approval.seen("timestamp").is_some_and(|seen| seen.sha256 == served);
        approved.then_some(approval.at)
    }
}

/// The chapter of an approval.
pub(super) fn section(findings: Vec<Finding>) -> Section {
    Section::new(
        "approval",
        "Approval: what the site's officers signed beside the vendor",
        "A host whose policy demands both installs only what vendor and site agree on (TAP 4). The site's metadata are judged as \
         of now, the vendor's as of the approval and by the very files that the officers saw.",
        findings,
    )
}

/// What is said of an approval where the auditor knows no root of a site.
pub(super) fn unasked() -> Finding {
    Finding::unknown(
        "approval",
        "A site approves what it carries",
        "it carries an approval, and this audit knows the root of the publisher alone: name the site's trust directory with \
         --site-trust",
    )
}

/// Judges an approval: `files` are those of the site's repository.
pub(super) fn judge<S: Source>(offer: Offer<S>, files: &Inventory, site: &Trust, question: Question<'_>) -> Judged {
    let Offer { vendor, site: source } = offer;
    let Some(mut source) = source else {
        let finding = Finding::new("approval", "A site approves what it carries", of_tuf(&TufError::NoSite));
        return Judged {
            findings: vec![guided(finding)],
            ..Judged::default()
        };
    };
    let asked = Question {
        trust: site,
        ..question
    };
    let signatures = signatures(&mut source, files);
    let roots = roots(&mut source, files);
    let mut followed = follow(&mut source, &site.root);
    let signed = openpgp(&followed, &signatures, &roots, asked).findings;
    let accounted = accounting(&mut followed, files, &BTreeMap::new(), (&site.root, &roots)).findings;
    let followed = followed.apart();
    let behind = roots.values().next_back();
    let behind = behind.and_then(|newest| history::behind("The site's repository", newest, &site.root, &roots));

    let mut judged = Judged::default();
    let Compared { named, findings } = compare(
        &mut judged,
        Offer {
            vendor,
            site: Some(source),
        },
        site,
        question,
    );
    let mut leaves = |role: &str| {
        let of_role = followed.targets.iter().filter(|target| target.role == role);
        of_role.map(|target| leaf(target, named.as_ref())).collect()
    };
    let pinned = match anchor::fingerprint(site.directory()) {
        Ok(fingerprint) => site.pinned(question.now).fact(anchor::COMPARE, fingerprint),
        Err(_) => site.pinned(question.now),
    };
    judged.findings.extend([pinned, followed.tree(&mut leaves)]);
    judged.findings.extend(behind);
    judged.findings.push(followed.freshness(question.now, true));
    judged.findings.extend(findings);
    judged.findings.push(Finding::heading(
        "approval.openpgp",
        "OpenPGP signatures of the site's roots and timestamp",
        signed,
    ));
    judged.findings.push(Finding::heading(
        "approval.files",
        "Files of the site's repository",
        accounted,
    ));
    judged.seen = followed.targets.iter().flat_map(seen).collect();
    judged.site = (followed.trail.files, roots);
    judged
}

/// The digests that a target's approval names.
fn seen(target: &VerifiedTarget) -> Vec<Sha256> {
    let approval = target.custom.as_ref().and_then(|custom| Approval::take(custom).ok());
    approval.map_or_else(Vec::new, |(approval, _)| {
        approval.vendor.iter().map(|seen| seen.sha256).collect()
    })
}

/// What the vendor names, and what came of holding it against the approval.
pub(super) struct Compared {
    named: Option<BTreeMap<String, VerifiedTarget>>,
    pub(super) findings: Vec<Finding>,
}

pub(super) fn compare<S: Source>(
    judged: &mut Judged,
    offer: Offer<S>,
    site: &Trust,
    question: Question<'_>,
) -> Compared {
    // Authenticity alone: whether the site's metadata are fresh is a finding of its own.
    let opened = Datastore::ephemeral(&question.trust.root).and_then(|vendor| {
        let site = Datastore::ephemeral(&site.root)?;
        let stores = Stores::Both { vendor, site };
        MultiClient::open(stores, offer, Limits::default(), DateTime::<Utc>::MIN_UTC)
    });
    let (id, title) = ("approval.given", "The site approves it");
    let mut client = match opened {
        Ok(client) => client,
        Err(error) => {
            return Compared {
                named: None,
                findings: vec![guided(Finding::new(id, title, of_tuf(&error)))],
            };
        }
    };
    let approval = client.trails().site.map(|(_, approval)| approval);
    let mut findings: Vec<Finding> = approval.iter().map(|approval| given(id, title, approval)).collect();

    let named = client.refresh().and_then(|()| client.vendor().targets());
    let trail = client.trails().vendor;
    let (id, title) = (
        "approval.vendor",
        "The vendor's metadata are those that the site saw, and were current then",
    );
    let named = match named {
        Ok(named) => {
            findings.push(vouched(id, title, &trail, &named));
            judged.approval = approval;
            named
        }
        Err(error) => {
            findings.push(guided(Finding::new(id, title, of_tuf(&error))));
            return Compared { named: None, findings };
        }
    };
    let (id, title) = (
        "approval.agreement",
        "Vendor and site agree on every target that the site approves",
    );
    findings.push(match client.targets() {
        Ok(agreed) => {
            let vendor = client.vendor();
            judged.agreed = Some(agreed.iter().map(|target| vendor.path(target)).collect());
            Finding::pass(
                id,
                title,
                format!(
                    "{} targets: one length, one digest, one description of each",
                    agreed.len()
                ),
            )
        }
        Err(error) => guided(Finding::new(id, title, of_tuf(&error))),
    });
    judged.vendor = trail.files;
    let named = named.into_iter().map(|target| (target.name.clone(), target));
    Compared {
        named: Some(named.collect()),
        findings,
    }
}

fn given(id: &str, title: &str, approval: &Approval) -> Finding {
    let said = format!("the newest approval was given {}", date(approval.at));
    let seen = approval.vendor.iter();
    seen.fold(Finding::pass(id, title, said), |finding, seen| {
        finding.fact(format!("saw the vendor's {} {}", seen.role, seen.version), seen.sha256)
    })
}

/// The vendor's chain as of the approval.
fn vouched(id: &str, title: &str, trail: &Trail, targets: &[VerifiedTarget]) -> Finding {
    let roles: BTreeSet<&str> = targets.iter().map(|target| target.role.as_str()).collect();
    let followed = Followed::<()>::of(trail.clone());
    let said = format!("each by its digest, from the pinned root on, as of {}", date(trail.now));
    roles.iter().fold(Finding::pass(id, title, said), |finding, role| {
        finding.fact("vouched for by", followed.chain(role))
    })
}

/// One target that the site approves.
fn leaf(approved: &VerifiedTarget, named: Option<&BTreeMap<String, VerifiedTarget>>) -> Finding {
    let verdict = match named.map(|named| agreement(named.get(&approved.name), approved)) {
        None => Verdict::CouldNotCheck("the vendor's metadata could not be followed to it".to_owned()),
        Some(Ok(())) => Verdict::Pass("the vendor names the same length, digest and description".to_owned()),
        Some(Err(error)) => of_tuf(&error),
    };
    Finding::new(format!("approved.{}", approved.name), &approved.name, verdict)
        .fact("sha256", approved.sha256)
        .fact("size", super::bytes(approved.length))
}

fn guided(finding: Finding) -> Finding {
    finding.guide(
        "A stolen key of the vendor alone, or of the site alone, must install nothing.",
        &["TUF TAP 4", "TUF 1.0.34, section 5"],
        "Do not use it. Ask the site's officers what they approved, and keep this one as evidence.",
    )
}

/// Files of a bundle that nobody approved.
pub(super) fn carried(judged: &Judged, inventory: &Inventory) -> Option<Finding> {
    let agreed = judged.agreed.as_ref()?;
    let held = inventory.targets.iter().map(|held| held.name.as_str());
    let strange: Vec<&str> = held.filter(|name| !agreed.contains(*name)).collect();
    let (id, title) = ("approval.carried", "Every target that it carries is approved");
    Some(match strange[..] {
        [] => Finding::pass(id, title, format!("all {}", inventory.targets.len())),
        _ => guided(Finding::fail(
            id,
            title,
            format!("not approved: {}", strange.join(", ")),
        )),
    })
}
