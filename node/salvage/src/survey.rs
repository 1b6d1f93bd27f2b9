//! Everything the stripes' descriptors say, grouped by bucket, key, upload and part.

use std::collections::BTreeMap;

use base::StripeId;
use format::{PackEntry, decode_pack_directory};
use futures::future::join_all;
use shards::StoreHandle;

use crate::stripes::{StripeReader, StripeRef, describe};
use crate::walk::{StripeFound, StripeWalk};

/// Stripes described at once.
const DESCRIBE_AT_ONCE: usize = 64;

/// Bucket and key.
pub(crate) type Name = (String, String);

/// A stripe and its place in a body.
#[derive(Debug, Clone)]
pub(crate) struct BodyStripe {
    pub(crate) stripe: StripeRef,
    pub(crate) number: u32,
    pub(crate) offset: u64,
    pub(crate) last: bool,
}

/// Stripes of one upload and part, by ascending stripe id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    pub(crate) modified_ms: u64,
    pub(crate) stripes: Vec<BodyStripe>,
}

impl Body {
    /// The stripes of each attempt at this part, oldest first: ids and numbers ascend together within one.
    pub(crate) fn attempts(&self) -> Vec<&[BodyStripe]> {
        self.stripes.chunk_by(|a, b| a.number < b.number).collect()
    }
}

/// A small object in a pack.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    pub(crate) pack: StripeId,
    pub(crate) part: u32,
    pub(crate) modified_ms: u64,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// What the stripes say.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// By name, then by upload and part.
    pub(crate) bodies: BTreeMap<Name, BTreeMap<(u128, u32), Body>>,
    /// Small objects in packs, by name.
    pub(crate) packed: BTreeMap<Name, Vec<Packed>>,
    pub(crate) packs: BTreeMap<StripeId, StripeRef>,
    pub(crate) stripes: u64,
    /// Stripes none of whose shards says what it is.
    pub(crate) undescribed: u64,
    /// Packs that cannot be opened, and why.
    pub(crate) broken_packs: Vec<String>,
    /// Devices that stopped answering.
    pub(crate) failed: Vec<String>,
}

impl Survey {
    pub(crate) async fn of(stores: &[StoreHandle], reader: &mut StripeReader<'_>) -> Self {
        let mut survey = Self::default();
        let mut walk = StripeWalk::new(stores);
        loop {
            let mut some: Vec<StripeFound> = Vec::with_capacity(DESCRIBE_AT_ONCE);
            while some.len() < DESCRIBE_AT_ONCE
                && let Some(found) = walk.next().await
            {
                some.push(found);
            }
            if some.is_empty() {
                break;
            }
            survey.stripes += some.len() as u64;
            for described in join_all(some.iter().map(|found| describe(stores, found))).await {
                match described {
                    Some((stripe, about)) => survey.add(stripe, about),
                    None => survey.undescribed += 1,
                }
            }
        }
        survey.failed = walk
            .failed
            .iter()
            .map(|(device, error)| format!("device {}: {error}", stores[usize::from(*device)].device()))
            .collect();
        survey.open_packs(reader).await;
        survey
    }

    fn add(&mut self, stripe: StripeRef, about: format::Descriptor) {
        if about.pack {
            self.packs.insert(stripe.id, stripe);
            return;
        }
        let uploads = self.bodies.entry((about.bucket, about.key)).or_default();
        let body = uploads.entry((about.upload, about.part)).or_default();
        body.modified_ms = about.modified_ms;
        body.stripes.push(BodyStripe {
            stripe,
            number: about.stripe_number,
            offset: about.stripe_offset,
            last: about.last,
        });
    }

    async fn open_packs(&mut self, reader: &mut StripeReader<'_>) {
        for (id, stripe) in &self.packs {
            let entries = match reader.read(stripe).await {
                Ok(bytes) => decode_pack_directory(bytes).map_err(|error| format!("pack {id}: {error}")),
                Err(error) => Err(format!("pack: {error}")),
            };
            match entries {
                Ok(entries) => {
                    for PackEntry { bucket, key, part, modified_ms, offset, len } in entries {
                        let packed = Packed { pack: *id, part, modified_ms, offset, len };
                        self.packed.entry((bucket, key)).or_default().push(packed);
                    }
                }
                Err(why) => self.broken_packs.push(why),
            }
        }
    }
}
