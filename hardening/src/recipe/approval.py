# SPDX-License-Identifier: GPL-3.0-or-later
# Takes the newest approval from the site's targets, as follow.py wrote them into argv[1], and lays out the vendor's metadata
# that it names, from the directory argv[2] into the directory argv[3].
import datetime, hashlib, json, os, re, shutil, sys, urllib.parse

site, kept, out = sys.argv[1:]


def approval(name, custom):
    """Time and files, by their roles, of the approval that a target carries."""
    said = custom["approval"]
    files = {}
    for seen in said["vendor"]:
        files.setdefault(seen["role"], seen)
        if set(seen) != {"role", "version", "sha256"} or type(seen["version"]) is not int or seen["version"] < 0:
            raise ValueError("it names no file")
        if not re.fullmatch("[0-9a-f]{64}", seen["sha256"]):
            raise ValueError("it names no digest")
    at = datetime.datetime.fromisoformat(said["at"])
    if set(said) != {"at", "vendor"} or at.tzinfo is None or not {"root", "timestamp"} <= set(files):
        raise ValueError("it is incomplete")
    return at, said["at"], files


def read(name):
    with open(os.path.join(kept, name), "rb") as file:
        return file.read()


def lay_out(files):
    for role, seen in files.items():
        name = of = f"{seen['version']}.{urllib.parse.quote(role, '')}.json"
        if role == "timestamp":
            # Kept under its version where newer ones may come.
            of = "timestamp.json"
            name = name if os.path.isfile(os.path.join(kept, name)) else of
        # What is not there, python-tuf misses if it is needed.
        if os.path.isfile(os.path.join(kept, name)):
            content = read(name)
            if hashlib.sha256(content).hexdigest() != seen["sha256"]:
                raise ValueError(f"{name} of the vendor is not the one that the site approved")
            with open(os.path.join(out, of), "wb") as file:
                file.write(content)
    # The way to the approved root, signed by two thresholds at each step.
    for name in os.listdir(kept):
        match = re.fullmatch(r"([1-9][0-9]*)\.root\.json", name)
        if match and int(match[1]) < files["root"]["version"]:
            shutil.copyfile(os.path.join(kept, name), os.path.join(out, name))


try:
    with open(site + "/contents") as file:
        approvals = [approval(name, custom) for name, (_, _, custom) in json.load(file).items()]
    if not approvals:
        raise ValueError("the site approves nothing")
    at, said, files = max(approvals, key=lambda approval: approval[0])
    with open(site + "/signed") as file:
        signed = file.read().strip()
    if signed and at > datetime.datetime.fromisoformat(signed):
        raise ValueError(f"it is dated {said}, after the site signed it")
    lay_out(files)
    with open(site + "/at", "w") as file:
        print(said, file=file)
    with open(site + "/seen", "w") as file:
        for _, _, seen in approvals:
            print(*(one["sha256"] for one in seen.values()), sep="\n", file=file)
except (AttributeError, FileNotFoundError, KeyError, TypeError, ValueError) as why:
    print(f"{type(why).__name__}: {ascii(str(why))}"[:200])
    sys.exit(3)
