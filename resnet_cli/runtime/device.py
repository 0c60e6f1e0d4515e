"""The device that computes, and its precision."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError


def pick_device(name: str, *, deterministic: bool = False) -> torch.device:
    """The device named `auto`, `cpu`, `cuda` or `cuda:n`; under torchrun, this process's own.

    float32 means float32: convolutions on CUDA do not round their inputs to TF32, as they would by
    default. `arithmetic` and `autocast` allow lower precision.

    Args:
        deterministic: use only deterministic kernels. On CUDA these are slower, and cuDNN does not
            search for the fastest; on a CPU all kernels are deterministic.

    Raises:
        UserError: the device does not exist here, or several processes were given the same one.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if processes.size() > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise UserError(
                f"--device {name}: under torchrun each process uses its own device; use cuda"
            )
        name = f"cuda:{processes.local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: use auto, cpu, cuda or cuda:n")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: torch finds {torch.cuda.device_count()} CUDA devices here; "
            "use --device cpu or auto"
        )
    _set_float32("ieee")
    if device.type == "cuda":
        if processes.size() > 1:
            torch.cuda.set_device(device)  # NCCL requires it
        torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it
    if deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(deterministic)  # imports the compiler, which takes 1.5 s
    return device


def autocast(device: torch.device, precision: str, *, cache: bool = True) -> torch.autocast:
    """Automatic mixed precision for `train.precision`; bfloat16 needs no loss scaling.

    Args:
        cache: cast each weight once, rather than each time that it is used.
    """
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=cache
    )


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """With `tf32`, convolutions and matrix products on CUDA round their inputs to TF32 (10 bits);
    with any other precision, float32 stays float32. Applies to forward and backward passes."""
    _set_float32("tf32" if precision == "tf32" else "ieee")
    try:
        yield
    finally:
        _set_float32("ieee")


def _set_float32(arithmetic: str) -> None:
    """Set how convolutions and matrix products on CUDA treat float32: `ieee` or `tf32`."""
    torch.backends.cudnn.conv.fp32_precision = arithmetic  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = arithmetic
