"""Checkpoint files: formats, containers, prefixes and leftovers, and errors about bad files."""

import argparse
import contextlib
import gzip
import io
import os
import pathlib
import pickle
import shutil
import struct
import tarfile
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts import Theirs, fill
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.load import Loaded, file_hash, load_network
from resnet_cli.weights.reading import read_content
from resnet_cli.weights.state_dict import find_state
from resnet_cli.weights.third_party import load_third_party

State = dict[str, Tensor]


def their_state() -> State:
    return dict(fill(Theirs()).state_dict())


@pytest.fixture(scope="module")
def state() -> State:
    return their_state()


def assert_loads(path: Path, expected: State) -> Loaded:
    """Check that the file loads as a network whose first and last weights are these."""
    loaded = load_third_party(path)
    assert torch.equal(loaded.network.stem[0].weight, expected["conv1.weight"].float())
    assert torch.equal(loaded.network.head.fc.weight, expected["linear.weight"].float())
    return loaded


def refused(path: Path, words: str) -> str:
    with pytest.raises(UserError, match=words) as caught:
        load_third_party(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.isprintable()
    return message


# --- containers, prefixes, what lies next to the weights -----------------------------------------

CONTAINERS = [
    *("state_dict", "model", "model_state_dict", "net", "weights", "ema", "model_ema"),
    *("state_dict_ema", "network", "params", "net_state_dict", "model_state", "student"),
    *("checkpoint.state_dict", "model.state_dict", "anything"),
]


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(container: str, state: State, tmp_path: Path) -> None:
    content: Any = state
    for name in reversed(container.split(".")):
        content = {"epoch": 3, name: content, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, tmp_path / "w.pt")
    assert_loads(tmp_path / "w.pt", state)


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.", "net.", "encoder."),
        *("resnet.", "0.", "model.module.", "network."),
    ],
)
def test_prefixes(prefix: str, state: State, tmp_path: Path) -> None:
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "w.pt")
    assert_loads(tmp_path / "w.pt", state)


def test_a_prefix_of_all_but_the_head(state: State, tmp_path: Path) -> None:
    named = {k if k.startswith("linear") else f"backbone.{k}": v for k, v in state.items()}
    torch.save(named, tmp_path / "w.pt")
    assert_loads(tmp_path / "w.pt", state)


@pytest.mark.parametrize("head", ["fc.1", "classifier", "head.fc", "fc", "last_linear"])
def test_heads(head: str, state: State, tmp_path: Path) -> None:
    renamed = {key.replace("linear", head): value for key, value in state.items()}
    torch.save(renamed, tmp_path / "w.pt")
    assert_loads(tmp_path / "w.pt", state)


def test_a_configuration_under_model_next_to_the_weights(state: State, tmp_path: Path) -> None:
    torch.save({"model": {"depth": 8}, "model_state_dict": state}, tmp_path / "w.pt")
    assert_loads(tmp_path / "w.pt", state)
    torch.save({"net": {"a": "r20"}, "state_dict": None, "weights": state}, tmp_path / "w.pt")
    assert_loads(tmp_path / "w.pt", state)


def test_averaged_weights_are_offered(state: State, tmp_path: Path) -> None:
    averaged = {key: value * 0.5 for key, value in state.items()}
    torch.save({"model_ema": averaged, "model": state}, tmp_path / "w.pt")
    loaded = assert_loads(tmp_path / "w.pt", state)
    assert any("--model weights=model_ema" in note for note in loaded.notes)
    other = load_third_party(tmp_path / "w.pt", {"weights": "model_ema"})
    assert torch.equal(other.network.head.fc.weight, averaged["linear.weight"])


