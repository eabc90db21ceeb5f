// SPDX-License-Identifier: GPL-3.0-or-later
//! Two repositories with roots of their own must agree before a target counts (TAP 4, with the two as one mapping that
//! terminates): the vendor's, which made it, and the site's, whose officers approved it.
//!
//! Attacks: a stolen key of the vendor, or of the site; an approval of what the vendor never signed; an approval of one
//! release shown with another; vendor metadata that were replaced after the approval; an approval that is dated before the
//! vendor signed, or after the site did.
//!
//! Defence: the site's chain is judged as of now, the vendor's as of the newest approval and by the very metadata that
//! were approved ([`super::approval`]). A target counts when both name it with one length, one digest and one description.
//! One target of the site that the vendor does not name so, and nothing counts.
//!
//! Not defended here: both sets of keys in one hand.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::approval::{Approval, Approved};
use super::beside::Signatures;
use super::client::{Client, VerifiedTarget};
use super::datastore::Datastore;
use super::error::TufError;
use super::limits::Limits;
use super::model::Result;
use super::source::Source;
use super::time::{Time, Used};
use super::trail::Trail;
use crate::clock::Reading;

/// One medium's repositories: the vendor's, and the site's where the medium carries it.
pub struct Offer<S> {
    /// The vendor's repository.
    pub vendor: S,
    /// The site's.
    pub site: Option<S>,
}

impl<S> Offer<S> {
    /// A medium with the vendor's repository alone.
    pub const fn vendor(vendor: S) -> Self {
        Self { vendor, site: None }
    }
}

/// What a client remembers of those whom its policy names.
pub enum Stores {
    /// The vendor's word suffices.
    Vendor(Datastore),
    /// Both must agree.
    Both {
        /// Of the vendor's repository.
        vendor: Datastore,
        /// Of the site's.
        site: Datastore,
    },
}

/// How the metadata of all sovereigns was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trails {
    /// The vendor's.
    pub vendor: Trail,
    /// The site's, and the newest approval in it.
    pub site: Option<(Trail, Approval)>,
}

/// Follows the repositories that a policy names.
pub struct MultiClient<S> {
    vendor: Client<Approved<S>>,
    site: Option<Site<S>>,
}

struct Site<S> {
    client: Client<S>,
    targets: Vec<VerifiedTarget>,
    approval: Approval,
}

impl Stores {
    /// Decides what time it is, from what is known of all sovereigns. See [`Datastore::time`].
    ///
    /// # Errors
    /// When a datastore cannot be read or written, or is damaged.
    pub fn time(&mut self, reading: &Reading, built: Option<DateTime<Utc>>) -> Result<Time> {
        match self {
            Self::Vendor(vendor) => vendor.time(reading, built),
            Self::Both { vendor, site } => {
                let beside = vendor.time(reading, built)?;
                // Its client is opened as of the approval, and keeps nothing of the time.
                vendor.keep_time(&beside)?;
                Ok(site.time(reading, built)?.beside(&beside))
            }
        }
    }
}

impl<S: Source> MultiClient<S> {
    /// Verifies the site's metadata as of `time`, where the stores are of both, and takes the newest approval from them. The
    /// vendor's follow with [`MultiClient::refresh`].
    ///
    /// # Errors
    /// When the site's repository is missing or refused, or approves nothing; or a datastore cannot be used.
    pub fn open(stores: Stores, offer: Offer<S>, limits: Limits, time: impl Into<Time>) -> Result<Self> {
        let time = time.into();
        let (vendor_store, site) = match stores {
            Stores::Vendor(vendor) => (vendor, None),
            Stores::Both { vendor, site } => {
                let source = offer.site.ok_or(TufError::NoSite)?;
                (vendor, Some(Site::follow(site, source, limits, time.clone())?))
            }
        };
        let approval = site.as_ref().map(|site| site.approval.clone());
        let as_of = approval.as_ref().map_or(time, |approval| approval.at.into());
        let source = Approved::new(offer.vendor, approval);
        Ok(Self {
            vendor: Client::open(vendor_store, source, limits, as_of)?,
            site,
        })
    }

    /// Verifies the vendor's metadata: as of now, or as of the site's approval.
    ///
    /// # Errors
    /// When they are refused, are not those that were approved, or are newer than their approval.
    pub fn refresh(&mut self) -> Result<()> {
        self.vendor.refresh()
    }

    /// Every target that all sovereigns agree on, as the vendor describes it.
    ///
    /// # Errors
    /// When any role cannot be verified, or the site approves what the vendor does not name so.
    pub fn targets(&mut self) -> Result<Vec<VerifiedTarget>> {
        let targets = self.vendor.targets()?;
        let Some(site) = &self.site else {
            return Ok(targets);
        };
        // Whoever approved cannot have seen what was not signed yet.
        let signed = self.vendor.trail().files.iter().filter_map(|file| file.signed_at).max();
        if let Some(signed) = signed.filter(|signed| *signed > site.approval.at) {
            return Err(TufError::Disagreement {
                what: "the approval".to_owned(),
                why: format!(
                    "it was given at {}, and the vendor's metadata were signed at {signed}",
                    site.approval.at
                ),
            });
        }
        agree(targets, &site.targets)
    }

