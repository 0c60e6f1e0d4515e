"""Random streams as pure functions of a seed and a position.

No generator outlives a step: the permutation of an epoch, the crops and the dropout of an iteration
and the draws of a study each come from a new stream, named by its position. The random state of a
run is therefore just its seed and iteration number, and resuming is exact by construction.
"""

import hashlib

import torch


def stream_seed(seed: int, *position: int | str) -> int:
    """A 63-bit seed that depends on `seed` and on every part of `position`, in order."""
    text = "/".join(str(part) for part in (seed, *position))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *position: int | str) -> torch.Generator:
    """A CPU generator at the start of the stream named by `seed` and `position`."""
    return torch.Generator().manual_seed(stream_seed(seed, *position))
