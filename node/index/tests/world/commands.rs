//! Random commands: from few names, so that they meet.

use base::{Entropy, StripeId};
use index::model::Layout;
use index::model::{
    BucketRow, Command, Condition, ETag, MissingShard, ObjectMeta, ObjectRow, PackMove, PartRow, StripeRun, UploadRow,
};
use index::{SmallObject, WITH_COMMAND};

use super::World;

const BUCKETS: [&str; 3] = ["left", "right", "right-2"];
const KEYS: [&str; 8] = ["a", "a/b", "a/b/c", "a/c", "b", "é", "a\u{0}b", "z/long/way"];
const BIG: u64 = 5 << 20;

impl World {
    /// One random command and its data.
    pub(crate) async fn draw(&mut self) -> (Command, Vec<u8>) {
        let bucket = self.pick(&BUCKETS).to_owned();
        let key = self.pick(&KEYS).to_owned();
        let (name, row) = (bucket.clone(), BucketRow { owner: "me".into(), created_ms: 3, region: "r".into() });
        let command = match self.entropy.below(42) {
            0..=3 => Command::CreateBucket { name, row },
            4 => Command::DeleteBucket { name },
            5..=14 => return self.put(bucket, key),
            15..=19 => Command::DeleteObject { bucket, key, condition: self.condition() },
            20..=22 => self.begin(bucket, key),
            23..=29 => return self.put_part(bucket),
            30..=33 => self.complete(bucket, key),
            34 => self.abort(bucket, key),
            35 => return (self.pack().await, Vec::new()),
            36 => return (self.repack().await, Vec::new()),
            37 => Command::ReserveStripes { below: self.next_stripe },
            40 => Command::TakeStripes { count: self.entropy.below(9) },
            41 => Command::FenceStripes { below: self.next_stripe },
            38 => {
                let some = 1 + self.entropy.below(5) as usize;
                let rows = self.partition.read(|s| s.garbage(0, some)).unwrap();
                self.free(rows)
            }
            _ => {
                let shards = self.partition.read(|s| s.missing_shards(None, 2)).unwrap();
                Command::ShardsRepaired { shards }
            }
        };
        (command, Vec::new())
    }

    fn condition(&self) -> Condition {
        let tags = ["*", "07070707070707070707070707070707", "no"];
        match self.entropy.below(6) {
            0 => Condition { must_not_exist: true, ..Condition::default() },
            1 => Condition { must_match: Some(vec![self.pick(&tags).to_owned()]), ..Condition::default() },
            _ => Condition::default(),
        }
    }

    /// A run for a body; now and then one whose ids were taken long ago.
    fn some_run(&mut self, bytes: u64) -> StripeRun {
        if self.entropy.one_in(8) {
            let held_back = self.take_run(BIG, 1 << 20);
            self.held_back.push(held_back);
        }
        if self.entropy.one_in(4)
            && let Some(run) = self.held_back.pop()
        {
            self.stripes.extend(run.first.0..run.first.0 + u64::from(run.count));
            return run;
        }
        self.new_run(bytes, 1 << 20)
    }

    /// A layout with its size and data: small, or of one or two runs.
    fn body(&mut self, big_at_least: u64) -> (Layout, u64, Vec<u8>, Vec<MissingShard>) {
        if self.entropy.one_in(3) {
            let (first, second) = (self.some_run(big_at_least), self.new_run(1000, 600));
            let shard =
                MissingShard { stripe: first.first, slot: 2, group: first.group, stripe_bytes: first.stripe_bytes };
            let missing = if self.entropy.one_in(3) { vec![shard] } else { Vec::new() };
            let bytes = first.bytes + second.bytes;
            (Layout::Stripes(vec![first, second]), bytes, Vec::new(), missing)
        } else {
            let data = self.data(60);
            (WITH_COMMAND, data.len() as u64, data, Vec::new())
        }
    }

    fn put(&mut self, bucket: String, key: String) -> (Command, Vec<u8>) {
        let (layout, size, data, missing) = self.body(3 << 20);
        let etag = ETag::Whole(self.pick(&[[7; 16], [8; 16]]));
        // Some rows are long enough for a layout of their own.
        let meta = ObjectMeta { content_type: Some("text/plain".into()), ..ObjectMeta::default() };
        let row = ObjectRow { size, etag, modified_ms: self.entropy.below(9000), meta, checksum: None, layout };
        (Command::PutObject { bucket, key, row, condition: self.condition(), missing }, data)
    }

