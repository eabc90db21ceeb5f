// SPDX-License-Identifier: GPL-3.0-or-later
//! apt in a private root directory: it knows mirrors, proxies, retries and resolution, and shares nothing else with the
//! machine. No package is installed here, so the resolution does not depend on the machine either.
//!
//! What apt brings is believed only after [`crate::upstream`] has verified it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use signing::output::Refused;
use signing::process::{Cmd, ProcessError};

use crate::spec::{Role, Spec};
use crate::upstream::Identity;

/// Settings of the machine that say how to reach a mirror. Nothing else is taken over: no hooks, no pins, no trust.
const TRANSPORT: [&str; 6] = [
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::ftp::",
    "Acquire::socks::",
    "Acquire::Retries",
    "Acquire::Force",
];
/// Proxies that the environment names, which apt's transports obey.
const PROXIES: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// Where the packages come from.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// The mirrors that the machine's own apt uses, with the suite replaced.
    Machine,
    /// A mirror whose directories are the archives' paths: `URL/debian`, `URL/debian-security`.
    Url(String),
}

/// One `Packages` file as apt keeps it.
#[derive(Debug, Clone)]
pub struct Index {
    /// Archive address without its last slash.
    pub base: String,
    /// The suite.
    pub suite: String,
    /// The component.
    pub component: String,
    /// Where apt has it: compressed as upstream sent it, or unpacked by us.
    pub file: PathBuf,
}

impl Index {
    /// Where apt keeps the signed list of this index's suite.
    ///
    /// # Errors
    /// When the file's name is not as apt forms it.
    pub fn inrelease(&self, architecture: &str) -> Result<PathBuf> {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let end = format!("_{}_binary-{architecture}_Packages", self.component);
        let stem = name
            .strip_suffix(".xz")
            .unwrap_or(&name)
            .strip_suffix(&end)
            .with_context(|| format!("apt keeps {} under a name that is not understood", self.file.display()))?;
        Ok(self.file.with_file_name(format!("{stem}_InRelease")))
    }
}

/// apt's private root.
pub struct Apt {
    root: PathBuf,
    config: PathBuf,
}

/// Refuses a directory that apt's configuration and one-line sources cannot name (sources.list(5) knows no quoting).
///
/// # Errors
/// When its path holds quotes, brackets or blanks.
pub fn named_for_apt(directory: &Path) -> Result<()> {
    if directory.to_string_lossy().contains(['"', '[', ']', '\n', '\t', ' ']) {
        bail!(
            "{} cannot be given to apt: choose a directory without quotes, brackets and blanks in its path",
            directory.display()
        );
    }
    Ok(())
}

