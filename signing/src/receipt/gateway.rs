// SPDX-License-Identifier: GPL-3.0-or-later
//! What a gateway says of itself: the releases that are whole in it, the bundles that wait or were refused, and what it wrote
//! to media itself.
//!
//! The attack: numbers and lists without end, or that contradict each other, from whoever has a gateway's key. The defence:
//! all are bounded and in one form, before anybody computes with them. Not defended: a gateway may lie.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{MAX_TEXT, ReleaseHeld};
use crate::digest::Sha256;
use crate::release::Version;

/// The most volumes of a bundle.
pub const MOST_VOLUMES: u32 = 9999;
/// The most bundles of a kind that a receipt tells of, and the most releases of one.
pub const MOST_TOLD: usize = 32;
/// The most files of a refusal.
pub const MOST_FILES: usize = 8;
/// The most volumes of all bundles together that wait.
pub const MOST_NUMBERS: usize = 5000;
/// The most volumes together that were written.
pub const MOST_WRITTEN: usize = 500;

/// What a gateway holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayState {
    /// The releases that are whole in it.
    pub releases: Vec<ReleaseHeld>,
    /// The bundles that wait for volumes, or were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<SetSeen>,
    /// What it exported itself, as its media gave it back; the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<Exported>,
    /// How many more of both there are, for which a receipt has no room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untold: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A bundle that is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSeen {
    /// What tells it from others.
    pub set: Sha256,
    /// The releases that it says it carries.
    pub releases: Vec<Version>,
    /// How many volumes it has; 0 where it is one file, or nobody knows.
    pub of: u32,
    /// The volumes that came, read and verified for this receipt.
    pub received: Vec<u32>,
    /// And those that did not, or were altered since.
    pub missing: Vec<u32>,
    /// Why it, or a volume of it, was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Verdict>,
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// When, by the gateway's clock.
    pub at: DateTime<Utc>,
    /// The volumes that were; all of it where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<u32>,
    /// The names of the files that were offered.
    pub files: Vec<String>,
    /// The reason, as it stands in quarantine, cut where it is long.
    pub reason: String,
}

/// What a gateway wrote to media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exported {
    /// What tells the bundle from others.
    pub set: Sha256,
    /// The releases in it.
    pub releases: Vec<Version>,
    /// How many volumes it has.
    pub of: u32,
    /// Those that were written.
    pub volumes: Vec<Written>,
}

/// A file on a medium, as it was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Which volume; 1 where the bundle is one file.
    pub number: u32,
    /// The digest of what was read back.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// How the page cache was passed: `direct` or `dropped`.
    pub past_cache: String,
    /// The name and serial number of the device.
    pub device: String,
}

impl SetSeen {
    /// In words, such as `set 0011223344556677 (release 1.1.0) has volume 1 of 3, waits for 2-3`.
    #[must_use]
    pub fn words(&self) -> String {
        let mut said = format!(
            "set {:.16} (release {})",
            self.set.to_string(),
            versions(&self.releases)
        );
        if !self.received.is_empty() {
            said += &format!(" has volume {} of {}", numbers(&self.received), self.of);
        }
        if !self.missing.is_empty() {
            let comma = if self.received.is_empty() { "" } else { "," };
            said += &format!("{comma} waits for volume {} of {}", numbers(&self.missing), self.of);
        }
        if let Some(refused) = &self.refused {
            let what = match refused.volumes.is_empty() {
                true => String::new(),
                false => format!("volume {} ", numbers(&refused.volumes)),
            };
            let at = refused.at.format("%Y-%m-%d %H:%M UTC");
            said += &format!("; {what}refused {at}: {}", refused.reason);
        }
        said
    }
}

impl GatewayState {
    /// The versions of the releases, or that there is none.
    #[must_use]
    pub fn held(&self) -> String {
        if self.releases.is_empty() {
            return "no release".to_owned();
        }
        let versions: Vec<String> = self.releases.iter().map(|held| held.version.to_string()).collect();
        versions.join(", ")
    }

