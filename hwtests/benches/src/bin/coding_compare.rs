//! Erasure coding engines side by side on one core: the table of docs/decisions/0002-erasure-coding.md.
//!
//! A figure is GB (10^9 bytes) of stripe data a second: encoding makes all parity shards,
//! rebuild-of-2 makes two lost data shards out of `k` others. One warm-up, then the median of five
//! rounds. The stripes rotate through a set larger than the private caches, as a server's would.
//! Engines with another code give other parity; each must give back the data it was fed.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

const CODES: [(usize, usize); 4] = [(4, 2), (8, 3), (10, 4), (17, 3)];
const SHARD_LENS: [usize; 2] = [64 << 10, 1 << 20];
/// Data of all the stripes that take turns.
const WORKING_SET_BYTES: usize = 128 << 20;
const ROUNDS: usize = 5;
/// Length of a round.
const ROUND: Duration = Duration::from_millis(300);

/// `k` data and `m` parity shards.
#[derive(Clone)]
struct Stripe {
    data: Vec<Vec<u8>>,
    parity: Vec<Vec<u8>>,
}

trait Engine {
    fn encode(&mut self, stripe: &mut Stripe);
    /// Computes data shards 0 and 1 again, in place, without reading them.
    fn rebuild(&mut self, stripe: &mut Stripe);
}

struct Ours {
    code: coding::Code,
}

impl Engine for Ours {
    fn encode(&mut self, stripe: &mut Stripe) {
        let data: Vec<&[u8]> = stripe.data.iter().map(Vec::as_slice).collect();
        let mut parity: Vec<&mut [u8]> = stripe.parity.iter_mut().map(Vec::as_mut_slice).collect();
        self.code.encode(&data, &mut parity).expect("encode");
    }

    fn rebuild(&mut self, stripe: &mut Stripe) {
        let k = stripe.data.len();
        let (lost, kept) = stripe.data.split_at_mut(2);
        let present: Vec<(usize, &[u8])> =
            kept.iter().chain(&stripe.parity).enumerate().map(|(i, shard)| (i + 2, shard.as_slice())).take(k).collect();
        let mut want: Vec<(usize, &mut [u8])> = lost.iter_mut().map(Vec::as_mut_slice).enumerate().collect();
        self.code.reconstruct(&present, &mut want).expect("reconstruct");
    }
}

/// The same arithmetic by a kernel other than the best: what older processors get.
struct OurKernel {
    encoder: gf::Product,
    decoder: gf::Product,
}

impl OurKernel {
    /// The constants do not matter for the speed; only `Ours` is checked for the code itself.
    fn new(kernel: gf::Kernel, k: usize, m: usize) -> Self {
        let matrix = |rows: usize| (0..rows * k).map(|i| (i % 253 + 2) as u8).collect::<Vec<_>>();
        Self {
            encoder: gf::Product::with_kernel(kernel, m, k, &matrix(m)),
            decoder: gf::Product::with_kernel(kernel, 2, k, &matrix(2)),
        }
    }
}

impl Engine for OurKernel {
    fn encode(&mut self, stripe: &mut Stripe) {
        let data: Vec<&[u8]> = stripe.data.iter().map(Vec::as_slice).collect();
        let mut parity: Vec<&mut [u8]> = stripe.parity.iter_mut().map(Vec::as_mut_slice).collect();
        self.encoder.apply(&data, &mut parity);
    }

    fn rebuild(&mut self, stripe: &mut Stripe) {
        let k = stripe.data.len();
        let (lost, kept) = stripe.data.split_at_mut(2);
        let present: Vec<&[u8]> = kept.iter().chain(&stripe.parity).map(Vec::as_slice).take(k).collect();
        let mut want: Vec<&mut [u8]> = lost.iter_mut().map(Vec::as_mut_slice).collect();
        self.decoder.apply(&present, &mut want);
    }
}

impl Engine for reed_solomon_erasure::galois_8::ReedSolomon {
    fn encode(&mut self, stripe: &mut Stripe) {
        self.encode_sep(&stripe.data, &mut stripe.parity).expect("encode");
    }

    fn rebuild(&mut self, stripe: &mut Stripe) {
        let mut shards: Vec<(&mut [u8], bool)> = stripe
            .data
            .iter_mut()
            .chain(&mut stripe.parity)
            .enumerate()
            .map(|(i, shard)| (shard.as_mut_slice(), i >= 2))
            .collect();
        self.reconstruct_data(&mut shards).expect("reconstruct");
    }
}

struct Simd {
    encoder: reed_solomon_simd::ReedSolomonEncoder,
    decoder: reed_solomon_simd::ReedSolomonDecoder,
}

impl Engine for Simd {
    fn encode(&mut self, stripe: &mut Stripe) {
        for shard in &stripe.data {
            self.encoder.add_original_shard(shard).expect("shard");
        }
        let result = self.encoder.encode().expect("encode");
        for (to, from) in stripe.parity.iter_mut().zip(result.recovery_iter()) {
            to.copy_from_slice(from);
        }
    }

    fn rebuild(&mut self, stripe: &mut Stripe) {
        for (i, shard) in stripe.data.iter().enumerate().skip(2) {
            self.decoder.add_original_shard(i, shard).expect("shard");
        }
        for (i, shard) in stripe.parity.iter().enumerate().take(2) {
            self.decoder.add_recovery_shard(i, shard).expect("shard");
        }
        let result = self.decoder.decode().expect("decode");
        for (i, shard) in result.restored_original_iter() {
            stripe.data[i].copy_from_slice(shard);
        }
    }
}

