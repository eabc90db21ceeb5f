# SPDX-License-Identifier: GPL-3.0-or-later
# Judges the receipts in the directory argv[1] by the enrolled keys and by the releases that the file argv[2] names. Prints how
# each holder's are, and what.
import json, os, re, sys, unicodedata
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from securesystemslib.formats import encode_canonical

directory, targets = sys.argv[1:]
with open(targets) as file:
    signed = {fields[4]: fields[6] for fields in map(str.split, file) if fields[4] != "other"}


class Refused(Exception):
    """What does not hold, and why."""


def plain(path):
    if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) > 1 << 20:
        raise Refused(f"{os.path.basename(path)} is no file of a receipt's size")
    with open(path, "rb") as file:
        return file.read()


def der(key):
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


def receipt(path, key):
    file = json.loads(plain(path))
    said, signature = file["signed"], bytes.fromhex(file["signature"])
    message = encode_canonical(said).encode()
    own = load_pem_public_key(said["key"].encode())
    if der(own) != der(key) or said["_type"] != "bastide-receipt" or said["format"] != 1:
        raise Refused(f"{os.path.basename(path)} is another holder's, or no receipt")
    if f"{said['sequence']}.json" != os.path.basename(path):
        raise Refused(f"{os.path.basename(path)} has another number")
    if isinstance(own, ed25519.Ed25519PublicKey):
        own.verify(signature, message)
    elif isinstance(own, ec.EllipticCurvePublicKey) and own.curve.name == "secp256r1":
        own.verify(signature, message, ec.ECDSA(SHA256()))
    else:
        raise Refused("its key is of no kind that signs receipts")
    for text in texts({name: value for name, value in said.items() if name != "key"}):
        if len(text.encode()) > 500 or any(unicodedata.category(letter) == "Cc" for letter in text):
            raise Refused(f"{os.path.basename(path)}: a text in it is too long, or holds control characters")
    holder = said["holder"]
    if max(len(holder.get("sets", [])), len(holder.get("exports", []))) > 32:
        raise Refused(f"{os.path.basename(path)} tells of more bundles than anybody carries")
    return said


def rising(numbers, of):
    whole = all(type(number) is int and 1 <= number <= of for number in numbers)
    return whole and all(one < other for one, other in zip(numbers, numbers[1:]))


def runs(numbers):
    """As in 1-4, 7."""
    told = []
    for number in numbers:
        if told and told[-1][1] + 1 == number:
            told[-1][1] = number
        else:
            told.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in told)


def waits(one):
    """What a gateway says of a bundle that is not taken in."""
    of, received, missing, refused = one["of"], one["received"], one["missing"], one.get("refused")
    bad = (refused or {}).get("volumes", [])
    adds_up = type(of) is int and 0 <= of <= 9999 and sorted(received + missing) == list(range(1, of + 1))
    if not (adds_up and all(rising(numbers, of) for numbers in (received, missing, bad))):
        raise Refused(f"the volumes of set {ascii(one['set'][:16])} cannot be")
    said = f"; set {one['set'][:16]} (release {', '.join(one['releases'])})"
    if received:
        said += f" has volume {runs(received)} of {of}" + ("," if missing else "")
    if missing:
        said += f" waits for volume {runs(missing)} of {of}"
    if refused:
        said += f"; {'volume ' + runs(bad) + ' ' if bad else ''}refused {refused['at']}: {refused['reason']}"
    return said


def judge(place):
    key = load_pem_public_key(plain(place + "/key.pem"))
    names = sorted(set(os.listdir(place)) - {"key.pem"})
    if strange := [name for name in names if not re.fullmatch(r"[1-9][0-9]*\.json", name)]:
        raise Refused(f"{ascii(strange[0])} has no place among its receipts")
    receipts = {int(name[:-5]): receipt(f"{place}/{name}", key) for name in names}
    if not receipts:
        return "pass", "enrolled; nothing was acknowledged yet"
    held, first = [], {}
    for _, said in sorted(receipts.items()):
        holder = said["holder"]
        held = [holder] if holder["is"] == "host" else holder["releases"]
        for release in held:
            if signed.get(release["version"], release["root_hash"]) != release["root_hash"]:
                raise Refused(f"release {ascii(release['version'])} has another root hash than was signed")
            first.setdefault(release["version"], said["at"])
        waiting = [waits(one) for one in holder.get("sets", [])]
    for release in held:
        if release["version"] not in signed:
            return "unknown", f"release {ascii(release['version'])} is none that this repository names"
    what = "runs" if holder["is"] == "host" else "holds"
    versions = ", ".join(release["version"] for release in held) or "no release"
    since = ", ".join(f"{version} first on {at}" for version, at in sorted(first.items()))
    return "pass", ascii(f"{what} {versions}, {said['at']}{''.join(waiting)}; acknowledged: {since or 'nothing'}")[1:-1]


for name in sorted(os.listdir(directory)):
    place = f"{directory}/{name}"
    try:
        if name == "own.json" and os.path.isfile(place) and not os.path.islink(place):
            continue
        if os.path.islink(place) or not os.path.isdir(place):
            raise Refused("it has no place there")
        how, what = judge(place)
    except (Refused, InvalidSignature, ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as why:
        how, what = "refuse", f"{type(why).__name__}: {ascii(str(why))}"
    print(how, f"receipts/{ascii(name)[1:-1]}: {what}"[:1000])
