//! One stripe: what it says of itself, and its data from any k shards.

use std::collections::BTreeMap;

use base::StripeId;
use coding::Code;
use format::{Descriptor, ShardKey};
use shards::StoreHandle;

use crate::walk::{Holder, StripeFound};

/// A stripe that can be described, and the shards that fit its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StripeRef {
    pub(crate) id: StripeId,
    pub(crate) k: u8,
    pub(crate) m: u8,
    /// Data bytes.
    pub(crate) bytes: u32,
    /// One holder a slot at most.
    pub(crate) holders: Vec<Holder>,
}

impl StripeRef {
    /// Slots that are there.
    pub(crate) fn present(&self) -> usize {
        self.holders.len()
    }

    pub(crate) fn total(&self) -> usize {
        usize::from(self.k) + usize::from(self.m)
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.present() >= usize::from(self.k)
    }
}

/// What a stripe says of itself, from the first shard that can; and the shards that fit it.
pub(crate) async fn describe(stores: &[StoreHandle], found: &StripeFound) -> Option<(StripeRef, Descriptor)> {
    for holder in &found.holders {
        let key = ShardKey::stripe(found.stripe, holder.slot);
        let Ok((_, bytes)) = stores[usize::from(holder.device)].describe(key).await else { continue };
        let Ok(about) = Descriptor::decode(&bytes) else { continue };
        if about.stripe != found.stripe || about.slot != holder.slot {
            continue;
        }
        let Ok(code) = Code::new(about.data_shards.into(), about.parity_shards.into()) else { continue };
        let shard_len = code.shard_len(about.stripe_bytes as usize);
        let mut holders: Vec<Holder> = Vec::new();
        for other in &found.holders {
            let fits = other.len as usize == shard_len && usize::from(other.slot) < code.total();
            if fits && holders.iter().all(|taken| taken.slot != other.slot) {
                holders.push(*other);
            }
        }
        let stripe = StripeRef {
            id: found.stripe,
            k: about.data_shards,
            m: about.parity_shards,
            bytes: about.stripe_bytes,
            holders,
        };
        return Some((stripe, about));
    }
    None
}

/// Reads stripes; remembers the last one, so that a pack is decoded once for its neighbours.
pub(crate) struct StripeReader<'a> {
    stores: &'a [StoreHandle],
    codes: BTreeMap<(u8, u8), Code>,
    last: Option<(StripeId, Vec<u8>)>,
}

impl<'a> StripeReader<'a> {
    pub(crate) fn new(stores: &'a [StoreHandle]) -> Self {
        Self { stores, codes: BTreeMap::new(), last: None }
    }

    pub(crate) fn stores(&self) -> &'a [StoreHandle] {
        self.stores
    }

    /// A stripe's data bytes; or why they cannot be had.
    pub(crate) async fn read(&mut self, stripe: &StripeRef) -> Result<&[u8], String> {
        if self.last.as_ref().is_none_or(|(id, _)| *id != stripe.id) {
            self.last = None;
            let data = self.decode(stripe).await?;
            self.last = Some((stripe.id, data));
        }
        Ok(&self.last.as_ref().expect("just read").1)
    }

    async fn decode(&mut self, stripe: &StripeRef) -> Result<Vec<u8>, String> {
        let code = match self.codes.entry((stripe.k, stripe.m)) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let code = Code::new(stripe.k.into(), stripe.m.into());
                entry.insert(code.map_err(|error| format!("stripe {}: {error}", stripe.id))?)
            }
        };
        let (k, len) = (code.k(), code.shard_len(stripe.bytes as usize));
        let mut holders = stripe.holders.clone();
        holders.sort_by_key(|holder| holder.slot);
        let mut shards = Vec::with_capacity(k);
        let mut last = None;
        for holder in holders {
            if shards.len() == k {
                break;
            }
            let key = ShardKey::stripe(stripe.id, holder.slot);
            match self.stores[usize::from(holder.device)].get(key, 0..u32::MAX).await {
                Ok(bytes) if bytes.len() == len => shards.push((usize::from(holder.slot), bytes)),
                Ok(_) => last = Some("a shard has another length than listed".to_owned()),
                Err(error) => last = Some(error.to_string()),
            }
        }
        if shards.len() < k {
            let why = last.map_or_else(String::new, |error| format!(" ({error})"));
            return Err(format!("stripe {}: {} of {k} shards can be read{why}", stripe.id, shards.len()));
        }
        let mut data = vec![0; k * len];
        let mut lost = Vec::new();
        for (slot, out) in data.chunks_mut(len.max(1)).enumerate() {
            match shards.iter().find(|(have, _)| *have == slot) {
                Some((_, bytes)) => out.copy_from_slice(bytes),
                None => lost.push((slot, out)),
            }
        }
        if !lost.is_empty() {
            let present: Vec<(usize, &[u8])> = shards.iter().map(|(slot, bytes)| (*slot, &bytes[..])).collect();
            code.reconstruct(&present, &mut lost).map_err(|error| format!("stripe {}: {error}", stripe.id))?;
        }
        data.truncate(stripe.bytes as usize);
        Ok(data)
    }
}
