"""The two formats of `torch.save`: a zip archive, and a sequence of pickles before version 1.6.

`resnet_cli.weights.pickles` reads the pickles without running code; this module adds the tensors'
values.
"""

import struct
import sys
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

from resnet_cli.weights.pickles import PickleError, Reader, Storage

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first object in a file of PyTorch before version 1.6."""


def read_zip(archive: ZipFile, size: int) -> Any:
    """The content of a file of PyTorch 1.6 or later.

    Args:
        size: size of the file in bytes.

    Raises:
        PickleError: the file is damaged, or its entries are compressed or larger than the file.
        KeyError: the archive has no data.pkl.
    """
    entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if name.split("/")[-1] == "data.pkl"]
    if not pickles:
        raise KeyError("data.pkl")
    if any(info.compress_type != ZIP_STORED for info in entries.values()):
        raise PickleError("its entries are compressed, which torch.save never does")
    if sum(info.file_size for info in entries.values()) > size:
        raise PickleError("its entries are larger than the file")
    root = pickles[0].removesuffix("data.pkl")
    swapped = root + "byteorder" in entries and archive.read(root + "byteorder") == b"big"
    read: dict[str, Tensor] = {}

    def storage(wanted: Storage) -> Tensor:
        if wanted.key not in read:
            name = f"{root}data/{wanted.key}"
            if name not in entries:
                raise PickleError("a storage is missing")
            read[wanted.key] = _as_bytes(archive.read(name))
        return _typed(read[wanted.key], wanted, swapped)

    with archive.open(pickles[0]) as file:
        return Reader(file, storage).load()


def read_legacy(file: IO[bytes]) -> Any:
    """The content of a file of PyTorch before version 1.6, or of any other pickle.

    The tensors' values follow the pickle, so tensors are first created with zeros, which use no
    memory until the values are read.

    Raises:
        PickleError: the file is damaged.
    """
    wanted: dict[str, tuple[Storage, Tensor]] = {}

    def storage(found: Storage) -> Tensor:
        if found.key not in wanted:
            wanted[found.key] = (found, torch.empty(0, dtype=found.dtype))
        known, values = wanted[found.key]
        if known != found:
            raise PickleError("two descriptions of one storage")
        if not values.numel() and found.count:
            sizes = [other.count * other.dtype.itemsize for other, _ in wanted.values()]
            if sum(sizes) > size:
                raise PickleError("storages larger than the file")
            values = torch.zeros(found.count, dtype=found.dtype)
            wanted[found.key] = (found, values)
        return values

    start = file.tell()
    file.seek(0, 2)
    size = file.tell() - start
    file.seek(start)
    first = Reader(file, storage).load()
    if first != LEGACY_MAGIC:
        return first
    Reader(file, storage).load()  # the protocol version
    system = Reader(file, storage).load()
    swapped = isinstance(system, dict) and system.get("little_endian") is False
    reader = Reader(file, storage)
    content = reader.load()
    for key in Reader(file, storage).load():
        found = reader.named.get(str(key))
        count = struct.unpack("<q", file.read(8))[0]
        if found is None or count != found.count:
            raise PickleError("a storage with another size than its tensor")
        raw = file.read(count * found.dtype.itemsize)
        if count and str(key) in wanted:
            wanted[str(key)][1].copy_(_typed(_as_bytes(raw), found, swapped))
    return content


def _as_bytes(raw: bytes) -> Tensor:
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0).byte()


def _typed(raw: Tensor, wanted: Storage, swapped: bool) -> Tensor:
    if raw.numel() != wanted.count * wanted.dtype.itemsize:
        raise PickleError("a truncated storage")
    if swapped != (sys.byteorder == "big") and raw.numel():
        raw = raw.view(-1, wanted.dtype.itemsize).flip(1).contiguous().view(-1)
    return raw.view(wanted.dtype)
