// SPDX-License-Identifier: GPL-3.0-or-later
//! The auditor: every artifact to its signatures, and the running host against its profile.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::build::PATCHED;
use crate::ledger::Ledger;
use crate::vm::Running;
use crate::workshop::Workshop;

/// Audits the medium, the repository and the bundle.
///
/// # Errors
/// When the step fails.
pub fn artifacts(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let inputs = shop.sources()?.file(&shop.iso())?.file(&shop.bundle(PATCHED.version))?;
    let reports = shop.at("audit");
    ledger.step(
        "audit",
        "audit the ISO, the repository and the bundle",
        inputs,
        &[&reports],
        || {
            fs::create_dir_all(&reports)?;
            for (kind, object) in [
                ("iso", shop.iso()),
                ("repo", shop.repository(PATCHED.version)),
                ("bundle", shop.bundle(PATCHED.version)),
            ] {
                shop.program("bastide-audit")
                    .arg(kind)
                    .arg(&object)
                    .arg("--trust")
                    .arg(shop.site().join("trust"))
                    .arg("--json")
                    .arg(reports.join(format!("{kind}.json")))
                    .arg("--html")
                    .arg(reports.join(format!("{kind}.html")))
                    .run()?;
            }
            Ok(format!("all pass; {}", verdicts(&reports.join("iso.json"))?))
        },
    )
}

/// Audits the running host and brings its report home.
///
/// # Errors
/// When it fails a check, or the report does not come.
pub fn host(shop: &Workshop, running: &Running) -> Result<()> {
    let key = shop.admin_key();
    let reports = shop.at("audit");
    fs::create_dir_all(&reports)?;
    let answer = running.ssh(&key, "bastide-audit host --json /run/audit.json --html /run/audit.html")?;
    for kind in ["json", "html"] {
        let text = running.must(&key, &format!("cat /run/audit.{kind}"))?;
        fs::write(reports.join(format!("host.{kind}")), text)?;
    }
    ensure!(
        answer.code == 0,
        "the audit of the host ended with {}: {} (report: {})",
        answer.code,
        answer.stderr,
        reports.join("host.html").display()
    );
    Ok(())
}

fn verdicts(report: &Path) -> Result<String> {
    let report: Value = serde_json::from_slice(&fs::read(report)?)?;
    let summary = report.get("counts").context("the report counts nothing")?;
    Ok(format!("{} checks on the ISO", summary["pass"]))
}
