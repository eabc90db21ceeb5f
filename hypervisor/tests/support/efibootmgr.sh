#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A firmware whose variables are files beside this program, behind efibootmgr's options. A file NNNN holds a boot entry,
# "label<TAB>path"; `order`, `next` and `current` hold the variables of these names.
set -eu
cd "$(dirname "$0")"

show() {
    if [ -e next ]; then echo "BootNext: $(cat next)"; fi
    echo "BootCurrent: 0003"
    echo "BootOrder: $(cat order)"
    for entry in [0-9A-F][0-9A-F][0-9A-F][0-9A-F]; do
        label=$(cut -f1 "$entry")
        path=$(cut -f2 "$entry")
        case $path in
        \\*) path="HD(1,GPT,$(cat esp-guid),0x800,0xc000)/$path" ;;
        esac
        printf 'Boot%s* %s\t%s\n' "$entry" "$label" "$path"
    done
}

mode=show number='' label='' loader='' value=''
while [ $# -gt 0 ]; do
    case $1 in
    -v) mode=show ;;
    --quiet) ;;
    --create-only) mode=create ;;
    --disk | --part) shift ;;
    --label) shift; label=$1 ;;
    --loader) shift; loader=$1 ;;
    --delete-bootnum) mode=delete ;;
    --bootnum) shift; number=$1 ;;
    --bootnext) mode=next; shift; value=$1 ;;
    --delete-bootnext) mode=nonext ;;
    --bootorder) mode=order; shift; value=$1 ;;
    *) echo "unknown option $1" >&2; exit 1 ;;
    esac
    shift
done
case $mode in
show) show ;;
create)
    for free in 0000 0001 0002 0003 0004 0005 0006; do
        if [ ! -e $free ]; then printf '%s\t%s' "$label" "$loader" >$free; exit 0; fi
    done
    exit 1
    ;;
delete)
    rm "$number"
    sed -i "s/,$number\$//; s/^$number,//; s/,$number,/,/" order
    ;;
next) [ -e "$value" ] && printf '%s' "$value" >next ;;
nonext) rm next ;;
order) printf '%s' "$value" >order ;;
esac
