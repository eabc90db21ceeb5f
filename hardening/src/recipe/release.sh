# SPDX-License-Identifier: GPL-3.0-or-later

# Runs python-tuf's client over the metadata, as of the time AT or of now; what it found is told by chain.
follow() { $PYTHON -I "$ALL/follow.py" "$REPO" "$TRUST/root.json" "$WORK" ${AT:+"$AT"} >"$WORK/followed" 2>&1; FOLLOWED=$?; }
# chain WHOSE: the tree of signatures.
chain() {
    case $FOLLOWED in
    0) while read -r line; do pass "$1python-tuf: $line"; done <"$WORK/tree" ;;
    3) refuse "$1python-tuf: $(tail -n 1 "$WORK/followed")" ;;
    *) unknown "$1python-tuf: $(tail -n 1 "$WORK/followed")" ;;
    esac
    return "$FOLLOWED"
}

# part RELEASE PART: the file of a part, once its digest was compared.
part() { awk -v v="$1" -v p="$2" -v r="$REPO/" '$5 == v && $6 == p { print r $3 }' "$WORK/good"; }

signatures() {
    chapter 'Signatures, from the pinned root to every file'
    # Proves: root, timestamp, snapshot, targets and delegated roles are signed by the keys that the pinned root leads to, as
    # many as each asks for; none is expired, or was when the site approved just these.
    [ -z "$AT" ] || echo "  as of the approval, $AT"
    chain '' || verdict
    # Proves: every target has the length and the digest that its role signed.
    : >"$WORK/good"
    while read -r digest length place name release part root; do
        if [ "$COMPLETE" = 0 ] && ! carried "$release"; then
            skip "$name: its release is named and not carried here"
        elif ! [ -f "$REPO/$place" ]; then refuse "$name: it is not there"
        elif [ "$(wc -c <"$REPO/$place")" != "$length" ]; then refuse "$name: it has another length"
        elif [ "$(sha256 "$REPO/$place")" != "$digest" ]; then refuse "$name: it has another digest"
        elif [ "$part" = wrong ]; then refuse "$name: its signed description speaks of another file"
        else
            pass "$name: sha256 $digest"
            echo "$digest $length $place $name $release $part $root" >>"$WORK/good"
        fi
    done <"$WORK/targets"
}

# carried RELEASE: at least one of its files is here.
carried() {
    awk -v v="$1" '$5 == v { print $3 }' "$WORK/targets" >"$WORK/places"
    while read -r here; do [ -f "$REPO/$here" ] && return 0; done <"$WORK/places"
    return 1
}
releases() { cut -d ' ' -f 5 "$WORK/targets" | sort -u -V; }

# certificates SIGNATURE: how many certificates its file must have, by the name of the signature.
certificates() { awk -v name="$1" '$1 == name { count = $2 } END { print count ? count : 1 }' "$WORK/certificates"; }

openpgp_beside() {
    chapter "OpenPGP signatures of roots and timestamp$WHOSE"
    # Proves: every version of the root, from the pinned one on, is signed with the release key as well, and by as many other
    # certificates as the roots demand.
    # A root that is older than the pinned one is history: its signature, if there is one, is to be the release key's too.
    first=$(head -n 1 "$WORK/roots")
    cat "$WORK/older" "$WORK/roots" >"$WORK/versions"
    while read -r version; do
        root=$REPO/metadata/$version.root.json what="$version.root.json carries the release key's OpenPGP signature"
        if [ "$version" -lt "$first" ] && ! [ -f "$root.asc" ]; then continue
        elif ends_before && [ "$version" = "$first" ]; then
            # A client that has the pinned root asks for a newer one alone, and goes on where there is none (TUF 5.3.3).
            unknown "its newest root is $(tail -n 1 "$WORK/older"), older than the pinned $first: from before it, or put back"
        elif ! [ -f "$root" ] || ! [ -f "$root.asc" ]; then refuse "$what: it is not there"
        else openpgp "$what" "$root.asc" "$root" "$(certificates "$version.root.json.asc")"; fi
    done <"$WORK/versions"
    # Proves: so is the timestamp, from which all else hangs by digests.
    name=$(cat "$WORK/timestamp").timestamp.json.asc signature=$REPO/metadata/$name
    what="timestamp.json carries the release key's OpenPGP signature"
    if [ -f "$signature" ]; then openpgp "$what" "$signature" "$REPO/metadata/timestamp.json" "$(certificates "$name")"
    else refuse "$what: it is not there"; fi
    [ ! -f "$REPO/metadata/$first.root.json" ] || try 'the first of them is the pinned root' \
        cmp "$REPO/metadata/$first.root.json" "$TRUST/root.json"
}

# ends_before: the newest root here is older than the pinned one.
ends_before() { [ -s "$WORK/older" ] && [ "$(wc -l <"$WORK/roots")" = 1 ] && ! [ -f "$REPO/metadata/$(cat "$WORK/roots").root.json" ]; }

