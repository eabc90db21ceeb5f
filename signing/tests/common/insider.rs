// SPDX-License-Identifier: GPL-3.0-or-later
//! An insider with the TUF keys: signs a build as a release whatever its boot images are, as `publish` would not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use signing::clock::now;
use signing::keys::Passphrase;
use signing::release::Release;
use signing::site::Site;
use signing::tuf::repository::Repository;

/// Publishes a build in a repository, made where there is none.
pub fn publish(repository: &Path, site: &Site, passphrase: &Passphrase, build: &Path) {
    let root = fs::read(site.trust_dir().join("root.json")).unwrap();
    let mut editor = if repository.join("metadata/1.root.json").exists() {
        Repository::open(repository, &root).unwrap()
    } else {
        Repository::create(repository, &root).unwrap()
    };
    let signature = site.trust_dir().join("root.json.asc");
    fs::copy(signature, repository.join("metadata/1.root.json.asc")).unwrap();
    let release: Release = serde_json::from_slice(&fs::read(build.join("release.json")).unwrap()).unwrap();
    for part in &release.parts {
        let custom = serde_json::to_value(release.custom(part)).unwrap().as_object().cloned();
        let name = part.part.target(release.version);
        editor.add_file(&name, &build.join(part.part.file()), custom).unwrap();
    }
    let expires = now() + Duration::from_secs(300 * 86_400);
    site.publish(&mut editor, passphrase, expires, now()).unwrap();
}
