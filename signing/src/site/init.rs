// SPDX-License-Identifier: GPL-3.0-or-later
//! Making a site, whole or not at all.
//!
//! Everything is made in a hidden directory beside the site's place, `site.json` last, and renamed. What an interrupted run
//! leaves behind is encrypted, is no site, and is thrown away by the next run: nobody can have trusted keys from it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Timelike, Utc};

use super::handed;
use super::officers::{self, Officer};
use super::trust::{Trust, certificate_file, update_file};
use super::{FORMAT, KeyFacts, RELEASE_KEY, Role, SecureBootFacts, Site, SiteFacts};
use crate::ceremony::{Custodian, Record, RoleName, TrustedRoot};
use crate::durable::{self, Lock};
use crate::keys::{self, Algorithm, MetadataKey, Passphrase, PrivateKey};
use crate::openpgp;
use crate::output::{self, Refused, Usage};
use crate::secureboot::{Identity, Variable, random_guid, sign_update, signature_list};
use crate::tuf::author::{self, Header, KeySet, RootPlan, Signer};
use crate::tuf::root::{file, signed_part};

/// A common name holds 64 characters, of which our own words take some.
const MAX_NAME: usize = 40;
const MAX_ROOT_KEYS: usize = 32;
const FIRST_ROOT: &str = "metadata/1.root.json";

/// What site is to be made.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Plan {
    /// Where.
    pub directory: PathBuf,
    /// Its name, which stands in certificates and user IDs.
    pub name: String,
    /// Its TUF root.
    pub root: RootOrigin,
    /// Whose OpenPGP certificates stand beside its release key's.
    pub officers: Vec<Officer>,
}

/// Where the TUF root of a new site comes from.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(tag = "origin", rename_all = "kebab-case")]
pub enum RootOrigin {
    /// It is made with the site, in which its keys then lie.
    Made {
        /// How many root keys.
        keys: usize,
        /// How many of them must sign a root.
        threshold: usize,
        /// How many OpenPGP certificates must sign beside TUF's keys.
        openpgp_threshold: u64,
        /// When the first root expires.
        expires: DateTime<Utc>,
    },
    /// A ceremony made it, and its keys stay with the custodians.
    Ceremony {
        /// The file of the root.
        file: PathBuf,
        /// What was read from it.
        #[serde(skip)]
        root: Box<TrustedRoot>,
        /// The directory with the keys of the roles that it names: `targets.key.pem` or `targets.uri`, and so on.
        roles: PathBuf,
    },
}

impl RootOrigin {
    /// Reads the root that a ceremony made.
    ///
    /// # Errors
    /// When it cannot be read, does not hold against itself, or is not the first one.
    pub fn ceremony(file: &Path, roles: &Path) -> Result<Self> {
        Ok(Self::Ceremony {
            file: file.to_path_buf(),
            root: Box::new(handed::root(file)?),
            roles: roles.to_path_buf(),
        })
    }

    fn expires(&self) -> DateTime<Utc> {
        match self {
            Self::Made { expires, .. } => *expires,
            Self::Ceremony { root, .. } => root.state.expires,
        }
    }

    fn openpgp_threshold(&self) -> u64 {
        match self {
            Self::Made { openpgp_threshold, .. } => *openpgp_threshold,
            Self::Ceremony { root, .. } => root.state.openpgp_threshold,
        }
    }
}

