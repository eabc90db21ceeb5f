# SPDX-License-Identifier: GPL-3.0-or-later
# Whether the bundle.json in argv[1] names the releases that argv[2] lists, and nothing else.
import json, sys

with open(sys.argv[1], "rb") as said, open(sys.argv[2]) as found:
    said, found = json.load(said), found.read().split()
sys.exit(set(said) != {"format", "created_by", "releases"} or said["format"] != 1 or said["releases"] != found)
