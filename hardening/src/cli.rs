// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line of `bastide-audit`.

mod script;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand};
use signing::output::{self, Exit, Usage};
use signing::site::TRUST_DIRECTORY;
use signing::{anchor, clock, durable};

use crate::facts::{Facts, Live, Recorded, Recorder};
use crate::profile::{Area, Check, Profile};
use crate::recipe::Kind;
use crate::report::byhand::{self, Names};
use crate::report::text::Shape;
use crate::report::{Report, Subject, html, text};
use crate::trace::release::{Audited, Question};
use crate::trace::trust::Trust;
use crate::trace::{bundle, host, iso, repository, signed};
use crate::verdict::Outcome;

/// Audit media, repositories, bundles and hosts: signatures to the pinned root, packages to upstream, hardening.
#[derive(Debug, Parser)]
#[command(
    name = "bastide-audit",
    version,
    max_term_width = 80,
    after_long_help = "\
Exit status:
  0  everything that was checked holds
  1  the audit could not be made
  2  wrong command line
  3  something that was checked does not hold
  4  nothing failed, but something could not be checked

Examples:
  Verify an installation image, and make a page for the files:
    bastide-audit verify bastide-1.0.0.iso --trust trust --html audit.html

  Verify what a courier brought before it is imported:
    bastide-audit verify update.bundle --trust trust

  Verify it as a host that wants the site's approval too:
    bastide-audit verify approved.bundle --trust trust --site-trust office/trust

  Audit the running host, its hardening too, and keep the result:
    bastide-audit host --json audit.json

  Record a host, and audit the recording elsewhere:
    bastide-audit host --record host-17
    bastide-audit host --from host-17 --trust trust --html host-17.html

  Check it without this program: a script for other people's tools
    bastide-audit recipe bastide-1.0.0.iso --trust trust --out check.sh

  What does a check want, and why?
    bastide-audit profile explain SSH-01
"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Explain an artifact as a tree, from the pinned root to every file
    ///
    /// What it is, is seen from its content: an ISO or the stick that it was written to, a bundle, a repository, or one signed
    /// file such as 2.root.json with 2.root.json.asc beside it; without a path, the running host. The tree goes from the
    /// pinned root to every file and boot image, and to upstream's signature on every package. Whatever lies on a medium
    /// must be accounted for.
    #[command(
        aliases = ["iso", "repo", "bundle"],
        after_long_help = "Examples:\n  bastide-audit verify bastide-1.0.0.iso --trust trust\n  bastide-audit verify /dev/sdb --trust trust --json -\n  bastide-audit verify /srv/bastide/repo --trust trust --html repo.html\n  bastide-audit verify update.bundle --trust trust\n  bastide-audit verify\n"
    )]
    Verify(Verify),
    /// Audit the running host, or a recording of one
    ///
    /// Needs root for what only root may read; what cannot be read could not be checked.
    #[command(
        after_long_help = "Examples:\n  bastide-audit host --html host.html\n  bastide-audit host --record host-17\n  bastide-audit host --from host-17 --trust trust --json -\n"
    )]
    Host(HostArgs),
    /// Write a shell script that comes to the same verdict without this program
    ///
    /// The script needs gpgv (and sqv, if it is there), sha256sum, openssl, sbverify, objcopy, veritysetup, fsck.erofs and
    /// python-tuf; for an ISO also xorriso, unsquashfs, sgdisk and mtools, for a bundle zstd. What is missing it names. It
    /// ends with the same exit status as the audit.
    #[command(
        after_long_help = "Examples:\n  bastide-audit recipe bastide-1.0.0.iso --trust trust --out check.sh\n  bastide-audit recipe update.bundle --trust trust\n  bastide-audit recipe approved.bundle --trust trust --site-trust office/trust\n"
    )]
    Recipe(script::Args),
    /// Show hardening profiles
    #[command(
        subcommand,
        after_long_help = "Examples:\n  bastide-audit profile list\n  bastide-audit profile list base --json\n  bastide-audit profile explain BOOT-01\n"
    )]
    Profile(ProfileCommand),
}

