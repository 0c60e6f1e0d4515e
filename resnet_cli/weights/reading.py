"""Read the content of a checkpoint file without running code in it.

The type of a file follows from its first bytes rather than its name, and its size is limited. For a
file that is not a checkpoint, the error says what it is (a web page, a Git LFS pointer, an archive,
the weights of another framework) and how to get the weights out of it.
"""

import gzip
import io
from pathlib import Path
from typing import IO, Any, NoReturn
from zipfile import BadZipFile, ZipFile

from safetensors import SafetensorError, safe_open

from resnet_cli.runtime.errors import UserError, one_line
from resnet_cli.weights.pickles import PickleError
from resnet_cli.weights.torch_files import read_legacy, read_zip

ADAPTER = "or load it with an adapter file (resnet_cli.models.adapt)"
"""How any network can be loaded; the end of errors about files that may contain one."""
GZIP_GROWTH = 20
"""Largest ratio of a gzip file's unpacked size to its size; weights hardly compress."""

_KNOWN_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights; run `git lfs pull`"),
    (b"\x89HDF", "is an HDF5 file, such as Keras writes; convert it to PyTorch first"),
    (b"7z\xbc\xaf", "is a 7z archive; extract it"),
    (b"Rar!", "is a RAR archive; extract it"),
    (b"BZh", "is a bzip2 file; unpack it with bunzip2"),
    (b"\xfd7zXZ", "is an xz file; unpack it with unxz"),
    (b"\x93NUMPY", "is a NumPy array, not a state dict; save model.state_dict() with torch.save"),
)
_OTHER_FRAMEWORKS = {
    ".onnx": "an ONNX file",
    ".pb": "a TensorFlow file",
    ".tflite": "a TensorFlow Lite file",
    ".index": "a TensorFlow file",
    ".h5": "a Keras file",
    ".keras": "a Keras file",
    ".caffemodel": "a Caffe file",
    ".gguf": "a GGUF file",
    ".msgpack": "a Flax file",
    ".pdparams": "a PaddlePaddle file",
    ".mlmodel": "a Core ML file",
}


def read_content(path: Path) -> tuple[Any, dict[str, str]]:
    """The content of a PyTorch or safetensors file, and the metadata of safetensors.

    Raises:
        UserError: the file does not exist, is damaged, or is not a checkpoint.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the checkpoint file in it")
    try:
        with path.open("rb") as file:
            return _read(file, path, path.stat().st_size)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint file; check the path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read(file: IO[bytes], path: Path, size: int) -> tuple[Any, dict[str, str]]:
    start = file.read(512)
    file.seek(0)
    if not start:
        raise UserError(f"{path}: is empty; download or save it again")
    if start[:2] == b"\x1f\x8b":
        unpacked = io.BytesIO(_gunzipped(file, path, size))
        return _read(unpacked, path, unpacked.getbuffer().nbytes)
    _refuse_others(start, path)
    if _is_safetensors(start, size) or (
        path.suffix.lower() == ".safetensors"
        and (start[:4] != b"PK\x03\x04" and start[:1] != b"\x80")
    ):
        return _read_safetensors(file, path)
    try:
        if start[:4] == b"PK\x03\x04":
            return _read_archive(file, path, size), {}
        return read_legacy(file), {}
    except PickleError as error:
        _refuse_damaged(path, str(error))
    except MemoryError:
        _refuse_damaged(path, "it needs more memory than available")
    except UserError:
        raise
    except Exception:  # a damaged or malicious pickle can raise any error; details would not help
        if start[:1] not in (b"\x80", b"P"):
            raise UserError(
                f"{path}: not a checkpoint (neither PyTorch nor safetensors); {ADAPTER[3:]}"
            ) from None
        _refuse_damaged(path)


def _refuse_damaged(path: Path, why: str = "") -> NoReturn:
    why = f" ({why})" if why else ""
    raise UserError(
        f"{path}: not a checkpoint, or truncated{why}; download or save it again"
    ) from None


def _refuse_others(start: bytes, path: Path) -> None:
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(
            f"{path}: is a web page, not a checkpoint; open the link in a browser, or download the "
            "file itself"
        )
    for magic, what in _KNOWN_STARTS:
        if start.startswith(magic):
            raise UserError(f"{path}: {what}")
    if start[257:262] == b"ustar":
        raise UserError(f"{path}: is a tar archive; extract it (tar xf) and give the file in it")
    other = _OTHER_FRAMEWORKS.get(path.suffix.lower())
    if other is not None:
        raise UserError(f"{path}: is {other}; convert it to PyTorch first, {ADAPTER}")


def _gunzipped(file: IO[bytes], path: Path, size: int) -> bytes:
    limit = GZIP_GROWTH * size + (1 << 20)
    try:
        with gzip.GzipFile(fileobj=file) as packed:
            found = packed.read(limit + 1)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: a damaged gzip file ({one_line(error, 80)}); download it again"
        ) from None
    except Exception:
        raise UserError(f"{path}: a damaged gzip file; download it again") from None
    if len(found) > limit:
        raise UserError(
            f"{path}: unpacks to more than {GZIP_GROWTH} times its size, unlike weights; unpack it "
            "with gunzip if you trust it"
        )
    if found[:2] == b"\x1f\x8b":
        raise UserError(f"{path}: is compressed with gzip twice; unpack it with gunzip")
    return found


def _is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file begins with the length of a header that fits in it, and with JSON."""
    length = int.from_bytes(start[:8], "little")
    return len(start) > 8 and 8 + length <= size and start[8:].lstrip()[:1] == b"{"


def _read_safetensors(file: IO[bytes], path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        if isinstance(file, io.BytesIO):
            from safetensors.torch import load

            return dict(load(file.getvalue())), {}
        with safe_open(path, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            return tensors, opened.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        why = one_line(error, 120)
        raise UserError(
            f"{path}: not a valid safetensors file, or truncated ({why}); download or save it again"
        ) from None


def _read_archive(file: IO[bytes], path: Path, size: int) -> Any:
    try:
        archive = ZipFile(file)
    except (BadZipFile, EOFError, NotImplementedError) as error:
        raise PickleError(one_line(error, 80)) from None
    names = archive.namelist()
    inner = [name.split("/", 1)[-1] for name in names]
    if "constants.pkl" in inner:
        raise UserError(
            f"{path}: is a TorchScript archive; use torch.jit.load and save its state_dict()"
        )
    if "data.pkl" in inner:
        return read_zip(archive, size)
    if any(name.endswith(".npy") for name in names):
        raise UserError(
            f"{path}: is an archive of NumPy arrays; save them as tensors with torch.save"
        )
    if "config.json" in names and any(name.endswith(".h5") for name in names):
        raise UserError(f"{path}: is a Keras file; convert it to PyTorch first, {ADAPTER}")
    shown = one_line(names[0], 60) if names else "nothing"
    raise UserError(f"{path}: is a zip archive of {shown}; unzip it and give the file in it")
