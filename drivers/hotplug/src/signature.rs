//! What the first and the last bytes of a device say lives on it.
//!
//! A pure decoder: it takes bytes, never panics on any, and errs towards finding something, since a false alarm
//! costs a flag on the command line and a miss costs somebody's data. Magic numbers and offsets are those of each format's
//! own documentation or kernel header.

use std::fmt;

/// Bytes wanted from the start of the device: up to the end of the second ZFS label.
pub const HEAD_BYTES: usize = 512 * 1024;
/// Bytes wanted from the end of the device: two ZFS labels and whatever keeps them from being aligned.
pub const TAIL_BYTES: usize = 768 * 1024;

const SPOKEN_WITH_AN: &[&str] =
    &["ext2", "ext3", "ext4", "xfs", "exFAT", "NTFS", "ISO 9660", "f2fs", "HFS+", "APFS", "EROFS"];

/// One thing found on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signature {
    /// A GUID partition table, or its backup at the end.
    Gpt,
    /// A master boot record with at least one partition.
    Mbr,
    /// A file system, by its usual name.
    FileSystem(&'static str),
    /// A member of something larger: a volume group, an array, a pool, a cache.
    Member(&'static str),
    /// An encrypted volume.
    Luks,
    /// A swap area.
    Swap,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt => f.write_str("has a GPT partition table"),
            Self::Mbr => f.write_str("has an MBR partition table"),
            Self::FileSystem(name) => {
                let article = if SPOKEN_WITH_AN.contains(name) { "an" } else { "a" };
                write!(f, "holds {article} {name} file system")
            }
            Self::Member(name) => write!(f, "is a member of {name}"),
            Self::Luks => f.write_str("holds a LUKS encrypted volume"),
            Self::Swap => f.write_str("holds a swap area"),
        }
    }
}

use Signature::{FileSystem, Gpt, Luks, Mbr, Member, Swap};

/// Magic bytes at one place from the start.
const AT_HEAD: &[(usize, &[u8], Signature)] = &[
    (0, b"XFSB", FileSystem("xfs")),
    (0x10040, b"_BHRfS_M", FileSystem("btrfs")),
    (3, b"EXFAT   ", FileSystem("exFAT")),
    (3, b"NTFS    ", FileSystem("NTFS")),
    (3, b"ReFS\0\0\0\0", FileSystem("ReFS")),
    (0x36, b"FAT12   ", FileSystem("FAT")),
    (0x36, b"FAT16   ", FileSystem("FAT")),
    (0x36, b"FAT     ", FileSystem("FAT")),
    (0x52, b"FAT32   ", FileSystem("FAT")),
    (0, b"hsqs", FileSystem("squashfs")),
    (0, b"sqsh", FileSystem("squashfs")),
    (0x8001, b"CD001", FileSystem("ISO 9660")),
    (0x8001, b"BEA01", FileSystem("UDF")),
    (0x400, &[0x10, 0x20, 0xf5, 0xf2], FileSystem("f2fs")),
    (0x10034, b"ReIsEr", FileSystem("ReiserFS")),
    (0x406, &[0x34, 0x34], FileSystem("NILFS2")),
    (0x8000, b"JFS1", FileSystem("JFS")),
    (0x400, b"H+\0\x04", FileSystem("HFS+")),
    (0x400, b"HX\0\x05", FileSystem("HFS+")),
    (0x20, b"NXSB", FileSystem("APFS")),
    (0x400, &[0xe2, 0xe1, 0xf5, 0xe0], FileSystem("EROFS")),
    (0x1018, &BCACHEFS, FileSystem("bcachefs")),
    (0x1018, &BCACHE, Member("a bcache set")),
    (0, b"bluestore block device\n", Member("a Ceph cluster")),
    (0, b"LUKS\xba\xbe", Luks),
    // The second header of LUKS version 2, at each place that the format allows, in case the first was wiped.
    (0x4000, b"SKUL\xba\xbe", Luks),
    (0x8000, b"SKUL\xba\xbe", Luks),
    (0x10000, b"SKUL\xba\xbe", Luks),
    (0x20000, b"SKUL\xba\xbe", Luks),
    (0x40000, b"SKUL\xba\xbe", Luks),
    (0, &MD_MAGIC, Member("an mdraid array")),
    (0x1000, &MD_MAGIC, Member("an mdraid array")),
    // Sectors of 512 and of 4096 bytes.
    (0x200, b"EFI PART", Gpt),
    (0x1000, b"EFI PART", Gpt),
];

