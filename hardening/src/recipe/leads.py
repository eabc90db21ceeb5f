# SPDX-License-Identifier: GPL-3.0-or-later
# Whether one of the roots argv[2] and argv[3] leads to the other, through the versions in the directory argv[1]. Ends with 4
# where versions between them are not there.
import os, sys
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

directory, *ends = sys.argv[1:]
try:
    old, new = sorted((Metadata.from_file(end) for end in ends), key=lambda end: end.signed.version)
    at = old
    old.signed.verify_delegate("root", old.signed_bytes, old.signatures)
    between = range(old.signed.version + 1, new.signed.version)
    if not all(os.path.isfile(f"{directory}/{version}.root.json") for version in between):
        sys.exit(4)
    for version in range(old.signed.version + 1, new.signed.version + 1):
        last = version == new.signed.version
        following = new if last else Metadata.from_file(f"{directory}/{version}.root.json")
        # Signed by the keys of the one before, and by its own.
        at.signed.verify_delegate("root", following.signed_bytes, following.signatures)
        following.signed.verify_delegate("root", following.signed_bytes, following.signatures)
        if following.signed.version != version:
            sys.exit(1)
        at = following
    sys.exit(at is not new)
except RepositoryError as why:
    sys.exit(str(why))
