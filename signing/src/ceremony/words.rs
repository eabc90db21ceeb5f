// SPDX-License-Identifier: GPL-3.0-or-later
//! A request in words that a custodian can read, computed from the two roots and from nothing else.

use std::fmt::Write;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::state::{Custodian, Reason, RoleName, RootState, TrustedRoot};
use super::{Change, Request, short};
use crate::digest::Sha256;
use crate::output;

const WIDTH: usize = 79;

impl Request {
    /// What a custodian reads before signing.
    ///
    /// # Errors
    /// As [`Request::verify`]: a request that lies has no words.
    pub fn words(&self, old: Option<&TrustedRoot>) -> Result<String> {
        let new = self.verify(old)?;
        let before = old.map(|old| &old.state);
        let mut text = Text::default();
        text.line(0, &format!("Signing request for root {}", new.version));
        text.line(0, "");
        match old {
            Some(old) => {
                text.line(
                    0,
                    &format!(
                        "It follows root {}, whose signed part has the digest",
                        old.state.version
                    ),
                );
                text.line(2, &old.digest.to_string());
            }
            None => text.line(0, "It is the first root: there is none before it."),
        }
        text.line(0, &format!("It was planned on {}.", date(new.signed_at)));
        text.line(0, "");
        text.line(0, "What changes:");
        for (number, change) in self.changes.iter().enumerate() {
            text.line(2, &format!("{}. {}", number + 1, sentence(change)));
            for line in details(change) {
                text.line(5, &line);
            }
        }
        text.line(0, "");
        text.line(0, "The root after it:");
        for role in RoleName::ALL {
            text.role(role, &new);
        }
        if new.openpgp_threshold > 1 {
            let certificates = certificates(new.openpgp_threshold);
            text.line(2, &format!("beside each timestamp and root: {certificates}"));
        }
        text.line(2, &format!("valid until {}", date(new.expires)));
        text.line(0, "");
        text.line(0, "Who must sign:");
        for due in &self.due {
            let names: Vec<_> = due.keys.iter().map(|(keyid, name)| holder(name, keyid)).collect();
            text.line(
                2,
                &format!("{} of these, by the rules of root {}:", due.threshold, due.root),
            );
            names.iter().for_each(|name| text.line(4, name));
        }
        let duties = duties(before, &new, &self.changes);
        if !duties.is_empty() {
            text.line(0, "");
            text.line(0, "What has to be done besides:");
            duties.iter().for_each(|duty| text.line(2, &format!("- {duty}")));
        }
        text.line(0, "");
        let digest = self.fingerprint()?;
        text.line(0, "Fingerprint of this request, to be compared by eye:");
        text.line(2, &short(&digest));
        text.line(0, "and whole:");
        text.line(2, &digest.to_string());
        Ok(text.0)
    }
}

fn date(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}

fn certificates(count: u64) -> String {
    output::count(usize::try_from(count).unwrap_or(usize::MAX), "OpenPGP certificate")
}

fn holder(name: &str, keyid: &Sha256) -> String {
    format!("{}  {name}", short(keyid))
}

fn because(why: Reason) -> String {
    match why {
        Reason::Replaced => "it is replaced".to_owned(),
        Reason::Left => "its custodian leaves".to_owned(),
        Reason::Lost => "it is lost".to_owned(),
        Reason::Compromised {
            last_trusted_version: 0,
        } => "it is COMPROMISED; nothing that it signed is to be trusted".to_owned(),
        Reason::Compromised { last_trusted_version } => {
            format!(
                "it is COMPROMISED; the last version of what it signed that is to be trusted is {last_trusted_version}"
            )
        }
        Reason::Ended => "the repository ends".to_owned(),
    }
}

fn sentence(change: &Change) -> String {
    match change {
        Change::CreateRoot { custodians } => format!("A root is created, with {} custodians.", custodians.len()),
        Change::RemoveCustodian { name, why, .. } => {
            format!("The root key of {name} is taken out: {}.", because(*why))
        }
        Change::AddCustodian { custodian, .. } => format!("{} becomes a custodian.", custodian.name),
        Change::RotateRole { role, .. } => format!("The role {role} gets other keys."),
        Change::SetThreshold { role, from, to } => {
            format!("In the role {role} {to} must sign, until now {from}.")
        }
        Change::SetOpenpgpThreshold { from, to } => {
            let certificates = certificates(*to);
            format!("Beside each timestamp and root {certificates} must sign, until now {from}.")
        }
        Change::Renew { from, to } => format!("It is valid until {}, until now {}.", date(*to), date(*from)),
        Change::End {} => "THE REPOSITORY ENDS: nobody can publish in it again.".to_owned(),
    }
}