impl Plan {
    /// Checks what can be checked without making anything, and returns the files that [`init`] would make.
    ///
    /// # Errors
    /// When a value is out of its bounds, the place is taken, or its parent directory cannot be written.
    pub fn check(&self, now: DateTime<Utc>) -> Result<Vec<PathBuf>> {
        let length = self.name.chars().count();
        ensure!(
            (1..=MAX_NAME).contains(&length) && !self.name.chars().any(|c| c.is_control() || "<>()".contains(c)),
            "the site's name must have 1 to {MAX_NAME} characters, without control characters and <>()"
        );
        if let RootOrigin::Made { keys, threshold, .. } = &self.root
            && (!(1..=*keys).contains(threshold) || *keys > MAX_ROOT_KEYS)
        {
            return Err(Usage(format!(
                "a threshold of {threshold} does not go with {}: it must be between 1 and the number of root keys, which is at most {MAX_ROOT_KEYS}",
                output::count(*keys, "root key")
            ))
            .into());
        }
        let (need, have) = (self.root.openpgp_threshold(), 1 + self.officers.len());
        if !(1..=have as u64).contains(&need) {
            return Err(Usage(format!(
                "{need} OpenPGP certificates must sign and there are {have}, the release key's among them: name each officer's \
                 with --officer"
            ))
            .into());
        }
        officers::check(&self.officers, now)?;
        ensure!(self.root.expires() > now, "the root would be expired from the start");
        ensure!(
            self.directory.file_name().is_some(),
            "{} cannot name a site",
            self.directory.display()
        );
        self.check_place()?;
        self.files()
    }