# follows WHAT ROOT: that root and the pinned one lead to each other, each version signed by the keys of the one before.
follows() {
    $PYTHON -I "$ALL/leads.py" "$REPO/metadata" "$TRUST/root.json" "$2" >"$WORK/said" 2>&1
    case $? in
    0) pass "$1" ;;
    4) unknown "$1: versions between them are not here" ;;
    *) refuse "$1" ;;
    esac
}

files() {
    chapter "Files: each is accounted for by a signature$WHOSE"
    verified=$(grep -c '^known' "$WORK/metadata")
    pass "metadata: $verified of $(wc -l <"$WORK/metadata") files were verified"
    older_roots
    while read -r kind line; do
        case $kind in known | older) ;; unknown) unknown "metadata/$line" ;; *) refuse "a stranger: metadata/$line" ;; esac
    done <"$WORK/metadata"
    cut -d ' ' -f 3 "$WORK/targets" >"$WORK/named"
    (cd "$REPO" && find targets -type f 2>/dev/null) | grep -Fxv -f "$WORK/named" >"$WORK/strangers"
    (cd "$REPO" && find metadata targets ! -type f ! -type d 2>/dev/null) >>"$WORK/strangers"
    while read -r line; do refuse "a stranger: $line"; done <"$WORK/strangers"
    [ -s "$WORK/strangers" ] || pass "targets: $(wc -l <"$WORK/named") names, and no file without one"
}

older_roots() {
    # Proves: what is named as an older root is one, and the pinned root comes from it.
    while read -r version; do
        root=$REPO/metadata/$version.root.json
        what="metadata/$version.root.json is older than the pinned root and leads to it"
        named=$($PYTHON -I -c 'import json, sys; print(json.load(open(sys.argv[1], "rb"))["signed"]["version"])' "$root" 2>&1)
        if [ "$named" = "$version" ]; then follows "$what" "$root"; else refuse "$what"; fi
    done <"$WORK/older"
}

# names_root IMAGE HASH: the command line that the Secure Boot signature covers names the root file system.
names_root() {
    for section in .cmdline .config; do
        rm -f "$WORK/section"
        objcopy -O binary --only-section=$section "$1" "$WORK/section" 2>/dev/null
        [ ! -s "$WORK/section" ] || break
    done
    tr '\000 \n\t' '\n\n\n\n' <"$WORK/section" | grep -Fxq "bastide.roothash=$2"
}

boot() {
    chapter 'Boot chain of each release'
    for release in $(releases); do
        for image in xen installer; do
            file=$(part "$release" $image)
            [ -n "$file" ] || continue
            hash=$(awk -v p="$REPO/" -v f="$file" 'p $3 == f { print $7 }' "$WORK/good")
            what="$release $image.efi carries the site's Secure Boot signature"
            # Proves: firmware with the site's db key starts it.
            if [ -f "$WORK/db.pem" ]; then try "$what" sbverify --cert "$WORK/db.pem" "$file"
            else unknown "$what: there is no db.der"; fi
            # Proves: that signature also covers which root file system is booted.
            try "$release $image.efi names the root hash that the metadata name" names_root "$file" "$hash"
        done
        root=$(part "$release" root) tree=$(part "$release" verity)
        what="$release root.erofs has the root hash"
        # Proves: the data are those of the hash tree, and its top is the hash in the boot image.
        if [ -z "$root" ] || [ -z "$tree" ]; then
            carried "$release" && unknown "$what: root or hash tree could not be read"
            continue
        fi
        hash=$(awk -v v="$release" '$5 == v { print $7 }' "$WORK/good" | sort -u)
        try "$what" veritysetup verify "$root" "$tree" "$hash"
        trusts "$release" "$root"
    done
}

# trusts RELEASE ROOT: an image believes the trust directory in it, so that must be the auditor's.
trusts() {
    what="$1 root.erofs trusts whom this script trusts"
    rm -rf "$WORK/root"
    if ! fsck.erofs --extract="$WORK/root" --no-preserve "$2" >"$WORK/said" 2>&1; then
        refuse "$what: it cannot be unpacked"
        return
    fi
    baked=$WORK/root/usr/share/bastide/trust
    if [ ! -f "$baked/root.json" ]; then refuse "$what: it has no root.json"
    elif cmp -s "$baked/root.json" "$TRUST/root.json"; then pass "$what: root.json is the same"
    else follows "$what: its root.json and ours lead to each other" "$baked/root.json"; fi
    what="$1 root.erofs has the certificates of this trust directory"
    result=pass
    { ls -A "$baked"; ls -A "$TRUST"; } | grep -vx 'root\.json' | sort -u >"$WORK/certificates"
    while read -r name; do
        if [ "$name" = root.json.asc ] && ! cmp -s "$baked/root.json" "$TRUST/root.json"; then continue; fi
        if cmp -s "$baked/$name" "$TRUST/$name"; then continue; fi
        if [ ! -e "$TRUST/$name" ]; then [ $result = refuse ] || result=unknown
        elif [ "$name" = release.asc ] && [ "$(keys "$baked/$name")" = "$(keys "$TRUST/$name")" ]; then continue
        else result=refuse; what="$what: $name is not"; fi
    done <"$WORK/certificates"
    $result "$what"
    chmod -R u+w "$WORK/root"; rm -rf "$WORK/root"
}
# keys FILE: the fingerprints of certificates.
keys() { gpg --homedir "$WORK" --show-keys --with-colons "$1" 2>/dev/null | awk -F : '$1 == "fpr" { print $10 }'; }

