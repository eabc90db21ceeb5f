// SPDX-License-Identifier: GPL-3.0-or-later
//! What of CycloneDX 1.6 (ECMA-424) a bill of materials uses, in the order of the specification.

use std::collections::BTreeSet;

use serde::Serialize;
use signing::digest::Sha256;

use super::copyright::Copyright;
use super::licences;

/// The name of a licence that nobody declared in a form that a program can read.
pub const NO_ASSERTION: &str = "NOASSERTION";

/// A bill of materials.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bill {
    /// Always `CycloneDX`.
    pub bom_format: &'static str,
    /// Always `1.6`.
    pub spec_version: &'static str,
    /// A URN that follows the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// Always 1: a changed bill is another bill.
    pub version: u32,
    /// What the bill is about.
    pub metadata: Metadata,
    /// What the image holds.
    pub components: Vec<Component>,
    /// What is part of what.
    pub dependencies: Vec<Dependency>,
}

/// What a bill is about.
#[derive(Debug, Serialize)]
pub struct Metadata {
    /// The date of the build.
    pub timestamp: String,
    /// When in the life of the image the bill was made.
    pub lifecycles: Vec<Lifecycle>,
    /// What made it.
    pub tools: Tools,
    /// The image.
    pub component: Component,
}

/// A phase.
#[derive(Debug, Serialize)]
pub struct Lifecycle {
    /// Its name.
    pub phase: &'static str,
}

/// Tools.
#[derive(Debug, Serialize)]
pub struct Tools {
    /// As components.
    pub components: Vec<Component>,
}

/// A component.
#[derive(Debug, Default, Serialize)]
pub struct Component {
    /// Kind.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its name within the bill.
    #[serde(rename = "bom-ref")]
    pub reference: String,
    /// Who supplies it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplier: Option<Supplier>,
    /// Name.
    pub name: String,
    /// Version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Digests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<Hash>,
    /// Licences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<LicenceChoice>,
    /// Package URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purl: Option<String>,
    /// What has no field of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<Property>,
}

/// A supplier.
#[derive(Debug, Serialize)]
pub struct Supplier {
    /// Name.
    pub name: &'static str,
}

/// A digest.
#[derive(Debug, Serialize)]
pub struct Hash {
    /// Always `SHA-256`.
    pub alg: &'static str,
    /// In hexadecimal.
    pub content: String,
}

/// A property.
#[derive(Debug, Serialize)]
pub struct Property {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A part and what it is made of.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// The part.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What it is made of.
    pub depends_on: Vec<String>,
}

/// One entry of a list of licences: the list holds licences, or nothing but one expression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum LicenceChoice {
    /// A licence.
    Licence {
        /// The licence.
        license: Licence,
    },
    /// An SPDX expression.
    Expression {
        /// Its text.
        expression: String,
        /// Always `declared`: nobody looked into each file.
        acknowledgement: &'static str,
    },
}

/// A licence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Licence {
    /// SPDX identifier, or
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Always `declared`.
    pub acknowledgement: &'static str,
}

impl Hash {
    /// The list of one digest.
    #[must_use]
    pub fn sha256(digest: &Sha256) -> Vec<Self> {
        vec![Self {
            alg: "SHA-256",
            content: digest.to_string(),
        }]
    }
}

impl Property {
    /// A property of ours.
    #[must_use]
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Self {
            name: format!("bastide:{name}"),
            value: value.into(),
        }
    }
}

impl LicenceChoice {
    /// A licence by SPDX identifier.
    #[must_use]
    pub fn id(id: &str) -> Self {
        Self::Licence {
            license: Licence {
                id: Some(id.to_owned()),
                name: None,
                acknowledgement: "declared",
            },
        }
    }

    /// A licence by name.
    #[must_use]
    pub fn name(name: &str) -> Self {
        Self::Licence {
            license: Licence {
                id: None,
                name: Some(name.to_owned()),
                acknowledgement: "declared",
            },
        }
    }

    fn expression(expression: String) -> Self {
        Self::Expression {
            expression,
            acknowledgement: "declared",
        }
    }

    /// The licences of a package; never none.
    #[must_use]
    pub fn of_package(copyright: Option<&Copyright>) -> Vec<Self> {
        let Some(Copyright::Named(names)) = copyright else {
            return vec![Self::name(NO_ASSERTION)];
        };
        // Two of Debian's names may be one licence, such as GPL-2 and GPL-2.0.
        let known: BTreeSet<Result<String, &str>> = names
            .iter()
            .map(|name| licences::expression(name).ok_or(if name.is_empty() { NO_ASSERTION } else { name }))
            .collect();
        let certain = known.iter().all(Result::is_ok);
        let single = |said: &String| licences::is_single(said);
        if known.is_empty() {
            vec![Self::name(NO_ASSERTION)]
        } else if certain && !known.iter().flatten().all(single) {
            let all = licences::all_of(known.iter().flatten().map(String::as_str));
            vec![Self::expression(all)]
        } else {
            let one = |said: &Result<String, &str>| match said {
                Ok(id) if licences::is_single(id) => Self::id(id),
                // An expression cannot stand beside licences.
                Ok(expression) => Self::name(expression),
                Err(name) => Self::name(name),
            };
            known.iter().map(one).collect()
        }
    }

    /// The licence of a crate, whose manifest holds an SPDX expression or, in old ones, a list with slashes; never none.
    #[must_use]
    pub fn of_crate(said: &str) -> Vec<Self> {
        let expression = said.replace('/', " OR ");
        let plain = expression
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b" .+-()".contains(&byte));
        vec![if expression.trim().is_empty() {
            Self::name(NO_ASSERTION)
        } else if plain {
            Self::expression(expression.split_whitespace().collect::<Vec<_>>().join(" "))
        } else {
            Self::name(said)
        }]
    }
}
