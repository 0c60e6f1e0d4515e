"""The transforms of Winograd's F(4x4, 3x3), compiled by numba.

Lavin and Gray 2016 (arXiv:1509.09308), section 4: B^T d B of inputs d [6, 6], A^T m A of products m
[6, 6], and the transposes of both for the gradients. The code is compiled once per machine for each
number of channels and cached in `__pycache__` or, if that cannot be written, in numba's cache
folder.

Images are [N, H, W, C], flattened. Transformed tiles are [36, rows, C], flattened: one matrix for
each of the 6x6 elements of a tile, one row for each tile.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of what it compiles)

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

OUT, IN = 4, 6
"""Rows and columns of a tile's outputs and of its inputs."""

# Sizes are constants of a closure, so the compiler knows them, and arrays are sliced before the
# innermost loops. Otherwise the compiler could not infer that the elements of a tile do not overlap
# and that no index is negative, and would not vectorize.

Kernel = Callable[..., Any]


def _compiled(function: Callable[..., object]) -> Kernel:
    """The compiled function, cached on disk if a folder can be written."""
    compiler = functools.partial(
        numba.njit, nogil=True, error_model="numpy", fastmath={"contract", "nsz"}
    )
    try:
        return compiler(function, cache=True)
    except RuntimeError:  # no folder for the cache can be written
        return compiler(function)


def _BT(d0, d1, d2, d3, d4, d5):
    two, four, five = np.float32(2), np.float32(4), np.float32(5)
    even, odd = d4 - four * d2, d3 - four * d1
    low, high = d4 - d2, two * (d3 - d1)
    first, last = four * d0 - five * d2 + d4, four * d1 - five * d3 + d5
    return first, even + odd, even - odd, low + high, low - high, last


def _B(m0, m1, m2, m3, m4, m5):
    two, four, five = np.float32(2), np.float32(4), np.float32(5)
    near, near_odd, far, far_odd = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return (
        four * m0,
        four * (m5 - near_odd) - two * far_odd,
        -five * m0 - four * near - far,
        near_odd + two * far_odd - five * m5,
        m0 + near + far,
        m5,
    )


def _AT(m0, m1, m2, m3, m4, m5):
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    near, near_odd, far, far_odd = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return (
        m0 + near + far,
        near_odd + two * far_odd,
        near + four * far,
        near_odd + eight * far_odd + m5,
    )


def _A(y0, y1, y2, y3):
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    even, odd = y0 + y2, y1 + y3
    far, far_odd = y0 + four * y2, two * y1 + eight * y3
    return y0, even + odd, even - odd, far + far_odd, far - far_odd, y3


BT, B, AT, A = (_compiled(each) for each in (_BT, _B, _AT, _A))


@functools.cache
def input_transforms(channels: int, rows: int) -> tuple[Kernel, Kernel]:
    """The compiled B^T d B for the tiles of images `first` to `last` - 1, and its transpose.

    The inputs are d = max(scale * pixels + shift, minimum) with a border of zeros.

    Args:
        rows: the number of rows of each matrix of transformed tiles.
    """
    C, MATRIX = channels, rows * channels

    def transform_inputs(pixels, first, last, height, width, scale, shift, minimum, padded, tiles):
        row = (width + 2) * C
        lines = np.empty(IN * IN * C, np.float32)
        tile = 0
        for image in range(first, last):
            for h in range(height):
                source = pixels[(image * height + h) * width * C :]
                target = padded[(h + 1) * row + C :]
                for k in range(width * C):
                    value = source[k] * scale[k] + shift[k]
                    target[k] = minimum if value < minimum else value
            for top in range(0, height, OUT):
                for left in range(0, width, OUT):
                    for i in range(IN):
                        source = padded[(top + i) * row + left * C :]
                        target = lines[i * IN * C :]
                        for c in range(C):
                            t0, t1, t2, t3, t4, t5 = BT(
                                source[c],
                                source[C + c],
                                source[2 * C + c],
                                source[3 * C + c],
                                source[4 * C + c],
                                source[5 * C + c],
                            )
                            target[c] = t0
                            target[C + c] = t1
                            target[2 * C + c] = t2
                            target[3 * C + c] = t3
                            target[4 * C + c] = t4
                            target[5 * C + c] = t5
                    for j in range(IN):
                        source = lines[j * C :]
                        target = tiles[j * MATRIX + tile * C :]
                        for c in range(C):
                            t0, t1, t2, t3, t4, t5 = BT(
                                source[c],
                                source[6 * C + c],
                                source[12 * C + c],
                                source[18 * C + c],
                                source[24 * C + c],
                                source[30 * C + c],
                            )
                            target[c] = t0
                            target[6 * MATRIX + c] = t1
                            target[12 * MATRIX + c] = t2
                            target[18 * MATRIX + c] = t3
                            target[24 * MATRIX + c] = t4
                            target[30 * MATRIX + c] = t5
                    tile += 1

    def transform_inputs_transposed(tiles, first, last, height, width, sums, pixels):
        row = (width + 2) * C
        lines = np.empty(IN * IN * C, np.float32)
        tile = 0
        for image in range(first, last):
            sums[:] = 0
            for top in range(0, height, OUT):
                for left in range(0, width, OUT):
                    for j in range(IN):
                        source = tiles[j * MATRIX + tile * C :]
                        target = lines[j * C :]
                        for c in range(C):
                            t0, t1, t2, t3, t4, t5 = B(
                                source[c],
                                source[6 * MATRIX + c],
                                source[12 * MATRIX + c],
                                source[18 * MATRIX + c],
                                source[24 * MATRIX + c],
                                source[30 * MATRIX + c],
                            )
                            target[c] = t0
                            target[6 * C + c] = t1
                            target[12 * C + c] = t2
                            target[18 * C + c] = t3
                            target[24 * C + c] = t4
                            target[30 * C + c] = t5
                    for i in range(IN):
                        source = lines[i * IN * C :]
                        target = sums[(top + i) * row + left * C :]
                        for c in range(C):
                            t0, t1, t2, t3, t4, t5 = B(
                                source[c],
                                source[C + c],
                                source[2 * C + c],
                                source[3 * C + c],
                                source[4 * C + c],
                                source[5 * C + c],
                            )
                            target[c] += t0
                            target[C + c] += t1
                            target[2 * C + c] += t2
                            target[3 * C + c] += t3
                            target[4 * C + c] += t4
                            target[5 * C + c] += t5
                    tile += 1
            for h in range(height):
                source = sums[(h + 1) * row + C :]
                target = pixels[(image * height + h) * width * C :]
                for k in range(width * C):
                    target[k] = source[k]

    return _compiled(transform_inputs), _compiled(transform_inputs_transposed)