#[derive(Debug, Args)]
struct Reports {
    /// Write the report as JSON to this file, or to standard output with `-`
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Write the report as one self-contained HTML page to this file, or to standard output with `-`
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Judge freshness as of this time instead of now, such as 2026-11-22T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = clock::parse)]
    at: Option<DateTime<Utc>>,
}

#[derive(Debug, Args)]
struct Verify {
    /// What to explain; the running host if nothing is given
    artifact: Option<PathBuf>,
    /// The trust directory that the auditor brought along [default: /usr/share/bastide/trust]
    #[arg(long, value_name = "DIR")]
    trust: Option<PathBuf>,
    /// The trust directory of the site whose officers must have approved a bundle, a gateway's releases or a host's updates
    #[arg(long, value_name = "DIR")]
    site_trust: Option<PathBuf>,
    #[command(flatten)]
    reports: Reports,
}

#[derive(Debug, Args)]
struct HostArgs {
    /// The hardening profile
    #[arg(long, default_value = "base")]
    profile: String,
    /// The trust directory; the host's own by default, which then vouches for itself [default: /usr/share/bastide/trust]
    #[arg(long, value_name = "DIR")]
    trust: Option<PathBuf>,
    /// The trust directory of the site whose officers must have approved the host's updates
    #[arg(long, value_name = "DIR")]
    site_trust: Option<PathBuf>,
    /// Write down everything that is looked at into this new directory
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    record: Option<PathBuf>,
    /// Audit this recording instead of the running system
    #[arg(long, value_name = "DIR", requires = "trust")]
    from: Option<PathBuf>,
    #[command(flatten)]
    reports: Reports,
}

#[derive(Debug, Subcommand)]
enum ProfileCommand {
    /// List the profiles, or the checks of one
    #[command(after_long_help = "Examples:\n  bastide-audit profile list\n  bastide-audit profile list base --json\n")]
    List {
        /// The profile
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what a check looks at, why, and what to do
    #[command(
        after_long_help = "Examples:\n  bastide-audit profile explain SSH-01\n  bastide-audit profile explain BOOT-01 --json\n"
    )]
    Explain {
        /// The check, such as SSH-01
        check: String,
        /// The profile
        #[arg(long, default_value = "base")]
        profile: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

impl Cli {
    /// Whether the answer is to be JSON on standard output.
    #[must_use]
    pub fn answers_json(&self) -> bool {
        match &self.command {
            Command::Verify(args) => args.reports.to_stdout().0,
            Command::Host(args) => args.reports.to_stdout().0,
            Command::Recipe(args) => args.json,
            Command::Profile(ProfileCommand::List { json, .. } | ProfileCommand::Explain { json, .. }) => *json,
        }
    }
}

impl Reports {
    /// Whether JSON, and whether the page, goes to standard output.
    fn to_stdout(&self) -> (bool, bool) {
        let dash = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
        (dash(&self.json), dash(&self.html))
    }

    fn check(&self) -> Result<()> {
        match self.to_stdout() {
            (true, true) => Err(Usage(
                "both --json and --html go to standard output: name a file for one of them".to_owned(),
            )
            .into()),
            _ => Ok(()),
        }
    }
}

/// Runs a command and gives its exit code.
///
/// # Errors
/// When the audit could not be made at all.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Verify(args) => verify(&args),
        Command::Host(args) => run_host(&args),
        Command::Recipe(args) => script::write(&args),
        Command::Profile(command) => profile(command),
    }
}

