// SPDX-License-Identifier: GPL-3.0-or-later
//! Judges a system by a profile. Every judgement is a function of [`Facts`] alone.

mod access;
mod boot;
pub(crate) use boot::running_root_hash;
pub mod drift;
mod kernel;
mod system;

use crate::facts::{Facts, Known, Unknown};
use crate::profile::{Area, Check, Expect, Profile, Rule, When};
use crate::report::{Finding, Guidance};
use crate::verdict::Verdict;

/// Every check of a profile, one heading an area.
#[must_use]
pub fn run(profile: &Profile, facts: &dyn Facts) -> Vec<Finding> {
    Area::ALL
        .iter()
        .filter_map(|area| {
            let findings: Vec<Finding> = profile
                .checks
                .iter()
                .filter(|check| check.area == *area)
                .map(|check| {
                    let mut finding = Finding::new(&check.id, &check.title, judge(check, facts));
                    finding.guidance = Some(guidance(check));
                    finding
                })
                .collect();
            let id = format!("{area:?}").to_lowercase();
            (!findings.is_empty()).then(|| Finding::heading(id, area.title(), findings))
        })
        .collect()
}

/// One check.
#[must_use]
pub fn judge(check: &Check, facts: &dyn Facts) -> Verdict {
    if check.when == When::Xen {
        match under_xen(facts) {
            Ok(true) => {}
            Ok(false) => return Verdict::NotApplicable("this system does not run under Xen".to_owned()),
            Err(Unknown(why)) => return Verdict::CouldNotCheck(why),
        }
    }
    look(&check.rule, facts).unwrap_or_else(|Unknown(why)| Verdict::CouldNotCheck(why))
}

fn guidance(check: &Check) -> Guidance {
    Guidance {
        rationale: check.rationale.clone(),
        references: check.references.clone(),
        remedy: check.remedy.clone(),
    }
}

fn under_xen(facts: &dyn Facts) -> Known<bool> {
    Ok(facts
        .text("/sys/hypervisor/type")?
        .is_some_and(|kind| kind.trim() == "xen"))
}

fn look(rule: &Rule, facts: &dyn Facts) -> Known<Verdict> {
    match rule {
        Rule::Sysctl { key, expect } => kernel::sysctl(facts, key, expect),
        Rule::KernelArgument { name, expect } => boot::kernel_argument(facts, name, expect),
        Rule::XenArgument { name, expect } => boot::xen_argument(facts, name, expect),
        Rule::CommandLinesAreSigned => boot::command_lines_are_signed(facts),
        Rule::XenVersion { at_least } => boot::xen_version(facts, at_least),
        Rule::XenLogLacks { texts } => boot::xen_log_lacks(facts, texts),
        Rule::XenLogHas { text } => boot::xen_log_has(facts, text),
        Rule::Iommu => boot::iommu(facts),
        Rule::XenToolstack => boot::xen_toolstack(facts),
        Rule::File { path, expect } => file(facts, path, expect),
        Rule::SecureBoot => boot::secure_boot(facts),
        Rule::Verity => boot::verity(facts),
        Rule::ModulesAbsent { modules } => kernel::modules_absent(facts, modules),
        Rule::Unit { unit, runs } => system::unit(facts, unit, *runs),
        Rule::NoFailedUnits => system::no_failed_units(facts),
        Rule::Sockets { allowed } => system::sockets(facts, allowed),
        Rule::Accounts { must } => access::accounts(facts, *must),
        Rule::Sshd { option, expect } => access::sshd(facts, option, expect),
        Rule::SshdLacks { option, algorithms } => access::sshd_lacks(facts, option, algorithms),
        Rule::Mount { point, types, options } => system::mount(facts, point, types, options),
        Rule::Permission {
            path,
            uid,
            at_most,
            optional,
        } => system::permission(facts, path, *uid, at_most, *optional),
        Rule::Setuid { allowed } => system::setuid(facts, allowed),
        Rule::WorldWritable { allowed } => system::world_writable(facts, allowed),
        Rule::NotHere { reason } => Ok(Verdict::NotApplicable(reason.clone())),
    }
}

fn file(facts: &dyn Facts, path: &str, expect: &Expect) -> Known<Verdict> {
    let text = facts.text(path)?;
    let value = text.as_deref().map(str::trim);
    Ok(verdict(expect.holds(value), format!("{path} {}", shown(value)), expect))
}

/// A value in words, or that there is none.
fn shown(value: Option<&str>) -> String {
    match value {
        None => "is not there".to_owned(),
        Some("") => "is empty".to_owned(),
        Some(value) => format!("= {}", shorten(value)),
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 160 {
        text.to_owned()
    } else {
        text.chars().take(159).chain(['…']).collect()
    }
}

fn verdict(holds: bool, seen: String, expect: &Expect) -> Verdict {
    if holds {
        Verdict::Pass(seen)
    } else {
        Verdict::Fail(format!("{seen}; must be {}", expect.words()))
    }
}

/// A pass when nothing offends, else a failure that names up to ten offenders.
fn offenders(good: impl Into<String>, bad: &str, list: &[String]) -> Verdict {
    if list.is_empty() {
        return Verdict::Pass(good.into());
    }
    let more = if list.len() > 10 {
        format!(" and {} more", list.len() - 10)
    } else {
        String::new()
    };
    Verdict::Fail(format!("{bad}: {}{more}", list[..list.len().min(10)].join(", ")))
}