impl Apt {
    /// Writes apt's configuration and sources into `root`, whose lists and caches of an earlier run are used again.
    ///
    /// # Errors
    /// When they cannot be written, or no mirror is known.
    pub fn prepare(root: &Path, spec: &Spec, upstream: &Upstream) -> Result<Self> {
        named_for_apt(root)?;
        for part in ["lists/partial", "cache/archives/partial", "log", "etc"] {
            let directory = root.join(part);
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let machine = String::from_utf8_lossy(&Cmd::new("apt-config").arg("dump").output()?).into_owned();
        write("status", "")?;
        write("apt.conf", &configuration(root, &spec.architecture, &machine))?;
        write("sources.list", &sources(spec, upstream)?)?;
        Ok(Self {
            root: root.to_path_buf(),
            config: root.join("apt.conf"),
        })
    }

    fn command(&self, program: &str) -> Cmd {
        // A run that is killed takes its apt with it: left alone, that one would hold apt's locks against the next run.
        let mut cmd = Cmd::new("setpriv")
            .args(["--pdeathsig", "KILL", program])
            .env("APT_CONFIG", &self.config);
        for name in PROXIES {
            if let Some(value) = std::env::var_os(name) {
                cmd = cmd.env(name, value);
            }
        }
        cmd
    }

    /// Brings the lists up to date. Unchanged ones are not fetched again.
    ///
    /// # Errors
    /// When any of them cannot be had.
    pub fn update(&self) -> Result<()> {
        let update = self
            .command("apt-get")
            .args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"]);
        update
            .run()
            .map_err(judge)
            .context("apt cannot fetch the package lists (is the network there? --upstream names another mirror)")
    }

    /// The `Packages` files that apt has.
    ///
    /// # Errors
    /// When apt cannot say.
    pub fn indexes(&self) -> Result<Vec<Index>> {
        let list = indextargets(self.command("apt-get"), "$(FILENAME)")?;
        Ok(list
            .into_iter()
            .map(|target| Index {
                base: target.base,
                suite: target.release,
                component: target.component,
                file: PathBuf::from(target.extra),
            })
            .collect())
    }

    /// The packages that apt would install for a role on an empty system.
    ///
    /// # Errors
    /// When apt finds no solution.
    pub fn resolve(&self, role: Role, wishes: &[String]) -> Result<BTreeSet<Identity>> {
        if wishes.is_empty() {
            return Ok(BTreeSet::new());
        }
        let said = self
            .command("apt-get")
            .args(["-qq", "--simulate", "install"])
            .args(wishes)
            .output()
            .with_context(|| format!("apt cannot resolve the list {:?} of the specification", role.name()))?;
        let text = String::from_utf8(said).context("apt's answer is not UTF-8 text")?;
        text.lines()
            .filter(|line| line.starts_with("Inst "))
            .map(installed)
            .collect()
    }

    /// Downloads packages into `directory`; apt keeps what is whole there already.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub fn download(&self, directory: &Path, packages: &[&Identity]) -> Result<()> {
        let names = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version));
        self.command("apt-get")
            .args(["-qq", "download"])
            .args(names)
            .dir(directory)
            .run()
            .map_err(judge)
            .context("apt cannot download packages (what has arrived is kept: run the command again)")
    }

    /// Forgets all lists, so that the next [`Apt::update`] fetches them anew.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub fn forget(&self) -> Result<()> {
        let lists = self.root.join("lists");
        fs::remove_dir_all(&lists)
            .and_then(|()| fs::create_dir_all(lists.join("partial")))
            .with_context(|| format!("cannot empty {}", lists.display()))
    }
}

/// Tells apt's refusals from its failures; both end the run.
fn judge(error: ProcessError) -> anyhow::Error {
    const REFUSALS: [&str; 4] = ["Hash Sum mismatch", "unexpected size", "GPG error", "is not signed"];
    let text = error.to_string();
    if REFUSALS.iter().any(|words| text.contains(words)) {
        anyhow!(Refused(text))
    } else {
        error.into()
    }
}

/// `Inst NAME [old] (VERSION origin [ARCHITECTURE])`.
fn installed(line: &str) -> Result<Identity> {
    let parse = || {
        let rest = line.strip_prefix("Inst ")?;
        let name = rest.split(' ').next()?.split(':').next()?;
        let inside = rest.split_once('(')?.1.split_once(')')?.0;
        let version = inside.split(' ').next()?;
        let architecture = inside.rsplit_once('[')?.1.strip_suffix(']')?;
        Some(Identity {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: architecture.to_owned(),
        })
    };
    parse().with_context(|| format!("apt's answer is not understood: {line:?}"))
}

fn configuration(root: &Path, architecture: &str, machine: &str) -> String {
    let transport = machine
        .lines()
        .filter(|line| TRANSPORT.iter().any(|prefix| line.starts_with(prefix)));
    let mut text = String::new();
    for line in transport {
        text.push_str(line);
        text.push('\n');
    }
    let root = root.display();
    text.push_str(&format!(
        r#"Dir::Etc::parts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::State "{root}";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Log "{root}/log";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Default-Release "";
Acquire::Languages "none";
// Upstream's own compressed file is kept as it came: its digest stands in the signed list.
Acquire::PDiffs "false";
Acquire::GzipIndexes "true";
Acquire::CompressionTypes::Order:: "xz";
Acquire::IndexTargets::deb::Packages::KeepCompressedAs "xz";
Acquire::AllowInsecureRepositories "false";
// Judged here, with a reason that names the clock.
Acquire::Check-Valid-Until "false";
// Codename and date are compared here; a suite that becomes oldstable is no error.
Acquire::AllowReleaseInfoChange "true";
Acquire::AllowDowngradeToInsecureRepositories "false";
// The private root need not be open to apt's own user.
APT::Sandbox::User "root";
"#
    ));
    text
}

