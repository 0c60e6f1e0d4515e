"""3x3 convolutions with a quarter of the multiplications, on processors and in float32.

Winograd's F(4x4, 3x3) (Lavin and Gray 2016, arXiv:1509.09308, section 4): a tile of 4x4 outputs
comes from 6x6 inputs d and the 3x3 weights g as

    A^T [ (G g G^T) * (B^T d B) ] A        (* elementwise)

so that for all tiles and channels together there are 36 matrix products, one for each of the 6x6
places: 36 multiplications for 16 outputs instead of 144. Direct convolution already runs as fast as
a matrix product on the same cores; only fewer multiplications can be faster. The gradients go by
the transposes of the same three steps.

The transforms are compiled by numba, once on a machine for each number of channels (kept beside
this file, or in numba's cache folder). In evaluation they take the batch norm and ReLU before the
convolution and the bias and ReLU after it along, which would be passes over memory of their own.
Results differ from direct convolution by rounding, about 1e-6 of the largest value; a value that is
not finite makes its tile so.

Shapes: N images, C channels in, K channels out, H and W pixels; tensors in channels_last format.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba finds the types of what it compiles by itself)

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

OUT, IN = 4, 6
"""Rows and columns of a tile: of its outputs, and of its inputs."""
PLACES = IN * IN

G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""The transform of the weights; those of inputs and outputs are written out below."""

BLOCK_VALUES = 4096
"""Tiles times channels of a block, so that it fits a core's second-level cache transformed."""
LEAST_TILES = 64
"""Tiles of a block at least: matrix products of fewer rows are slow."""

NO_LEAST = np.float32(-np.inf)
"""Where there is no ReLU: no value is below it. NaN is below nothing, and goes on."""

Floats = NDArray[np.float32]


def fits(conv: nn.Conv2d) -> bool:
    """Whether this convolution can be computed here, and faster than directly."""
    return (
        conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == conv.padding == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.in_channels % 16 == conv.out_channels % 16 == 0
        and conv.weight.dtype == torch.float32
        and conv.weight.device.type == "cpu"
    )


def fits_image(x: Tensor) -> bool:
    """Whether images [N, C, H, W] fall into whole tiles."""
    return x.dtype == torch.float32 and not (x.shape[2] % OUT or x.shape[3] % OUT)


