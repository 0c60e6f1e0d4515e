"""Hostile input by way of the command line: refused in one line, run never, and nothing lost.

What each reader refuses is tested beside it (tests/weights/test_reading.py, tests/test_config.py,
tests/test_data.py, tests/test_imagefolder.py); here are whole commands, in a folder that holds
results, and what no reader alone can show.
"""

import hashlib
import io
import json
import os
import pickle
import resource
import struct
import tarfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from resnet_cli.cli import run_command
from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.datasets import download
from resnet_cli.datasets.normalisation import parse_normalization
from resnet_cli.models.factory import build
from resnet_cli.results.provenance import Checkpoint, collect
from resnet_cli.weights.load import read_safetensors, safetensors_bytes, weights_bytes

Captured = pytest.CaptureFixture[str]
MARK = "created"
"""What hostile code would make in the working folder."""
RUN = RunConfig(
    model=ModelConfig(depth=8, widths=(4, 8, 16)),
    data=DataConfig(train_images=64, test_images=20),
    train=TrainConfig(iterations=1, batch_size=16),
    seed=0,
)


class Hostile:
    """Makes a folder when it is unpickled by a reader that runs code."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (MARK,)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a run that was trained, results, and data of the user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESNET_CLI_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    run = Path("runs/mine")
    run.mkdir(parents=True)
    normalization = parse_normalization("imagenet", lambda: pytest.fail("no statistics are needed"))
    classes = tuple("0123456789")
    network = build(RUN.model, 10, 0).eval()
    (run / "weights.safetensors").write_bytes(
        weights_bytes(network, RUN, classes, normalization, {"test_error": 90.0})
    )
    Path("results/local/mine").mkdir(parents=True)
    Path("results/local/mine/table.csv").write_text("measured,for,days\n")
    return tmp_path


def contents() -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path().rglob("*")) if p.is_file()}


def refused(arguments: list[str], capsys: Captured, code: int = 2) -> str:
    """The one line that a command leaves on stderr; no code ran, no file was changed or lost."""
    before = contents()
    capsys.readouterr()
    assert run_command(arguments) == code
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("resnet-cli: ")
    assert "Traceback" not in captured.out + captured.err
    assert not Path(MARK).exists()
    assert before.items() <= contents().items()
    return line.removeprefix("resnet-cli: ")


STUDIES = [
    ["eval"],
    ["lesion", "--out", "results/local/mine"],
    ["paths", "--out", "results/local/mine"],
    ["signal", "--out", "results/local/mine"],
]


# --- weights -------------------------------------------------------------------------------------


def write_hostile(name: str) -> None:
    if name.startswith("torch"):
        torch.save({"state_dict": {"conv1.weight": Hostile()}}, name)
    else:
        Path(name).write_bytes(pickle.dumps(Hostile()))


@pytest.mark.parametrize("command", STUDIES, ids=lambda c: c[0])
@pytest.mark.parametrize("name", ["torch.pt", "pickle.pth", "pickle.safetensors"])
def test_a_pickle_named_as_checkpoint(name: str, command: list[str], capsys: Captured) -> None:
    write_hostile(name)
    line = refused([*command, "--checkpoint", name], capsys)
    assert line.startswith(f"{name}: ")
    if name == "pickle.pth":  # the file is indeed dangerous
        pickle.loads(Path(name).read_bytes())
        assert Path(MARK).is_dir()


@pytest.mark.parametrize("command", STUDIES, ids=lambda c: c[0])
def test_a_pickle_in_a_runs_folder(command: list[str], capsys: Captured) -> None:
    folder = Path("runs/newer")
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(pickle.dumps(Hostile()))
    line = refused(command, capsys)  # the newest run is taken when no checkpoint is named
    assert line.startswith("runs/newer/weights.safetensors: contains pickled code")
    refused(["weights", "--export", str(folder), "--name", "mine"], capsys)


def safetensors_claiming(shape: list[int], size: int) -> bytes:
    """A file of a few bytes whose header describes a tensor of `size` bytes."""
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}
    header = json.dumps({"conv1.weight": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(64)


@pytest.mark.parametrize("command", STUDIES, ids=lambda c: c[0])
@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 10 * 2**30) + b"{}",
        safetensors_claiming([50_000, 50_000], 10**10),
        safetensors_claiming([2**40, 2**40], 64),
    ],
    ids=["a header of 10 GB", "a tensor of 10 GB", "a shape of 2**82 bytes"],
)
def test_safetensors_that_claim_more_than_they_hold(
    content: bytes, command: list[str], capsys: Captured
) -> None:
    Path("huge.safetensors").write_bytes(content)
    line = refused([*command, "--checkpoint", "huge.safetensors"], capsys)
    assert line.startswith("huge.safetensors: not a valid safetensors file")


@pytest.mark.parametrize(
    "model",
    [
        {"depth": 9998},
        {"depth": 6_000_002},
        {"widths": [90_000, 90_000, 90_000]},
        {"depth": 10_000, "units": [4999], "widths": [4]},
    ],
    ids=str,
)
def test_weights_that_tell_of_a_network_beyond_them(
    model: dict[str, Any], capsys: Captured
) -> None:
    """A small file of our own format must not make the program build a network of 10 GB."""
    tensors, metadata = read_safetensors(Path("runs/mine/weights.safetensors"))
    run = json.loads(metadata["run"])
    run["model"] |= {"widths": None} | model
    metadata["run"] = json.dumps(run)
    Path("huge.safetensors").write_bytes(safetensors_bytes(tensors, metadata))
    line = refused(["eval", "--checkpoint", "huge.safetensors"], capsys)
    assert line.startswith("huge.safetensors: its ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_names", "[" * 100_000),
        ("class_names", "[]"),
        ("class_names", '"0123456789"'),
        ("outcome", "[" * 100_000),
        ("outcome", "[]"),
        ("run", "[" * 100_000),
    ],
)
def test_weights_with_a_hostile_description(key: str, value: str, capsys: Captured) -> None:
    path = Path("runs/mine/weights.safetensors")
    tensors, metadata = read_safetensors(path)
    path.write_bytes(safetensors_bytes(tensors, metadata | {key: value}))
    for arguments in (["eval"], ["eval", "--checkpoint", "runs/mine"]):
        assert "its description is damaged" in refused(arguments, capsys)


def test_a_device_is_not_a_weights_file(capsys: Captured) -> None:
    """/dev/zero would be read without end, a pipe would be waited for."""
    os.mkfifo("pipe.safetensors")
    for name in ("/dev/zero", "pipe.safetensors"):
        assert ": not a file" in refused(["eval", "--checkpoint", name], capsys)


# --- experiments ---------------------------------------------------------------------------------

VALID = "title: T\nmodel: {depth: 8}\ntrain: {iterations: 1}\n"
HOSTILE_YAML = {
    "python/object": f"note: !!python/object/apply:os.mkdir [{MARK}]\n",
    "python/object/new": f"note: !!python/object/new:os.mkdir [{MARK}]\n",
    "python/module": "note: !!python/module:antigravity\n",
    "anchors": "note: &a [x]\nfigure: *a\n",
    "laughs": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\n",
    "depth of lists": f"note: {'[' * 3000}\n",
    "depth of keys": "note: " + "{a: " * 3000 + "\n",
    "extends above": "extends: ../outside\n",
    "extends root": "extends: /etc/passwd\n",
    "extends by backslash": "extends: ..\\outside\n",
    "network": "seeds: [0]\n",
}


@pytest.mark.parametrize("hidden", [False, True], ids=["itself", "by extends"])
@pytest.mark.parametrize("kind", HOSTILE_YAML)
def test_a_hostile_experiment(kind: str, hidden: bool, capsys: Captured) -> None:
    text = VALID + HOSTILE_YAML[kind]
    if kind == "network":
        text = text.replace("depth: 8", "depth: 60000000002")
    Path("outside.yaml").write_text(VALID)
    Path("mine").mkdir()
    Path("mine/trial.yaml").write_text(text if not hidden else "extends: base\n")
    Path("mine/base.yaml").write_text(text)
    for command in (["show"], ["train"], ["run"], ["signal"]):
        line = refused([*command, "mine/trial.yaml"], capsys)
        assert line.startswith("mine/base.yaml" if hidden and kind != "network" else "mine/trial")
        assert len(line) < 700
    refused(["run", "mine"], capsys)


@pytest.mark.parametrize(
    "source", ["evil.py", "./evil.py", "../evil.py", "evil.py/", "evil.py/.", "EVIL.PY"]
)
def test_a_provenance_that_names_a_program(source: str, capsys: Captured) -> None:
    for place in ("evil.py", "EVIL.PY", "../evil.py"):
        Path(place).write_text(f"import os\nos.mkdir({MARK!r})\n")
    study = {"kind": "delete", "k": [1], "images": 20}
    config = {"model": None, "study": study, "data": {}, "only": None}
    config |= {"batch_statistics": False, "seed": 0}
    provenance = collect(
        config,
        seeds=[0],
        started=datetime.now(UTC),
        checkpoint=Checkpoint(source=source, sha256="0" * 64),
        command=["resnet-cli", "lesion", "--checkpoint", "evil.py"],
    )
    Path("x.provenance.json").write_text(provenance.to_json())
    line = refused(["run", "x.provenance.json"], capsys)
    assert line.startswith(f"x.provenance.json: its network is defined by {source}, ")
    assert line.endswith(": resnet-cli lesion --checkpoint evil.py")


@pytest.mark.parametrize(
    "setting",
    [
        f"note=!!python/object/apply:os.mkdir [{MARK}]",
        "note=&a [*a]",
        "note=" + "[" * 5000,
        ".".join("a" * 5000) + "=1",
        "model.depth=" + "9" * 4000,
        'study={kind: delete, k: "' + ",".join(["0-999999"] * 5000) + '"}',
    ],
    ids=["tag", "anchor", "nested", "long key", "huge number", "ranges"],
)
def test_a_hostile_setting(setting: str, capsys: Captured) -> None:
    for command in ("show", "train", "run"):
        refused([command, "quickstart", "--set", setting], capsys)


def test_a_network_that_no_machine_holds_is_one_line(capsys: Captured) -> None:
    arguments = ["train", "--profile", "smoke", "--set", "model.widths=[90000, 90000, 90000]"]
    before = resource.getrlimit(resource.RLIMIT_AS)
    # Some machines promise memory that they do not have; the network needs 290 GB.
    resource.setrlimit(resource.RLIMIT_AS, (64 * 2**30, before[1]))
    try:
        line = refused(arguments, capsys, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert "not enough memory" in line


# --- data ----------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(13)


def write_folder(bad: str) -> None:
    """A data folder of ten classes in which one training and one test image are not right."""
    secret = Path("secret.png")
    secret.write_bytes(png(16, 16))
    for split in ("train", "val"):
        for name in "0123456789":
            folder = Path("images") / split / name
            folder.mkdir(parents=True)
            (folder / "good.png").write_bytes(png(16, 16))
        path = Path("images") / split / "3" / "bad.png"
        if bad == "a link out":
            path.symlink_to(secret.resolve())
        elif bad == "a folder's link out":
            path.with_name("sub").symlink_to(Path().resolve())
        else:
            content = {
                "truncated": png(16, 16)[:300],
                "bomb": png_claiming(50_000, 50_000),
                "pickle": pickle.dumps(Hostile()),
                "no image": b"GIF89a" + bytes(100),
            }
            path.write_bytes(content[bad])


WORDS = {
    "a link out": "outside the data folder",
    "a folder's link out": "outside the data folder",
    "truncated": "damaged, or not an image",
    "bomb": "more than 40 megapixels",
    "pickle": "damaged, or not an image",
    "no image": "damaged, or not an image",
}
FOLDER_YAML = (
    VALID + "data: {dataset: imagefolder, image_size: 16, augment: crop, normalize: imagenet}\n"
)


@pytest.mark.parametrize("bad", WORDS)
def test_a_hostile_folder_of_images(bad: str, capsys: Captured) -> None:
    write_folder(bad)
    Path("trial.yaml").write_text(FOLDER_YAML)
    data = ["--data-dir", "images"]
    for command in (["train", "trial.yaml"], ["run", "trial.yaml"], ["signal", "trial.yaml"]):
        assert WORDS[bad] in refused([*command, *data], capsys)
    for command in STUDIES[:3]:
        arguments = [*command, "--dataset", "imagefolder", "--normalize", "imagenet", *data]
        assert WORDS[bad] in refused(arguments, capsys)


@pytest.mark.parametrize(
    "columns",
    [
        {"a": [1], "b": [2]},
        {"img": ["text"], "label": [0]},
        {"img": [{"path": "/etc/passwd"}], "label": [0]},
    ],
    ids=str,
)
def test_a_parquet_file_of_other_columns(columns: dict[str, Any], capsys: Captured) -> None:
    Path("data").mkdir()
    for split in ("train", "test"):
        pq.write_table(pa.table(columns), f"data/{split}-0.parquet")
    for command in STUDIES:
        line = refused([*command, "--dataset", "cifar10"], capsys)
        assert "-0.parquet: has the columns " in line


def test_an_archive_whose_member_leaves_the_folder(
    work: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision unpacks an archive of the published checksum only, so this one never."""
    from torchvision.datasets import CIFAR10

    archive = work / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        member = tarfile.TarInfo(f"../{MARK}")
        member.type = tarfile.DIRTYPE
        file.addfile(member)
    assert hashlib.md5(archive.read_bytes()).hexdigest() != CIFAR10.tgz_md5
    monkeypatch.setattr(CIFAR10, "url", archive.as_uri())

    def broken(*arguments: Any) -> None:
        raise download._MirrorError("the mirror is down")

    monkeypatch.setattr(download, "_download", broken)
    Path("data").mkdir()
    before = contents()
    assert run_command(["data", "cifar10", "--download"]) == 1
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if line.startswith("resnet-cli: ")]
    assert "CIFAR-10 could not be downloaded: the mirror is down; file://" in line
    assert "Traceback" not in err
    assert not Path(MARK).exists()
    assert {name: content for name, content in contents().items() if name in before} == before
