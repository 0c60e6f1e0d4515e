"""The Triton kernels of `batch_norm`: two for the forward pass, two for the backward pass.

All treat activations as a matrix of rows (images times pixels) and C channels, with the rows of a
group next to each other. In each pass, the first kernel computes sums over each of P parts of a
group's rows in float32; the second adds these sums and passes over all rows again. The forward sums
are of the difference from the group's first row, so a mean far from zero does not reduce accuracy.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_PARTS = 128
"""Largest number of parts of a group's rows; one program processes each part."""
BLOCK_ELEMENTS = 4096
"""Elements that a program processes at once."""


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    count: Tensor,
    groups: int,
    momentum: float,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised rows, and each group's mean and reciprocal standard deviation [G, C].

    Args:
        x: [G R, C], contiguous, float32 or bfloat16; R rows per group.
        running_mean, running_var, count: updated as after G successive batches.
    """
    rows, channels = x.shape[0] // groups, x.shape[1]
    grid, sizes = _launch(groups, rows, channels)
    sums = torch.empty((groups, grid[0], 2, channels), dtype=torch.float32, device=x.device)
    mean = torch.empty((groups, channels), dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    y = torch.empty_like(x)
    _sums[grid](x, sums, rows, channels, **sizes)
    _normalise[grid](
        x,
        y,
        sums,
        weight,
        bias,
        running_mean,
        running_var,
        count,
        mean,
        rstd,
        rows,
        channels,
        momentum,
        eps,
        GROUPS=groups,
        RELU=relu,
        **sizes,
    )
    return y, mean, rstd


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to x [G R, C], the weight [C] and the bias [C]."""
    rows, channels = x.shape[0] // groups, x.shape[1]
    grid, sizes = _launch(groups, rows, channels)
    sums = torch.empty((groups, grid[0], 2, channels), dtype=torch.float32, device=x.device)
    dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
    _gradient_sums[grid](dy, x, sums, weight, bias, mean, rstd, rows, channels, RELU=relu, **sizes)
    _gradients[grid](
        dy,
        x,
        dx,
        sums,
        weight,
        bias,
        mean,
        rstd,
        dweight,
        dbias,
        rows,
        channels,
        GROUPS=groups,
        RELU=relu,
        **sizes,
    )
    return dx, dweight, dbias


def _launch(groups: int, rows: int, channels: int) -> tuple[tuple[int, int, int], dict[str, int]]:
    """The grid (parts, groups, blocks of channels) and the sizes for which kernels are compiled."""
    block_c = min(triton.next_power_of_2(channels), 64)
    block_r = BLOCK_ELEMENTS // block_c
    parts = min(triton.next_power_of_2(triton.cdiv(rows, block_r)), MAX_PARTS)
    sizes = {"BLOCK_C": block_c, "BLOCK_R": block_r, "PARTS": parts, "num_warps": 8}
    return (parts, groups, triton.cdiv(channels, block_c)), sizes


