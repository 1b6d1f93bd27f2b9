//! Digests of bytes as they pass, AWS's checksum algorithms, and the checksum of a whole from its parts.

use base64_simd::STANDARD as BASE64;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use etag::{Md5Lanes, Md5Stream};
use object::api::{Checksum, ChecksumAlgorithm, ChecksumKind};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Every algorithm, in the order in which headers are looked for.
pub(crate) const ALGORITHMS: [ChecksumAlgorithm; 5] = [
    ChecksumAlgorithm::Crc32,
    ChecksumAlgorithm::Crc32c,
    ChecksumAlgorithm::Crc64Nvme,
    ChecksumAlgorithm::Sha1,
    ChecksumAlgorithm::Sha256,
];

/// The header or trailer that carries a checksum.
pub(crate) fn header_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
    }
}

/// AWS's name of an algorithm.
pub(crate) fn algorithm_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "CRC32",
        ChecksumAlgorithm::Crc32c => "CRC32C",
        ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
        ChecksumAlgorithm::Sha1 => "SHA1",
        ChecksumAlgorithm::Sha256 => "SHA256",
    }
}

/// The algorithm AWS calls so, in any case.
pub(crate) fn algorithm_by_name(name: &str) -> Option<ChecksumAlgorithm> {
    ALGORITHMS.into_iter().find(|a| algorithm_name(*a).eq_ignore_ascii_case(name))
}

/// Bytes of a value.
pub(crate) fn value_bytes(algorithm: ChecksumAlgorithm) -> usize {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => 4,
        ChecksumAlgorithm::Crc64Nvme => 8,
        ChecksumAlgorithm::Sha1 => 20,
        ChecksumAlgorithm::Sha256 => 32,
    }
}

fn crc(algorithm: ChecksumAlgorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        ChecksumAlgorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        ChecksumAlgorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => None,
    }
}

/// A checksum value in base64, decoded; `None` when it is not one of this algorithm.
pub(crate) fn parse_value(algorithm: ChecksumAlgorithm, text: &str) -> Option<Vec<u8>> {
    let value = BASE64.decode_to_vec(text.as_bytes()).ok()?;
    (value.len() == value_bytes(algorithm)).then_some(value)
}

/// A checksum as AWS writes it: base64, and `-N` behind a composite one.
pub(crate) fn text(checksum: &Checksum) -> String {
    let mut text = BASE64.encode_to_string(&checksum.value);
    if let Some(parts) = checksum.parts {
        text.push('-');
        text.push_str(&parts.to_string());
    }
    text
}

enum Hasher {
    Crc(crc_fast::Digest),
    Sha1(Sha1),
    Sha256(Sha256),
}

/// One checksum being computed.
pub(crate) struct Running {
    algorithm: ChecksumAlgorithm,
    hasher: Hasher,
}

impl Running {
    pub(crate) fn new(algorithm: ChecksumAlgorithm) -> Self {
        let hasher = match (algorithm, crc(algorithm)) {
            (_, Some(crc)) => Hasher::Crc(crc_fast::Digest::new(crc)),
            (ChecksumAlgorithm::Sha1, None) => Hasher::Sha1(Sha1::new()),
            (_, None) => Hasher::Sha256(Sha256::new()),
        };
        Self { algorithm, hasher }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        match &mut self.hasher {
            Hasher::Crc(crc) => crc.update(data),
            Hasher::Sha1(sha) => sha.update(data),
            Hasher::Sha256(sha) => sha.update(data),
        }
    }

    pub(crate) fn finish(self) -> Checksum {
        let value = match self.hasher {
            Hasher::Crc(crc) => crc_value(self.algorithm, crc.finalize()),
            Hasher::Sha1(sha) => sha.finalize().to_vec(),
            Hasher::Sha256(sha) => sha.finalize().to_vec(),
        };
        Checksum { algorithm: self.algorithm, kind: ChecksumKind::FullObject, value, parts: None }
    }
}

fn crc_value(algorithm: ChecksumAlgorithm, crc: u64) -> Vec<u8> {
    crc.to_be_bytes()[8 - value_bytes(algorithm)..].to_vec()
}

