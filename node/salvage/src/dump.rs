//! Records as text and plain structs, for people and programs.

use format::{Descriptor, ShardKey, Space};
use serde::Serialize;
use shards::{ShardInfo, StoreHandle, StoreResult};

use crate::walk::Pages;

/// What to show of a device's records.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only records of this space: `stripe`, `journal`, `region` or `fact`.
    pub space: Option<Space>,
    /// Only shards of this stripe.
    pub stripe: Option<u64>,
    /// At most so many.
    pub limit: Option<u64>,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordLine {
    /// `stripe`, `journal`, `region` or `fact`.
    pub space: &'static str,
    /// What it belongs to, as a number.
    pub owner: u32,
    /// Its number there.
    pub id: u64,
    /// Its slot.
    pub slot: u8,
    /// Payload bytes.
    pub bytes: u32,
    /// What a shard says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// Why its head cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A shard's descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct About {
    /// k.
    pub data_shards: u8,
    /// m.
    pub parity_shards: u8,
    /// Data bytes of the stripe.
    pub stripe_bytes: u32,
    /// Number of the stripe in its object or part.
    pub stripe_number: u32,
    /// Bytes of the object or part before it.
    pub stripe_offset: u64,
    /// Whether the object or part ends with it.
    pub last: bool,
    /// Whether it is a pack.
    pub pack: bool,
    /// The put or upload, in hexadecimal.
    pub upload: String,
    /// Part number; 0 for none.
    pub part: u32,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
}

/// The name of a space.
#[must_use]
pub fn space_name(space: Space) -> &'static str {
    match space {
        Space::Stripe => "stripe",
        Space::Journal => "journal",
        Space::Region => "region",
        Space::Fact => "fact",
    }
}

/// The space of a name.
#[must_use]
pub fn space_of(name: &str) -> Option<Space> {
    [Space::Stripe, Space::Journal, Space::Region, Space::Fact].into_iter().find(|space| space_name(*space) == name)
}

/// A key in words.
#[must_use]
pub fn key_text(key: &ShardKey) -> String {
    match key.space {
        Space::Stripe => format!("stripe {:016x} slot {}", key.id, key.slot),
        space => format!("{} {}/{}", space_name(space), key.owner, key.id),
    }
}

/// Gives every record of a device that the filter lets through to `show`, in key order, until that says
/// false.
///
/// # Errors
/// The store's.
pub async fn records(
    store: &StoreHandle,
    filter: &Filter,
    mut show: impl FnMut(RecordLine) -> bool,
) -> StoreResult<()> {
    let mut left = filter.limit.unwrap_or(u64::MAX);
    for space in [Space::Stripe, Space::Journal, Space::Region, Space::Fact] {
        let wanted =
            filter.space.is_none_or(|only| only == space) && (filter.stripe.is_none() || space == Space::Stripe);
        if !wanted {
            continue;
        }
        let mut pages = match filter.stripe {
            Some(stripe) => Pages::from_stripe(stripe),
            None => Pages::of(space),
        };
        while let Some(info) = pages.peek(store).await? {
            if left == 0 || filter.stripe.is_some_and(|stripe| info.key.id != stripe) {
                break;
            }
            pages.pop();
            left -= 1;
            if !show(line(store, &info).await) {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn line(store: &StoreHandle, info: &ShardInfo) -> RecordLine {
    let ShardKey { space, owner, id, slot } = info.key;
    let mut line = RecordLine { space: space_name(space), owner, id, slot, bytes: info.len, about: None, error: None };
    match store.describe(info.key).await {
        Ok((_, bytes)) if space == Space::Stripe => match Descriptor::decode(&bytes) {
            Ok(about) => line.about = Some(about.into()),
            Err(error) => line.error = Some(error.to_string()),
        },
        Ok(_) => {}
        Err(error) => line.error = Some(error.to_string()),
    }
    line
}

impl From<Descriptor> for About {
    fn from(d: Descriptor) -> Self {
        Self {
            data_shards: d.data_shards,
            parity_shards: d.parity_shards,
            stripe_bytes: d.stripe_bytes,
            stripe_number: d.stripe_number,
            stripe_offset: d.stripe_offset,
            last: d.last,
            pack: d.pack,
            upload: format!("{:032x}", d.upload),
            part: d.part,
            modified_ms: d.modified_ms,
            bucket: d.bucket,
            key: d.key,
        }
    }
}
