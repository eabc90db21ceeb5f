// SPDX-License-Identifier: GPL-3.0-or-later
//! Releases as the verified targets of a repository describe them.
//!
//! The targets are authentic; whether they make releases is judged here, once for all who install, carry or publish them.
//! Attacks faced: a release mixed of the parts of two, a part under another's name, a description that contradicts the
//! target. Defence: every target below `host/` describes itself, by its own name and length, and all parts of a version
//! name one channel and one root hash; else nothing of the repository is taken. Defence not made: a release that its
//! signers made badly on purpose.

use std::collections::BTreeMap;

use super::{Custom, Part, Version};
use crate::digest::Sha256;
use crate::output::Refused;
use crate::tuf::VerifiedTarget;

/// A release that a repository offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Its version.
    pub version: Version,
    /// Its channel.
    pub channel: String,
    /// The dm-verity root hash.
    pub root_hash: Sha256,
    /// The targets of its parts, perhaps not of all.
    pub parts: BTreeMap<Part, VerifiedTarget>,
}

impl Offered {
    /// The target of a part.
    ///
    /// # Errors
    /// When the release lacks it.
    pub fn part(&self, part: Part) -> Result<&VerifiedTarget, Refused> {
        self.parts
            .get(&part)
            .ok_or_else(|| Refused(format!("release {} lacks {}", self.version, part.file())))
    }

    /// Checks that all of these parts are there.
    ///
    /// # Errors
    /// When one is missing.
    pub fn require(&self, parts: &[Part]) -> Result<(), Refused> {
        parts.iter().try_for_each(|part| self.part(*part).map(drop))
    }
}

/// The releases that these targets make up, the oldest first. Targets outside `host/` are something else and passed over.
///
/// # Errors
/// When a target does not say what it is, or one contradicts itself or another.
pub fn offered(targets: &[VerifiedTarget]) -> Result<Vec<Offered>, Refused> {
    let mut found: BTreeMap<Version, Offered> = BTreeMap::new();
    for target in targets.iter().filter(|target| target.name.starts_with("host/")) {
        let custom = describe(target)?;
        let version = custom.version;
        let release = found.entry(version).or_insert_with(|| Offered {
            version,
            channel: custom.channel.clone(),
            root_hash: custom.root_hash,
            parts: BTreeMap::new(),
        });
        if release.root_hash != custom.root_hash {
            return Err(Refused(format!(
                "the parts of release {version} name different root hashes"
            )));
        }
        if release.channel != custom.channel {
            return Err(Refused(format!(
                "the parts of release {version} name different channels"
            )));
        }
        // The name is that of version and part, and a client names a target once.
        release.parts.insert(custom.part, target.clone());
    }
    Ok(found.into_values().collect())
}

/// The newest release of a channel.
#[must_use]
pub fn newest(releases: Vec<Offered>, channel: &str) -> Option<Offered> {
    releases.into_iter().rfind(|release| release.channel == channel)
}

/// What a target says of itself, which must be what it is.
fn describe(target: &VerifiedTarget) -> Result<Custom, Refused> {
    let refuse = |why: &str| {
        Refused(format!(
            "the target {} is not described as a release's part: {why}",
            target.name
        ))
    };
    let custom = target.custom.clone().ok_or_else(|| refuse("it has no description"))?;
    let custom: Custom = serde_json::from_value(custom).map_err(|error| refuse(&error.to_string()))?;
    let name = custom.part.target(custom.version);
    if name != target.name {
        return Err(refuse(&format!("it says that it is {name}")));
    }
    if custom.size != target.length {
        return Err(refuse("its size is not its length"));
    }
    Ok(custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(version: &str, channel: &str, part: Part, hash: &str) -> VerifiedTarget {
        let version: Version = version.parse().unwrap();
        let custom = Custom {
            version,
            channel: channel.into(),
            part,
            root_hash: Sha256::of(hash.as_bytes()),
            size: 10,
        };
        VerifiedTarget::example(&part.target(version), 10, serde_json::to_value(custom).ok())
    }

    fn release(version: &str, channel: &str) -> Vec<VerifiedTarget> {
        Part::ALL.map(|part| target(version, channel, part, version)).to_vec()
    }

    fn refusal(targets: &[VerifiedTarget]) -> String {
        offered(targets).unwrap_err().0
    }

    #[test]
    fn the_newest_of_a_channel_is_found() {
        let mut targets = release("1.10.0", "stable");
        targets.extend(release("1.9.0", "stable"));
        targets.extend(release("2.0.0", "testing"));
        targets.push(VerifiedTarget::example("guest/tiny", 3, None));
        let releases = offered(&targets).unwrap();
        let versions: Vec<String> = releases.iter().map(|release| release.version.to_string()).collect();
        assert_eq!(versions, ["1.9.0", "1.10.0", "2.0.0"]);
        assert!(newest(releases.clone(), "other").is_none());
        let newest = newest(releases, "stable").unwrap();
        assert_eq!(newest.version.to_string(), "1.10.0");
        assert!(newest.parts.keys().copied().eq(Part::ALL));
        assert_eq!(newest.part(Part::Xen).unwrap().name, "host/1.10.0/xen.efi");
    }

    #[test]
    fn a_release_mixed_of_two_is_refused() {
        let mut targets = release("1.0.0", "stable");
        targets[1] = target("1.0.0", "stable", Part::Verity, "another");
        assert!(refusal(&targets).contains("different root hashes"));
        targets[1] = target("1.0.0", "testing", Part::Verity, "1.0.0");
        assert!(refusal(&targets).contains("different channels"));
        // Also when it is not the newest: who signed this did not know what they did.
        targets.extend(release("1.1.0", "stable"));
        assert!(refusal(&targets).contains("release 1.0.0"));
    }

    #[test]
    fn a_release_that_is_not_whole_is_found_and_says_what_it_lacks() {
        let releases = offered(&release("1.0.0", "stable")[..2]).unwrap();
        releases[0].require(&[Part::Root, Part::Verity]).unwrap();
        let refused = releases[0].require(&[Part::Root, Part::Xen]).unwrap_err();
        assert_eq!(refused.0, "release 1.0.0 lacks xen.efi");
    }

    #[test]
    fn a_part_under_another_name_or_of_another_size_is_refused() {
        let changed = |change: fn(&mut VerifiedTarget)| {
            let mut targets = release("1.0.0", "stable");
            change(&mut targets[0]);
            refusal(&targets)
        };
        assert!(
            changed(|target| target.name = "host/1.0.1/root.erofs".into()).contains("it says that it is host/1.0.0")
        );
        assert!(changed(|target| target.length = 11).contains("its size"));
        assert!(changed(|target| target.custom = None).contains("no description"));
        assert!(changed(|target| target.custom = Some("part".into())).contains("not described"));
    }
}