fn details(change: &Change) -> Vec<String> {
    let holder_of = |keyid: &Sha256, custodian: &Custodian| {
        let mut lines = vec![holder(&custodian.name, keyid)];
        if let Some(openpgp) = &custodian.openpgp {
            lines.push(format!("OpenPGP {openpgp}"));
        }
        lines
    };
    match change {
        Change::CreateRoot { custodians } => custodians
            .iter()
            .flat_map(|(keyid, custodian)| holder_of(keyid, custodian))
            .collect(),
        Change::AddCustodian { keyid, custodian } => holder_of(keyid, custodian),
        Change::RemoveCustodian { keyid, .. } => vec![short(keyid)],
        Change::RotateRole { removed, added, .. } => {
            let out = removed
                .iter()
                .map(|(keyid, why)| format!("out  {}: {}", short(keyid), because(*why)));
            let into = added.iter().map(|keyid| format!("in   {}", short(keyid)));
            out.chain(into).collect()
        }
        Change::SetThreshold { .. } | Change::SetOpenpgpThreshold { .. } | Change::Renew { .. } | Change::End {} => {
            Vec::new()
        }
    }
}

/// What the change alone does not do.
fn duties(old: Option<&RootState>, new: &RootState, changes: &[Change]) -> Vec<String> {
    let mut duties = Vec::new();
    let mut compromised = 0;
    for change in changes {
        match change {
            Change::RotateRole { role, removed, .. } => {
                duties.push(format!(
                    "Publish {role} anew with the new keys: clients refuse what the old ones signed."
                ));
                for (keyid, why) in removed {
                    if let Reason::Compromised { last_trusted_version } = why {
                        duties.push(format!(
                            "Compare every {role} after version {last_trusted_version} with your archive: {} may have \
                             been used by a stranger. Remove what you did not publish.",
                            short(keyid)
                        ));
                    }
                }
            }
            Change::RemoveCustodian {
                name,
                why: Reason::Compromised { last_trusted_version },
                ..
            } => {
                compromised += 1;
                duties.push(format!(
                    "Trust no root after version {last_trusted_version} for which the signature of {name} was needed, \
                     this one excepted; look for roots that you did not make."
                ));
                duties.push(format!("{name}: destroy every copy of the key."));
            }
            Change::RemoveCustodian {
                name,
                why: Reason::Left,
                ..
            } => {
                duties.push(format!("{name}: destroy every copy of the key."));
            }
            Change::SetOpenpgpThreshold { from, to } if to > from => duties.push(format!(
                "Look into every trust directory: who holds fewer than {} in release.asc refuses everything from now on.",
                certificates(*to)
            )),
            Change::End {} => {
                duties
                    .push("Tell every site: hosts refuse all updates from now on, and keep what they run.".to_owned());
                duties.push("Destroy the keys of targets, snapshot and timestamp.".to_owned());
                duties.push("Keep the transcript and the root keys until no host is left that trusts them.".to_owned());
            }
            _ => {}
        }
    }
    if old.is_some_and(|old| compromised >= old.role(RoleName::Root).threshold) {
        duties.insert(
            0,
            "AS MANY KEYS ARE COMPROMISED AS MAY MAKE A ROOT: a stranger can make one too. Make a new root and pin it \
             anew on every host."
                .to_owned(),
        );
    }
    let root = new.role(RoleName::Root);
    if root.threshold == 1 {
        duties.insert(
            0,
            "WITH THIS THRESHOLD ONE CUSTODIAN ALONE CAN CHANGE EVERYTHING: raise it.".to_owned(),
        );
    } else if root.threshold == root.keyids.len() as u64 {
        duties.push("Every custodian is needed: one lost key ends this root. Add a custodian.".to_owned());
    }
    for role in RoleName::OTHERS {
        for keyid in new.role(role).keyids.intersection(&root.keyids) {
            duties.push(format!(
                "THE ROOT KEY OF {} ALSO SIGNS {role}: a key that is used every day is no root key. Give {role} a key of its \
                 own.",
                new.name_of(keyid)
            ));
        }
    }
    duties
}

/// Lines of at most [`WIDTH`] columns.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, indent: usize, line: &str) {
        // What goes on stands below the text of a numbered line or of one with a dash.
        let hang = indent + if line.as_bytes().get(1) == Some(&b'.') { 3 } else { 2 };
        let mut column = 0;
        for (at, word) in line.split(' ').enumerate() {
            let wide = word.chars().count();
            if at == 0 {
                self.0.push_str(&" ".repeat(if line.is_empty() { 0 } else { indent }));
                column = indent + wide;
            } else if column + 1 + wide > WIDTH {
                self.0.push('\n');
                self.0.push_str(&" ".repeat(hang));
                column = hang + wide;
            } else {
                self.0.push(' ');
                column += 1 + wide;
            }
            self.0.push_str(word);
        }
        self.0.push('\n');
    }

    fn role(&mut self, role: RoleName, new: &RootState) {
        let keys = new.role(role);
        if keys.keyids.is_empty() {
            self.line(2, &format!("{role}: nobody"));
            return;
        }
        self.line(2, &format!("{role}: {} of {}", keys.threshold, keys.keyids.len()));
        for keyid in &keys.keyids {
            let mut line = short(keyid);
            if role == RoleName::Root {
                // A String takes every write.
                let _ = write!(line, "  {}", new.name_of(keyid));
            }
            self.line(4, &line);
        }
    }
}