    /// What no honest gateway writes.
    pub(super) fn check(&self) -> Result<(), String> {
        let told = self.sets.len().max(self.exports.len());
        let volumes: usize = self.sets.iter().map(|set| set.received.len() + set.missing.len()).sum();
        let written: usize = self.exports.iter().map(|export| export.volumes.len()).sum();
        if told > MOST_TOLD || volumes > MOST_NUMBERS || written > MOST_WRITTEN {
            return Err("it tells of more bundles or volumes than anybody carries".to_owned());
        }
        for set in &self.sets {
            let refused = set.refused.as_ref();
            let none = Vec::new();
            let lists = [
                &set.received,
                &set.missing,
                refused.map_or(&none, |refused| &refused.volumes),
            ];
            let mut all = [lists[0].as_slice(), lists[1]].concat();
            all.sort_unstable();
            let adds_up = set.of <= MOST_VOLUMES && all.iter().copied().eq(1..=set.of);
            if !adds_up || !lists.iter().all(|list| rising(list, set.of)) {
                return Err(format!("the volumes of set {:.16} cannot be", set.set.to_string()));
            }
            if set.releases.len() > MOST_TOLD || refused.is_some_and(|refused| refused.files.len() > MOST_FILES) {
                return Err(format!("it tells too much of set {:.16}", set.set.to_string()));
            }
        }
        for export in &self.exports {
            let list: Vec<u32> = export.volumes.iter().map(|volume| volume.number).collect();
            if export.of > MOST_VOLUMES || !rising(&list, export.of) || export.releases.len() > MOST_TOLD {
                return Err(format!("the export {:.16} cannot be", export.set.to_string()));
            }
        }
        Ok(())
    }

    /// Every text in it.
    pub(super) fn texts(&self) -> impl Iterator<Item = &String> {
        let refused = self.sets.iter().filter_map(|set| set.refused.as_ref());
        let written = self.exports.iter().flat_map(|export| &export.volumes);
        refused
            .flat_map(|refused| refused.files.iter().chain([&refused.reason]))
            .chain(written.flat_map(|volume| [&volume.past_cache, &volume.device]))
    }
}

fn rising(list: &[u32], of: u32) -> bool {
    list.is_sorted_by(|one, next| one < next) && list.iter().all(|number| (1..=of).contains(number))
}

/// A text as a receipt takes it: without control characters, and cut where it is too long.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut plain: String = text.chars().filter(|c| !c.is_control()).collect();
    plain.truncate(plain.floor_char_boundary(MAX_TEXT));
    plain
}