# --- with gradients ------------------------------------------------------------------------------


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """conv2d(x, weight, bias, padding=1), differentiable once.

    Args:
        x: [N, C, H, W] that `fits_image`.
        weight: [K, C, 3, 3]; C and K multiples of 16.

    Returns:
        [N, K, H, W].
    """
    y: Tensor = _Convolution.apply(x, weight)
    return y if bias is None else y + bias[:, None, None]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        weights = weights_at_places(weight)
        ctx.save_for_backward(x, weights)
        return convolve_at_places(x, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weights = ctx.saved_tensors
        return _backward(x, weights, gradients[0], *ctx.needs_input_grad)


@functools.cache
@torch.inference_mode(False)  # it serves trainings as well
def _weight_matrix(dtype: torch.dtype) -> Tensor:
    """G x G [36, 9]: a 3x3 kernel, as a column, to its 6x6 places."""
    matrix = torch.tensor(G, dtype=dtype)
    return torch.kron(matrix, matrix)


def weights_at_places(weight: Tensor) -> Tensor:
    """G g G^T of each kernel: [K, C, 3, 3] -> [36, C, K]."""
    outs, ins = weight.shape[:2]
    columns = weight.detach().permute(2, 3, 1, 0).reshape(9, ins * outs)
    return (_weight_matrix(weight.dtype) @ columns).view(PLACES, ins, outs)


def convolve_at_places(
    x: Tensor,
    weights: Tensor,
    scale: Floats | None = None,
    shift: Floats | None = None,
    bias: Floats | None = None,
    least_before: np.float32 = NO_LEAST,
    least_after: np.float32 = NO_LEAST,
) -> Tensor:
    """max(conv(max(scale x + shift, least_before)) + bias, least_after), without gradient.

    Args:
        x: [N, C, H, W] that `fits_image`.
        weights: of `weights_at_places`, [36, C, K].
        scale, shift: [C]; None: 1 and 0.
        bias: [K]; None: 0.

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
        block.to_places(pixels, *part, scale, shift, least_before, block.padded, block.inputs)
        torch.bmm(block.input_places, weights, out=block.output_places)
        block.from_places(block.outputs, *part, bias, least_after, outputs)
    return y


def _backward(
    x: Tensor, weights: Tensor, gradient: Tensor, wants_input: bool, wants_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients at x and at the kernels, of the gradient [N, K, H, W] at the outputs."""
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
        block.outputs_to_places(at_outputs, *part, block.outputs)
        if at_weights is not None:
            block.to_places(pixels, *part, one, zero, NO_LEAST, block.padded, block.inputs)
            tiles = block.tiles * (part[1] - part[0])
            led = block.input_places[:, :tiles].transpose(1, 2)
            torch.baddbmm(at_weights, led, block.output_places[:, :tiles], out=at_weights)
        if at_pixels is not None:
            torch.bmm(block.output_places, transposed, out=block.input_places)
            block.places_to_inputs(block.inputs, *part, block.sums, at_pixels)
    if at_weights is None:
        return at_x, None
    kernels = _weight_matrix(weights.dtype).T @ at_weights.view(PLACES, -1)
    return at_x, kernels.view(3, 3, ins, outs).permute(3, 2, 0, 1)


# --- in evaluation -------------------------------------------------------------------------------


class WinogradConv2d(nn.Module):
    """Stands for [batch norm], [ReLU], convolution, [ReLU] in evaluation mode, without gradient.

    Images that do not fall into whole tiles go through the layers themselves.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        *,
        norm: nn.BatchNorm2d | None = None,
        relu_before: bool = False,
        relu_after: bool = False,
    ) -> None:
        """Take the weights of the layers.

        Args:
            conv: one that `fits`.
            norm: a batch norm with running statistics, before everything else.
        """
        super().__init__()
        assert fits(conv)
        layers = [norm, nn.ReLU() if relu_before else None, conv, nn.ReLU() if relu_after else None]
        self.layers = nn.Sequential(*(layer for layer in layers if layer is not None)).eval()
        with torch.no_grad():
            self.weights = weights_at_places(conv.weight.double()).float()
            scale, shift = torch.ones(conv.in_channels), torch.zeros(conv.in_channels)
            if norm is not None:
                assert norm.running_mean is not None
                assert norm.running_var is not None
                scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                shift = norm.bias - norm.running_mean * scale
            bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.clone()
            self.scale, self.shift, self.bias = scale.numpy(), shift.numpy(), bias.numpy()
        self.least_before = np.float32(0) if relu_before else NO_LEAST
        self.least_after = np.float32(0) if relu_after else NO_LEAST

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, K, H, W]."""
        if not fits_image(x):
            return self.layers(x)  # type: ignore[no-any-return]
        return convolve_at_places(
            x,
            self.weights,
            self.scale,
            self.shift,
            self.bias,
            self.least_before,
            self.least_after,
        )


# --- working memory ------------------------------------------------------------------------------


def _values(x: Tensor) -> Floats:
    """[N, C, H, W] in channels_last format -> its values [N * H * W * C], not copied."""
    values: Floats = x.permute(0, 2, 3, 1).reshape(-1).numpy()
    return values


class _Block:
    """Working memory and kernels of one thread for the tiles of a few images.

    A tile is written to, and read from, all places at once. Their matrices have an odd number of
    rows, one of them unused where that is one more than there are tiles: at a power of two, all
    places would meet in the same few sets of the cache.
    """

    @torch.inference_mode(False)  # the memory serves trainings as well
    def __init__(self, ins: int, outs: int, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.tiles = (height // OUT) * (width // OUT)
        """Of one image."""
        wanted = max(LEAST_TILES, BLOCK_VALUES // max(ins, outs))
        self.images = max(1, wanted // self.tiles)
        rows = self.images * self.tiles | 1
        self.padded, self.sums = np.zeros((2, (height + 2) * (width + 2) * ins), np.float32)
        """An image with a border of zeros; and the gradient at one."""
        self.input_places = torch.zeros(PLACES, rows, ins)
        self.output_places = torch.zeros(PLACES, rows, outs)
        self.inputs = self.input_places.view(-1).numpy()
        self.outputs = self.output_places.view(-1).numpy()
        self.to_places, self.places_to_inputs = _input_kernels(ins, rows)
        self.from_places, self.outputs_to_places = _output_kernels(outs, rows)

    def parts(self, count: int) -> Iterator[tuple[int, int, int, int]]:
        """(first image, one past the last, height, width) of each block."""
        for first in range(0, count, self.images):
            yield first, min(first + self.images, count), self.height, self.width


_of_thread = threading.local()


def _block(*shape: int) -> _Block:
    """This thread's block of a shape."""
    blocks: dict[tuple[int, ...], _Block] = _of_thread.__dict__.setdefault("blocks", {})
    if shape not in blocks:
        blocks[shape] = _Block(*shape)
    return blocks[shape]


# --- what numba compiles -------------------------------------------------------------------------

# Sizes that stand in closures are constants to the compiler, and arrays are cut before the
# innermost loops: otherwise it cannot tell that the places of a tile lie apart, and that no index
# is negative, and makes no vector instructions.

Kernel = Callable[..., Any]


def _compiled(function: Callable[..., object]) -> Kernel:
    """The function in machine code, kept on disk where there is a folder for it."""
    compiler = functools.partial(
        numba.njit, nogil=True, error_model="numpy", fastmath={"contract", "nsz"}
    )
    try:
        return compiler(function, cache=True)
    except RuntimeError:  # no folder can be written
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
def _input_kernels(channels: int, rows: int) -> tuple[Kernel, Kernel]:
    """B^T d B of images `first` to `last`, and its transpose."""
    C, PLACE = channels, rows * channels

    def to_places(pixels, first, last, height, width, scale, shift, least, padded, places):
        row = (width + 2) * C
        lines = np.empty(IN * IN * C, np.float32)
        tile = 0
        for image in range(first, last):
            for h in range(height):
                source = pixels[(image * height + h) * width * C :]
                target = padded[(h + 1) * row + C :]
                for k in range(width * C):
                    value = source[k] * scale[k] + shift[k]
                    target[k] = least if value < least else value
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
                        target = places[j * PLACE + tile * C :]
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
                            target[6 * PLACE + c] = t1
                            target[12 * PLACE + c] = t2
                            target[18 * PLACE + c] = t3
                            target[24 * PLACE + c] = t4
                            target[30 * PLACE + c] = t5
                    tile += 1

    def places_to_inputs(places, first, last, height, width, sums, pixels):
        row = (width + 2) * C
        lines = np.empty(IN * IN * C, np.float32)
        tile = 0
        for image in range(first, last):
            sums[:] = 0
            for top in range(0, height, OUT):
                for left in range(0, width, OUT):
                    for j in range(IN):
                        source = places[j * PLACE + tile * C :]
                        target = lines[j * C :]
                        for c in range(C):
                            t0, t1, t2, t3, t4, t5 = B(
                                source[c],
                                source[6 * PLACE + c],
                                source[12 * PLACE + c],
                                source[18 * PLACE + c],
                                source[24 * PLACE + c],
                                source[30 * PLACE + c],
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

    return _compiled(to_places), _compiled(places_to_inputs)


@functools.cache
def _output_kernels(channels: int, rows: int) -> tuple[Kernel, Kernel]:
    """A^T m A for images `first` to `last`, and its transpose."""
    K, PLACE = channels, rows * channels

    def from_places(places, first, last, height, width, bias, least, outputs):
        columns = np.empty(OUT * IN * K, np.float32)
        tile = 0
        for image in range(first, last):
            for top in range(0, height, OUT):
                for left in range(0, width, OUT):
                    for j in range(IN):
                        source = places[j * PLACE + tile * K :]
                        target = columns[j * K :]
                        for k in range(K):
                            t0, t1, t2, t3 = AT(
                                source[k],
                                source[6 * PLACE + k],
                                source[12 * PLACE + k],
                                source[18 * PLACE + k],
                                source[24 * PLACE + k],
                                source[30 * PLACE + k],
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
                            target[k] = least if t0 < least else t0
                            target[K + k] = least if t1 < least else t1
                            target[2 * K + k] = least if t2 < least else t2
                            target[3 * K + k] = least if t3 < least else t3
                    tile += 1

    def outputs_to_places(outputs, first, last, height, width, places):
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
                        target = places[j * PLACE + tile * K :]
                        for k in range(K):
                            t0, t1, t2, t3, t4, t5 = A(
                                source[k], source[6 * K + k], source[12 * K + k], source[18 * K + k]
                            )
                            target[k] = t0
                            target[6 * PLACE + k] = t1
                            target[12 * PLACE + k] = t2
                            target[18 * PLACE + k] = t3
                            target[24 * PLACE + k] = t4
                            target[30 * PLACE + k] = t5
                    tile += 1

    return _compiled(from_places), _compiled(outputs_to_places)