const BCACHE: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];
const BCACHEFS: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef];
const MD_MAGIC: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
const ZFS_MAGIC: u64 = 0x00ba_b10c;
const ZFS_LABEL_BYTES: u64 = 256 * 1024;

/// What lives on a device of `size_bytes`, of which `head` are the first bytes (up to [`HEAD_BYTES`]) and `tail`
/// the last ones (up to [`TAIL_BYTES`]). Sorted, each thing once.
#[must_use]
pub fn signatures(head: &[u8], tail: &[u8], size_bytes: u64) -> Vec<Signature> {
    let view = View { head, tail, size_bytes };
    let mut found: Vec<Signature> =
        AT_HEAD.iter().filter(|(at, magic, _)| view.has(*at as u64, magic)).map(|(_, _, found)| *found).collect();
    found.extend(ext(&view));
    found.extend(swap(&view));
    found.extend(lvm(&view));
    found.extend(at_the_end(&view));
    found.extend(zfs(&view));
    if !found.iter().any(|s| matches!(s, FileSystem("FAT" | "NTFS" | "exFAT" | "ReFS"))) {
        // The boot sectors of those end in the same two bytes.
        found.extend(mbr(&view));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The known bytes of a device by their place on it.
struct View<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    size_bytes: u64,
}

impl View<'_> {
    fn bytes(&self, at: u64, len: usize) -> Option<&[u8]> {
        let within = |all: &'_ [u8], start: u64| -> Option<std::ops::Range<usize>> {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            let to = from.checked_add(len)?;
            (to <= all.len()).then_some(from..to)
        };
        if let Some(range) = within(self.head, 0) {
            return self.head.get(range);
        }
        let start = self.size_bytes.checked_sub(self.tail.len() as u64)?;
        within(self.tail, start).and_then(|range| self.tail.get(range))
    }

    fn has(&self, at: u64, magic: &[u8]) -> bool {
        self.bytes(at, magic.len()) == Some(magic)
    }

    /// Whether `magic` lies `back` bytes before the end.
    fn has_before_end(&self, back: u64, magic: &[u8]) -> bool {
        self.size_bytes.checked_sub(back).is_some_and(|at| self.has(at, magic))
    }

    fn u32(&self, at: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(at, 4)?.try_into().ok()?))
    }
}

/// The three generations share a magic number; features tell them apart.
fn ext(view: &View<'_>) -> Option<Signature> {
    const SUPERBLOCK: u64 = 0x400;
    const COMPAT_JOURNAL: u32 = 0x4;
    // Extents, 64-bit, multi-mount protection, flexible groups, checksum seed, inline data.
    const INCOMPAT_EXT4: u32 = 0x40 | 0x80 | 0x100 | 0x200 | 0x2000 | 0x8000;
    // Huge files, group checksums, large directories, large inodes, bigalloc, metadata checksums.
    const RO_COMPAT_EXT4: u32 = 0x8 | 0x10 | 0x20 | 0x40 | 0x200 | 0x400;
    if !view.has(SUPERBLOCK + 0x38, &[0x53, 0xef]) {
        return None;
    }
    let feature = |at| view.u32(SUPERBLOCK + at).unwrap_or(0);
    let (compat, incompat, ro_compat) = (feature(0x5c), feature(0x60), feature(0x64));
    let name = match () {
        () if incompat & INCOMPAT_EXT4 != 0 || ro_compat & RO_COMPAT_EXT4 != 0 => "ext4",
        () if compat & COMPAT_JOURNAL != 0 => "ext3",
        () => "ext2",
    };
    Some(FileSystem(name))
}

