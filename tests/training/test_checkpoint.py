"""Checkpoints: what is written comes back, and what is damaged is seen and got over."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from resnet_cli.results import tables
from resnet_cli.results.layout import CHECKPOINT_FILE, PREVIOUS_CHECKPOINT
from resnet_cli.runtime.errors import RunError, UserError
from resnet_cli.training import checkpoint
from resnet_cli.training.checkpoint import (
    Position,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)

HASH = "ab" * 32
NEW_CHECKPOINT = "checkpoint.new.safetensors"


def tensors(value: float = 1.0) -> dict[str, Tensor]:
    return {
        "model.weight": torch.full((2, 3), value),
        "model.steps": torch.tensor(7),
        "momentum.weight": torch.full((2, 3), -value),
    }


def position(iteration: int) -> Position:
    rows: list[dict[str, Any]] = [{"epoch": 1, "iteration": iteration, "test_error": None}]
    return Position(iteration, 0.1 + 0.2, 3, 64, 1.5, 2.5, False, rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two checkpoints, at iterations 10 and 20."""
    for iteration in (10, 20):
        save_checkpoint(tmp_path, HASH, position(iteration), tensors(float(iteration)))
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def iteration_found(folder: Path, config_hash: str = HASH) -> tuple[int, list[str]]:
    found = load_checkpoint(folder, config_hash)
    assert found is not None
    return found[0].iteration, found[2]


# --- as it should be -----------------------------------------------------------------------------


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, HASH, position(10), tensors())
    found = load_checkpoint(tmp_path, HASH)
    assert found is not None
    where, stored, warnings = found
    assert where == position(10)  # floats to the last bit
    assert warnings == []
    assert stored.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert torch.equal(stored[name], tensor)
        assert stored[name].dtype == tensor.dtype


def test_any_memory_format_is_stored(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path, HASH, Position(1), {"model.a": images, "model.b": images[:, 1]})
    found = load_checkpoint(tmp_path, HASH)
    assert found is not None
    assert torch.equal(found[1]["model.a"], images)
    assert torch.equal(found[1]["model.b"], images[:, 1])


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, HASH) is None
    assert load_checkpoint(tmp_path / "never made", HASH) is None


def test_the_newest_is_read_and_the_one_before_is_kept(folder: Path) -> None:
    assert names(folder) == [PREVIOUS_CHECKPOINT, CHECKPOINT_FILE]
    assert iteration_found(folder) == (20, [])
    (folder / CHECKPOINT_FILE).unlink()
    assert iteration_found(folder) == (10, [])


def test_finished_runs_leave_no_checkpoint(folder: Path) -> None:
    (folder / NEW_CHECKPOINT).write_bytes(b"half")
    (folder / "weights.safetensors").write_bytes(b"kept")
    remove_checkpoints(folder)
    assert names(folder) == ["weights.safetensors"]


# --- damage --------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def flip_the_position(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b'loss_sum\\": 0.3') == 1
    path.write_bytes(content.replace(b'loss_sum\\": 0.3', b'loss_sum\\": 0.4'))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_someone_else(path: Path) -> None:
    path.write_bytes(save(tensors(), {"format": "pt"}))


DAMAGES = [truncate, flip_a_weight, flip_the_position, empty, of_someone_else]


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_takes_the_place_of_a_damaged_one(folder: Path, damage: Any) -> None:
    damage(folder / CHECKPOINT_FILE)
    damaged = (folder / CHECKPOINT_FILE).read_bytes()
    iteration, warnings = iteration_found(folder)
    assert iteration == 10
    (warning,) = warnings
    assert warning == f"{folder / CHECKPOINT_FILE} is damaged; renamed to {CHECKPOINT_FILE}.damaged"
    assert (folder / f"{CHECKPOINT_FILE}.damaged").read_bytes() == damaged
    assert names(folder) == [PREVIOUS_CHECKPOINT, f"{CHECKPOINT_FILE}.damaged"]
    save_checkpoint(folder, HASH, position(30), tensors())
    assert iteration_found(folder) == (30, [])


