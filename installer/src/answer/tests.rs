// SPDX-License-Identifier: GPL-3.0-or-later

use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1tIxyC1d0vW4UeYnLcoaPyPzPbzKgYqFbXnQ3gVdGb admin@site";

fn parse(text: &str) -> Result<Answer, String> {
    Answer::from_bytes(text.as_bytes().to_vec())
        .map(|loaded| loaded.answer)
        .map_err(|error| error.to_string())
}

fn with_interface(lines: &str) -> Result<Answer, String> {
    parse(&format!(
        "[disk]\nserial = \"S1\"\n[network]\nhostname = \"h\"\n[[network.interface]]\n{lines}\n"
    ))
}

#[test]
fn the_least_answer_is_a_disk_and_a_name() {
    let answer = parse("[disk]\nserial = \"S1\"\n[network]\nhostname = \"Host-1\"\n").unwrap();
    assert_eq!(answer.network.hostname.to_string(), "host-1");
    assert!(answer.secure_boot.enrol && !answer.secure_boot.require);
    assert_eq!(answer.installer.finish, Then::Reboot);
    assert!(!answer.installer.shell && answer.admin.ssh_keys.is_empty());
}

#[test]
fn an_answer_written_by_the_screens_reads_back() {
    let text = format!(
        "[disk]\nmodel = \"QEMU HARDDISK\"\nmin_size = \"8 GiB\"\nwipe = \"S1\"\n[network]\nhostname = \"h\"\n\
         [[network.interface]]\nname = \"bond0\"\nvlan = 20\nbridge = true\naddress = \"10.0.2.15/24\"\n\
         gateway = \"10.0.2.2\"\ndns = [\"10.0.2.3\"]\n[network.interface.bond]\n\
         members = [\"eno1\", \"52:54:00:12:34:56\"]\nmode = \"802.3ad\"\n[admin]\nssh_keys = [\"{KEY}\"]\n"
    );
    let answer = parse(&text).unwrap();
    assert_eq!(answer.to_loaded().unwrap().answer, answer);
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    let error = parse("[disk]\nserial = \"S1\"\nwhipe = \"S1\"\n[network]\nhostname = \"h\"\n").unwrap_err();
    assert!(error.contains("line 3") && error.contains("whipe"), "{error}");
    assert!(parse("[disk]\nserial=\"S\"\n[network]\nhostname=\"h\"\n[admin]\npassword=\"x\"\n").is_err());
}