/// The magic ends the first page, whose size was that of the machine that made it; hibernation writes another.
fn swap(view: &View<'_>) -> Option<Signature> {
    let magics: [&[u8]; 4] = [b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\0", b"LINHIB0001"];
    let pages = [4096, 8192, 16384, 65536];
    pages.iter().any(|page| magics.iter().any(|magic| view.has(page - 10, magic))).then_some(Swap)
}

/// The label may stand in any of the first four sectors.
fn lvm(view: &View<'_>) -> Option<Signature> {
    let in_sector = |s: u64| view.has(s * 512, b"LABELONE") && view.has(s * 512 + 24, b"LVM2 001");
    (0..4).any(in_sector).then_some(Member("an LVM volume group"))
}

/// Formats that keep their superblock, or a copy of it, at the end.
fn at_the_end(view: &View<'_>) -> Vec<Signature> {
    let mut found = Vec::new();
    if view.has_before_end(512, b"EFI PART") || view.has_before_end(4096, b"EFI PART") {
        found.push(Gpt);
    }
    // Version 0.90 lies in the last whole 64 KiB block but one end, in the byte order of its machine; version 1.0 at
    // least 8 KiB before the end, aligned to 4 KiB.
    let old = (view.size_bytes & !0xffff).checked_sub(0x1_0000);
    let new = view.size_bytes.checked_sub(0x2000).map(|at| at & !0xfff);
    let swapped: Vec<u8> = MD_MAGIC.iter().rev().copied().collect();
    let md = |at: Option<u64>| at.is_some_and(|at| view.has(at, &MD_MAGIC));
    if md(old) || md(new) || old.is_some_and(|at| view.has(at, &swapped)) {
        found.push(Member("an mdraid array"));
    }
    if view.has_before_end(1024, b"Intel Raid ISM Cfg Sig. ") {
        found.push(Member("an Intel RAID array"));
    }
    if view.has_before_end(512, &[0xde, 0x11, 0xde, 0x11]) {
        found.push(Member("a DDF RAID array"));
    }
    found
}

/// A pool member carries four labels, two at each end; half of a label is a ring of uberblocks of 1 KiB or more.
fn zfs(view: &View<'_>) -> Option<Signature> {
    let end = view.size_bytes & !(ZFS_LABEL_BYTES - 1);
    let at_end = [end.checked_sub(2 * ZFS_LABEL_BYTES), end.checked_sub(ZFS_LABEL_BYTES)];
    let labels = [Some(0), Some(ZFS_LABEL_BYTES), at_end[0], at_end[1]];
    let uberblock = |at: u64| view.has(at, &ZFS_MAGIC.to_le_bytes()) || view.has(at, &ZFS_MAGIC.to_be_bytes());
    let in_label = |label: u64| (0..128).any(|i| uberblock(label + ZFS_LABEL_BYTES / 2 + i * 1024));
    labels.into_iter().flatten().any(in_label).then_some(Member("a ZFS pool"))
}

/// The signature alone means little (boot sectors have it too): an entry must make sense.
fn mbr(view: &View<'_>) -> Option<Signature> {
    if !view.has(510, &[0x55, 0xaa]) {
        return None;
    }
    let entry = |i: u64| view.bytes(446 + 16 * i, 16);
    let sensible = |e: &[u8]| {
        let sectors = u32::from_le_bytes([e[12], e[13], e[14], e[15]]);
        (e[0] == 0 || e[0] == 0x80) && e[4] != 0 && sectors != 0
    };
    (0..4).any(|i| entry(i).is_some_and(sensible)).then_some(Mbr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE_BYTES: u64 = 64 * 1024 * 1024;

    /// What is found on a zeroed device with `writes` on it.
    fn found(writes: &[(u64, &[u8])]) -> Vec<Signature> {
        let (mut head, mut tail) = (vec![0; HEAD_BYTES], vec![0; TAIL_BYTES]);
        let tail_start = SIZE_BYTES - TAIL_BYTES as u64;
        for (at, bytes) in writes {
            let (image, at) = if *at >= tail_start { (&mut tail, at - tail_start) } else { (&mut head, *at) };
            image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        }
        signatures(&head, &tail, SIZE_BYTES)
    }

    #[test]
    fn a_blank_device_holds_nothing() {
        assert_eq!(found(&[]), []);
        assert_eq!(signatures(&[], &[], 0), []);
    }

    #[test]
    fn each_magic_at_its_place_is_found_alone_and_elsewhere_is_not() {
        for (at, magic, expected) in AT_HEAD {
            assert_eq!(found(&[(*at as u64, magic)]), [*expected], "{expected:?} at {at:#x}");
            assert!(!found(&[(*at as u64 + 5, magic)]).contains(expected), "{expected:?} at {:#x}", at + 5);
        }
    }

    #[test]
    fn ext_generations_are_told_apart_by_their_features() {
        let of = |compat: u8, incompat: u8, ro_compat: u8| {
            found(&[(0x438, &[0x53, 0xef]), (0x45c, &[compat]), (0x460, &[incompat]), (0x464, &[ro_compat])])
        };
        assert_eq!(of(0, 0x2, 0x1), [FileSystem("ext2")]);
        assert_eq!(of(0x4, 0x2, 0x1), [FileSystem("ext3")]);
        assert_eq!(of(0x4, 0x42, 0x1), [FileSystem("ext4")]);
        assert_eq!(of(0, 0, 0x10), [FileSystem("ext4")]);
    }

    #[test]
    fn swap_of_any_page_size_and_lvm_in_any_label_sector() {
        for page in [4096, 8192, 16384, 65536] {
            assert_eq!(found(&[(page - 10, b"SWAPSPACE2")]), [Swap]);
        }
        for sector in 0..4 {
            let at = sector * 512;
            assert_eq!(found(&[(at, b"LABELONE"), (at + 24, b"LVM2 001")]), [Member("an LVM volume group")]);
        }
        assert_eq!(found(&[(0, b"LABELONE")]), []);
    }

    #[test]
    fn what_stands_at_the_end_is_found() {
        let md = [Member("an mdraid array")];
        assert_eq!(found(&[(SIZE_BYTES - 512, b"EFI PART")]), [Gpt]);
        assert_eq!(found(&[(SIZE_BYTES - 4096, b"EFI PART")]), [Gpt]);
        assert_eq!(found(&[(SIZE_BYTES - 0x2000, &MD_MAGIC)]), md);
        assert_eq!(found(&[(SIZE_BYTES - 0x10000, &MD_MAGIC)]), md);
        assert_eq!(found(&[(SIZE_BYTES - 0x10000, &[0xa9, 0x2b, 0x4e, 0xfc])]), md);
        assert_eq!(found(&[(SIZE_BYTES - 1024, b"Intel Raid ISM Cfg Sig. ")]), [Member("an Intel RAID array")]);
    }

    #[test]
    fn zfs_is_found_by_any_of_its_labels() {
        let label = 256 * 1024;
        for start in [0, label, SIZE_BYTES - 2 * label, SIZE_BYTES - label] {
            for magic in [ZFS_MAGIC.to_le_bytes(), ZFS_MAGIC.to_be_bytes()] {
                let at = start + label / 2 + 17 * 1024;
                assert_eq!(found(&[(at, &magic)]), [Member("a ZFS pool")], "{at:#x}");
            }
        }
    }

    #[test]
    fn a_boot_signature_is_a_partition_table_only_with_a_sensible_entry() {
        let entry = [0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0];
        assert_eq!(found(&[(510, &[0x55, 0xaa])]), []);
        assert_eq!(found(&[(510, &[0x55, 0xaa]), (462, &entry)]), [Mbr]);
        assert_eq!(found(&[(462, &entry)]), []);
        // A FAT boot sector whose code looks like an entry is no partition table.
        assert_eq!(found(&[(510, &[0x55, 0xaa]), (462, &entry), (0x52, b"FAT32   ")]), [FileSystem("FAT")]);
    }

    #[test]
    fn several_things_are_all_named_in_words() {
        let all = found(&[(0x200, b"EFI PART"), (0x438, &[0x53, 0xef]), (SIZE_BYTES - 512, b"EFI PART")]);
        let words: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["has a GPT partition table", "holds an ext2 file system"]);
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_size_upset_the_decoder(
            head in proptest::collection::vec(any::<u8>(), 0..2048),
            tail in proptest::collection::vec(any::<u8>(), 0..2048),
            size_bytes in prop_oneof![any::<u64>(), 0..10_000u64],
        ) {
            let _ = signatures(&head, &tail, size_bytes);
        }
    }
}