@pytest.mark.parametrize("damage", DAMAGES)
def test_both_damaged_is_a_fresh_start_with_warnings(folder: Path, damage: Any) -> None:
    damage(folder / CHECKPOINT_FILE)
    damage(folder / PREVIOUS_CHECKPOINT)
    found = load_checkpoint(folder, HASH)
    assert found is not None
    where, stored, warnings = found
    assert where == Position()
    assert stored == {}
    assert len(warnings) == 2
    assert CHECKPOINT_FILE in warnings[0]
    assert PREVIOUS_CHECKPOINT in warnings[1]
    assert load_checkpoint(folder, HASH) is None  # only the renamed files are left


def test_a_change_of_any_byte_is_seen(tmp_path: Path) -> None:
    """Not one file out of all with one byte changed is taken for whole; none raises."""
    save_checkpoint(tmp_path, HASH, Position(5), {"model.w": torch.ones(3)})
    whole = (tmp_path / CHECKPOINT_FILE).read_bytes()
    path = tmp_path / "changed.safetensors"
    header = int.from_bytes(whole[:8], "little")
    for place in range(len(whole)):
        for mask in (0x01, 0x80):
            changed = bytearray(whole)
            changed[place] ^= mask
            path.write_bytes(changed)
            found = checkpoint._read(path, HASH)
            if found is not None:  # a change between JSON's tokens means nothing
                assert place < 8 + header
                assert found[0] == Position(5)
                assert torch.equal(found[1]["model.w"], torch.ones(3))


def test_the_checkpoint_of_another_configuration_is_not_used(folder: Path) -> None:
    found = load_checkpoint(folder, "cd" * 32)
    assert found is not None
    assert found[0] == Position()
    assert found[1] == {}
    assert len(found[2]) == 2


def test_a_half_written_new_one_is_never_read(folder: Path) -> None:
    whole = (folder / CHECKPOINT_FILE).read_bytes()
    (folder / NEW_CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    (folder / ".0123.tmp").write_bytes(whole[:40])
    assert iteration_found(folder) == (20, [])
    (folder / CHECKPOINT_FILE).unlink()
    (folder / PREVIOUS_CHECKPOINT).unlink()
    assert load_checkpoint(folder, HASH) is None


def test_killed_between_the_two_renames_the_one_before_is_read(folder: Path) -> None:
    (folder / NEW_CHECKPOINT).write_bytes(b"whole or not")
    os.replace(folder / CHECKPOINT_FILE, folder / PREVIOUS_CHECKPOINT)
    assert iteration_found(folder) == (20, [])


# --- disks ---------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_last_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (folder / name).read_bytes() for name in names(folder)}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables.os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_checkpoint(folder, HASH, position(30), tensors())
    monkeypatch.undo()
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert iteration_found(folder) == (20, [])


def test_a_disk_that_reads_back_something_else_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(path: Path, content: bytes) -> None:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    monkeypatch.setattr(checkpoint, "atomic_write", bad)
    with pytest.raises(RunError, match="does not read back"):
        save_checkpoint(folder, HASH, position(30), tensors())
    monkeypatch.undo()
    assert names(folder) == [PREVIOUS_CHECKPOINT, CHECKPOINT_FILE]
    assert iteration_found(folder) == (20, [])


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="a file where its folder should be"):
        save_checkpoint(tmp_path / "run", HASH, position(1), tensors())
    assert (tmp_path / "run").read_text() == "a file"


def test_a_pipe_in_place_of_a_checkpoint_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / CHECKPOINT_FILE)
    found = load_checkpoint(tmp_path, "any")
    assert found is not None
    position, tensors, (warning,) = found
    assert (position, tensors) == (Position(), {})
    assert "is damaged" in warning
