// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-audit recipe`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use signing::output::{self, Refused};
use signing::site::TRUST_DIRECTORY;
use signing::{anchor, durable};

use super::{apart, carries_approval};
use crate::recipe::{self, Kind, Trusted};
use crate::trace::trust::Trust;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the script checks: an ISO, a bundle, or a repository's directory
    artifact: PathBuf,
    /// The trust directory that the auditor brought along [default: /usr/share/bastide/trust]
    #[arg(long, value_name = "DIR")]
    trust: Option<PathBuf>,
    /// The trust directory of the site whose officers must have approved a bundle or a gateway's releases
    #[arg(long, value_name = "DIR")]
    site_trust: Option<PathBuf>,
    /// Write the script to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Tell the fingerprint, and the script unless it goes to a file, as JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub fn write(args: &Args) -> Result<ExitCode> {
    let trust = Trust::open(args.trust.as_deref().unwrap_or(Path::new(TRUST_DIRECTORY)))?;
    let kind = Kind::of(&args.artifact)?;
    let site = apart(args.site_trust.as_deref(), &trust)?;
    carries_approval(kind, site.as_ref())?;
    let trusted = Trusted {
        vendor: &trust,
        site: site.as_ref(),
    };
    let script = recipe::script(kind, &args.artifact, trusted, None)?;
    let fingerprint = |trust: &Trust| {
        anchor::fingerprint(trust.directory()).with_context(|| format!("cannot read {}", trust.directory().display()))
    };
    let of_site = site.as_ref().map(fingerprint).transpose()?;
    let fingerprint = fingerprint(&trust)?;
    if let Some(out) = &args.out {
        if out.symlink_metadata().is_ok() {
            return Err(Refused(format!("{} exists: name another --out", out.display())).into());
        }
        durable::write(out, script.as_bytes())
            .with_context(|| format!("cannot write the script to {}", out.display()))?;
    }
    if args.json {
        let script = args.out.is_none().then_some(script);
        output::json(&serde_json::json!({
            "kind": kind.name(), "anchor": fingerprint, "site_anchor": of_site, "out": args.out, "script": script,
        }))?;
    } else if let Some(out) = &args.out {
        output::line(&format!("{}: read it, then run it with sh", out.display()))?;
        output::line(&format!("{}: {fingerprint}", anchor::COMPARE))?;
        if let Some(of_site) = of_site {
            output::line(&format!("of the site, {}: {of_site}", anchor::COMPARE))?;
        }
    } else {
        output::line(script.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