#[cfg(feature = "coding-compare-isal")]
struct IsaL {
    code: erasure_isa_l::erasure::ErasureCode,
    table: erasure_isa_l::erasure::DecodeTable,
}

#[cfg(feature = "coding-compare-isal")]
impl Engine for IsaL {
    fn encode(&mut self, stripe: &mut Stripe) {
        self.code.encode(&stripe.data, &mut stripe.parity).expect("encode");
    }

    fn rebuild(&mut self, stripe: &mut Stripe) {
        let Stripe { data, parity } = stripe;
        self.code.decode_with_table(data, parity, &self.table, vec![0, 1]).expect("decode");
    }
}

#[cfg(feature = "coding-compare-isal")]
fn isal(k: usize, m: usize) -> Box<dyn Engine> {
    let count = |n| std::num::NonZeroUsize::new(n).expect("not zero");
    let code = erasure_isa_l::erasure::ErasureCode::with_cauchy(count(k), count(m)).expect("code");
    let table = code.make_decode_table(vec![0, 1]).expect("table");
    Box::new(IsaL { code, table })
}

fn engines(k: usize, m: usize, len: usize) -> Vec<(String, bool, Box<dyn Engine>)> {
    let code = coding::Code::new(k, m).expect("code");
    let erasure = reed_solomon_erasure::galois_8::ReedSolomon::new(k, m).expect("code");
    let simd = Simd {
        encoder: reed_solomon_simd::ReedSolomonEncoder::new(k, m, len).expect("code"),
        decoder: reed_solomon_simd::ReedSolomonDecoder::new(k, m, len).expect("code"),
    };
    let mut engines: Vec<(String, bool, Box<dyn Engine>)> = vec![("coding".to_owned(), true, Box::new(Ours { code }))];
    for kernel in gf::Kernel::ALL.into_iter().rev() {
        if kernel.is_available() && kernel != gf::Kernel::best() {
            let engine = OurKernel::new(kernel, k, m);
            engines.push((format!("  {kernel:?}"), false, Box::new(engine)));
        }
    }
    #[cfg(feature = "coding-compare-isal")]
    engines.push(("ISA-L".to_owned(), true, isal(k, m)));
    engines.push(("reed-solomon-erasure".to_owned(), true, Box::new(erasure)));
    engines.push(("reed-solomon-simd".to_owned(), true, Box::new(simd)));
    engines
}

fn stripes(k: usize, m: usize, len: usize) -> Vec<Stripe> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut shard = || -> Vec<u8> {
        let mut bytes = vec![0u8; len];
        for word in bytes.as_chunks_mut::<8>().0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state.to_le_bytes();
        }
        bytes
    };
    let count = (WORKING_SET_BYTES / (k * len)).max(2);
    (0..count).map(|_| Stripe { data: (0..k).map(|_| shard()).collect(), parity: vec![vec![0; len]; m] }).collect()
}

/// GB of data a second, median of the rounds.
fn measure(stripes: &mut [Stripe], mut work: impl FnMut(&mut Stripe)) -> f64 {
    let stripe_bytes: usize = stripes[0].data.iter().map(Vec::len).sum();
    let mut at = 0;
    let mut round = |least: Duration| {
        let start = Instant::now();
        let mut done = 0usize;
        while start.elapsed() < least {
            at = (at + 1) % stripes.len();
            work(&mut stripes[at]);
            done += stripe_bytes;
        }
        done as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    round(ROUND / 3);
    let mut figures: Vec<f64> = (0..ROUNDS).map(|_| round(ROUND)).collect();
    figures.sort_by(f64::total_cmp);
    figures[ROUNDS / 2]
}

fn main() {
    println!("best kernel here: {:?}", gf::Kernel::best());
    println!("GB/s of data, one core: encode | rebuild-of-2");
    for len in SHARD_LENS {
        println!("\n{} KiB shards", len >> 10);
        let mut table: Vec<(String, Vec<String>)> = Vec::new();
        for (k, m) in CODES {
            let mut all = stripes(k, m, len);
            for (row, (name, checked, mut engine)) in engines(k, m, len).into_iter().enumerate() {
                if checked {
                    let mut stripe = all[0].clone();
                    engine.encode(&mut stripe);
                    stripe.data[..2].iter_mut().for_each(|shard| shard.fill(0));
                    engine.rebuild(&mut stripe);
                    assert!(stripe.data == all[0].data, "{name} does not give the data back");
                }
                // What an engine rebuilds from another's parity is garbage at the same speed; the
                // lost shards are scratch here.
                let mut scratch = all.clone();
                let encode = measure(&mut scratch, |stripe| engine.encode(stripe));
                let rebuild = measure(&mut scratch, |stripe| engine.rebuild(stripe));
                if table.len() <= row {
                    table.push((name, Vec::new()));
                }
                table[row].1.push(format!("{encode:5.1} | {rebuild:5.1}"));
            }
            all.clear();
        }
        let heads = CODES.map(|(k, m)| format!("{:>13}", format!("{k}+{m}")));
        println!("{:22}{}", "", heads.join("  "));
        for (name, figures) in table {
            println!("{name:22}{}", figures.join("  "));
        }
    }
}
