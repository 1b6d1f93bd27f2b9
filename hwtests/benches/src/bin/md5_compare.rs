//! MD5 implementations side by side on one core: the first table of docs/decisions/0003-md5.md.
//!
//! A figure is GB (10^9 bytes) a second over all the messages together. One warm-up, then the median
//! of five rounds. Messages are 1 MiB long and hashed whole; every digest is compared with `md-5`'s.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use md5::Digest;

const MESSAGE_BYTES: usize = 1 << 20;
/// What an upload hands over at a time.
const CHUNK_BYTES: usize = 64 << 10;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(400);

type Hasher<'a> = Box<dyn FnMut(&[&[u8]]) -> Vec<[u8; 16]> + 'a>;

/// GB/s of `hash` over these messages, median of the rounds.
fn measure(messages: &[&[u8]], hash: &mut Hasher<'_>) -> f64 {
    let mut round = |least: Duration| {
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < least {
            std::hint::black_box(hash(messages));
            done += messages.iter().map(|m| m.len()).sum::<usize>();
        }
        done as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    round(ROUND / 3);
    let mut figures: Vec<f64> = (0..ROUNDS).map(|_| round(ROUND)).collect();
    figures.sort_by(f64::total_cmp);
    figures[ROUNDS / 2]
}

/// The lanes, a chunk of every message at a time, as uploads feed them.
fn lanes(kernel: md5lanes::Kernel, messages: &[&[u8]]) -> Vec<[u8; 16]> {
    let mut states = vec![md5lanes::INITIAL; messages.len()];
    for at in (0..MESSAGE_BYTES).step_by(CHUNK_BYTES) {
        let chunks: Vec<&[u8]> = messages.iter().map(|m| &m[at..at + CHUNK_BYTES]).collect();
        kernel.compress(&mut states, &chunks);
    }
    // RFC 1321, 3.1 and 3.2: a whole number of blocks is padded by one block of its own.
    let mut padding = [0u8; md5lanes::BLOCK_BYTES];
    padding[0] = 0x80;
    padding[56..].copy_from_slice(&(MESSAGE_BYTES as u64 * 8).to_le_bytes());
    kernel.compress(&mut states, &vec![padding.as_slice(); messages.len()]);
    let digest = |state: md5lanes::State| {
        let mut bytes = [0u8; 16];
        for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
            *to = word.to_le_bytes();
        }
        bytes
    };
    states.into_iter().map(digest).collect()
}

fn hashers() -> Vec<(String, Hasher<'static>)> {
    let mut hashers: Vec<(String, Hasher<'static>)> = vec![
        ("md-5 0.11".to_owned(), Box::new(|messages| messages.iter().map(|m| md5::Md5::digest(m).into()).collect())),
        (
            "md-5 0.10 asm".to_owned(),
            Box::new(|messages| {
                use md_5_asm::Digest as _;
                messages.iter().map(|m| md_5_asm::Md5::digest(m).into()).collect()
            }),
        ),
        ("md5-simd 0.2 stream".to_owned(), Box::new(|messages| messages.iter().map(|m| md5_simd::digest(m)).collect())),
        (
            "md5-simd 0.2 hash_many".to_owned(),
            Box::new(|messages| {
                let mut digests = vec![[0u8; 16]; messages.len()];
                md5_simd::Md5Engine::new().hash_many(messages, &mut digests);
                digests
            }),
        ),
    ];
    for kernel in md5lanes::Kernel::ALL.into_iter().filter(|k| k.is_available()) {
        let name = format!("md5lanes {kernel:?}");
        hashers.push((name, Box::new(move |messages| lanes(kernel, messages))));
    }
    hashers
}

fn main() {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let messages: Vec<Vec<u8>> = (0..16).map(|_| (0..MESSAGE_BYTES).map(|_| next()).collect()).collect();
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let expected: Vec<[u8; 16]> = messages.iter().map(|m| md5::Md5::digest(m).into()).collect();
    let counts = [1, 2, 4, 8, 16];
    println!("GB/s, one core, messages of 1 MiB side by side");
    println!("{:24}{}", "", counts.map(|count| format!("{count:>7}")).join(""));
    for (name, mut hash) in hashers() {
        let mut figures = String::new();
        for count in counts {
            assert_eq!(hash(&messages[..count]), expected[..count], "{name}");
            figures += &format!("{:7.2}", measure(&messages[..count], &mut hash));
        }
        println!("{name:24}{figures}");
    }
}
