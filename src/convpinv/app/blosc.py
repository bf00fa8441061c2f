"""Whether the blocks of a Zarr folder that Blosc has packed hold what their headers claim.

Blosc trusts its header: one that claims more bytes than are there is read beyond the end of the memory, which ends the
whole process (numcodecs 0.16). So the claims are looked at first.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

_HEADER = 16
_NOTHING = 2**64 - 1
# Filters before Blosc may widen the values; a block that unpacks to more than this many times the chunk is no chunk's.
_WIDENED = 8


def damaged(files: Mapping[str, bytes], prefix: str, chunk_bytes: int) -> str | None:
    """Return the name of a block whose header does not fit it, None if all do or none is packed by Blosc.

    Parameters
    ----------
    files
        The files of the folder.
    prefix
        The folder of the array among them, with its slash.
    chunk_bytes
        The bytes of an unpacked chunk.
    """
    metadata = files.get(f"{prefix}zarr.json") or files.get(f"{prefix}.zarray") or b""
    if b"blosc" not in metadata:
        return None
    shard = _shard(json.loads(metadata))
    for name, body in files.items():
        if not name.startswith(prefix) or name.rpartition("/")[2].startswith((".z", "zarr.json")) or not body:
            continue
        for block in [body] if shard is None else _blocks(body, *shard):
            if not _fits(block, chunk_bytes):
                return name
    return None


def _fits(block: bytes, chunk_bytes: int) -> bool:
    if len(block) < _HEADER:
        return False
    unpacked, block_size, packed = struct.unpack("<III", block[4:_HEADER])
    return _HEADER <= packed <= len(block) and unpacked <= _WIDENED * chunk_bytes and block_size <= max(unpacked, 1)


def _shard(metadata: Any) -> tuple[int, bool] | None:
    """Return how many chunks a shard holds, and whether its index stands at the end; None where there are none."""
    if "codecs" not in metadata:
        return None
    sharding = next((codec for codec in metadata["codecs"] if codec.get("name") == "sharding_indexed"), None)
    if sharding is None:
        return None
    count = 1
    outer = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    for large, small in zip(outer, sharding["configuration"]["chunk_shape"], strict=True):
        count *= int(large) // int(small)
    return count, sharding["configuration"].get("index_location", "end") == "end"


def _blocks(body: bytes, count: int, at_end: bool) -> Iterator[bytes]:
    """Yield the chunks of a shard; an index that does not fit, with its checksum of 4 bytes, is one wrong chunk."""
    length = 16 * count
    index = body[-length - 4 : -4] if at_end else body[:length]
    if len(index) != length:
        yield b""
        return
    for offset, size in struct.iter_unpack("<QQ", index):
        if offset != _NOTHING:
            yield body[offset : offset + size]
