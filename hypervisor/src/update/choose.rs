// SPDX-License-Identifier: GPL-3.0-or-later
//! Which of the verified targets is the release to be installed.
//!
//! The targets are authentic; whether they make a release is judged here: all parts there, all of one root hash, each
//! named by what its own description says.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use signing::digest::Sha256;
use signing::output::Refused;
use signing::release::{Custom, Part, Version};
use signing::tuf::VerifiedTarget;

/// What a host needs of a release.
const NEEDED: [Part; 3] = [Part::Root, Part::Verity, Part::Xen];

/// What the choice reads of a target.
pub trait Described: Clone {
    /// Its name.
    fn name(&self) -> &str;
    /// Its length in bytes.
    fn length(&self) -> u64;
    /// Its signed description.
    fn custom(&self) -> Option<&serde_json::Value>;
}

impl Described for VerifiedTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn custom(&self) -> Option<&serde_json::Value> {
        self.custom.as_ref()
    }
}

/// A release that is offered.
#[derive(Debug, Clone)]
pub struct Candidate<T> {
    /// Its version.
    pub version: Version,
    /// Its root hash.
    pub root_hash: Sha256,
    parts: BTreeMap<Part, T>,
}

impl<T: Described> Candidate<T> {
    /// One of its parts.
    ///
    /// # Errors
    /// When the release lacks it.
    pub fn part(&self, part: Part) -> Result<T> {
        self.parts
            .get(&part)
            .cloned()
            .with_context(|| format!("release {} has no {}", self.version, part.file()))
    }
}

/// The newest release of a channel.
///
/// # Errors
/// A refusal when the channel has none, or the newest one is not whole or contradicts itself.
pub fn newest<T: Described>(targets: &[T], channel: &str) -> Result<Candidate<T>> {
    let mut releases: BTreeMap<Version, Vec<(Custom, &T)>> = BTreeMap::new();
    for target in targets.iter().filter(|target| target.name().starts_with("host/")) {
        let custom = describe(target)?;
        if custom.channel == channel {
            releases.entry(custom.version).or_default().push((custom, target));
        }
    }
    let Some((version, described)) = releases.pop_last() else {
        bail!(Refused(format!(
            "nothing is offered for the channel {channel:?} that this host follows"
        )));
    };
    let root_hash = described[0].0.root_hash;
    if described.iter().any(|(custom, _)| custom.root_hash != root_hash) {
        bail!(Refused(format!(
            "the parts of release {version} name different root hashes"
        )));
    }
    let parts: BTreeMap<Part, T> = described
        .into_iter()
        .map(|(custom, target)| (custom.part, target.clone()))
        .collect();
    if let Some(missing) = NEEDED.iter().find(|part| !parts.contains_key(part)) {
        bail!(Refused(format!("release {version} lacks {}", missing.file())));
    }
    Ok(Candidate {
        version,
        root_hash,
        parts,
    })
}

fn describe(target: &impl Described) -> Result<Custom> {
    let refuse = |why: &str| {
        Refused(format!(
            "the target {} is not described as a release's part: {why}",
            target.name()
        ))
    };
    let Some(custom) = target.custom().cloned() else {
        bail!(refuse("it has no description"))
    };
    let custom: Custom = serde_json::from_value(custom).map_err(|error| refuse(&error.to_string()))?;
    if custom.part.target(custom.version) != target.name() {
        bail!(refuse(&format!(
            "it says that it is {}",
            custom.part.target(custom.version)
        )));
    }
    if custom.size != target.length() {
        bail!(refuse("its size is not its length"));
    }
    Ok(custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone)]
    struct Plain {
        name: String,
        length: u64,
        custom: Option<serde_json::Value>,
    }

    impl Described for Plain {
        fn name(&self) -> &str {
            &self.name
        }

        fn length(&self) -> u64 {
            self.length
        }

        fn custom(&self) -> Option<&serde_json::Value> {
            self.custom.as_ref()
        }
    }

    fn target(version: &str, channel: &str, part: Part, hash: &str) -> Plain {
        let version: Version = version.parse().unwrap();
        let custom = Custom {
            version,
            channel: channel.into(),
            part,
            root_hash: Sha256::of(hash.as_bytes()),
            size: 10,
        };
        Plain {
            name: part.target(version),
            length: 10,
            custom: Some(serde_json::to_value(custom).unwrap()),
        }
    }

    fn release(version: &str, channel: &str) -> Vec<Plain> {
        NEEDED.map(|part| target(version, channel, part, version)).to_vec()
    }

    #[test]
    fn takes_the_newest_of_the_channel() {
        let mut targets = release("1.9.0", "stable");
        targets.extend(release("1.10.0", "stable"));
        targets.extend(release("2.0.0", "testing"));
        assert_eq!(newest(&targets, "stable").unwrap().version.to_string(), "1.10.0");
        assert!(newest(&targets, "other").is_err());
    }

    #[test]
    fn refuses_a_release_mixed_of_two() {
        let mut targets = release("1.0.0", "stable");
        targets[1] = target("1.0.0", "stable", Part::Verity, "another");
        assert!(
            newest(&targets, "stable")
                .unwrap_err()
                .to_string()
                .contains("different root hashes")
        );
    }

    #[test]
    fn refuses_a_release_that_is_not_whole() {
        let targets = release("1.0.0", "stable")[..2].to_vec();
        assert!(
            newest(&targets, "stable")
                .unwrap_err()
                .to_string()
                .contains("lacks xen.efi")
        );
    }

    #[test]
    fn refuses_a_part_under_another_name_or_of_another_size() {
        let mut targets = release("1.0.0", "stable");
        targets[0].name = "host/1.0.1/root.erofs".into();
        assert!(newest(&targets, "stable").is_err());
        let mut targets = release("1.0.0", "stable");
        targets[0].length = 11;
        assert!(newest(&targets, "stable").is_err());
        targets[0].custom = None;
        assert!(newest(&targets, "stable").is_err());
    }
}