fn verify(args: &Verify) -> Result<ExitCode> {
    args.reports.check()?;
    let trust = Trust::open(args.trust.as_deref().unwrap_or(Path::new(TRUST_DIRECTORY)))?;
    let now = args.reports.at.unwrap_or_else(clock::now);
    let site = apart(args.site_trust.as_deref(), &trust)?;
    let question = Question::of_host(&trust, site.as_ref(), now);
    let Some(artifact) = &args.artifact else {
        let live = Live::default();
        let report = Report::new(of_host(&live, site.as_ref())?, now, host::chain(&live, question));
        return finish(report, Shape::Tree, &trust, Path::new(""), &[], &args.reports);
    };
    let kind = Kind::of(artifact)?;
    carries_approval(kind, site.as_ref())?;
    let question = Question {
        complete: kind == Kind::Repository,
        ..question
    };
    let mut subject = Subject::new(kind.name(), artifact.display().to_string());
    compare_site(&mut subject, site.as_ref())?;
    let audited = match kind {
        Kind::Repository => repository::repository(artifact, question),
        Kind::Bundle => artifact.metadata().map_err(Into::into).map(|file| {
            subject.fact("size", crate::trace::bytes(file.len()));
            bundle::bundle(artifact, question)
        }),
        Kind::Iso => iso::iso(artifact, question, &mut subject).map_err(Into::into),
        Kind::File => signed::signed(artifact, question, &mut subject).map(Audited::of),
    }
    .with_context(|| format!("cannot read {}", artifact.display()))?;
    if !audited.versions.is_empty() {
        subject.fact("releases", audited.versions.join(", "));
    }
    let report = Report::new(subject, now, audited.sections);
    finish(report, Shape::Tree, &trust, artifact, &audited.versions, &args.reports)
}

/// Opens the site's trust directory, whose root must be another than the vendor's.
fn apart(site: Option<&Path>, trust: &Trust) -> Result<Option<Trust>> {
    let site = site.map(Trust::open).transpose()?;
    if site.as_ref().is_some_and(|site| site.root == trust.root) {
        let why =
            "--trust and --site-trust have the same root: an approval is worth something only under a root of its own";
        return Err(Usage(why.to_owned()).into());
    }
    Ok(site)
}

/// Whether a site's trust directory has anything to say of an artifact.
fn carries_approval(kind: Kind, site: Option<&Trust>) -> Result<()> {
    if site.is_some() && matches!(kind, Kind::Iso | Kind::File) {
        let why = "only a bundle or a gateway's repository carries a site's approval";
        return Err(Usage(why.to_owned()).into());
    }
    Ok(())
}

/// The site's fingerprint, to be compared as the vendor's is.
fn compare_site(subject: &mut Subject, site: Option<&Trust>) -> Result<()> {
    if let Some(site) = site {
        let fingerprint = anchor::fingerprint(site.directory())
            .with_context(|| format!("cannot read {}", site.directory().display()))?;
        subject.fact(&format!("of the site, {}", anchor::COMPARE), fingerprint);
    }
    Ok(())
}

/// The host that `facts` shows.
fn of_host(facts: &dyn Facts, site: Option<&Trust>) -> Result<Subject> {
    let name = facts.text("/proc/sys/kernel/hostname").ok().flatten();
    let mut subject = Subject::new("host", name.as_deref().map_or("(unknown)", str::trim));
    for (label, path) in [("kernel", "/proc/sys/kernel/osrelease"), ("machine", "/etc/machine-id")] {
        if let Ok(Some(value)) = facts.text(path) {
            subject.fact(label, value.trim());
        }
    }
    compare_site(&mut subject, site)?;
    Ok(subject)
}

fn run_host(args: &HostArgs) -> Result<ExitCode> {
    args.reports.check()?;
    let profile = Profile::shipped(&args.profile)?;
    let trust = Trust::open(args.trust.as_deref().unwrap_or(Path::new(TRUST_DIRECTORY)))?;
    let now = args.reports.at.unwrap_or_else(clock::now);
    let site = apart(args.site_trust.as_deref(), &trust)?;
    let question = Question::of_host(&trust, site.as_ref(), now);
    let audit = |facts: &dyn Facts| -> Result<Report> {
        let subject = of_host(facts, site.as_ref())?;
        Ok(Report::new(subject, now, host::host(facts, &profile, question)))
    };
    let report = match (&args.from, &args.record) {
        (Some(from), _) => {
            let recorded = Recorded::open(from).map_err(|why| anyhow!("{why}"))?;
            let mut report = audit(&recorded)?;
            report.subject.fact("recording", from.display());
            report
        }
        (None, Some(record)) => {
            let live = Live::default();
            let recorder =
                Recorder::new(&live, record).with_context(|| format!("cannot record into {}", record.display()))?;
            // What the checks asked for is written down; the report is made of what was written, so both always agree.
            audit(&recorder)?;
            recorder
                .finish()
                .with_context(|| format!("cannot finish the recording {}", record.display()))?;
            let mut report = audit(&Recorded::open(record).map_err(|why| anyhow!("{why}"))?)?;
            report.subject.fact("recording", record.display());
            report
        }
        (None, None) => audit(&Live::default())?,
    };
    finish(report, Shape::Counts, &trust, Path::new(""), &[], &args.reports)
}