@functools.cache
def output_transforms(channels: int, rows: int) -> tuple[Kernel, Kernel]:
    """The compiled max(A^T m A + bias, minimum) for the tiles of images `first` to `last` - 1, and
    the transpose of A^T m A.

    Args:
        rows: the number of rows of each matrix of transformed tiles.
    """
    K, MATRIX = channels, rows * channels

    def transform_outputs(tiles, first, last, height, width, bias, minimum, outputs):
        columns = np.empty(OUT * IN * K, np.float32)
        tile = 0
        for image in range(first, last):
            for top in range(0, height, OUT):
                for left in range(0, width, OUT):
                    for j in range(IN):
                        source = tiles[j * MATRIX + tile * K :]
                        target = columns[j * K :]
                        for k in range(K):
                            t0, t1, t2, t3 = AT(
                                source[k],
                                source[6 * MATRIX + k],
                                source[12 * MATRIX + k],
                                source[18 * MATRIX + k],
                                source[24 * MATRIX + k],
                                source[30 * MATRIX + k],
                            )
                            target[k] = t0
                            target[6 * K + k] = t1
                            target[12 * K + k] = t2
                            target[18 * K + k] = t3
                    for i in range(OUT):
                        source = columns[i * IN * K :]
                        target = outputs[((image * height + top + i) * width + left) * K :]
                        for k in range(K):
                            t0, t1, t2, t3 = AT(
                                source[k],
                                source[K + k],
                                source[2 * K + k],
                                source[3 * K + k],
                                source[4 * K + k],
                                source[5 * K + k],
                            )
                            t0, t1, t2, t3 = t0 + bias[k], t1 + bias[k], t2 + bias[k], t3 + bias[k]
                            target[k] = minimum if t0 < minimum else t0
                            target[K + k] = minimum if t1 < minimum else t1
                            target[2 * K + k] = minimum if t2 < minimum else t2
                            target[3 * K + k] = minimum if t3 < minimum else t3
                    tile += 1

    def transform_outputs_transposed(outputs, first, last, height, width, tiles):
        columns = np.empty(OUT * IN * K, np.float32)
        tile = 0
        for image in range(first, last):
            for top in range(0, height, OUT):
                for left in range(0, width, OUT):
                    for i in range(OUT):
                        source = outputs[((image * height + top + i) * width + left) * K :]
                        target = columns[i * IN * K :]
                        for k in range(K):
                            t0, t1, t2, t3, t4, t5 = A(
                                source[k], source[K + k], source[2 * K + k], source[3 * K + k]
                            )
                            target[k] = t0
                            target[K + k] = t1
                            target[2 * K + k] = t2
                            target[3 * K + k] = t3
                            target[4 * K + k] = t4
                            target[5 * K + k] = t5
                    for j in range(IN):
                        source = columns[j * K :]
                        target = tiles[j * MATRIX + tile * K :]
                        for k in range(K):
                            t0, t1, t2, t3, t4, t5 = A(
                                source[k], source[6 * K + k], source[12 * K + k], source[18 * K + k]
                            )
                            target[k] = t0
                            target[6 * MATRIX + k] = t1
                            target[12 * MATRIX + k] = t2
                            target[18 * MATRIX + k] = t3
                            target[24 * MATRIX + k] = t4
                            target[30 * MATRIX + k] = t5
                    tile += 1

    return _compiled(transform_outputs), _compiled(transform_outputs_transposed)
