# SPDX-License-Identifier: GPL-3.0-or-later
# Proves the packages of a release: argv[1] is the unpacked upstream.tar with what gpgv said of its lists, argv[2] the bill
# of materials or nothing, argv[3] the keys that may sign: path:suite:fingerprint, separated by spaces.
import datetime, email.utils, hashlib, json, lzma, os, re, sys

place, bill, signers = sys.argv[1:]
bad = 0


def say(good, what):
    global bad
    bad |= not good
    print("pass" if good else "refuse", ascii(what)[1:-1])


def read(name):
    path = os.path.realpath(os.path.join(place, name))
    if not path.startswith(os.path.realpath(place) + "/"):
        raise ValueError(f"{name} leads out of the archive")
    with open(path, "rb") as file:
        return file.read()


def time(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def same(named, content):
    return (named["sha256"], named["size"]) == (hashlib.sha256(content).hexdigest(), len(content))


def stanza(text):
    return dict(re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*)$", text, re.M))


def suite(origin, architecture, packages):
    """The packages that the signed lists of a suite name as the manifest does."""
    name, kept = origin["suite"], origin["inrelease"]
    allowed = [key.split(":")[2] for key in signers.split() if key.startswith(f"{origin['path']}:{name}:")]
    good = [line.split() for line in read(kept["file"] + ".keys").decode().splitlines()]
    good = [(key, int(at)) for key, at in good if key in allowed]
    say(good, f"{name}: InRelease is signed by {len(good)} of the {len(allowed)} keys that may sign it")
    if not good:
        return 0
    body = read(kept["file"] + ".body").decode()
    head = stanza(body)
    date = time(email.utils.parsedate_to_datetime(head["Date"].replace("UTC", "+0000")).timestamp())
    said = (origin["date"], origin["signed_at"], sorted(origin["signers"]))
    agree = head["Codename"] == name and said == (date, time(max(at for _, at in good)), sorted(key for key, _ in good))
    say(agree and same(kept, read(kept["file"])), f"{name}: it is the list of {date} that the manifest names")
    listed = {file: (sha256, int(size)) for sha256, size, file in re.findall(r"^ ([0-9a-f]{64}) +(\d+) (\S+)$", body, re.M)}
    count = 0
    for index in origin["packages"]:
        file = f"{index['component']}/binary-{architecture}/Packages"
        packed = read(index["file"])
        good = same(index, packed) and listed.get(file + ".xz") == (index["sha256"], index["size"])
        say(good, f"{name}: {file}.xz is the one that the signed list names")
        if not good:
            continue
        unpacker = lzma.LZMADecompressor(memlimit=128 << 20)
        plain = unpacker.decompress(packed, listed[file][1] + 1)
        if not listed[file] == (hashlib.sha256(plain).hexdigest(), len(plain)):
            say(False, f"{name}: it unpacks to what the signed list names")
            continue
        entries = {}
        for entry in map(stanza, plain.decode().split("\n\n")):
            entries.setdefault((entry.get("Package"), entry.get("Version"), entry.get("Architecture")), []).append(entry)
        for package in packages:
            if (package["suite"], package["component"]) == (name, index["component"]):
                found = entries.get((package["name"], package["version"], package["architecture"]), [])
                if found and all(map(lambda entry: describes(entry, package), found)):
                    count += 1
                else:
                    say(False, f"{name}: {package['name']} {package['version']} is listed with the manifest's contents")
    return count


def describes(entry, package):
    source = re.fullmatch(r"(\S+)(?: +\((.*)\))?", entry.get("Source", entry["Package"]))
    return (entry["SHA256"], int(entry["Size"]), entry["Filename"], entry.get("Section"), source[1], source[2] or entry["Version"]) == (
        package["sha256"], package["size"], package["filename"], package.get("section"), package["source"], package["source_version"])


def materials(packages):
    """The bill of materials names the packages of the image, no more and no less."""
    with open(bill, "rb") as file:
        names = json.load(file)
    own = {(p["name"], p["version"]): p["sha256"] for p in packages if {"host", "guest"} & set(p["roles"])}
    debs = [c for c in names["components"] if c.get("purl", "").startswith("pkg:deb/")]
    said = {(c["name"], c["version"]): [h["content"].lower() for h in c.get("hashes", []) if h["alg"] == "SHA-256"][:1] for c in debs}
    good = (names["bomFormat"], names["specVersion"]) == ("CycloneDX", "1.6") and len(debs) == len(said)
    good &= all(c.get("licenses") for c in debs) and said == {key: [sha256] for key, sha256 in own.items()}
    say(good, f"bill of materials names the {len(own)} packages of the image with version, digest and licence")


try:
    manifest = json.loads(read("snapshot.json"))
    packages, count = manifest["packages"], 0
    for origin in manifest["created_from"]:
        count += suite(origin, manifest["architecture"], packages)
    say(count == len(packages), f"{count} of {len(packages)} packages are listed by upstream as the manifest names them")
    if bill:
        materials(packages)
    else:
        print("unknown bill of materials: there is none to be believed")
except (KeyError, TypeError, ValueError, lzma.LZMAError, FileNotFoundError) as why:
    say(False, f"upstream.tar is as it should be: {type(why).__name__} {why}")
sys.exit(3 if bad else 0)
