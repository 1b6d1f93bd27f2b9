//! What the packer should gather next, from one moment's rows: an overwrite in between must not give old bytes a new
//! time in the pack's directory.

use serde::{Deserialize, Serialize};

use crate::error::IndexError;
use crate::snapshot::{SmallObject, Snapshot};

/// Packs looked at for gathering again.
const REPACK_MAX: usize = 16;
/// Members of one pack at most; bounds the answer and the command that moves them.
const OBJECTS_MAX: usize = 4096;

/// When a pack is due, and what fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackWish {
    /// Bytes of a pack, its directory included.
    pub room_bytes: u32,
    /// Objects in a pack (at most 4,096).
    pub objects_max: u32,
    /// Journal positions that small data may hold back before it is packed, however little it is.
    pub lag_max: u64,
    /// A pack that uses at most this share of its bytes, in percent, is gathered again.
    pub repack_percent: u32,
    /// Pack whatever there is.
    pub now: bool,
}

impl Snapshot {
    /// The members of the next pack with their objects' times (milliseconds since 1970); none while there is too
    /// little for one.
    ///
    /// # Errors
    /// [`IndexError::View`].
    pub fn to_pack(&self, wish: &PackWish) -> Result<Vec<(SmallObject, u64)>, IndexError> {
        let objects_max = (wish.objects_max as usize).min(OBJECTS_MAX);
        let mut pack = Pack { members: Vec::new(), left: wish.room_bytes as usize, objects_max };
        let mut full = !pack.fit(self.unpacked(None, objects_max)?);
        let applied = self.counters()?.applied;
        let oldest = self.oldest_unpacked()?.unwrap_or(applied);
        let lagging = applied.0.saturating_sub(oldest.0) > wish.lag_max;
        let repack = self.packs_below(wish.repack_percent.min(100), None, REPACK_MAX)?;
        let dead: u64 = repack.iter().map(|pack| u64::from(pack.pack_bytes).saturating_sub(pack.live_bytes)).sum();
        if !full && dead >= u64::from(wish.room_bytes) / 2 {
            for info in repack {
                full |= !pack.fit(self.pack_members(info.stripe)?);
            }
            full |= !pack.members.is_empty();
        }
        let due = full || pack.members.len() >= objects_max || lagging || wish.now;
        if !due {
            return Ok(Vec::new());
        }
        let timed = pack.members.into_iter().map(|member| {
            let head = self.head(&member.bucket, &member.key)?;
            Ok((member, head.map_or(0, |head| head.modified_ms)))
        });
        timed.collect()
    }
}

struct Pack {
    members: Vec<SmallObject>,
    left: usize,
    objects_max: usize,
}

impl Pack {
    /// Adds members while they fit; false when one did not.
    fn fit(&mut self, candidates: Vec<SmallObject>) -> bool {
        for candidate in candidates {
            // The directory needs room too: its entry and its names.
            let needed = candidate.size as usize + candidate.bucket.len() + candidate.key.len() + 40;
            if needed > self.left || self.members.len() >= self.objects_max {
                return false;
            }
            self.left -= needed;
            self.members.push(candidate);
        }
        true
    }
}
