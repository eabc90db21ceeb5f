# SPDX-License-Identifier: GPL-3.0-or-later

# Everything is unpacked below one directory, which is removed at the end.
set -u
umask 077
export LC_ALL=C TZ=UTC
PATH=$PATH:/usr/sbin:/sbin
ARTIFACT=$(realpath -- "$ARTIFACT") && TRUST=$(realpath -- "$TRUST") && SITE=$(realpath -- "${SITE:-/}") || exit 4
ALL=$(mktemp -d) || exit 4
trap 'chmod -R u+w "$ALL"; rm -rf "$ALL"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
WORK=$ALL AT= WHOSE=

# One line a step. What is refused or could not be checked is kept for the verdict; later steps go on where they can.
BAD=0 OPEN=0
chapter() { printf '\n%s\n' "$1"; }
# Names on a medium are strangers' words: nothing of them moves a terminal's cursor.
say() { printf '  %-16s %s\n' "$1" "$(printf %s "$2" | tr -c '[:print:]' '?')"; }
pass() { say pass "$1"; }
refuse() { say REFUSED "$1"; BAD=1; }
unknown() { say 'could not check' "$1"; OPEN=1; }
skip() { say 'not applicable' "$1"; }
# try WHAT COMMAND...: the step passes if the command succeeds.
try() { what=$1; shift; if "$@" >"$WORK/said" 2>&1; then pass "$what"; else refuse "$what"; fi; }
verdict() {
    chapter "Verdict on $ARTIFACT, by the root of trust $FINGERPRINT${SITE_FINGERPRINT:+ and the site's $SITE_FINGERPRINT}"
    if [ "$BAD" = 1 ]; then echo '  REFUSED'; exit 3; fi
    if [ "$OPEN" = 1 ]; then echo '  could not check everything; nothing was refused'; exit 4; fi
    echo '  pass'
    exit 0
}
sha256() { sha256sum <"$1" | cut -d ' ' -f 1; }

# need TOOL PACKAGE: a tool, and Debian's package that holds it.
need() { command -v "$1" >/dev/null || { echo "missing: $1 (Debian's package $2)" >&2; OPEN=1; }; }
need gpgv gpgv; need openssl openssl; need sbverify sbsigntool; need objcopy binutils; need veritysetup cryptsetup-bin
need fsck.erofs erofs-utils; need "$PYTHON" python3
case $KIND in
bundle) need zstd zstd ;;
iso) need xorriso xorriso; need unsquashfs squashfs-tools; need sgdisk gdisk; need mdir mtools; need mcopy mtools ;;
esac
$PYTHON -I -c 'import tuf.ngclient, cryptography' 2>/dev/null || need "python's module tuf" python3-tuf
[ -f "$KEYRING" ] || need "$KEYRING" debian-archive-keyring
[ "$OPEN" = 0 ] || { echo 'could not check: install what is missing, and run this again' >&2; exit 4; }

# bare KEYRING: without its armour, as gpgv wants it.
bare() { if grep -q '^-----BEGIN PGP' "$1"; then sed '1,/^$/d; /^[=-]/d' "$1" | base64 -d; else cat "$1"; fi; }

# good STATUS: fingerprint and time of each good signature, by what gpgv told; the key must be valid.
good() { awk '$2 == "NEWSIG" { ok = 0 } $2 == "GOODSIG" { ok = 1 } $2 == "VALIDSIG" && ok { print $12, $5 }' "$1"; }
# openpgp WHAT SIGNATURE FILE [COUNT]: detached signatures by the release key, or by COUNT different certificates of the trust
# directory; no certificate signs twice. Where sqv is installed it must agree.
openpgp() {
    gpgv --keyring "$WORK/release.gpg" --status-fd 3 "$2" "$3" 3>"$WORK/status" >/dev/null 2>&1
    good "$WORK/status" | cut -d ' ' -f 1 | sort >"$WORK/signers"
    if [ "$(uniq "$WORK/signers" | wc -l)" -lt "${4:-1}" ] || [ -n "$(uniq -d "$WORK/signers")" ]; then refuse "$1"
    elif command -v sqv >/dev/null && ! sqv -n "${4:-1}" --keyring "$TRUST/release.asc" "$2" "$3" >/dev/null 2>&1; then refuse "$1"
    else pass "$1"; fi
}