fn crc_number(value: &[u8]) -> u64 {
    value.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// What a body is hashed with: MD5 always (together with the other uploads under way), the checksum to
/// keep, and what only has to be verified.
pub(crate) struct Digests {
    md5: Md5Stream,
    kept: Running,
    verified: Option<Running>,
    content_sha256: Option<Sha256>,
}

/// The results of [`Digests`].
pub(crate) struct Digested {
    pub(crate) md5: [u8; 16],
    pub(crate) kept: Checksum,
    pub(crate) verified: Option<Checksum>,
    pub(crate) content_sha256: Option<[u8; 32]>,
}

impl Digests {
    /// `verify` is left out when it is what is kept anyway.
    pub(crate) fn new(
        lanes: &Md5Lanes,
        keep: ChecksumAlgorithm,
        verify: Option<ChecksumAlgorithm>,
        content_sha256: bool,
    ) -> Self {
        Self {
            md5: lanes.start(),
            kept: Running::new(keep),
            verified: verify.filter(|v| *v != keep).map(Running::new),
            content_sha256: content_sha256.then(Sha256::new),
        }
    }

    /// Takes the next bytes; the MD5 holds on to them until the call after this one.
    pub(crate) async fn update(&mut self, data: &Bytes) {
        self.md5.update(data.clone()).await;
        self.kept.update(data);
        if let Some(running) = &mut self.verified {
            running.update(data);
        }
        if let Some(sha) = &mut self.content_sha256 {
            sha.update(data);
        }
    }

    pub(crate) async fn finish(self) -> Digested {
        Digested {
            md5: self.md5.finish().await,
            kept: self.kept.finish(),
            verified: self.verified.map(Running::finish),
            content_sha256: self.content_sha256.map(|sha| sha.finalize().into()),
        }
    }
}

/// The checksum of a multipart object from its parts' (bytes, checksum), in order; `None` when a part has
/// none of that algorithm, or the kind does not exist for it.
pub(crate) fn of_parts<'a>(
    algorithm: ChecksumAlgorithm,
    kind: ChecksumKind,
    parts: impl Iterator<Item = (u64, Option<&'a Checksum>)>,
) -> Option<Checksum> {
    match kind {
        ChecksumKind::Composite => composite(algorithm, parts),
        ChecksumKind::FullObject => full_object(crc(algorithm)?, algorithm, parts),
    }
}

fn composite<'a>(
    algorithm: ChecksumAlgorithm,
    parts: impl Iterator<Item = (u64, Option<&'a Checksum>)>,
) -> Option<Checksum> {
    let mut running = Running::new(algorithm);
    let mut count = 0u32;
    for (_, checksum) in parts {
        running.update(&checksum.filter(|c| c.algorithm == algorithm)?.value);
        count += 1;
    }
    Some(Checksum { kind: ChecksumKind::Composite, parts: Some(count), ..running.finish() })
}

fn full_object<'a>(
    crc: CrcAlgorithm,
    algorithm: ChecksumAlgorithm,
    parts: impl Iterator<Item = (u64, Option<&'a Checksum>)>,
) -> Option<Checksum> {
    let mut whole: Option<u64> = None;
    for (bytes, checksum) in parts {
        let part = crc_number(&checksum.filter(|c| c.algorithm == algorithm)?.value);
        whole = Some(match whole {
            None => part,
            Some(before) => crc_fast::checksum_combine(crc, before, part, bytes),
        });
    }
    let value = crc_value(algorithm, whole?);
    Some(Checksum { algorithm, kind: ChecksumKind::FullObject, value, parts: None })
}

/// The kind an upload has when the client names none.
pub(crate) fn default_kind(algorithm: ChecksumAlgorithm) -> ChecksumKind {
    match algorithm {
        ChecksumAlgorithm::Crc64Nvme => ChecksumKind::FullObject,
        _ => ChecksumKind::Composite,
    }
}

/// Whether AWS has this kind for this algorithm.
pub(crate) fn kind_exists(algorithm: ChecksumAlgorithm, kind: ChecksumKind) -> bool {
    match kind {
        ChecksumKind::FullObject => crc(algorithm).is_some(),
        ChecksumKind::Composite => algorithm != ChecksumAlgorithm::Crc64Nvme,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(algorithm: ChecksumAlgorithm, data: &[u8]) -> Checksum {
        let mut running = Running::new(algorithm);
        running.update(data);
        running.finish()
    }

    #[test]
    fn the_published_check_values_come_out() {
        // The check value of every CRC catalogue entry is over "123456789"; SHA of "abc" from FIPS 180.
        let crc32 = one(ChecksumAlgorithm::Crc32, b"123456789");
        assert_eq!(crc32.value, [0xcb, 0xf4, 0x39, 0x26]);
        assert_eq!(one(ChecksumAlgorithm::Crc32c, b"123456789").value, [0xe3, 0x06, 0x92, 0x83]);
        let crc64 = one(ChecksumAlgorithm::Crc64Nvme, b"123456789");
        assert_eq!(crc64.value, 0xae8b_1486_0a79_9888_u64.to_be_bytes());
        assert_eq!(one(ChecksumAlgorithm::Sha1, b"abc").value[..4], [0xa9, 0x99, 0x3e, 0x36]);
        assert_eq!(one(ChecksumAlgorithm::Sha256, b"abc").value[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(text(&crc32), "y/Q5Jg==");
    }

    #[test]
    fn a_full_object_checksum_of_parts_is_that_of_the_whole() {
        let whole: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect();
        for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme] {
            let parts: Vec<(u64, Checksum)> =
                whole.chunks(33_333).map(|p| (p.len() as u64, one(algorithm, p))).collect();
            let combined = of_parts(algorithm, ChecksumKind::FullObject, parts.iter().map(|(n, c)| (*n, Some(c))));
            assert_eq!(combined, Some(one(algorithm, &whole)), "{algorithm:?}");
        }
    }

    #[test]
    fn a_composite_checksum_is_over_the_parts_checksums() {
        let (a, b) = (one(ChecksumAlgorithm::Sha256, b"a"), one(ChecksumAlgorithm::Sha256, b"b"));
        let both = [a.value.clone(), b.value.clone()].concat();
        let parts = [(1, Some(&a)), (1, Some(&b))];
        let composite = of_parts(ChecksumAlgorithm::Sha256, ChecksumKind::Composite, parts.into_iter()).unwrap();
        assert_eq!(composite.value, one(ChecksumAlgorithm::Sha256, &both).value);
        assert_eq!(composite.parts, Some(2));
        assert!(text(&composite).ends_with("-2"));
    }

    #[test]
    fn a_part_without_the_algorithm_gives_no_checksum() {
        let a = one(ChecksumAlgorithm::Crc32, b"a");
        let parts = || [(1, Some(&a)), (1, None)].into_iter();
        assert_eq!(of_parts(ChecksumAlgorithm::Crc32, ChecksumKind::FullObject, parts()), None);
        assert_eq!(of_parts(ChecksumAlgorithm::Crc32c, ChecksumKind::Composite, [(1, Some(&a))].into_iter()), None);
    }
}