    fn check_place(&self) -> Result<()> {
        let place = &self.directory;
        match fs::read_dir(place) {
            Ok(mut entries) => {
                if place.join("site.json").exists() {
                    return Err(Refused(format!(
                        "{} is a site already; its keys are never overwritten: choose another directory",
                        place.display()
                    ))
                    .into());
                }
                if entries.next().is_some() {
                    return Err(Refused(format!("{} is not empty: choose another directory", place.display())).into());
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("looking at {}", place.display())),
        }
        let parent = parent(place);
        nix::unistd::access(parent, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK)
            .with_context(|| format!("making the site: the directory {} cannot be written", parent.display()))?;
        Ok(())
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut roles = Vec::new();
        for role in self.made() {
            roles.push(format!("private/{role}.pem"));
        }
        if let RootOrigin::Ceremony { roles: keys, .. } = &self.root {
            for role in handed::ROLES {
                roles.push(format!("private/{}", handed::name(keys, role)?.1));
            }
        }
        let secure_boot = ["private/pk.pem", "private/kek.pem", "private/db.pem"].map(str::to_owned);
        let metadata = ["", ".asc"].map(|ending| format!("{FIRST_ROOT}{ending}"));
        let trust = Trust::FILES.map(|name| format!("trust/{name}"));
        Ok(roles
            .into_iter()
            .chain(secure_boot)
            .chain([release_key()])
            .chain(metadata)
            .chain(trust)
            .chain(["site.json".to_owned()])
            .map(|name| self.directory.join(name))
            .collect())
    }

    /// The roles whose keys are made with the site.
    fn made(&self) -> Vec<Role> {
        match &self.root {
            RootOrigin::Made { keys, .. } => (1..=*keys).map(Role::Root).chain(Role::SINGLE).collect(),
            RootOrigin::Ceremony { .. } => vec![Role::Host],
        }
    }
}

/// Makes a site. `progress` is told what is being made, one call a step.
///
/// # Errors
/// As [`Plan::check`], and when anything cannot be made; the place then stays as it was.
pub fn init(plan: &Plan, passphrase: &Passphrase, now: DateTime<Utc>, progress: &mut dyn FnMut(&str)) -> Result<Site> {
    // Certificates, EFI times and metadata all count whole seconds.
    let now = now.with_nanosecond(0).unwrap_or(now);
    plan.check(now)?;
    let staging = Staging::new(&plan.directory)?;
    let at = |name: &str| staging.path.join(name);
    for (name, mode) in [("private", 0o700), ("metadata", 0o755), ("trust", 0o755)] {
        directory(&at(name), mode)?;
    }

    let mut signers = match &plan.root {
        RootOrigin::Made { .. } => Vec::new(),
        RootOrigin::Ceremony { root, roles, .. } => {
            progress("keys of the ceremony's roles");
            handed::keys(root, roles, passphrase, &at("private"))?
        }
    };
    for role in plan.made() {
        progress(&format!("key for {role}"));
        let key = PrivateKey::generate(Algorithm::Ed25519)?;
        keys::write_new(&at(&format!("private/{role}.pem")), &key, passphrase)?;
        signers.push((role, MetadataKey::new(key)?));
    }

    progress("OpenPGP release key");
    let release = openpgp::generate(&format!("{} release signing", plan.name), passphrase, now)?;
    private(&at(&release_key()), release.key.as_bytes())?;
    let mut certificates = openpgp::parse_keyring(Path::new(Trust::RELEASE), release.certificate.as_bytes())?;
    certificates.extend(plan.officers.iter().map(|officer| officer.certificate.clone()));
    public(&at("trust/release.asc"), openpgp::armored(&certificates)?.as_bytes())?;

    progress("TUF root");
    let (threshold, root) = match &plan.root {
        RootOrigin::Made {
            threshold,
            openpgp_threshold,
            expires,
            ..
        } => {
            let thresholds = (*threshold as u64, *openpgp_threshold);
            (thresholds.0, root(thresholds, *expires, &signers, now)?)
        }
        RootOrigin::Ceremony { root, .. } => (root.state.role(RoleName::Root).threshold, root.bytes().to_vec()),
    };
    let signature = openpgp::sign_detached(release.key.as_bytes(), passphrase, &root[..], now)?;
    for name in ["trust/root.json", FIRST_ROOT] {
        public(&at(name), &root)?;
        public(&at(&format!("{name}.asc")), signature.as_bytes())?;
    }

    let secure_boot = secure_boot(&staging.path, plan, passphrase, now, progress)?;
    let facts = SiteFacts {
        format: FORMAT,
        name: plan.name.clone(),
        created: now,
        threshold,
        keys: signers.iter().map(facts_of).collect::<Result<_>>()?,
        release_openpgp: release.fingerprint,
        officers: plan
            .officers
            .iter()
            .map(|officer| officer.fingerprint.clone())
            .collect(),
        secure_boot,
    };
    let mut json = serde_json::to_vec_pretty(&facts)?;
    json.push(b'\n');
    public(&at("site.json"), &json)?;
    staging.commit(&plan.directory)?;
    Site::open(&plan.directory)
}

fn release_key() -> String {
    format!("private/{RELEASE_KEY}.asc")
}

fn root(
    (threshold, openpgp_threshold): (u64, u64),
    expires: DateTime<Utc>,
    signers: &[(Role, MetadataKey)],
    now: DateTime<Utc>,
) -> Result<Vec<u8>> {
    let keys = |wanted: fn(Role) -> bool| {
        let of_role = signers.iter().filter(|(role, _)| wanted(*role));
        of_role.map(|(_, key)| key.public()).collect::<Vec<_>>()
    };
    let single = |wanted| KeySet {
        keys: keys(wanted),
        threshold: 1,
    };
    let plan = RootPlan {
        header: Header {
            version: 1,
            expires,
            signed_at: now,
        },
        root: KeySet {
            keys: keys(|role| matches!(role, Role::Root(_))),
            threshold,
        },
        targets: single(|role| role == Role::Targets),
        snapshot: single(|role| role == Role::Snapshot),
        timestamp: single(|role| role == Role::Timestamp),
    };
    let root_signers: Vec<&dyn Signer> = signers
        .iter()
        .filter(|(role, _)| matches!(role, Role::Root(_)))
        .map(|(_, key)| key as &dyn Signer)
        .collect();
    // Each key bears the name of its file, so that a ceremony can speak of it.
    let mut custodians = BTreeMap::new();
    for (role, key) in signers.iter().filter(|(role, _)| matches!(role, Role::Root(_))) {
        let custodian = Custodian {
            name: role.to_string(),
            openpgp: None,
        };
        custodians.insert(author::key_id(&key.public())?.parse()?, custodian);
    }
    let mut signed = signed_part("the new root", &author::root(&plan, &[])?)?;
    if openpgp_threshold > 1 {
        signed[author::OPENPGP_THRESHOLD] = openpgp_threshold.into();
    }
    signed["ceremony"] = serde_json::to_value(Record {
        custodians,
        ..Record::default()
    })?;
    let unsigned = file(&signed, &[])?;
    root_signers
        .into_iter()
        .try_fold(unsigned, |root, signer| author::cosign(&root, signer))
}

fn secure_boot(
    staging: &Path,
    plan: &Plan,
    passphrase: &Passphrase,
    now: DateTime<Utc>,
    progress: &mut dyn FnMut(&str),
) -> Result<SecureBootFacts> {
    let trust = staging.join("trust");
    let owner = random_guid()?;
    public(&trust.join(Trust::OWNER), format!("{owner}\n").as_bytes())?;
    let mut made = Vec::new();
    for (variable, what) in [
        (Variable::Pk, "platform key"),
        (Variable::Kek, "key exchange key"),
        (Variable::Db, "boot image key"),
    ] {
        progress(&format!("Secure Boot {} ({what})", variable.name()));
        let key = PrivateKey::generate(Algorithm::Rsa3072)?;
        let stem = variable.name().to_ascii_lowercase();
        keys::write_new(&staging.join(format!("private/{stem}.pem")), &key, passphrase)?;
        let identity = Identity::certify(&format!("{} {what}", plan.name), key, now)?;
        public(&trust.join(certificate_file(variable)), identity.certificate().to_der())?;
        made.push((variable, identity));
    }
    // PK vouches for itself and for KEK, KEK for db.
    for (index, signer) in [(0, 0), (1, 0), (2, 1)] {
        let (variable, identity) = &made[index];
        let list = signature_list(owner, identity.certificate())?;
        let update = sign_update(*variable, &list, &made[signer].1, now)?;
        public(&trust.join(update_file(*variable)), &update)?;
    }
    let fingerprint = |index: usize| made[index].1.certificate().fingerprint();
    Ok(SecureBootFacts {
        owner: owner.to_string(),
        pk_sha256: fingerprint(0),
        kek_sha256: fingerprint(1),
        db_sha256: fingerprint(2),
    })
}

fn facts_of((role, key): &(Role, MetadataKey)) -> Result<KeyFacts> {
    Ok(KeyFacts {
        role: role.to_string(),
        algorithm: key.key().public().algorithm(),
        keyid: author::key_id(&key.public())?,
        public_sha256: key.key().public().fingerprint(),
    })
}

fn public(path: &Path, bytes: &[u8]) -> Result<()> {
    durable::write(path, bytes).with_context(|| format!("making the site: writing {}", path.display()))
}

pub(super) fn private(path: &Path, bytes: &[u8]) -> Result<()> {
    durable::write_private(path, bytes).with_context(|| format!("making the site: writing {}", path.display()))
}

fn directory(path: &Path, mode: u32) -> Result<()> {
    let make = || {
        fs::DirBuilder::new().mode(mode).create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    make().with_context(|| format!("making the site: making the directory {}", path.display()))
}

fn parent(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The hidden directory in which a site grows. Dropped before it is committed, it removes itself.
struct Staging {
    path: PathBuf,
    lock: Option<Lock>,
}

impl Staging {
    fn new(place: &Path) -> Result<Self> {
        let mut name = OsString::from(".");
        name.push(place.file_name().unwrap_or_default());
        name.push(".incomplete");
        let path = parent(place).join(name);
        let context = || format!("making the site: preparing {}", path.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(context)?;
        let lock = Lock::take(&path).with_context(context)?;
        for entry in fs::read_dir(&path).with_context(context)? {
            let entry = entry.with_context(context)?;
            if entry.file_name() == ".lock" {
                continue;
            }
            let kind = entry.file_type().with_context(context)?;
            if kind.is_dir() {
                fs::remove_dir_all(entry.path()).with_context(context)?;
            } else {
                fs::remove_file(entry.path()).with_context(context)?;
            }
        }
        Ok(Self { path, lock: Some(lock) })
    }

    fn commit(mut self, place: &Path) -> Result<()> {
        let finish = || {
            fs::remove_file(self.path.join(".lock"))?;
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o755))?;
            durable::sync_directory(&self.path)?;
            // Takes an empty directory's place, and fails on one that has been filled meanwhile.
            fs::rename(&self.path, place)?;
            durable::sync_directory(parent(place))
        };
        finish().with_context(|| format!("making the site: putting it in its place {}", place.display()))?;
        self.lock = None;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // What cannot be removed now is removed by the next run.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}