fn finish(
    mut report: Report,
    shape: Shape,
    trust: &Trust,
    file: &Path,
    versions: &[String],
    reports: &Reports,
) -> Result<ExitCode> {
    for (label, value) in trust.anchors() {
        report.subject.fact(label, value);
    }
    // Whoever repeats it stands elsewhere.
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let names = Names {
        file: &whole(file),
        trust: &whole(trust.directory()),
        versions,
    };
    byhand::add(&mut report, &names);
    let (json, page) = reports.to_stdout();
    let write = |path: &Path, bytes: &[u8]| {
        durable::write(path, bytes).with_context(|| format!("cannot write the report to {}", path.display()))
    };
    // The verdict is told before a report is written that may find no place. JSON comes last: one object is the answer.
    if page {
        output::line(html::page(&report).trim_end())?;
    } else if !json {
        text::write(&report, shape, &mut io::stdout().lock())?;
    }
    if let Some(path) = reports.html.as_deref().filter(|_| !page) {
        write(path, html::page(&report).as_bytes())?;
    }
    match &reports.json {
        Some(_) if json => output::json(&report)?,
        Some(path) => write(path, (serde_json::to_string_pretty(&report)? + "\n").as_bytes())?,
        None => {}
    }
    Ok(ExitCode::from(match report.outcome {
        Outcome::Fail => Exit::Refused as u8,
        Outcome::CouldNotCheck => Exit::CouldNotCheck as u8,
        Outcome::Pass | Outcome::NotApplicable => Exit::Done as u8,
    }))
}

fn profile(command: ProfileCommand) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match command {
        ProfileCommand::List { name: None, json } => {
            let profiles = Profile::names().map(Profile::shipped).collect::<Result<Vec<_>, _>>()?;
            if json {
                let list: Vec<_> = profiles
                    .iter()
                    .map(|p| serde_json::json!({ "name": p.name, "title": p.title, "about": p.about, "checks": p.checks.len() }))
                    .collect();
                output::json(&list)?;
            } else {
                for profile in profiles {
                    writeln!(
                        out,
                        "{}: {}, {} checks",
                        profile.name,
                        profile.title,
                        profile.checks.len()
                    )?;
                }
            }
        }
        ProfileCommand::List { name: Some(name), json } => {
            let profile = Profile::shipped(&name)?;
            if json {
                let list: Vec<_> = profile.checks.iter().map(described).collect();
                output::json(&list)?;
            } else {
                for area in Area::ALL {
                    writeln!(out, "{}", area.title())?;
                    for check in profile.checks.iter().filter(|check| check.area == area) {
                        let first = format!("  {:<12} ", check.id);
                        writeln!(out, "{}", output::fold(&first, first.len(), &check.title))?;
                    }
                }
            }
        }
        ProfileCommand::Explain { check, profile, json } => {
            let profile = Profile::shipped(&profile)?;
            let check = profile.check(&check).ok_or_else(|| {
                anyhow!(
                    "the profile {} has no check {check:?}: see `bastide-audit profile list {0}`",
                    profile.name
                )
            })?;
            if json {
                output::json(&described(check))?;
                return Ok(ExitCode::SUCCESS);
            }
            writeln!(out, "{}\n", output::fold(&format!("{}: ", check.id), 4, &check.title))?;
            for (label, told) in [
                ("why", check.rationale.as_str()),
                ("looks at", &check.rule.words()),
                ("remedy", &check.remedy),
                ("references", &check.references.join("; ")),
            ] {
                writeln!(out, "{}", output::fold(&format!("  {label:<11} "), 14, told))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn described(check: &Check) -> serde_json::Value {
    serde_json::json!({
        "id": check.id,
        "title": check.title,
        "area": check.area.title(),
        "rationale": check.rationale,
        "references": check.references,
        "remedy": check.remedy,
        "looks_at": check.rule.words(),
    })
}
