// SPDX-License-Identifier: GPL-3.0-or-later
//! Accounts and remote access.

use std::collections::BTreeMap;

use super::{offenders, shown, verdict};
use crate::facts::{Facts, Known, Unknown};
use crate::profile::{AccountRule, Expect};
use crate::verdict::Verdict;

/// What an account may have for a shell when nobody logs in to it.
const NO_SHELLS: [&str; 5] = [
    "/usr/sbin/nologin",
    "/sbin/nologin",
    "/bin/false",
    "/usr/bin/false",
    "/bin/sync",
];

struct Account {
    name: String,
    secret: String,
    uid: u32,
    shell: String,
}

fn passwd(facts: &dyn Facts) -> Known<Vec<Account>> {
    facts
        .need("/etc/passwd")?
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            match fields[..] {
                [name, secret, uid, _, _, _, shell] => Ok(Account {
                    name: name.to_owned(),
                    secret: secret.to_owned(),
                    uid: uid
                        .parse()
                        .map_err(|_| Unknown(format!("/etc/passwd: the user id of {name} does not read")))?,
                    shell: shell.to_owned(),
                }),
                _ => Err(Unknown(format!(
                    "/etc/passwd: a line has {} fields, not 7",
                    fields.len()
                ))),
            }
        })
        .collect()
}

/// Names and password fields of the shadow file.
fn shadow(facts: &dyn Facts) -> Known<Vec<(String, String)>> {
    let text = facts.need("/etc/shadow")?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, rest)| (name.to_owned(), rest.split(':').next().unwrap_or_default().to_owned()))
        .collect())
}

pub(super) fn accounts(facts: &dyn Facts, must: AccountRule) -> Known<Verdict> {
    let accounts = passwd(facts)?;
    let names = |bad: &dyn Fn(&Account) -> bool| -> Vec<String> {
        accounts
            .iter()
            .filter(|account| bad(account))
            .map(|account| account.name.clone())
            .collect()
    };
    Ok(match must {
        AccountRule::OnlyRootIsZero => {
            let zero = names(&|account| account.uid == 0 && account.name != "root");
            offenders("root alone has user id 0", "also user id 0", &zero)
        }
        AccountRule::Shadowed => {
            let bad = names(&|account| account.secret != "x");
            offenders(
                format!("all {} accounts refer to the shadow file", accounts.len()),
                "not shadowed",
                &bad,
            )
        }
        AccountRule::ServiceShells => {
            let bad = names(&|account| {
                account.uid != 0
                    && !(1000..60000).contains(&account.uid)
                    && !NO_SHELLS.contains(&account.shell.as_str())
            });
            offenders("no service account has a shell", "service accounts with a shell", &bad)
        }
        AccountRule::Unique => {
            let mut count: BTreeMap<String, usize> = BTreeMap::new();
            for account in &accounts {
                *count.entry(format!("name {}", account.name)).or_default() += 1;
                *count.entry(format!("user id {}", account.uid)).or_default() += 1;
            }
            let bad: Vec<String> = count
                .into_iter()
                .filter(|(_, count)| *count > 1)
                .map(|(what, _)| what)
                .collect();
            offenders(
                "every name and every user id is given once",
                "given more than once",
                &bad,
            )
        }
        AccountRule::NoEmptyPassword => {
            let shadow = shadow(facts)?;
            let mut bad: Vec<String> = shadow
                .iter()
                .filter(|(_, secret)| secret.is_empty())
                .map(|(name, _)| name.clone())
                .collect();
            bad.extend(names(&|account| account.secret.is_empty()));
            offenders("no account has an empty password", "no password needed", &bad)
        }
        AccountRule::PasswordsLocked => {
            let shadow = shadow(facts)?;
            let bad: Vec<String> = shadow
                .iter()
                .filter(|(_, secret)| !secret.starts_with(['!', '*']))
                .map(|(name, _)| name.clone())
                .collect();
            offenders("every password is locked: access is by key", "a password opens", &bad)
        }
    })
}

/// The ssh daemon's effective configuration. It is read from the files on the disk, so it is what holds after a restart.
fn settings(facts: &dyn Facts) -> Known<BTreeMap<String, String>> {
    let text = facts.output(&["/usr/sbin/sshd", "-T"])?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect())
}

pub(super) fn sshd(facts: &dyn Facts, option: &str, expect: &Expect) -> Known<Verdict> {
    let settings = settings(facts)?;
    let value = settings.get(option).map(String::as_str);
    Ok(verdict(
        expect.holds(value),
        format!("{option} {}", shown(value)),
        expect,
    ))
}

pub(super) fn sshd_lacks(facts: &dyn Facts, option: &str, algorithms: &[String]) -> Known<Verdict> {
    let settings = settings(facts)?;
    let offered = settings
        .get(option)
        .ok_or_else(|| Unknown(format!("`sshd -T` names no {option}")))?;
    let bad: Vec<String> = offered
        .split(',')
        .filter(|offer| algorithms.iter().any(|weak| weak == offer))
        .map(str::to_owned)
        .collect();
    Ok(offenders(
        format!("{option} = {}", super::shorten(offered)),
        &format!("{option} offers"),
        &bad,
    ))
}
