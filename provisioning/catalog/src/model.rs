//! The facts themselves, and the rules they obey before they are stored.

use std::fmt;

use base::{ClusterId, DeviceId};
use serde::{Deserialize, Serialize};

use crate::{CatalogError, CatalogResult, DEVICES_MAX, NAME_BYTES_MAX};

/// A secret access key. Prints as `Secret(..)`; compared in time that depends on the lengths alone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for signing and for showing it once to its owner.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        // Every byte is looked at, whatever the first difference; `black_box` keeps the loop whole.
        let difference = a.iter().zip(b).fold(0_u8, |acc, (x, y)| std::hint::black_box(acc | (x ^ y)));
        a.len() == b.len() && difference == 0
    }
}

impl Eq for Secret {}

/// A key pair that may sign requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// Public id, sent with every request.
    pub access_key_id: String,
    /// What signatures are made with.
    pub secret: Secret,
    /// For people.
    pub name: String,
    /// When it was drawn, milliseconds since 1970-01-01T00:00:00Z.
    pub created_ms: u64,
}

impl AccessKey {
    /// The key without its secret.
    #[must_use]
    pub fn info(&self) -> KeyInfo {
        KeyInfo { access_key_id: self.access_key_id.clone(), name: self.name.clone(), created_ms: self.created_ms }
    }

    /// Whether the key may be stored.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] with the field.
    pub fn check(&self) -> CatalogResult<()> {
        let id = self.access_key_id.as_bytes();
        if !(3..=128).contains(&id.len()) || !id.iter().all(u8::is_ascii_alphanumeric) {
            return Err(invalid("the access key id", "is 3 to 128 letters and digits"));
        }
        let secret = self.secret.expose().as_bytes();
        if !(8..=128).contains(&secret.len()) || !secret.iter().all(u8::is_ascii_graphic) {
            return Err(invalid("the secret", "is 8 to 128 printable ASCII characters without spaces"));
        }
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || self.name.chars().any(char::is_control) {
            return Err(invalid("the key's name", "is 1 to 128 bytes without control characters"));
        }
        Ok(())
    }
}

/// What a listing tells of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Public id.
    pub access_key_id: String,
    /// For people.
    pub name: String,
    /// When it was drawn, milliseconds since 1970-01-01T00:00:00Z.
    pub created_ms: u64,
}

/// The level of the fault-domain path at which a group's slots must differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainLevel {
    /// Slots on distinct devices.
    Device,
    /// Slots on distinct nodes.
    Node,
    /// Slots in distinct racks.
    Rack,
    /// Slots on distinct sites.
    Site,
}

/// One device of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceEntry {
    /// As in its label.
    pub device_id: DeviceId,
    /// Where it was last found.
    pub path: String,
    /// Usable bytes.
    pub size_bytes: u64,
}

/// What the cluster is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFacts {
    /// 0 when never stored; raised by one with every change.
    pub revision: u64,
    /// As in every device's label.
    pub cluster_id: ClusterId,
    /// k: shards that carry data.
    pub data_shards: u8,
    /// m: shards that may be lost.
    pub parity_shards: u8,
    /// Where a group's slots must differ.
    pub domain_level: DomainLevel,
    /// Every device, in the order they were claimed.
    pub devices: Vec<DeviceEntry>,
}

impl ClusterFacts {
    /// Whether the facts may be stored.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] with the field.
    pub fn check(&self) -> CatalogResult<()> {
        if self.data_shards == 0 || u16::from(self.data_shards) + u16::from(self.parity_shards) > 255 {
            return Err(invalid("the policy", "has at least one data shard and at most 255 in all"));
        }
        if self.devices.len() > DEVICES_MAX {
            return Err(invalid("the device list", "is longer than a cluster may have devices"));
        }
        let mut ids: Vec<DeviceId> = self.devices.iter().map(|d| d.device_id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(invalid("the device list", "names a device twice"));
        }
        Ok(())
    }
}

fn invalid(field: &'static str, rule: &'static str) -> CatalogError {
    CatalogError::Invalid { field, rule }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, secret: &str, name: &str) -> AccessKey {
        AccessKey { access_key_id: id.into(), secret: Secret::new(secret.into()), name: name.into(), created_ms: 1 }
    }

    #[test]
    fn a_secret_is_in_no_debug_text() {
        let text = format!("{:?}", key("HFA", "topsecret-value", "root"));
        assert!(!text.contains("topsecret"), "{text}");
        assert!(text.contains("Secret(..)") && text.contains("HFA"), "{text}");
    }

    #[test]
    fn secrets_compare_by_value() {
        let secret = |text: &str| Secret::new(text.into());
        assert_eq!(secret("abcdefgh"), secret("abcdefgh"));
        for other in ["abcdefgi", "abcdefg", "abcdefghi", "", "bbcdefgh"] {
            assert_ne!(secret("abcdefgh"), secret(other), "{other}");
        }
    }

    #[test]
    fn keys_that_break_a_rule_are_refused_and_the_secret_is_not_in_the_refusal() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        let table = [
            ("HF", "12345678", "a", "id"),
            ("HF A", "12345678", "a", "id"),
            ("HFÄ1", "12345678", "a", "id"),
            ("HF1", "1234567", "a", "secret"),
            ("HF1", "1234 5678", "a", "secret"),
            ("HF1", "12345678", "", "name"),
            ("HF1", "12345678", "a\nb", "name"),
            ("HF1", "12345678", long.as_str(), "name"),
        ];
        for (id, secret, name, field) in table {
            let refusal = key(id, secret, name).check().unwrap_err().to_string();
            assert!(refusal.contains(field), "{id} {name}: {refusal}");
            assert!(!refusal.contains(secret), "{refusal}");
        }
        assert!(key("HF1", "12345678", "a b").check().is_ok());
    }

    #[test]
    fn facts_that_break_a_rule_are_refused() {
        let device = |n| DeviceEntry { device_id: DeviceId([n; 16]), path: "d".into(), size_bytes: 1 };
        let facts = |k, m, devices| ClusterFacts {
            revision: 0,
            cluster_id: ClusterId([1; 16]),
            data_shards: k,
            parity_shards: m,
            domain_level: DomainLevel::Device,
            devices,
        };
        assert!(facts(4, 2, vec![device(1), device(2)]).check().is_ok());
        assert!(facts(0, 2, vec![]).check().is_err());
        assert!(facts(200, 56, vec![]).check().is_err());
        assert!(facts(4, 2, vec![device(1), device(2), device(1)]).check().is_err());
    }
}
