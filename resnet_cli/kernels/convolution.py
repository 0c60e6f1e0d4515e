"""3x3 convolutions with a quarter of the multiplications, on CPUs in float32.

Winograd's F(4x4, 3x3) (Lavin and Gray 2016, arXiv:1509.09308, section 4): a tile of 4x4 outputs
comes from 6x6 inputs d and the 3x3 kernel g as

    A^T [ (G g G^T) * (B^T d B) ] A        (* elementwise)

Over all tiles and channels, this is one matrix product for each of the 36 elements of a transformed
tile: 36 multiplications for 16 outputs instead of 144. Direct convolution already runs as fast as a
matrix product on the same cores, so only fewer multiplications can be faster. The gradients are
computed by the transposes of the same three steps.

Results differ from those of direct convolution by rounding, about 1e-6 of the largest value. A
value that is not finite makes all outputs of its tile not finite.

Shapes: N images, C channels in, K channels out, H and W pixels; tensors in channels_last format.
"""

import functools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_cli.kernels.transforms import IN, OUT, input_transforms, output_transforms

ELEMENTS = IN * IN
"""Elements of a transformed tile."""

G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""The transform of the kernels; those of inputs and outputs are in `transforms`."""

BLOCK_VALUES = 4096
"""Tiles times channels of a block; once transformed, it fits in a core's second-level cache."""
MIN_TILES = 64
"""Minimum number of tiles of a block: matrix products with fewer rows are slow."""

NO_MINIMUM = np.float32(-np.inf)
"""Used instead of a ReLU's 0: no value is below it, and NaN stays NaN."""

