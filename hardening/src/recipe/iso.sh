# SPDX-License-Identifier: GPL-3.0-or-later

chapter 'Medium: every file and every way to boot'
REPO=$WORK/medium/bastide COMPLETE=0
# Type and name of everything in a tree; the boot catalogue, which xorriso shows as a file, is one.
tree() { xorriso -indev "$1" -find / -exec lsdl 2>/dev/null | sed -E "s/^(.)[^']*'(.*)'\$/\1 \2/; s/^e/-/" | sort; }
# Proves: it is a volume of the installer, and there is one tree on it: descriptors of type 0 and 1, then the end mark.
label=$(xorriso -indev "$ARTIFACT" -pvd_info 2>/dev/null | sed -n 's/^Volume Id    : //p')
try 'the disk holds the volume BASTIDE' [ "$label" = BASTIDE ]
[ "$label" = BASTIDE ] || verdict
kinds=
for sector in 16 17 18 19 20; do
    kind=$(dd if="$ARTIFACT" bs=2048 skip=$sector count=1 2>/dev/null | head -c 1 | od -An -tu1 | tr -d ' ')
    kinds="$kinds $kind"
    [ "$kind" != 255 ] || break
done
try 'it has one volume descriptor, one boot record and no second tree' [ "$kinds" = ' 1 0 255' ]
# Proves: both copies of the partition table agree, one ESP is in it, and no code is in the master boot record.
sgdisk -v "$ARTIFACT" >"$WORK/table" 2>&1
try 'the partition table is sound' grep -q '^No problems found' "$WORK/table"
try 'the master boot record holds no code' [ "$(head -c 440 "$ARTIFACT" | tr -d '\000' | wc -c)" = 0 ]
start=$(sgdisk -p "$ARTIFACT" 2>/dev/null | awk '$6 == "EF00" { print $2 }')
case $start in
'' | *[!0-9]*) refuse 'it has one EFI system partition'; verdict ;;
*) pass "it has one EFI system partition, at sector $start" ;;
esac
# Proves: a CD boots the same ESP as a disk.
xorriso -indev "$ARTIFACT" -report_el_torito plain 2>/dev/null | grep '^El Torito boot img :' >"$WORK/images"
one_entry() { awk -v s="$start" '$7 != "UEFI" || $NF * 4 != s { bad = 1 } END { exit bad || NR != 1 }' "$WORK/images"; }
try 'the boot catalogue has one entry, for UEFI, and it is that partition' one_entry
# Proves: what the first partition shows as a volume is the same tree.
first=$(sgdisk -p "$ARTIFACT" 2>/dev/null | awk '$1 == 1 { print $2 }')
tail -c +$((first * 512 + 1)) "$ARTIFACT" >"$WORK/first.iso"
same_tree() {
    [ "$(tree "$ARTIFACT")" = "$(tree "$WORK/first.iso")" ] &&
        [ "$(xorriso -indev "$WORK/first.iso" -pvd_info 2>/dev/null | sed -n 's/^Volume Id    : //p')" = "$label" ] &&
        xorriso -osirrox on -indev "$WORK/first.iso" -extract /bastide "$WORK/second" >/dev/null 2>&1 &&
        diff -r "$REPO" "$WORK/second"
}
mkdir "$WORK/medium"
xorriso -osirrox on -indev "$ARTIFACT" -extract /bastide "$REPO" >/dev/null 2>&1
chmod -R u+w "$REPO"
try 'the first partition shows the same files as the disk' same_tree
chmod -R u+w "$WORK"; rm -rf "$WORK/second" "$WORK/first.iso"
# Proves: the targets lie in a squashfs of plain files.
squash=$REPO/targets.squashfs
if [ -f "$squash" ] && ! unsquashfs -lls "$squash" 2>/dev/null | grep -E '^[bclps]' >"$WORK/said" &&
    unsquashfs -q -n -no-xattrs -d "$REPO/targets" "$squash" >/dev/null 2>&1; then
    pass 'targets.squashfs holds plain files and nothing else'
else
    refuse 'targets.squashfs holds plain files and nothing else'
fi
mkdir -p "$REPO/metadata" "$REPO/targets"
# Proves: the ISO's tree has only metadata and that squashfs.
tree "$ARTIFACT" | grep -vxE -e '- (/bastide/metadata/[^/]+|/bastide/targets\.squashfs|/boot\.catalog)' \
    -e 'd (/|/bastide|/bastide/metadata)' >"$WORK/strangers"
while read -r line; do refuse "a stranger on the ISO: $line"; done <"$WORK/strangers"
[ -s "$WORK/strangers" ] || pass 'no file on the ISO is a stranger'
# Proves: the ESP holds one boot image, and at most an answer, which no signature covers: read it.
ESP=$ARTIFACT@@$((start * 512))
mdir -i "$ESP" -/ -b :: 2>/dev/null | sed 's|^::/||' | tr '[:lower:]' '[:upper:]' >"$WORK/esp"
grep -vxE 'EFI/|EFI/BOOT/|EFI/BOOT/BOOTX64\.EFI|BASTIDE-ANSWER\.TOML' "$WORK/esp" >"$WORK/strangers"
while read -r line; do refuse "a stranger on the ESP: $line"; done <"$WORK/strangers"
[ -s "$WORK/strangers" ] || pass 'no file on the ESP is a stranger'
follow
what='the boot image on the ESP is the installer that the metadata name'
if ! mcopy -n -i "$ESP" ::EFI/BOOT/BOOTX64.EFI "$WORK/boot.efi" 2>/dev/null; then refuse "$what: it is not there"
else
    [ "$FOLLOWED" != 0 ] ||
        try "$what" grep -q "^$(sha256 "$WORK/boot.efi") .* installer " "$WORK/targets"
    what="the boot image on the ESP carries the site's Secure Boot signature"
    if [ -f "$WORK/db.pem" ]; then try "$what" sbverify --cert "$WORK/db.pem" "$WORK/boot.efi"
    else unknown "$what: there is no db.der"; fi
fi
# Proves: not one byte of the image was changed, those that no file uses included.
what="the whole image carries the release key's OpenPGP signature"
if [ ! -f "$ARTIFACT.asc" ]; then unknown "$what: there is no .asc beside it"
elif grep -qx 'BASTIDE-ANSWER.TOML' "$WORK/esp"; then unknown "$what: an answer was written after it was signed"
else openpgp "$what" "$ARTIFACT.asc" "$ARTIFACT"; fi
signatures
openpgp_beside
files
boot
packages
verdict
