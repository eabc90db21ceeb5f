# SPDX-License-Identifier: GPL-3.0-or-later

REPO=$ARTIFACT COMPLETE=1
# A gateway holds what its bundles carried.
[ ! -d "$REPO/datastore" ] || COMPLETE=0
approval
follow
signatures
openpgp_beside
files
boot
packages
[ "$COMPLETE" = 1 ] || memory
# Proves: nothing lies beside the repository's own files.
chapter 'Strangers'
ls -A "$REPO" >"$WORK/beside"
while read -r name; do
    case $name in
    metadata | targets) ;;
    .lock) [ ! -s "$REPO/.lock" ] || refuse 'a stranger: .lock holds something' ;;
    site) [ -d "$REPO/site" ] || refuse "a stranger: $name" ;;
    datastore) [ -d "$REPO/datastore" ] || refuse "a stranger: $name" ;;
    *) refuse "a stranger: $name" ;;
    esac
done <"$WORK/beside"
[ "$BAD" = 1 ] || pass 'nothing lies beside metadata and targets'
verdict
