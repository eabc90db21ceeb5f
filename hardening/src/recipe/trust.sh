# SPDX-License-Identifier: GPL-3.0-or-later

# trusted FILES FINGERPRINT: the trust directory TRUST, and what this script was written for.
trusted() {
    chapter "What is trusted: $TRUST"
    # Proves: the trust directory is the one that this script was written for.
    what='root.json, release.asc and db.der are those that this script was written for'
    if [ "$(cd "$TRUST" && sha256sum root.json release.asc db.der 2>/dev/null)" != "$1" ]; then refuse "$what"; verdict; fi
    pass "$what"
    # Only a person can tell whether that is the right one.
    echo "                   COMPARE by telephone: $2"
    # Proves: the release key also vouches for the root.
    bare "$TRUST/release.asc" >"$WORK/release.gpg"
    what="the pinned root carries the release key's signature"
    if [ -f "$TRUST/root.json.asc" ]; then openpgp "$what" "$TRUST/root.json.asc" "$TRUST/root.json"
    else unknown "$what: root.json.asc is not there"; fi
}
trusted "$TRUSTED" "$FINGERPRINT"
# Proves: the Secure Boot certificates are certificates.
for name in pk kek db; do
    what="Secure Boot certificate $name.der"
    if [ -f "$TRUST/$name.der" ]; then try "$what" openssl x509 -inform DER -in "$TRUST/$name.der" -out "$WORK/$name.pem"
    else unknown "$what: it is not there"; fi
done