@triton.jit
def _sums(
    x_ptr,
    out_ptr,
    rows,
    channels,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PARTS: tl.constexpr,
):
    part, group = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < channels
    first = group.to(tl.int64) * rows
    shift = tl.load(x_ptr + first * channels + c, mask=in_c, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK_C,), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    each = tl.cdiv(rows, PARTS)
    end = tl.minimum((part + 1) * each, rows)
    for start in range(part * each, end, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        mask = (r < end)[:, None] & in_c[None, :]
        at = (first + r)[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
        distance = tl.where(mask, x - shift[None, :], 0.0)
        total += tl.sum(distance, 0)
        squares += tl.sum(distance * distance, 0)
    out = out_ptr + ((group * PARTS + part) * 2) * channels + c
    tl.store(out, total, mask=in_c)
    tl.store(out + channels, squares, mask=in_c)


@triton.jit
def _add_parts(sums_ptr, group, channels, c, in_c, PARTS: tl.constexpr):
    """Both sums of a group, added over its parts."""
    part = tl.arange(0, PARTS)
    at = ((group * PARTS + part) * 2)[:, None] * channels + c[None, :]
    first = tl.load(sums_ptr + at, mask=in_c[None, :], other=0.0)
    second = tl.load(sums_ptr + at + channels, mask=in_c[None, :], other=0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def _statistics(x_ptr, sums_ptr, group, rows, channels, c, in_c, PARTS: tl.constexpr):
    """Mean and biased variance of a group."""
    shift = tl.load(x_ptr + group.to(tl.int64) * rows * channels + c, mask=in_c, other=0.0)
    total, squares = _add_parts(sums_ptr, group, channels, c, in_c, PARTS)
    mean = total / rows
    return mean + shift.to(tl.float32), tl.maximum(squares / rows - mean * mean, 0.0)


@triton.jit
def _normalise(
    x_ptr,
    y_ptr,
    sums_ptr,
    weight_ptr,
    bias_ptr,
    running_mean_ptr,
    running_var_ptr,
    count_ptr,
    mean_ptr,
    rstd_ptr,
    rows,
    channels,
    momentum,
    eps,
    GROUPS: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PARTS: tl.constexpr,
):
    part, group = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < channels
    mean, variance = _statistics(x_ptr, sums_ptr, group, rows, channels, c, in_c, PARTS)
    rstd = 1.0 / tl.sqrt(variance + eps)
    weight = tl.load(weight_ptr + c, mask=in_c, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=in_c, other=0.0).to(tl.float32)
    if part == 0:
        tl.store(mean_ptr + group * channels + c, mean, mask=in_c)
        tl.store(rstd_ptr + group * channels + c, rstd, mask=in_c)
        if group == 0:  # one program updates running statistics with all groups, in order
            running_mean = tl.load(running_mean_ptr + c, mask=in_c, other=0.0)
            running_var = tl.load(running_var_ptr + c, mask=in_c, other=0.0)
            for each in tl.static_range(GROUPS):
                m, v = _statistics(x_ptr, sums_ptr, group + each, rows, channels, c, in_c, PARTS)
                unbiased = v * (rows / (rows - 1.0))
                running_mean = (1.0 - momentum) * running_mean + momentum * m
                running_var = (1.0 - momentum) * running_var + momentum * unbiased
            tl.store(running_mean_ptr + c, running_mean, mask=in_c)
            tl.store(running_var_ptr + c, running_var, mask=in_c)
            if tl.program_id(2) == 0:
                tl.store(count_ptr, tl.load(count_ptr) + GROUPS)
    scale = weight * rstd
    first = group.to(tl.int64) * rows
    each_part = tl.cdiv(rows, PARTS)
    end = tl.minimum((part + 1) * each_part, rows)
    for start in range(part * each_part, end, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        mask = (r < end)[:, None] & in_c[None, :]
        at = (first + r)[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
        y = (x - mean[None, :]) * scale[None, :] + bias[None, :]
        if RELU:
            y = tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _gradient_sums(
    dy_ptr,
    x_ptr,
    out_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    rstd_ptr,
    rows,
    channels,
    RELU: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PARTS: tl.constexpr,
):
    part, group = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < channels
    mean = tl.load(mean_ptr + group * channels + c, mask=in_c, other=0.0)
    rstd = tl.load(rstd_ptr + group * channels + c, mask=in_c, other=0.0)
    weight = tl.load(weight_ptr + c, mask=in_c, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=in_c, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK_C,), tl.float32)
    products = tl.zeros((BLOCK_C,), tl.float32)
    first = group.to(tl.int64) * rows
    each = tl.cdiv(rows, PARTS)
    end = tl.minimum((part + 1) * each, rows)
    for start in range(part * each, end, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        mask = (r < end)[:, None] & in_c[None, :]
        at = (first + r)[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + at, mask=mask, other=0.0).to(tl.float32)
        normal = (x - mean[None, :]) * rstd[None, :]
        if RELU:
            dy = tl.where(normal * weight[None, :] + bias[None, :] > 0.0, dy, 0.0)
        total += tl.sum(dy, 0)
        products += tl.sum(tl.where(mask, dy * normal, 0.0), 0)
    out = out_ptr + ((group * PARTS + part) * 2) * channels + c
    tl.store(out, total, mask=in_c)
    tl.store(out + channels, products, mask=in_c)


@triton.jit
def _gradients(
    dy_ptr,
    x_ptr,
    dx_ptr,
    sums_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    rstd_ptr,
    dweight_ptr,
    dbias_ptr,
    rows,
    channels,
    GROUPS: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PARTS: tl.constexpr,
):
    part, group = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < channels
    total, products = _add_parts(sums_ptr, group, channels, c, in_c, PARTS)
    if (part == 0) & (group == 0):
        dbias, dweight = total, products
        for each in tl.static_range(1, GROUPS):
            more, more_products = _add_parts(sums_ptr, group + each, channels, c, in_c, PARTS)
            dbias += more
            dweight += more_products
        tl.store(dbias_ptr + c, dbias, mask=in_c)
        tl.store(dweight_ptr + c, dweight, mask=in_c)
    mean = tl.load(mean_ptr + group * channels + c, mask=in_c, other=0.0)
    rstd = tl.load(rstd_ptr + group * channels + c, mask=in_c, other=0.0)
    weight = tl.load(weight_ptr + c, mask=in_c, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=in_c, other=0.0).to(tl.float32)
    mean_dy, mean_product = total / rows, products / rows
    scale = weight * rstd
    first = group.to(tl.int64) * rows
    each_part = tl.cdiv(rows, PARTS)
    end = tl.minimum((part + 1) * each_part, rows)
    for start in range(part * each_part, end, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        mask = (r < end)[:, None] & in_c[None, :]
        at = (first + r)[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + at, mask=mask, other=0.0).to(tl.float32)
        normal = (x - mean[None, :]) * rstd[None, :]
        if RELU:
            dy = tl.where(normal * weight[None, :] + bias[None, :] > 0.0, dy, 0.0)
        dx = (dy - mean_dy[None, :] - normal * mean_product[None, :]) * scale[None, :]
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
