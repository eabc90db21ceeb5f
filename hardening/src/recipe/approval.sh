# SPDX-License-Identifier: GPL-3.0-or-later

# Two sovereigns (TUF TAP 4): the site's officers signed beside the vendor, with keys that hang from a root of their own.
approval() {
    repository=$REPO vendor=$TRUST kept=$REPO/site/vendor
    [ "$KIND" = repository ] || kept=$REPO/metadata
    REPO=$repository/site TRUST=$SITE WORK=$ALL/site WHOSE=', of the site'
    mkdir "$WORK"
    trusted "$SITE_TRUSTED" "$SITE_FINGERPRINT"
    chapter "Approval: what the site's officers signed beside the vendor"
    if ! [ -f "$REPO/metadata/timestamp.json" ]; then refuse 'a site approves it: nothing here carries an approval'
    else site; fi
    [ "$KIND" = bundle ] || beside_site
    REPO=$repository TRUST=$vendor WORK=$ALL WHOSE=
}

site() {
    # Proves: the site's metadata are signed by the keys that its own pinned root leads to, and none is expired now.
    follow
    chain 'the site, ' || return
    cp "$WORK/targets" "$WORK/approves"
    compared
    openpgp_beside
    # The site describes the vendor's targets and holds none of its own.
    : >"$WORK/targets"
    files
    [ ! -d "$REPO/datastore" ] || memory
}

# compared: the vendor's word, against the approval.
compared() {
    # Proves: every target of the site carries an approval, and the newest names these files of the vendor's by their digests.
    mkdir -p "$ALL/approved/repository/metadata"
    $PYTHON -I "$ALL/approval.py" "$WORK" "$kept" "$ALL/approved/repository/metadata" >"$WORK/said" 2>&1
    case $? in
    0) at=$(cat "$WORK/at") ;;
    3) refuse "approval: $(tail -n 1 "$WORK/said")"; return ;;
    *) unknown "approval: $(tail -n 1 "$WORK/said")"; return ;;
    esac
    pass "the newest approval was given at $at"
    # Proves: by those files alone, the vendor's chain holds from his pinned root on, and was current then.
    cp "$ALL/release.gpg" "$ALL/approved"
    REPO=$ALL/approved/repository TRUST=$vendor WORK=$ALL/approved AT=$at
    follow
    AT=
    if chain 'the vendor as approved, '; then
        agreement
        [ "$KIND" = bundle ] || copies
        # The vendor's metadata that are served are judged as of the approval only if they are the approved ones.
        ! cmp -s "$REPO/metadata/timestamp.json" "$repository/metadata/timestamp.json" || AT=$at
    fi
    REPO=$repository/site TRUST=$SITE WORK=$ALL/site
}

agreement() {
    # Proves: vendor and site name each target with one length, one digest and one description, and the approval came between.
    $PYTHON -I "$ALL/agree.py" "$ALL/site" "$WORK" >"$WORK/said" 2>&1 || echo "unknown $(tail -n 1 "$WORK/said")" >"$WORK/said"
    while read -r how line; do
        case $how in pass) pass "approved: $line" ;; refuse) refuse "approved: $line" ;; *) unknown "approved: $line" ;; esac
    done <"$WORK/said"
    [ "$KIND" = bundle ] && ! grep -q '^refuse' "$WORK/said" || return
    # Proves: a bundle carries nothing that is not approved.
    awk 'NR == FNR { approved[$4]; next } $4 in approved { print $3 ".zst" }' "$ALL/site/approves" "$WORK/targets" \
        >"$WORK/agreed"
    (cd "$repository" && find targets -type f) | grep -Fxv -f "$WORK/agreed" >"$WORK/strangers"
    while read -r line; do refuse "not approved: $line"; done <"$WORK/strangers"
}

# copies: a gateway keeps the vendor's metadata of each approval, OpenPGP signatures and the way to the pinned root with them.
copies() {
    (cd "$kept" && find . -type f | cut -c 3-) >"$WORK/copies"
    older_roots
    for name in "$(cat "$WORK/timestamp").timestamp.json.asc" $(sed '1d; s/$/.root.json.asc/' "$WORK/roots"); do
        [ -f "$kept/$name" ] || refuse "site/vendor/$name: it is not there"
    done
    while read -r name; do
        copy=$kept/$name what="site/vendor/$name" version=${name%%.*} role=${name#*.} role=${role%.json}
        if grep -Fxq "$(sha256 "$copy")" "$ALL/site/seen"; then continue; fi
        case $name in
        "$version.root.json" | "$version.root.json.asc") grep -Fxq "$version" "$WORK/older" "$WORK/roots" || role=stranger ;;
        esac
        case $role in
        root.json.asc | timestamp.json.asc)
            if [ -f "${copy%.asc}" ]; then
                openpgp "$what: the release key's OpenPGP signature" "$copy" "${copy%.asc}" "$(certificates "$name")"
            else unknown "$what: what it signs is not there"; fi ;;
        # Those on the way were judged above.
        root) [ "$version" != "$(head -n 1 "$WORK/roots")" ] || cmp -s "$copy" "$TRUST/root.json" || refuse "a stranger: $what" ;;
        *)
            if expr "$version" : '[0-9]*$' >/dev/null && [ "$name" = "$version.$role.json" ] && grep -q "^$role " "$WORK/tree"
            then unknown "$what: of an approval that was replaced since, and nothing vouches for it"
            else refuse "a stranger: $what"; fi ;;
        esac
    done <"$WORK/copies"
}

# beside_site: nothing is hidden beside the approvals.
beside_site() {
    [ -d "$REPO" ] || return
    ls -A "$REPO" >"$WORK/beside"
    while read -r name; do
        case $name in
        metadata | targets | vendor | datastore) [ -d "$REPO/$name" ] && [ ! -L "$REPO/$name" ] || refuse "a stranger: site/$name" ;;
        .lock) [ ! -s "$REPO/.lock" ] || refuse 'a stranger: site/.lock holds something' ;;
        *) refuse "a stranger: site/$name" ;;
        esac
    done <"$WORK/beside"
    (cd "$REPO" && find vendor ! -type f ! -type d 2>/dev/null) >"$WORK/strangers"
    while read -r line; do refuse "a stranger: site/$line"; done <"$WORK/strangers"
}
