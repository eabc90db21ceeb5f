# SPDX-License-Identifier: GPL-3.0-or-later
# Follows the metadata of the repository in argv[1] from the root in argv[2], with python-tuf's client, as TUF 1.0 says.
# Writes what it verified into the directory argv[3]. It judges as of now, or as of the time argv[4].
import datetime, json, os, re, sys, urllib.parse
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata
from tuf.ngclient import FetcherInterface, Updater

repo, pinned, out, *at = sys.argv[1:]
store, names = out + "/store", {"root.erofs": "root", "root.verity": "verity", "xen.efi": "xen"}
names |= {"installer.efi": "installer", "sbom.cdx.json": "sbom", "upstream.tar": "upstream"}


class Files(FetcherInterface):
    """Fetches from a directory what others fetch from a server."""

    def _fetch(self, url):
        try:
            with open(os.path.join(repo, urllib.parse.unquote(url)), "rb") as file:
                while chunk := file.read(1 << 16):
                    yield chunk
        except FileNotFoundError:
            raise DownloadHTTPError(url + " is not there", 404) from None


def stored(role):
    return Metadata.from_file(f"{store}/{urllib.parse.quote(role, '')}.json")


def client(root):
    os.mkdir(store)
    try:
        return Updater(store, "metadata/", fetcher=Files(), bootstrap=root)
    except TypeError:  # before version 6 it takes the pinned root from its store
        with open(store + "/root.json", "wb") as file:
            file.write(root)
        return Updater(store, "metadata/", fetcher=Files())


def write(name, lines):
    with open(f"{out}/{name}", "w") as file:
        file.writelines(f"{line}\n" for line in lines)


def follow():
    with open(pinned, "rb") as file:
        root = file.read()
    updater = client(root)
    if at:
        clock, time = updater._trusted_set, datetime.datetime.fromisoformat(at[0]).astimezone(datetime.timezone.utc)
        clock.reference_time = time.replace(tzinfo=clock.reference_time.tzinfo)
    updater.refresh()
    # Every delegated role is loaded by asking for a name that its paths match.
    signed_by = {role: stored("root") for role in ("timestamp", "snapshot", "targets")}
    targets, roles = [], ["targets"]
    for role in roles:
        loaded = stored(role)
        for below in (loaded.signed.delegations.roles or {}).values() if loaded.signed.delegations else ():
            for path in below.paths or ():
                updater.get_targetinfo(re.sub(r"[*?]", "x", path))
            if below.name not in roles:
                roles.append(below.name)
                signed_by[below.name] = loaded
        for name, target in loaded.signed.targets.items():
            # Only what a client would take: the first role in order that may name it.
            if updater.get_targetinfo(name) == target:
                targets.append((name, target))
    first, newest = Metadata.from_bytes(root).signed.version, stored("root").signed.version
    versions = range(first, newest + 1)
    listed = sorted(os.listdir(repo + "/metadata"))
    older = [int(name.split(".")[0]) for name in listed if re.fullmatch(r"[1-9][0-9]*\.root\.json", name)]
    older = sorted(version for version in older if version < first)
    known = {"timestamp.json"} | {f"{v}.root.json" for v in versions} | {f"{v}.root.json.asc" for v in versions}
    known.add(f"{stored('timestamp').signed.version}.timestamp.json.asc")
    tree = [f"root {newest} expires {stored('root').signed.expires:%Y-%m-%d}"]
    for role, by in signed_by.items():
        metadata = stored(role)
        version = metadata.signed.version
        if role != "timestamp":
            known.add(f"{version}.{urllib.parse.quote(role, '')}.json")
        by.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        tree.append(f"{ascii(role)[1:-1]} {version} expires {metadata.signed.expires:%Y-%m-%d}")
    verified = [Metadata.from_bytes(root), *(Metadata.from_file(f"{repo}/metadata/{v}.root.json") for v in versions[1:])]
    # Each root is signed with OpenPGP by as many as the one before and it itself demand, the timestamp as the newest does.
    demanded = [certificates(metadata) for metadata in verified]
    counts = [f"{v}.root.json.asc {max(pair)}" for v, pair in zip(versions[1:], zip(demanded, demanded[1:]))]
    write("certificates", [*counts, f"{stored('timestamp').signed.version}.timestamp.json.asc {demanded[-1]}"])
    verified += map(stored, signed_by)
    write("signed", [max(metadata.signed.unrecognized_fields.get("signed_at", "") for metadata in verified)])
    contents = {name: [target.length, target.hashes["sha256"], target.custom] for name, target in targets}
    write("contents", [json.dumps(contents)])
    write("roots", versions)
    write("older", older)
    write("timestamp", [stored("timestamp").signed.version])
    write("tree", tree)
    write("targets", map(line, targets))
    write("metadata", (judge(name, known, older, signed_by) for name in listed))


def certificates(root):
    """How many OpenPGP certificates a root demands."""
    count = root.signed.unrecognized_fields.get("openpgp_threshold", 1)
    if type(count) is not int or count < 1:
        raise RepositoryError(f"the root's openpgp_threshold is {count!r}")
    return count


def line(item):
    """Digest, length, place, name, release, part and root hash of a target."""
    name, target = item
    sha256, custom = target.hashes["sha256"], target.custom
    place = f"targets/{os.path.dirname(name)}/{sha256}.{os.path.basename(name)}"
    release, part, root = "other", "none", "none"
    if match := re.fullmatch(r"host/([0-9A-Za-z.+~-]+)/([a-z.]+)", name):
        release = match[1]
    if custom is not None:
        part, root = str(custom.get("part")), str(custom.get("root_hash"))
        described = (custom.get("version"), custom.get("size"), part)
        if not match or described != (match[1], target.length, names.get(match[2])):
            part = "wrong"
    fields = [sha256, str(target.length), place, name, release, part, root]
    if not all(re.fullmatch(r"[0-9A-Za-z._+~/%-]+", field) for field in fields) or ".." in name.split("/"):
        raise RepositoryError(f"the target {name!r} has a name or description that no release has")
    return " ".join(fields)


def judge(name, known, older, signed_by):
    """Metadata that is verified, a root older than the pinned one, what a newer version replaced, or a stranger."""
    if name in known:
        return f"known {name}"
    if name in [f"{version}.root.json" for version in older]:
        return f"older {name}"
    if name in [f"{version}.root.json.asc" for version in older]:
        return f"known {name}"
    match = re.fullmatch(r"([0-9]+)\.(.+)\.json", name)
    role = urllib.parse.unquote(match[2]) if match else None
    if role in signed_by and role != "timestamp" and int(match[1]) < stored(role).signed.version:
        try:
            metadata = Metadata.from_file(f"{repo}/metadata/{name}")
            signed_by[role].signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            if metadata.signed.version == int(match[1]):
                return f"known {name}"
        except UnsignedMetadataError:
            return f"unknown {name}: replaced, and not signed by the keys that the role has today"
        except RepositoryError:
            pass
    return f"stranger {ascii(name)}"


try:
    follow()
except (DownloadError, RepositoryError) as why:
    print(f"{type(why).__name__}: {ascii(str(why))}"[:200])
    sys.exit(3)
