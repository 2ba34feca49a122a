"""CRC-32C against its published check values and a bit-by-bit definition."""

from hypothesis import given, settings
from hypothesis import strategies as st

from arkinfer.checksum import CHUNK, Checksum, checksum, crc32c


def crc32c_by_bits(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_published_values() -> None:
    # RFC 3720, appendix B.4, and the catalogue's check value.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


@given(st.binary(max_size=1100))
def test_any_length(data: bytes) -> None:
    assert crc32c(data) == crc32c_by_bits(data)


def test_checksum_is_the_crc_of_the_chunk_crcs() -> None:
    data = bytes(range(251)) * 600
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    assert len(chunks) == 3
    crcs = b"".join(crc32c_by_bits(chunk).to_bytes(4, "little") for chunk in chunks)
    assert checksum(data) == crc32c_by_bits(crcs)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 3 * CHUNK), max_size=6))
def test_pieces_do_not_matter(sizes: list[int]) -> None:
    data = bytes(i * 7 & 0xFF for i in range(sum(sizes)))
    stream, start = Checksum(), 0
    for size in sizes:
        stream.update(memoryview(data)[start : start + size])
        start += size
    assert stream.value() == checksum(data)