def test_several_networks_are_not_chosen_between(state: State, tmp_path: Path) -> None:
    torch.save({"first": state, "second": dict(state)}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", r"several networks \(first, second\).*--model weights=first")
    load_third_party(tmp_path / "w.pt", {"weights": "second"})


@pytest.mark.parametrize(
    "beside",
    [
        np.float64(91.2),
        np.arange(3),
        argparse.Namespace(lr=0.1),
        pathlib.PurePosixPath("/x"),
        {1, 2},
        frozenset({"a"}),
        range(3),
        nn.Linear(2, 2),
        complex(1, 2),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("zipped", [True, False])
def test_objects_next_to_the_weights(
    beside: object, zipped: bool, state: State, tmp_path: Path
) -> None:
    content = {"net": state, "beside": beside, "best": 91.2}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert_loads(tmp_path / "w.pth", state)


def test_counters_of_thop_are_left_out(state: State, tmp_path: Path) -> None:
    counted = dict(state) | {
        "total_ops": torch.zeros(1),
        "layer1.0.conv1.total_params": torch.ones(1),
    }
    torch.save(counted, tmp_path / "w.pt")
    assert_loads(tmp_path / "w.pt", state)


def test_pruned_weights_are_masked(tmp_path: Path) -> None:
    theirs = fill(Theirs())
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, "weight", 0.5)
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    loaded = load_third_party(tmp_path / "w.pt")
    assert torch.equal(loaded.network.stem[0].weight, theirs.conv1.weight)
    assert float((loaded.network.stem[0].weight == 0).float().mean()) == pytest.approx(
        0.5, abs=0.01
    )
    assert any("masks" in note for note in loaded.notes)


def test_normalisation_buffers_are_used(state: State, tmp_path: Path) -> None:
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.25])
    for prefix, scale in (("normalize.", 1), ("normalizer.", 255), ("0.", 1)):
        torch.save(
            state | {f"{prefix}mean": mean * scale, f"{prefix}std": (std * scale).view(1, 3, 1, 1)},
            tmp_path / "w.pt",
        )
        loaded = load_network(tmp_path / "w.pt")
        assert loaded.normalization is not None
        torch.testing.assert_close(loaded.normalization.mean.flatten(), mean)
        torch.testing.assert_close(loaded.normalization.std.flatten(), std)