fn sources(spec: &Spec, upstream: &Upstream) -> Result<String> {
    let keyring = fs::canonicalize(&spec.keyring)
        .with_context(|| format!("cannot find the keyring {}", spec.keyring.display()))?;
    let known = match upstream {
        Upstream::Machine => indextargets(Cmd::new("apt-get"), "$(LABEL)")?,
        Upstream::Url(_) => Vec::new(),
    };
    let mut text = String::new();
    for suite in &spec.suite {
        let base = match upstream {
            Upstream::Url(url) => format!("{}/{}", url.trim_end_matches('/'), suite.path),
            Upstream::Machine => machine_base(&known, &suite.path).with_context(|| {
                format!(
                    "the machine's apt sources name no mirror of {}: name one with --upstream URL, where URL/{0} is it",
                    suite.path
                )
            })?,
        };
        if base.contains([' ', '\n', '[']) {
            bail!("{base:?} cannot be given to apt as an address");
        }
        text.push_str(&format!(
            "deb [signed-by={} arch={}] {base} {} {}\n",
            keyring.display(),
            spec.architecture,
            suite.name,
            suite.components.join(" ")
        ));
    }
    Ok(text)
}

/// The machine's mirror of an archive: by the address' last part, else by the label of its lists, else by its suites.
fn machine_base(known: &[Target], path: &str) -> Option<String> {
    let security = path.ends_with("-security");
    let label = if security { "debian-security" } else { "debian" };
    let by_path = known.iter().find(|target| target.base.rsplit('/').next() == Some(path));
    let by_label = || known.iter().find(|target| target.extra.eq_ignore_ascii_case(label));
    let by_suite = || {
        known
            .iter()
            .find(|target| security && target.release.ends_with("-security"))
    };
    let found = by_path.or_else(by_label).or_else(by_suite)?;
    Some(found.base.clone())
}

struct Target {
    base: String,
    release: String,
    component: String,
    extra: String,
}

fn indextargets(command: Cmd, extra: &str) -> Result<Vec<Target>> {
    let format = format!("$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t{extra}");
    let said = command
        .args(["indextargets", "--format", &format, "Identifier: Packages"])
        .output()
        .context("apt cannot list its sources")?;
    let text = String::from_utf8(said).context("apt's list of sources is not UTF-8 text")?;
    text.lines()
        .map(|line| {
            let mut parts = line.split('\t');
            let mut next = || parts.next().map(str::to_owned);
            let (base, release, component, extra) = (next(), next(), next(), next());
            Ok(Target {
                base: base.unwrap_or_default().trim_end_matches('/').to_owned(),
                release: release.unwrap_or_default(),
                component: component.with_context(|| format!("apt's list of sources is not understood: {line:?}"))?,
                extra: extra.unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_apts_simulation() {
        let parsed =
            installed("Inst libc6 (2.41-12+deb13u4 Debian:13.7/stable, Debian-Security:13/stable-security [amd64]) []")
                .unwrap();
        assert_eq!(
            (
                parsed.name.as_str(),
                parsed.version.as_str(),
                parsed.architecture.as_str()
            ),
            ("libc6", "2.41-12+deb13u4", "amd64")
        );
        assert_eq!(installed("Inst a:i386 [1] (2 x [all])").unwrap().version, "2");
        assert!(installed("Inst nonsense").is_err());
    }

    #[test]
    fn finds_the_machines_mirror_by_path_label_or_suite() {
        let target = |base: &str, release: &str, label: &str| Target {
            base: base.into(),
            release: release.into(),
            component: "main".into(),
            extra: label.into(),
        };
        let known = [
            target("http://one.invalid/other", "nodistro", ""),
            target("http://one.invalid/proxy-a", "bookworm", "Debian"),
            target("http://one.invalid/proxy-b", "bookworm-security", ""),
        ];
        assert_eq!(machine_base(&known, "debian").unwrap(), "http://one.invalid/proxy-a");
        assert_eq!(
            machine_base(&known, "debian-security").unwrap(),
            "http://one.invalid/proxy-b"
        );
        assert!(machine_base(&known[..1], "debian").is_none());
        let plain = [target("http://two.invalid/debian", "bookworm", "")];
        assert_eq!(machine_base(&plain, "debian").unwrap(), "http://two.invalid/debian");
    }

    #[test]
    fn takes_over_the_transport_and_nothing_else() {
        let machine = "Acquire::http::Proxy \"http://proxy.invalid:3128\";\nAPT::Update::Post-Invoke:: \"rm\";\nDir::State::status \"/x\";\n";
        let text = configuration(Path::new("/root"), "amd64", machine);
        assert!(text.contains("proxy.invalid"));
        assert!(!text.contains("Post-Invoke") && !text.contains("/x"));
    }
}