# seconded LIST: where sqv is installed it must agree. It knows detached signatures alone, so text and signature are taken
# apart as RFC 9580, section 7 says: dashes unescaped, no blanks at the ends of lines, no end of line before the signature.
seconded() {
    command -v sqv >/dev/null || return 0
    rm -f "$WORK/list.text" "$WORK/list.asc"
    awk -v text="$WORK/list.text" -v asc="$WORK/list.asc" '
        /^-----BEGIN PGP SIGNATURE-----/ { signature = 1 }
        signature { print >asc; next }
        body { sub(/^- /, ""); sub(/[ \t\r]+$/, ""); printf "%s%s", end, $0 >text; end = "\n" }
        /^$/ { body = 1 }' "$1"
    sqv --keyring "$WORK/upstream.gpg" "$WORK/list.asc" "$WORK/list.text" >/dev/null 2>&1
}

packages() {
    chapter "Packages, back to upstream's signature"
    any=0
    bare "$KEYRING" >"$WORK/upstream.gpg"
    for release in $(releases); do
        carried "$release" && any=1
        archive=$(part "$release" upstream) bill=$(part "$release" sbom)
        if [ -z "$archive" ]; then
            carried "$release" && unknown "$release packages: there is no upstream.tar to be believed"
            continue
        fi
        rm -rf "$WORK/upstream"; mkdir "$WORK/upstream"
        if tar -tvf "$archive" | grep -qv '^[-d]' || ! tar -C "$WORK/upstream" -xf "$archive"; then
            refuse "$release upstream.tar holds plain files"
            continue
        fi
        # Proves: each InRelease is signed by the keys that may sign its suite.
        (cd "$WORK/upstream" && find upstream -name InRelease) | sort >"$WORK/lists"
        while read -r list; do
            gpgv --keyring "$WORK/upstream.gpg" --status-fd 3 --output "$WORK/upstream/$list.body" "$WORK/upstream/$list" \
                3>"$WORK/status" 2>/dev/null
            good "$WORK/status" >"$WORK/upstream/$list.keys"
            seconded "$WORK/upstream/$list" || : >"$WORK/upstream/$list.keys"
        done <"$WORK/lists"
        # Proves: signed list -> Packages.xz -> every package of the manifest -> bill of materials.
        $PYTHON -I "$WORK/packages.py" "$WORK/upstream" "$bill" "$SIGNERS" >"$WORK/said" 2>&1
        case $? in
        0 | 3) ;;
        *) echo "unknown $(tail -n 1 "$WORK/said")" >"$WORK/said" ;;
        esac
        while read -r how line; do
            case $how in pass) pass "$release $line" ;; refuse) refuse "$release $line" ;; *) unknown "$release $line" ;; esac
        done <"$WORK/said"
    done
    [ $any = 1 ] || unknown 'no release is here whole'
}

memory() {
    chapter "Memory: a gateway remembers what it serves$WHOSE"
    : >"$WORK/remembered"
    ls -A "$REPO/datastore" >"$WORK/memory"
    while read -r name; do
        case $name in
        .lock) [ ! -s "$REPO/datastore/.lock" ] || refuse 'a stranger: datastore/.lock holds something'; continue ;;
        # Until when time has come, which is no claim about what is served.
        time.json) [ -f "$REPO/datastore/$name" ] || refuse "a stranger: datastore/$name"; continue ;;
        waivers.json) unknown 'stale metadata was taken by a waiver: bastide-audit judges it'; continue ;;
        root.json | targets.json) role=${name%.json} ;;
        role.*.json) role=${name#role.} role=${role%.json} ;;
        timestamp.*.json | snapshot.*.json) role=${name%%.*} ;;
        *) refuse "a stranger: datastore/$name"; continue ;;
        esac
        echo "$role" >>"$WORK/remembered"
        same=$WORK/store/$role.json
        [ "$role" != root ] || ! ends_before || same=$REPO/metadata/$(tail -n 1 "$WORK/older").root.json
        try "it remembers the $role that was verified above" cmp "$REPO/datastore/$name" "$same"
    done <"$WORK/memory"
    while read -r role rest; do
        grep -Fxq "$role" "$WORK/remembered" || refuse "it remembers no $role"
    done <"$WORK/tree"
}
