// SPDX-License-Identifier: GPL-3.0-or-later
//! Whom the installed host believes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use signing::digest::Sha256;

/// Whom the host believes beside the vendor, whose root the medium carries. Without a site the vendor's word suffices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustAnswer {
    /// SHA-256 of the root of the site whose officers must approve each update, as they read it to whoever writes this. The
    /// site's `root.json`, `root.json.asc` and `release.asc` lie beside the answer in the directory `site`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = "^[0-9a-f]{64}$"))]
    pub site_root: Option<Sha256>,
}