#[test]
fn an_error_is_one_line_that_moves_no_cursor() {
    let least = "[disk]\nserial = \"S1\"\n[network]\nhostname = \"h\"\n";
    for (lines, place) in [
        ("\"\\u001b[2J\\u009b1A\\n\" = 1\n", "line 5, column 1: unknown field"),
        ("# \u{1b}]0;owned\u{7}\n", "line 5, column 3: "),
        ("  hôte = = 1\n", "line 5, column "),
    ] {
        let error = parse(&format!("{least}{lines}")).unwrap_err();
        assert!(error.contains(place), "{error:?}");
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
    assert_eq!(parse("").unwrap_err(), "the answer is not valid: missing field `disk`");
}

#[test]
fn a_wrong_value_is_an_error_with_its_line() {
    let error = with_interface("name = \"eno1\"\naddress = \"10.0.0.300/24\"").unwrap_err();
    assert!(error.contains("line 7") && error.contains("10.0.0.300/24"), "{error}");
}

#[test]
fn hostile_values_are_refused() {
    for lines in [
        "name = \"eno1\\n[Network]\"",
        "name = \"../../etc\"",
        "name = \"*\"",
        "name = \"-f\"",
        "name = \"a234567890123456\"",
        "mac = \"52:54:00:12:34\"",
        "mac = \"52:54:00:12:34:5g\"",
        "name = \"e\"\naddress = \"10.0.0.1\"",
        "name = \"e\"\naddress = \"10.0.0.1/33\"",
        "name = \"e\"\naddress = \"10.0.0.1/+24\"",
        "name = \"e\"\naddress = \"127.0.0.1/8\"",
        "name = \"e\"\nvlan = 4095",
        "name = \"e\"\nvlan = 0",
        "name = \"e\"\nmtu = 100",
        "name = \"e\"\ndns = [\"8.8.8\"]",
        "address = \"10.0.0.1/24\"",
        "name = \"e\"\nmac = \"52:54:00:12:34:56\"",
        "name = \"e\"\ndhcp = true\naddress = \"10.0.0.1/24\"",
        "name = \"e\"\naddress = \"10.0.0.1/24\"\ngateway = \"10.0.1.1\"",
        "name = \"e\"\ngateway = \"10.0.1.1\"",
        "name = \"xenbr0\"",
        "name = \"bond0\"\nbond = { members = [\"eno1\"] }",
        "name = \"bond0\"\nbond = { members = [\"eno1\", \"eno1\"] }",
        "bond = { members = [\"eno1\", \"eno2\"] }",
        "name = \"bond0\"\nbond = { members = [\"eno1\", \"eno2\"], mode = \"magic\" }",
    ] {
        assert!(with_interface(lines).is_err(), "{lines}");
    }
    for hostname in ["", "-a", "a_b", "a b", "a\\nb", "..", &"a".repeat(65)] {
        let text = format!("[disk]\nserial = \"S1\"\n[network]\nhostname = \"{hostname}\"\n");
        assert!(parse(&text).is_err(), "{hostname}");
    }
    for disk in [
        "",
        "max_size = \"1 TB\"",
        "serial = \"\"",
        "serial = \" S1\"",
        "serial = \"a\\u0007\"",
        "min_size = \"8\"",
        "min_size = \"99999999999999 TiB\"",
        "min_size = \"2 TB\"\nmax_size = \"1 TB\"",
        "serial = \"S1\"\nwipe = \"S2\"",
    ] {
        assert!(
            parse(&format!("[disk]\n{disk}\n[network]\nhostname = \"h\"\n")).is_err(),
            "{disk}"
        );
    }
}

#[test]
fn what_two_interfaces_share_is_refused() {
    for lines in [
        "name = \"e\"\n[[network.interface]]\nname = \"e\"",
        "name = \"e\"\nbridge = true\n[[network.interface]]\nname = \"f\"\nbridge = true",
        "name = \"e\"\nvlan = 2\n[[network.interface]]\nname = \"e\"\nvlan = 2",
        "name = \"e\"\n[[network.interface]]\nname = \"b\"\nbond = { members = [\"e\", \"f\"] }",
        "name = \"e\"\naddress = \"10.0.0.1/24\"\ngateway = \"10.0.0.2\"\n[[network.interface]]\nname = \"f\"\n\
         address = \"10.0.1.1/24\"\ngateway = \"10.0.1.2\"",
    ] {
        assert!(with_interface(lines).is_err(), "{lines}");
    }
    assert!(with_interface("name = \"e\"\n[[network.interface]]\nname = \"e\"\nvlan = 2").is_ok());
}

#[test]
fn ssh_keys_are_public_keys_of_one_line() {
    let key = |key: &str| key.parse::<SshKey>();
    assert!(key(KEY).is_ok());
    for text in [
        "",
        "ssh-ed25519",
        "ssh-dss AAAAB3NzaC1kc3MAAAB",
        "command=\"/bin/sh\" ssh-ed25519 AAAA",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        &KEY.replace("AAAAC3", "BBBBC3"),
        &KEY[..40],
        &format!("{KEY}\nssh-ed25519 AAAA"),
    ] {
        assert!(key(text).is_err(), "{text}");
    }
}

#[test]
fn a_large_or_binary_file_is_refused() {
    assert!(Answer::from_bytes(vec![b'#'; LIMIT as usize + 1]).is_err());
    assert!(Answer::from_bytes(vec![0xff, 0xfe]).is_err());
    let deep = format!("a = {}", "[".repeat(20_000));
    assert!(Answer::from_bytes(deep.into_bytes()).is_err());
}

#[test]
fn every_problem_names_its_key() {
    let error = with_interface("vlan = 5000").unwrap_err();
    assert!(
        error.contains("network.interface[0]: names no card") && error.contains("network.interface[0].vlan: 5000"),
        "{error}"
    );
}

#[test]
fn the_published_schema_is_the_code() {
    let published = include_str!("../../answer.schema.json");
    assert_eq!(
        published,
        schema().unwrap(),
        "run: bastide-install schema > installer/answer.schema.json"
    );
}

#[test]
fn every_shipped_example_is_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        Answer::load(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        seen += 1;
    }
    assert!(seen >= 4);
}
