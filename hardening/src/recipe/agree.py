# SPDX-License-Identifier: GPL-3.0-or-later
# Holds what the vendor names against what the site approves: follow.py wrote the site's into argv[1], the vendor's into argv[2].
import datetime, json, sys


def of(place, name):
    with open(f"{place}/{name}") as file:
        return file.read().strip()


site, vendor = (json.loads(of(place, "contents")) for place in sys.argv[1:])
at, signed = of(sys.argv[1], "at"), of(sys.argv[2], "signed")
# Whoever approved cannot have seen what was not signed yet.
if signed and datetime.datetime.fromisoformat(signed) > datetime.datetime.fromisoformat(at):
    print(f"refuse it was given at {at}, and the vendor signed at {signed}")
for name, (length, sha256, custom) in site.items():
    del custom["approval"]
    said = vendor.get(name)
    if said is None:
        print(f"refuse {name}: the vendor does not name it")
    elif said[:2] != [length, sha256]:
        print(f"refuse {name}: vendor and site name different contents")
    # Compared as text: to python, 1 and True are the same.
    elif json.dumps(said[2] or {}, sort_keys=True) != json.dumps(custom, sort_keys=True):
        print(f"refuse {name}: vendor and site describe it differently")
    else:
        print(f"pass {name}: one length, digest and description")
