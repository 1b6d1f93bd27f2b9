"""Bytes and checksums made from nothing: content that a name decides, and the five checksums of S3."""

import base64
import hashlib
import struct
import zlib


def content(seed, size):
    """`size` bytes that `seed` decides and that no other seed gives."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


def _table(polynomial, bits):
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        table.append(value)
    return table, (1 << bits) - 1


_CRC32C = _table(0x82F63B78, 32)
_CRC64NVME = _table(0x9A6C9329AC4BC9B5, 64)


def _reflected(data, table_and_mask):
    table, mask = table_and_mask
    crc = mask
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ mask


def raw_checksum(name, data):
    """The checksum's bytes, big endian, by the name that S3 gives the algorithm."""
    if name == "CRC32":
        return struct.pack(">I", zlib.crc32(data))
    if name == "CRC32C":
        return struct.pack(">I", _reflected(data, _CRC32C))
    if name == "CRC64NVME":
        return struct.pack(">Q", _reflected(data, _CRC64NVME))
    return {"SHA1": hashlib.sha1, "SHA256": hashlib.sha256}[name](data).digest()


def checksum(name, data):
    return base64.b64encode(raw_checksum(name, data)).decode()


def md5_header(data):
    return base64.b64encode(hashlib.md5(data).digest()).decode()


ALGORITHMS = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]
CHECK = b"123456789"
assert raw_checksum("CRC32C", CHECK).hex() == "e3069283"
assert raw_checksum("CRC64NVME", CHECK).hex() == "ae8b14860a799888"