    fn begin(&mut self, bucket: String, key: String) -> Command {
        let upload = u128::from(self.entropy.next_u64());
        let meta = ObjectMeta::default();
        let row = UploadRow { key, started_ms: 4, meta, checksum: None, owner: "me".into() };
        Command::CreateUpload { bucket, upload, row }
    }

    /// An upload under way, or now and then none.
    fn some_upload(&self) -> Option<(u128, String, String)> {
        let uploads: Vec<_> = self.model.uploads.iter().map(|(u, (b, row))| (*u, b.clone(), row.key.clone())).collect();
        (!uploads.is_empty() && !self.entropy.one_in(10)).then(|| self.pick(&uploads))
    }

    fn put_part(&mut self, bucket: String) -> (Command, Vec<u8>) {
        let (upload, bucket) = self.some_upload().map_or((1, bucket), |(u, b, _)| (u, b));
        let (layout, size, data, missing) = self.body(BIG);
        let md5 = self.pick(&[[1; 16], [2; 16]]);
        let row = PartRow { size, md5, checksum: None, modified_ms: 5, layout };
        let number = 1 + self.entropy.below(3) as u32;
        (Command::PutPart { bucket, upload, number, row, missing }, data)
    }

    fn complete(&mut self, bucket: String, key: String) -> Command {
        let done: Vec<_> = self.model.completed.iter().map(|(u, (b, k, _))| (*u, b.clone(), k.clone())).collect();
        let (upload, bucket, key) = match self.some_upload() {
            Some(found) => found,
            None if !done.is_empty() => self.pick(&done),
            None => (1, bucket, key),
        };
        let mut parts: Vec<(u32, [u8; 16])> =
            self.model.parts.range((upload, 0)..=(upload, u32::MAX)).map(|((_, n), p)| (*n, p.md5)).collect();
        if !parts.is_empty() {
            match self.entropy.below(8) {
                0 => parts.reverse(),
                1 => parts[0].1 = [9; 16],
                2 => drop(parts.remove(0)),
                _ => {}
            }
        }
        let condition = self.condition();
        let modified_ms = self.entropy.below(9000);
        Command::CompleteUpload { bucket, key, upload, parts, modified_ms, checksum: None, condition }
    }

    fn abort(&mut self, bucket: String, key: String) -> Command {
        let (upload, bucket, key) = self.some_upload().unwrap_or((1, bucket, key));
        Command::AbortUpload { bucket, key, upload }
    }

    async fn pack(&mut self) -> Command {
        let some = 1 + self.entropy.below(6) as usize;
        let small = self.partition.read(|s| s.unpacked(None, some)).unwrap();
        let oldest = small.first().map(|s| match s.from {
            Layout::Journal { lsn, .. } => lsn,
            _ => panic!("unpacked data is in the journal"),
        });
        assert_eq!(oldest, self.oldest_place());
        self.gather(small).await
    }

    async fn repack(&mut self) -> Command {
        let packs = self.partition.read(|s| s.packs_below(60, None, 3)).unwrap();
        let mut small = Vec::new();
        for pack in packs {
            assert!(pack.live_bytes * 100 <= u64::from(pack.pack_bytes) * 60);
            small.extend(self.partition.read(|s| s.pack_members(pack.stripe)).unwrap());
        }
        self.gather(small).await
    }

    async fn gather(&mut self, small: Vec<SmallObject>) -> Command {
        let mut pack = Vec::new();
        let mut moves = Vec::new();
        for s in small {
            let bytes = self.bytes_at(&s.from, u64::from(s.size)).await;
            let SmallObject { from, size, bucket, key, part } = s;
            moves.push(PackMove { bucket, key, part, from, offset: pack.len() as u32, size });
            pack.extend(bytes);
        }
        // Some room that nobody uses, so that a pack can be mostly dead from the start.
        pack.resize(pack.len() + 1 + self.entropy.below(40) as usize, 0);
        let pack_bytes = pack.len() as u32;
        let StripeRun { first, group, .. } = self.new_run(u64::from(pack_bytes), pack_bytes);
        self.packs.insert(first, pack);
        let missing = vec![MissingShard { stripe: StripeId(first.0), slot: 1, group, stripe_bytes: pack_bytes }];
        Command::Pack { stripe: first, group, pack_bytes, moves, missing }
    }
}