/// Rising numbers in words, such as `1-4, 7`.
#[must_use]
pub fn numbers(list: &[u32]) -> String {
    let runs = list.chunk_by(|one, next| one + 1 == *next);
    let words = runs.map(|run| match run {
        [one] => one.to_string(),
        run => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn versions(list: &[Version]) -> String {
    list.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Holder, Receipt, Signed};
    use super::*;
    use crate::keys::{Algorithm, PrivateKey};

    fn waiting() -> GatewayState {
        let refused = Verdict {
            at: DateTime::UNIX_EPOCH,
            volumes: vec![2],
            files: vec!["1.bundle.002".to_owned()],
            reason: "targets/x is damaged".to_owned(),
        };
        let set = SetSeen {
            set: Sha256::of(b"set"),
            releases: vec!["1.1.0".parse().unwrap()],
            of: 4,
            received: vec![1],
            missing: vec![2, 3, 4],
            refused: Some(refused),
        };
        let written = Written {
            number: 1,
            sha256: Sha256::of(b"file"),
            size: 7,
            at: DateTime::UNIX_EPOCH,
            past_cache: "direct".to_owned(),
            device: "sdb".to_owned(),
        };
        let exported = Exported {
            set: Sha256::of(b"other"),
            releases: Vec::new(),
            of: 1,
            volumes: vec![written],
        };
        GatewayState {
            sets: vec![set],
            exports: vec![exported],
            ..GatewayState::default()
        }
    }

    fn read(state: GatewayState) -> Result<Signed, String> {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let receipt = Receipt::new("g1", 1, DateTime::UNIX_EPOCH, Holder::Gateway(state));
        receipt.sign(&key).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_waits_is_said_in_words_and_comes_back_as_it_was_signed() {
        let said = waiting().sets[0].words();
        let set = Sha256::of(b"set").to_string();
        let expected = format!(
            "set {set:.16} (release 1.1.0) has volume 1 of 4, waits for volume 2-4 of 4; volume 2 refused \
             1970-01-01 00:00 UTC: targets/x is damaged"
        );
        assert_eq!(said, expected);
        assert_eq!(numbers(&[1, 3, 4, 5, 9]), "1, 3-5, 9");
        assert_eq!(read(waiting()).unwrap().receipt.holder, Holder::Gateway(waiting()));
    }

    #[test]
    fn a_gateway_that_only_holds_releases_says_what_it_always_said() {
        let state = serde_json::to_value(Holder::Gateway(GatewayState::default())).unwrap();
        assert_eq!(state, serde_json::json!({"is": "gateway", "releases": []}));
        assert_eq!(
            serde_json::from_value::<Holder>(state).unwrap(),
            Holder::Gateway(GatewayState::default())
        );
    }

    #[test]
    fn what_cannot_be_or_has_no_end_is_refused() {
        type Change = fn(&mut GatewayState);
        let changes: [(Change, &str); 11] = [
            (|state| state.sets[0].received.push(2), "cannot be"),
            (|state| state.sets[0].missing = vec![2, 4, 3], "cannot be"),
            (|state| state.sets[0].missing = vec![2, 3], "cannot be"),
            (|state| state.sets[0].of = 10_000, "cannot be"),
            (
                |state| state.sets[0].refused.as_mut().unwrap().volumes = vec![5],
                "cannot be",
            ),
            (|state| state.exports[0].of = 0, "cannot be"),
            (|state| state.sets = vec![state.sets[0].clone(); 33], "more bundles"),
            (
                |state| state.exports = vec![state.exports[0].clone(); 33],
                "more bundles",
            ),
            (
                |state| state.sets[0].releases = vec!["1.0.0".parse().unwrap(); 33],
                "too much",
            ),
            (
                |state| state.sets[0].refused.as_mut().unwrap().reason.push('\u{1b}'),
                "control characters",
            ),
            (|state| state.exports[0].volumes[0].device = "x".repeat(501), "too long"),
        ];
        for (number, (change, why)) in changes.into_iter().enumerate() {
            let mut state = waiting();
            change(&mut state);
            let told = read(state).unwrap_err();
            assert!(told.contains(why), "{number}: {told}");
        }
        let long = plain(&format!("\u{1b}{}", "ß".repeat(400)));
        assert!(long.len() <= MAX_TEXT && long.starts_with('ß') && long.len() > MAX_TEXT - 2);
    }

    /// With the 200 KiB of a gateway with hundreds of releases it is still below the longest.
    #[test]
    fn the_most_that_is_told_has_room() {
        let mut state = waiting();
        state.sets[0].refused.as_mut().unwrap().files = vec!["x".repeat(255); MOST_FILES];
        state.sets[0].refused.as_mut().unwrap().reason = "x".repeat(MAX_TEXT);
        state.sets = vec![state.sets[0].clone(); MOST_TOLD];
        let first = &mut state.sets[0];
        first.of = u32::try_from(MOST_NUMBERS).unwrap() - 4 * 31;
        first.received = (1..=first.of).collect();
        first.missing.clear();
        let written = state.exports[0].volumes[0].clone();
        state.exports[0].of = u32::try_from(MOST_WRITTEN).unwrap();
        let all = 1..=state.exports[0].of;
        state.exports[0].volumes = all
            .map(|number| Written {
                number,
                ..written.clone()
            })
            .collect();
        let bytes = read(state.clone()).unwrap().bytes.len() as u64;
        assert!(bytes < super::super::MAX_RECEIPT * 3 / 4, "{bytes}");
        let first = &mut state.sets[0];
        first.of += 1;
        first.missing.push(first.of);
        assert!(read(state).unwrap_err().contains("more bundles"));
    }
}
