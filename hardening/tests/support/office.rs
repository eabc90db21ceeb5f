// SPDX-License-Identifier: GPL-3.0-or-later
//! A gateway whose officers approve, and the verdicts of the audit and the script on what they approved.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Duration, Utc};
use hardening::report::{Report, Subject};
use hardening::trace::release::Question;
use hardening::trace::trust::Trust;
use hardening::trace::{bundle, repository};
use offline_repo::approve::{Options, approve};
use offline_repo::export::{Order, Roots, Selection, export};
use offline_repo::publish::Mode;
use offline_repo::repository::Repository;
use signing::clock::now;
use signing::site::Site;
use signing::tuf::author::TargetEntry;
use signing::tuf::repository::Repository as Editor;

use super::agree::{Judge, Table};
use super::world::{World, assert_fails};
use super::{Tamper, common, passphrase, trust};

pub fn office() -> Site {
    Site::open(&common::other_site()).unwrap()
}

/// A gateway that has imported the vendor's release, and whose officers approved it.
pub struct Gateway {
    pub world: World,
    office: Site,
}

impl Gateway {
    pub fn approved() -> Self {
        Self::approved_by(office())
    }

    /// The same, by other officers.
    pub fn approved_by(office: Site) -> Self {
        let gateway = Self {
            world: World::new(Tamper::None),
            office,
        };
        let bundle = gateway.world.bundle();
        gateway.import(&bundle, "gateway", None);
        gateway.approve();
        gateway
    }

    /// The officers approve what the gateway holds now.
    pub fn approve(&self) {
        let vendor = signing::site::Trust::open(&trust()).unwrap();
        let options = Options {
            vendor: &vendor,
            site: &self.office,
            passphrase: &passphrase(),
            version: Some("1.0.0".parse().unwrap()),
            expires: None,
            now: now(),
            mode: Mode::Write,
        };
        approve(&self.repository(), &options, &mut |_, _| ()).unwrap();
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.world.directory.path().join(name)
    }

    pub fn repository(&self) -> Repository {
        Repository::create(&self.at("gateway")).unwrap()
    }

    pub fn import(&self, bundle: &Path, to: &str, site: Option<&Path>) {
        super::import_into(&self.at(to), bundle, &trust(), site);
    }

    pub fn export(&self) -> PathBuf {
        let place = self.at("approved.bundle");
        let roots = Roots {
            vendor: fs::read(trust().join("root.json")).unwrap(),
            site: Some(fs::read(self.office.trust_dir().join("root.json")).unwrap()),
        };
        export(
            &self.repository(),
            &roots,
            &Order::whole(Selection::Newest, 1, &place),
            &mut |_, _, _| (),
        )
        .unwrap();
        place
    }

    /// The officers' keys sign the site's targets once more, as `change` leaves them.
    pub fn resign(&self, change: impl Fn(&str, &mut TargetEntry)) {
        self.resign_for(300, change);
    }

    pub fn resign_for(&self, days: i64, change: impl Fn(&str, &mut TargetEntry)) {
        self.edit(days, |editor| {
            for (name, mut entry) in editor.targets().clone() {
                change(&name, &mut entry);
                editor.put(&name, entry).unwrap();
            }
        });
    }

    pub fn edit(&self, days: i64, change: impl FnOnce(&mut Editor)) {
        let site = self.at("gateway/site");
        let mut editor = Editor::open(&site, &fs::read(self.office.trust_dir().join("root.json")).unwrap()).unwrap();
        change(&mut editor);
        let expires = now() + Duration::days(days);
        let office = &self.office;
        office.publish(&mut editor, &passphrase(), expires, now()).unwrap();
    }

    pub fn audit(&self, place: &Path, site: Option<&Path>, at: DateTime<Utc>) -> Report {
        let vendor = Trust::open(&trust()).unwrap();
        let site = site.map(|site| Trust::open(site).unwrap());
        let policy = super::upstream().policy();
        let question = Question {
            trust: &vendor,
            site: site.as_ref(),
            now: at,
            complete: place.is_dir(),
            upstream: Some(&policy),
        };
        let audited = match place.is_dir() {
            true => repository::repository(place, question).unwrap(),
            false => bundle::bundle(place, question),
        };
        Report::new(Subject::new("test", "test"), at, audited.sections)
    }

    pub fn judge(&self, place: &Path) -> Report {
        self.audit(place, Some(&self.office.trust_dir()), now())
    }

    /// Who knows both roots.
    pub fn both(&self) -> Judge {
        Judge {
            site: Some(self.office.trust_dir()),
            ..Judge::default()
        }
    }
}

/// The audit and the script, where python-tuf is at hand.
pub struct Both(Option<Table>);

impl Both {
    pub fn new() -> Self {
        Self(Table::new())
    }

    /// The script comes to this verdict, and the audit with it.
    pub fn judge(&mut self, case: &str, place: &Path, expected: (i32, &str), by: &Judge) {
        if let Some(table) = &mut self.0 {
            table.judge(case, place, expected, by);
        }
    }

    /// Both refuse: the audit with the finding of this identifier, the script in a line with these words.
    pub fn refuse(&mut self, gateway: &Gateway, place: &Path, (id, text): (&str, &str), why: &str) {
        assert_fails(&gateway.judge(place), id, text);
        self.judge(&format!("{id} {text}"), place, (3, why), &gateway.both());
    }

    pub fn agree(&self) {
        if let Some(table) = &self.0 {
            table.agree();
        }
    }
}

/// Who knows both roots.
pub fn both() -> Judge {
    Judge {
        site: Some(office().trust_dir()),
        ..Judge::default()
    }
}

/// A bundle with the metadata of another site's repository in the place of its own.
pub fn with_site(bundle: &Path, metadata: &Path) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, name, bytes).unwrap();
    };
    let whole = fs::read(bundle).unwrap();
    let mut replaced = false;
    for entry in tar::Archive::new(&whole[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        if !name.starts_with("site/") {
            add(&name, &bytes);
        } else if !replaced {
            replaced = true;
            for file in fs::read_dir(metadata).unwrap() {
                let file = file.unwrap();
                let name = format!("site/metadata/{}", file.file_name().to_str().unwrap());
                add(&name, &fs::read(file.path()).unwrap());
            }
        }
    }
    out.into_inner().unwrap()
}
