# SPDX-License-Identifier: GPL-3.0-or-later

# approval: this script was written without the trust directory of a site.
approval() {
    [ ! -d "$REPO/site" ] || unknown 'a site approves what is here: write this script with --site-trust'
}