def test_a_normalisation_that_is_none(state: State, tmp_path: Path) -> None:
    torch.save(state | {"normalizer.new_mean": torch.zeros(3)}, tmp_path / "w.pt")
    loaded = load_third_party(tmp_path / "w.pt")
    assert loaded.normalization is None
    assert any("new_mean" in note for note in loaded.notes)
    bad = {"normalize.mean": torch.zeros(4), "normalize.std": torch.ones(4)}
    torch.save(state | bad, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", r"normalize\.mean: has shape \[4\]")
    bad = {"normalize.mean": torch.zeros(3), "normalize.std": torch.zeros(3)}
    torch.save(state | bad, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", r"normalize\.std: a standard deviation must be above 0")


# --- formats -------------------------------------------------------------------------------------


def test_formats_are_recognised_by_their_content(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("UPPER.PT", "named.safetensors", "none"):
        shutil.copy(tmp_path / "w.pt", tmp_path / name)
        assert_loads(tmp_path / name, state)
    for name in ("UPPER.SAFETENSORS", "named.pth"):
        shutil.copy(tmp_path / "w.safetensors", tmp_path / name)
        assert_loads(tmp_path / name, state)
    for name in ("w.pt", "w.safetensors"):
        (tmp_path / "packed.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        assert_loads(tmp_path / "packed.gz", state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, state: State, tmp_path: Path) -> None:
    stored = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    torch.save(stored, tmp_path / "w.pt")
    loaded = assert_loads(tmp_path / "w.pt", stored)
    assert loaded.network.head.fc.weight.dtype == torch.float32


def test_old_formats(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.th", _use_new_zipfile_serialization=False)
    assert_loads(tmp_path / "w.th", state)
    arrays = {key: value.numpy() for key, value in state.items()}
    for protocol in (0, 2, 4, 5):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
        assert_loads(tmp_path / "w.pkl", state)


def test_views_parameters_and_shared_storages(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    content = OrderedDict(
        {
            "a.t": base.t(),
            "a.row": base[1],
            "a.step": base[:, ::2],
            "a.parameter": nn.Parameter(base),
            "a.empty": torch.empty(0, 3),
            "a.scalar": torch.tensor(7),
            "a.bool": torch.tensor([True, False]),
        }
    )
    for zipped in (True, False):
        torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        found, _ = read_content(tmp_path / "w.pt")
        assert list(found) == list(content)
        for key, tensor in content.items():
            assert torch.equal(found[key], tensor), key
            assert found[key].dtype == tensor.dtype


# --- nothing runs, nothing hangs, nothing fills the machine --------------------------------------


class Hostile:
    """Creates a folder when it is unpickled by a reader that runs code."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("kind", ["torch", "old torch", "pickle", "pickle 0"])
def test_pickled_code_does_not_run(kind: str, state: State, tmp_path: Path) -> None:
    victim, path = tmp_path / "created", tmp_path / "w.pt"
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(Hostile(victim), protocol=0 if kind.endswith("0") else 4))
        refused(path, r"pickled code \(posix.mkdir\), which is not run")
    else:
        content = {"state_dict": state, "extra": Hostile(victim)}
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
        assert_loads(path, state)
    assert not victim.exists()
    if kind == "pickle":  # the file is indeed dangerous
        pickle.loads(path.read_bytes())
        assert victim.exists()


def test_a_whole_pickled_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    refused(tmp_path / "model.pt", r"pickled code \(torch.nn.modules.linear.Linear\)")


def zip_of(path: Path, data: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/version", "3\n")
        for name, content in entries.items():
            archive.writestr(f"a/data/{name[1:]}", content)
    return path


NESTED = b"\x80\x02}K\x01q\x01" + b"h\x01\x86q\x01" * 60 + b"K\x01s."
"""A nested tuple as a key, whose hash takes 2^60 steps."""
LONG = b"\x80\x04(" + b"K\x01" * 200_000 + b"t\x94"
HOSTILE_PICKLES = {
    "a nested key": NESTED,
    "a nested key of a set": b"\x80\x04\x8f(K\x01q\x01" + b"h\x01\x86q\x01" * 60 + b"\x90.",
    "an allocation of 2^40 bytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "a text of 2^40 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b".",
    "an extension": b"\x80\x02\x82\x01.",
    "an append to nothing": b"\x80\x02e",
    "a call of a number": b"\x80\x02K\x01K\x02\x85R.",
    "an item of a number": b"\x80\x02K\x01K\x02K\x03s.",
    "a long tuple copied again and again": LONG
    + b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93\x94"
    + b"h\x01h\x00\x85R0" * 2_000
    + b".",
    "a storage reference of another kind": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "an unknown opcode": b"\x80\x02\xff",
    "nothing": b"",
    "deep nesting": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", sorted(HOSTILE_PICKLES))
def test_hostile_pickles_end_in_one_line(name: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    if zipped:
        zip_of(path, HOSTILE_PICKLES[name])
    else:
        path.write_bytes(HOSTILE_PICKLES[name] or b"\x80")
    start = time.monotonic()
    refused(path, r"not a checkpoint|state dict|pickled code")
    assert time.monotonic() - start < 20


def test_compressed_entries_are_not_inflated(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as old,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info.filename))
    refused(tmp_path / "bomb.pt", "entries are compressed")


def test_a_gzip_file_that_grows_too_much(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(64 << 20)))
    refused(tmp_path / "bomb.gz", "unpacks to more than")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(os.urandom(1000))[:500])
    refused(tmp_path / "cut.gz", "damaged gzip")


def test_one_storage_under_many_names_is_refused(tmp_path: Path) -> None:
    values = torch.zeros(100_000)
    torch.save({f"layer1.0.k{i}.weight": values for i in range(1_000)}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "many times")


def test_a_sparse_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    for name in ("w.pt", "w.safetensors"):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(4 << 30)
        start = time.monotonic()
        with pytest.raises(UserError):
            load_network(path)
        assert time.monotonic() - start < 5


def test_a_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    import hashlib

    content = os.urandom(3_000_000)
    (tmp_path / "w").write_bytes(content)
    assert file_hash(tmp_path / "w") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file(zipped: bool, share: float, state: State, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
    whole = buffer.getvalue()
    path = tmp_path / "w.pt"
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, r"or truncated.*download or save it again")


def test_every_byte_of_a_small_file_may_be_wrong(tmp_path: Path) -> None:
    """A file with one changed byte either loads or is refused with one line."""
    generator = torch.Generator().manual_seed(0)
    state = fill(Theirs((1,), (16,))).state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    whole = buffer.getvalue()
    path = tmp_path / "w.pt"
    for _ in range(150):
        at = int(torch.randint(0, 6000, (), generator=generator))
        change = int(torch.randint(1, 256, (), generator=generator))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
        with contextlib.suppress(UserError):
            load_third_party(path)


# --- what cannot load, by its cause --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.pth", b"<!DOCTYPE html><html><head>", "web page"),
        ("w.safetensors", b"<html><head>", "web page"),
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n", "git lfs pull"),
        ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        ("w.onnx", b"\x08\x07\x12\x07pytorch", "ONNX"),
        ("w.pb", b"\x0a\x0bsaved_model", "TensorFlow"),
        ("w.pt", b'{"a": 1}', r"neither PyTorch nor safetensors.*adapter file"),
        ("w.pt", b"hello world\nagain\n", "neither PyTorch nor safetensors"),
        ("w.pt", b"", "is empty"),
        ("w.safetensors", (2**62).to_bytes(8, "little") + b"{}", "header too large"),
        ("w.safetensors", (40).to_bytes(8, "little") + b"{}" + bytes(60), "safetensors file"),
    ],
)
def test_files_that_are_not_checkpoints_are_named(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, words)


def test_archives_are_named(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pt")
    with tarfile.open(tmp_path / "w.pth.tar", "w") as archive:
        archive.add(tmp_path / "w.pt", "w.pt")
    refused(tmp_path / "w.pth.tar", "is a tar archive; extract it")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as zipped:
        zipped.write(tmp_path / "w.pt", "w.pt")
    refused(tmp_path / "w.zip", "zip archive of w.pt; unzip it")
    np.savez(tmp_path / "w.npz", **{k: v.numpy() for k, v in state.items()})
    refused(tmp_path / "w.npz", "NumPy arrays")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    refused(tmp_path / "script.pt", "TorchScript archive")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "no such checkpoint file")
    refused(tmp_path, "is a folder; give the checkpoint file in it")


def nested() -> Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def quantised() -> Tensor:
    return torch.quantize_per_tensor(torch.ones(3, 3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(2)], "contains a list, not a state dict.*adapter file"),
        (torch.ones(2), "contains a Tensor, not a state dict"),
        ({}, "contains an empty state dict"),
        ({"state_dict": {}}, "contains an empty state dict"),
        ({"epoch": 3, "best": 2}, "contains no state dict, only epoch, best"),
        ({"a.w": torch.ones(2), "module.a.w": torch.ones(2)}, "module.a.w: another key"),
        ({"a.w": torch.ones(1).expand(10**9)}, "a.w: not a dense tensor"),
        ({"a.w": torch.empty(3, device="meta")}, "a.w: not a dense tensor"),
        ({"a.w": torch.eye(3).to_sparse()}, "a.w: not a dense tensor"),
        (nested, "a.w: not a dense tensor with all its values in the file \\(nested\\)"),
        (
            {"a.w": torch.ones(3, dtype=torch.int8)},
            "a.w: has type int8; weights must be floating-point",
        ),
        (quantised, "a.w: is quantised; save the network before quantisation"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_content_that_is_not_a_state_dict(content: object, words: str, tmp_path: Path) -> None:
    if callable(content):
        content = {"a.w": content()}
    torch.save(content, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("layer1.0.conv1.weight", float("nan"), "values are not finite"),
        ("bn1.running_var", float("inf"), "values are not finite"),
        ("layer2.0.bn2.running_var", -1.0, "a running variance is negative"),
    ],
)
def test_values_that_no_training_leaves(key: str, value: float, words: str, tmp_path: Path) -> None:
    state = their_state()
    state[key].view(-1)[0] = value
    torch.save(state, tmp_path / "w.pt")
    assert key in refused(tmp_path / "w.pt", words)


def test_two_heads(state: State, tmp_path: Path) -> None:
    both = state | {"fc.weight": state["linear.weight"] * 2, "fc.bias": state["linear.bias"]}
    torch.save(both, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", r"2 classifiers \(linear, fc\).*--model head=linear")
    loaded = load_third_party(tmp_path / "w.pt", {"head": "fc"})
    assert torch.equal(loaded.network.head.fc.weight, both["fc.weight"])


def test_a_head_without_bias(state: State, tmp_path: Path) -> None:
    torch.save({k: v for k, v in state.items() if k != "linear.bias"}, tmp_path / "w.pt")
    loaded = assert_loads(tmp_path / "w.pt", state)
    assert not loaded.network.head.fc.bias.any()
    assert "the classifier has no bias" in loaded.notes


def test_names_keep_their_order(state: State, tmp_path: Path) -> None:
    found = find_state({"model": state}, tmp_path)
    assert list(found.tensors) == list(state)
    assert found.container == "model"