    /// The vendor's client, whose repository holds the targets.
    pub const fn vendor(&mut self) -> &mut Client<Approved<S>> {
        &mut self.vendor
    }

    /// The vendor's repository and the site's as they are, for who copies what was verified, and holds it against
    /// [`MultiClient::trails`].
    pub fn sources(&mut self) -> (&mut S, Option<&mut S>) {
        let site = self.site.as_mut().map(|site| site.client.source());
        (self.vendor.source().unfiltered(), site)
    }

    /// What was verified so far.
    #[must_use]
    pub fn trails(&self) -> Trails {
        Trails {
            vendor: self.vendor.trail().clone(),
            site: self
                .site
                .as_ref()
                .map(|site| (site.client.trail().clone(), site.approval.clone())),
        }
    }

    /// The OpenPGP signatures that were demanded and hold, of all sovereigns. See [`Client::signatures`].
    #[must_use]
    pub fn signatures(&self) -> Signatures {
        let site = self.site.iter().flat_map(|site| site.client.signatures());
        let all = self.vendor.signatures().iter().chain(site);
        all.map(|(digest, signature)| (*digest, signature.clone())).collect()
    }

    /// The time as of which the newest word was judged: the site's, or the vendor's where it suffices.
    #[must_use]
    pub const fn time(&self) -> &Time {
        match &self.site {
            Some(site) => site.client.time(),
            None => self.vendor.time(),
        }
    }

    /// The use of a waiver, where stale metadata was taken: of the site's, or the vendor's where it suffices.
    #[must_use]
    pub fn waived(&self) -> Option<&Used> {
        match &self.site {
            Some(site) => site.client.waived(),
            None => self.vendor.waived(),
        }
    }

    /// Ends the multi-client, for who has chosen from [`MultiClient::targets`] and fetches now.
    #[must_use]
    pub fn into_vendor(self) -> Client<Approved<S>> {
        self.vendor
    }
}

impl<S: Source> Site<S> {
    fn follow(store: Datastore, source: S, limits: Limits, time: Time) -> Result<Self> {
        let now = time.now();
        let mut client = Client::open(store, source, limits, time)?;
        client.refresh()?;
        let targets = client.targets()?;
        let mut newest: Option<Approval> = None;
        for target in &targets {
            let (approval, _) = approval_of(target)?;
            if newest.as_ref().is_none_or(|newest| newest.at < approval.at) {
                newest = Some(approval);
            }
        }
        let approval = newest.ok_or_else(|| disagreement("the site's repository", "it approves nothing"))?;
        // The clock of this machine may be behind: the site's own signatures are not.
        let signed = client.trail().files.iter().filter_map(|file| file.signed_at).max();
        if signed.is_some_and(|signed| approval.at > signed.max(now)) {
            return Err(disagreement(
                "the approval",
                &format!("it is dated {}, after the site signed it", approval.at),
            ));
        }
        Ok(Self {
            client,
            targets,
            approval,
        })
    }
}

fn disagreement(what: &str, why: &str) -> TufError {
    TufError::Disagreement {
        what: what.to_owned(),
        why: why.to_owned(),
    }
}

fn approval_of(target: &VerifiedTarget) -> Result<(Approval, serde_json::Map<String, serde_json::Value>)> {
    let custom = target.custom.as_ref().unwrap_or(&serde_json::Value::Null);
    Approval::take(custom).map_err(|why| disagreement(&format!("the site's target {}", target.name), &why))
}

/// TAP 4, "interpreting the map file", step 3: the repositories must agree on hashes and length. Beyond it they must agree
/// on the description, so that no approved file is offered as another release. What the site does not name does not count.
fn agree(vendor: Vec<VerifiedTarget>, site: &[VerifiedTarget]) -> Result<Vec<VerifiedTarget>> {
    let mut vendor: BTreeMap<String, VerifiedTarget> =
        vendor.into_iter().map(|target| (target.name.clone(), target)).collect();
    let mut agreed = Vec::with_capacity(site.len());
    for approved in site {
        let target = vendor.remove(&approved.name);
        agreement(target.as_ref(), approved)?;
        agreed.extend(target);
    }
    Ok(agreed)
}

/// Whether the vendor names a target as the site approved it; see [`MultiClient::targets`].
///
/// # Errors
/// What they disagree on.
pub fn agreement(vendor: Option<&VerifiedTarget>, approved: &VerifiedTarget) -> Result<()> {
    let refuse = |why| disagreement(&approved.name, why);
    let (_, description) = approval_of(approved)?;
    let target = vendor.ok_or_else(|| refuse("the site approves it, and the vendor's metadata do not name it"))?;
    if (target.length, target.sha256) != (approved.length, approved.sha256) {
        return Err(refuse("vendor and site name different contents"));
    }
    let said = target.custom.as_ref().and_then(serde_json::Value::as_object);
    if said.cloned().unwrap_or_default() != description {
        return Err(refuse("vendor and site describe it differently"));
    }
    Ok(())
}
