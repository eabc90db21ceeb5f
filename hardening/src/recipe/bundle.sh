# SPDX-License-Identifier: GPL-3.0-or-later

chapter 'Bundle: what is unpacked'
REPO=$WORK/repository COMPLETE=0
mkdir "$REPO"
# Proves: the archive holds plain files in the known places, in order, each once, and nothing behind its end.
tar --numeric-owner -tvf "$ARTIFACT" >"$WORK/members" 2>"$WORK/said"
tarred=$?
in_order() {
    awk '{ s = $6 == "bundle.json" ? 0 : $6 ~ /^metadata\/[^\/]+$/ ? 1 : $6 ~ /^site\/metadata\/[^\/]+$/ ? 2 : \
               $6 ~ /^targets\/.+\.zst$/ ? 3 : 9
           if (NF != 6 || substr($1, 1, 1) != "-" || $6 !~ /^[0-9A-Za-z._+~%\/-]+$/ || $6 ~ /(^|\/)(\.|\.\.|)(\/|$)/) exit 1
           if (s == 9 || s < stage || seen[$6]++ || (NR == 1) != (s == 0)) exit 1
           stage = s }
         END { if (NR == 0) exit 1 }' "$WORK/members"
}
behind() {
    used=$(awk '{ n += 512 + 512 * int(($3 + 511) / 512) } END { printf "%d", n }' "$WORK/members")
    rest=$(($(wc -c <"$ARTIFACT") - used))
    [ $rest -ge 1024 ] && [ $rest -le 1049088 ] && [ "$(tail -c $rest "$ARTIFACT" | tr -d '\000' | wc -c)" = 0 ]
}
if [ $tarred != 0 ] || ! in_order || ! behind; then
    refuse 'it holds plain files in their places and order, and nothing behind them'
    verdict
fi
pass "it holds $(wc -l <"$WORK/members") plain files in their places and order, and nothing behind them"
# What is carried as a delta cannot be checked without what its receiver holds.
if awk '$6 ~ /\.delta\.zst$/ { found = 1 } END { exit !found }' "$WORK/members"; then
    unknown 'it carries deltas: audit the gateway that took it in, or a bundle that bastide-repo export --whole made'
    verdict
fi
tar -C "$REPO" --no-same-owner --no-same-permissions -xf "$ARTIFACT" || { unknown 'cannot unpack it'; verdict; }
mkdir -p "$REPO/metadata" "$REPO/targets"
approval
follow
# Each target is unpacked to the length that was signed and no further.
[ "$FOLLOWED" != 0 ] || while read -r digest length place rest; do
    [ -f "$REPO/$place.zst" ] || continue
    { zstd -q -dc -M32MB "$REPO/$place.zst" 2>/dev/null || echo x >>"$WORK/torn"; } | head -c $((length + 1)) >"$REPO/$place"
    [ ! -f "$WORK/torn" ] || echo torn >>"$REPO/$place"
    rm -f "$REPO/$place.zst" "$WORK/torn"
done <"$WORK/targets"
signatures
openpgp_beside
files
boot
packages
chapter 'Bundle: what it says of itself'
# Proves: the releases that it says it carries are those that it carries.
for release in $(releases); do ! carried "$release" || echo "$release"; done >"$WORK/carried"
try 'bundle.json names the releases that are there' $PYTHON -I "$WORK/manifest.py" "$REPO/bundle.json" "$WORK/carried"
verdict
