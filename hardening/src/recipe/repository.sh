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
if [ -d "$REPO/receipts" ] && [ ! -L "$REPO/receipts" ]; then
    # Proves: each receipt is signed with the key that was enrolled for its holder, and speaks of a root hash that was signed.
    chapter 'Receipts: who acknowledged which release, and when'
    $PYTHON -I "$WORK/receipts.py" "$REPO/receipts" "$WORK/targets" >"$WORK/said" 2>&1 ||
        echo "unknown $(tail -n 1 "$WORK/said")" >"$WORK/said"
    while read -r how line; do
        case $how in pass) pass "$line" ;; refuse) refuse "$line" ;; *) unknown "$line" ;; esac
    done <"$WORK/said"
fi
# Proves: nothing lies beside the repository's own files.
chapter 'Strangers'
ls -A "$REPO" >"$WORK/beside"
while read -r name; do
    case $name in
    metadata | targets) ;;
    .lock) [ ! -s "$REPO/.lock" ] || refuse 'a stranger: .lock holds something' ;;
    site) [ -d "$REPO/site" ] || refuse "a stranger: $name" ;;
    receipts) [ -d "$REPO/receipts" ] && [ ! -L "$REPO/receipts" ] || refuse "a stranger: $name" ;;
    # Logs of exports, imports that wait, unfinished work: offered to nobody, and not looked into.
    apt | exports | quarantine | work) [ -d "$REPO/$name" ] && [ ! -L "$REPO/$name" ] || refuse "a stranger: $name" ;;
    datastore) [ -d "$REPO/datastore" ] || refuse "a stranger: $name" ;;
    *) refuse "a stranger: $name" ;;
    esac
done <"$WORK/beside"
[ "$BAD" = 1 ] || pass 'nothing lies beside metadata and targets'
verdict