Floats = NDArray[np.float32]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """conv2d(x, weight, bias, padding=1), differentiable once.

    Args:
        x: float32 [N, C, H, W]; H and W multiples of 4.
        weight: float32 [K, C, 3, 3]; C and K multiples of 16.

    Returns:
        [N, K, H, W].
    """
    y: Tensor = _Convolution.apply(x, weight)
    return y if bias is None else y + bias[:, None, None]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        weights = transform_weight(weight)
        ctx.save_for_backward(x, weights)
        return convolve_transformed(x, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weights = ctx.saved_tensors
        return _backward(x, weights, gradients[0], *ctx.needs_input_grad)


@functools.cache
@torch.inference_mode(False)  # the cached tensor is also used in training
def _weight_matrix(dtype: torch.dtype) -> Tensor:
    """The Kronecker product of G with itself [36, 9], which transforms a flattened 3x3 kernel."""
    matrix = torch.tensor(G, dtype=dtype)
    return torch.kron(matrix, matrix)


def transform_weight(weight: Tensor) -> Tensor:
    """G g G^T of each kernel: [K, C, 3, 3] -> [36, C, K]."""
    outs, ins = weight.shape[:2]
    columns = weight.detach().permute(2, 3, 1, 0).reshape(9, ins * outs)
    return (_weight_matrix(weight.dtype) @ columns).view(ELEMENTS, ins, outs)


def convolve_transformed(
    x: Tensor,
    weights: Tensor,
    scale: Floats | None = None,
    shift: Floats | None = None,
    bias: Floats | None = None,
    minimum_before: np.float32 = NO_MINIMUM,
    minimum_after: np.float32 = NO_MINIMUM,
) -> Tensor:
    """max(conv(max(scale x + shift, minimum_before)) + bias, minimum_after), without gradient.

    Args:
        x: float32 [N, C, H, W]; H and W multiples of 4.
        weights: [36, C, K], from `transform_weight`.
        scale, shift: [C]; None means 1 and 0.
        bias: [K]; None means 0.

    Returns:
        [N, K, H, W].
    """
    count, ins, height, width = x.shape
    outs = weights.shape[2]
    y = torch.empty((count, outs, height, width), memory_format=torch.channels_last)
    pixels, outputs = _values(x.contiguous(memory_format=torch.channels_last)), _values(y)
    scale = np.ones(ins * width, np.float32) if scale is None else np.tile(scale, width)
    shift = np.zeros(ins * width, np.float32) if shift is None else np.tile(shift, width)
    bias = np.zeros(outs, np.float32) if bias is None else bias
    block = _block(ins, outs, height, width)
    for part in block.parts(count):
        block.transform_inputs(
            pixels, *part, scale, shift, minimum_before, block.padded, block.inputs
        )
        torch.bmm(block.input_tiles, weights, out=block.output_tiles)
        block.transform_outputs(block.outputs, *part, bias, minimum_after, outputs)
    return y


def _backward(
    x: Tensor, weights: Tensor, gradient: Tensor, wants_input: bool, wants_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients with respect to x and the kernels, given that of the outputs [N, K, H, W]."""
    count, ins, height, width = x.shape
    outs = weights.shape[2]
    block = _block(ins, outs, height, width)
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    at_outputs, pixels = _values(gradient), _values(x)
    at_x = torch.empty_like(x) if wants_input else None
    at_pixels = None if at_x is None else _values(at_x)
    at_weights = torch.zeros_like(weights) if wants_weight else None
    one, zero = np.ones(width * ins, np.float32), np.zeros(width * ins, np.float32)
    transposed = weights.transpose(1, 2)
    for part in block.parts(count):
        block.transform_outputs_transposed(at_outputs, *part, block.outputs)
        if at_weights is not None:
            block.transform_inputs(pixels, *part, one, zero, NO_MINIMUM, block.padded, block.inputs)
            tiles = block.tiles * (part[1] - part[0])
            inputs = block.input_tiles[:, :tiles].transpose(1, 2)
            torch.baddbmm(at_weights, inputs, block.output_tiles[:, :tiles], out=at_weights)
        if at_pixels is not None:
            torch.bmm(block.output_tiles, transposed, out=block.input_tiles)
            block.transform_inputs_transposed(block.inputs, *part, block.sums, at_pixels)
    if at_weights is None:
        return at_x, None
    kernels = _weight_matrix(weights.dtype).T @ at_weights.view(ELEMENTS, -1)
    return at_x, kernels.view(3, 3, ins, outs).permute(3, 2, 0, 1)


# --- working memory ------------------------------------------------------------------------------


def _values(x: Tensor) -> Floats:
    """[N, C, H, W] in channels_last format -> its values [N * H * W * C], without a copy."""
    values: Floats = x.permute(0, 2, 3, 1).reshape(-1).numpy()
    return values


class _Block:
    """One thread's working memory and compiled transforms for the tiles of a few images.

    A tile is written to, and read from, all 36 matrices at once. They have an odd number of rows,
    the last of which may be unused: with a power of two, the same row of all matrices would map to
    the same few sets of the cache.
    """

    @torch.inference_mode(False)  # the memory is also used in training
    def __init__(self, ins: int, outs: int, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.tiles = (height // OUT) * (width // OUT)
        """The number of tiles of one image."""
        wanted = max(MIN_TILES, BLOCK_VALUES // max(ins, outs))
        self.images = max(1, wanted // self.tiles)
        rows = self.images * self.tiles | 1
        self.padded, self.sums = np.zeros((2, (height + 2) * (width + 2) * ins), np.float32)
        """An image with a border of zeros, and the gradient with respect to it."""
        self.input_tiles = torch.zeros(ELEMENTS, rows, ins)
        self.output_tiles = torch.zeros(ELEMENTS, rows, outs)
        self.inputs = self.input_tiles.view(-1).numpy()
        self.outputs = self.output_tiles.view(-1).numpy()
        self.transform_inputs, self.transform_inputs_transposed = input_transforms(ins, rows)
        self.transform_outputs, self.transform_outputs_transposed = output_transforms(outs, rows)

    def parts(self, count: int) -> Iterator[tuple[int, int, int, int]]:
        """(first image, last image + 1, height, width) of each block."""
        for first in range(0, count, self.images):
            yield first, min(first + self.images, count), self.height, self.width


_thread_local = threading.local()


def _block(*shape: int) -> _Block:
    """This thread's block for a shape."""
    blocks: dict[tuple[int, ...], _Block] = _thread_local.__dict__.setdefault("blocks", {})
    if shape not in blocks:
        blocks[shape] = _Block(*shape)
    return blocks[shape]
