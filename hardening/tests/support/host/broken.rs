// SPDX-License-Identifier: GPL-3.0-or-later
//! Every way to break a rule of the profile.

use hardening::profile::{AccountRule, Expect, Rule};

use super::{EFI, GLOBAL, Host, SLOT_A, SLOT_B, UPPER};

impl Host {
    /// Every way to break a rule, each a host of its own with the words that the verdict must have.
    pub fn broken(&self, rule: &Rule) -> Vec<(Self, &'static str)> {
        let with = |text: &'static str, change: &dyn Fn(&mut Self)| {
            let mut host = self.clone();
            change(&mut host);
            (host, text)
        };
        match rule {
            Rule::Sysctl { key, expect } => {
                let running = format!("/proc/sys/{}", key.replace('.', "/"));
                let wrong = wrong(expect);
                let own = "read /etc/sysctl.d/60-bastide.conf";
                vec![
                    with("must be", &|host| host.text(&running, &wrong)),
                    with("at the next boot", &|host| {
                        let kept: String = host
                            .said(own)
                            .lines()
                            .filter(|line| !line.starts_with(key.as_str()))
                            .map(|line| format!("{line}\n"))
                            .collect();
                        host.text("/etc/sysctl.d/60-bastide.conf", &kept);
                    }),
                    with("at the next boot", &|host| {
                        host.list("/etc/sysctl.d", &["60-bastide.conf", "99-late.conf"]);
                        host.text(
                            "/etc/sysctl.d/99-late.conf",
                            &format!("{} = {wrong}\n", key.replace('.', "/")),
                        );
                    }),
                ]
            }
            Rule::KernelArgument { name, expect } => {
                let bad = |line: &str| replaced(line, name, expect);
                vec![
                    with("running command line", &|host| {
                        let (xen, kernel) = host.lines();
                        host.command_lines(&xen, &bad(&kernel));
                    }),
                    with("in the boot image on the disk", &|host| {
                        let (xen, kernel) = host.lines();
                        host.signed_lines(&xen, &bad(&kernel));
                    }),
                ]
            }
            Rule::XenArgument { name, expect } => {
                let bad = |line: &str| replaced(line, name, expect);
                vec![
                    with("running command line", &|host| {
                        let (xen, kernel) = host.lines();
                        host.command_lines(&bad(&xen), &kernel);
                    }),
                    with("in the boot image on the disk", &|host| {
                        let (xen, kernel) = host.lines();
                        host.signed_lines(&bad(&xen), &kernel);
                    }),
                ]
            }
            Rule::CommandLinesAreSigned => vec![
                with("no signature covers", &|host| {
                    let (xen, kernel) = host.lines();
                    host.running_lines(&format!("{xen} spec-ctrl=no"), &kernel);
                }),
                with("was not given", &|host| {
                    let (xen, kernel) = host.lines();
                    host.running_lines(&xen, kernel.rsplit_once(' ').unwrap().0);
                }),
            ],
            Rule::XenVersion { .. } => vec![with("must be", &|host| {
                host.edit("run xl info", "xen_minor : 20", "xen_minor : 19")
            })],
            Rule::XenLogLacks { texts } => vec![with("the hypervisor says", &|host| {
                host.edit("run xl dmesg", "(XEN) Spec", &format!("(XEN) {}\n(XEN) Spec", texts[0]));
            })],
            Rule::XenLogHas { text } => vec![with("has no line", &|host| host.edit("run xl dmesg", text, "debug=y"))],
            Rule::Iommu => vec![with("does not use it", &|host| {
                host.edit("run xl dmesg", "virtualisation enabled", "virtualisation disabled");
                host.list("/sys/firmware/acpi/tables", &["DMAR", "FACP"]);
            })],
            Rule::XenToolstack => vec![with("no domain 0", &|host| host.run("xl list", "Name ID\n"))],
            Rule::File { path, expect } => vec![with("must be", &|host| host.text(path, &wrong(expect)))],
            Rule::SecureBoot => vec![
                with("off", &|host| {
                    host.bytes(&format!("{EFI}/SecureBoot-{GLOBAL}"), &[6, 0, 0, 0, 0])
                }),
                with("setup mode", &|host| {
                    host.bytes(&format!("{EFI}/SetupMode-{GLOBAL}"), &[6, 0, 0, 0, 1])
                }),
            ],
            Rule::Verity => vec![
                with("no dm-verity device", &|host| {
                    host.run("dmsetup table --target verity", "")
                }),
                with("corruption was seen", &|host| {
                    host.edit("run dmsetup status --target verity", "verity V", "verity C")
                }),
                with("does not stop", &|host| {
                    host.edit("run dmsetup table --target verity", "1 panic_on_corruption", "")
                }),
            ],
            Rule::ModulesAbsent { modules } => {
                let module = modules[0].replace('-', "_");
                vec![
                    with("is loaded", &|host| {
                        host.text("/proc/modules", &format!("{module} 1 1 - Live 0x0\n"))
                    }),
                    with("can be loaded", &|host| {
                        host.text(
                            "/usr/lib/modules/6.12.1-amd64/modules.dep",
                            &format!("kernel/{module}.ko.xz:\n"),
                        );
                        host.text("/etc/modprobe.d/bastide.conf", &format!("blacklist {module}\n"));
                    }),
                ]
            }
            Rule::Unit { unit, runs: true } => vec![
                with("must run", &|host| {
                    host.unit(unit, "loaded", "failed", "static", "multi-user.target")
                }),
                with("nothing starts it", &|host| {
                    host.unit(unit, "loaded", "active", "disabled", "")
                }),
            ],
            Rule::Unit { unit, runs: false } => vec![
                with("must not run", &|host| {
                    host.unit(unit, "loaded", "active", "disabled", "")
                }),
                with("starts at the next boot", &|host| {
                    host.unit(unit, "loaded", "inactive", "enabled", "multi-user.target")
                }),
            ],
            Rule::NoFailedUnits => vec![with("failed", &|host| {
                host.run(
                    "systemctl list-units --failed --plain --no-legend --no-pager",
                    "auditd.service loaded failed failed Audit\n",
                );
            })],
            Rule::Sockets { .. } => vec![with("nc on 0.0.0.0", &|host| {
                host.edit(
                    "run ss -H -l -n -t -u -p",
                    "tcp",
                    "tcp   LISTEN 0 1 0.0.0.0:4444 0.0.0.0:* users:((\"nc\",pid=9,fd=3))\ntcp",
                );
            })],
            Rule::Accounts { must } => vec![self.broken_accounts(*must)],
            Rule::Sshd { option, expect } => vec![with("must be", &|host| {
                let kept: String = host
                    .said("run /usr/sbin/sshd -T")
                    .lines()
                    .filter(|line| !line.starts_with(&format!("{option} ")))
                    .map(|line| format!("{line}\n"))
                    .collect();
                host.run("/usr/sbin/sshd -T", &format!("{kept}{option} {}\n", wrong(expect)));
            })],
            Rule::SshdLacks { option, algorithms } => vec![with("offers", &|host| {
                host.edit(
                    "run /usr/sbin/sshd -T",
                    &format!("{option} "),
                    &format!("{option} {},", algorithms[0]),
                );
            })],
            Rule::Mount { point, options, .. } => vec![
                with("no ", &|host| {
                    let changed: String = host
                        .said("read /proc/self/mountinfo")
                        .lines()
                        .map(|line| {
                            if line.contains(&format!(" {point} ")) {
                                line.replace(options[0].as_str(), "x") + "\n"
                            } else {
                                format!("{line}\n")
                            }
                        })
                        .collect();
                    host.text("/proc/self/mountinfo", &changed);
                }),
                with("not a mount", &|host| host.text("/proc/self/mountinfo", "")),
                with("its line in /etc/fstab", &|host| {
                    host.text("/etc/fstab", &format!("none {point} x rw 0 0\n"))
                }),
            ],
            Rule::Permission {
                path, uid, optional, ..
            } => {
                let mut hosts = vec![
                    with("at most", &|host| host.stat(path, "file", 0o777, *uid)),
                    with("must belong", &|host| host.stat(path, "file", 0o400, 1000)),
                    with("is a link", &|host| host.stat(path, "link", 0o400, *uid)),
                ];
                if !optional {
                    hosts.push(with("not there", &|host| host.absent(path)));
                }
                hosts
            }
            Rule::Setuid { .. } => vec![with("/var/lib/evil", &|host| {
                host.found("special", "/var", Self::entry("/var/lib/evil", "file", 0o4755, b""))
            })],
            Rule::WorldWritable { .. } => vec![
                with("/etc/cron.d/x", &|host| {
                    host.found("special", "/etc", Self::entry("/etc/cron.d/x", "file", 0o666, b""))
                }),
                with("/srv", &|host| {
                    host.found("special", "/", Self::entry("/srv", "directory", 0o1777, b""))
                }),
            ],
            Rule::NotHere { .. } => Vec::new(),
        }
    }

    fn broken_accounts(&self, must: AccountRule) -> (Self, &'static str) {
        let mut host = self.clone();
        let (passwd, shadow) = ("read /etc/passwd", "read /etc/shadow");
        let text = match must {
            AccountRule::OnlyRootIsZero => {
                host.edit(passwd, "daemon:x:1:", "daemon:x:0:");
                "daemon"
            }
            AccountRule::NoEmptyPassword => {
                host.edit(shadow, "daemon:*:", "daemon::");
                "daemon"
            }
            AccountRule::PasswordsLocked => {
                host.edit(shadow, "root:*:", "root:$y$j9T$x$y:");
                "root"
            }
            AccountRule::ServiceShells => {
                host.edit(passwd, "/run/sshd:/usr/sbin/nologin", "/run/sshd:/bin/sh");
                "sshd"
            }
            AccountRule::Unique => {
                host.edit(passwd, "daemon:x:1:", "daemon:x:990:");
                "user id 990"
            }
            AccountRule::Shadowed => {
                host.edit(passwd, "daemon:x:", "daemon:abc:");
                "daemon"
            }
        };
        (host, text)
    }
}

/// A value that is not what it must be.
fn wrong(expect: &Expect) -> String {
    match expect {
        Expect::AtLeast(least) => (least - 1).to_string(),
        Expect::AtMost(most) => (most + 1).to_string(),
        Expect::NoneOf(texts) => texts[0].clone(),
        _ => "7".to_owned(),
    }
}

/// A command line in which a parameter is not what it must be.
fn replaced(line: &str, name: &str, expect: &Expect) -> String {
    let others: Vec<&str> = line
        .split(' ')
        .filter(|word| word.split('=').next() != Some(name))
        .collect();
    match expect {
        Expect::Present => others.join(" "),
        Expect::Absent => format!("{} {name}=1", others.join(" ")),
        expect => format!("{} {name}={}", others.join(" "), wrong(expect)),
    }
}
