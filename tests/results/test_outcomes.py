"""Per-image outcomes: stored, read back, and the variance of a paired difference."""

from pathlib import Path

import numpy as np
import pytest

from resnet_cli.results.layout import OUTCOMES_FILE
from resnet_cli.results.outcomes import case_key, paired_variance, read_outcomes, write_outcomes
from resnet_cli.runtime.errors import UserError


def test_outcomes_are_read_back_as_written(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    written = {case_key("original", seed): draws.random(1003) < 0.9 for seed in range(3)}
    path = write_outcomes(tmp_path, written)
    content = path.read_bytes()
    read = read_outcomes(tmp_path)
    assert list(read) == ["original/seed0", "original/seed1", "original/seed2"]
    assert all(np.array_equal(read[name], written[name]) for name in written)
    write_outcomes(tmp_path, written)
    assert path.read_bytes() == content, "the file must not depend on when it is written"


def test_a_folder_without_outcomes_has_none(tmp_path: Path) -> None:
    assert read_outcomes(tmp_path) == {}


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "lengths"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = write_outcomes(tmp_path, {"test": np.ones(100, dtype=bool)})
    if damage == "lengths":
        with path.open("wb") as file:
            np.savez(file, images=np.array(100), test=np.zeros(5, dtype=np.uint8))
    else:
        content = {"empty": b"", "cut": path.read_bytes()[:-40], "text": b"correct"}[damage]
        path.write_bytes(content)
    with pytest.raises(UserError, match=OUTCOMES_FILE) as caught:
        read_outcomes(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_harmless_or_refused(tmp_path: Path) -> None:
    path = write_outcomes(tmp_path, {"test": np.random.default_rng(2).random(300) < 0.9})
    content = path.read_bytes()
    messages = []
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            read_outcomes(tmp_path)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > len(content) / 2
    assert all("\n" not in message for message in messages)


@pytest.mark.parametrize(
    "outcomes",
    [
        {},
        {"a": np.ones(3, dtype=bool), "b": np.ones(4, dtype=bool)},
        {"a": np.ones(3)},
        {"images": np.ones(3, dtype=bool)},
    ],
)
def test_what_are_no_outcomes_is_refused(tmp_path: Path, outcomes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"images|same length"):
        write_outcomes(tmp_path, outcomes)  # type: ignore[arg-type]


def test_the_paired_variance_is_that_of_resampled_images() -> None:
    draws = np.random.default_rng(1)
    images = 2000
    hard = draws.random(images) < 0.1
    first, second = ~hard | (draws.random(images) < 0.3), ~hard | (draws.random(images) < 0.5)
    samples = draws.integers(images, size=(4000, images))
    difference = 100 * (first[samples].mean(axis=1) - second[samples].mean(axis=1))
    assert paired_variance(first, second) == pytest.approx(difference.var(), rel=0.1)
    independent = first.var() / images * 1e4 + second.var() / images * 1e4
    assert paired_variance(first, second) < 0.7 * independent
    assert paired_variance(first, first) == 0
    with pytest.raises(ValueError, match="paired"):
        paired_variance(first, second[1:])
