"""Benchmarks: baselines compute what ours do, the harness measures by turns, tables are whole."""

import json
import math
import os
import platform
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from resnet_cli.bench import plain
from resnet_cli.bench.catalog import ITEMS, Item
from resnet_cli.bench.items import MEASURES, BenchmarkResult
from resnet_cli.bench.measure import (
    BenchmarkProcess,
    Work,
    alternate,
    matrix_peak,
    timed,
    with_peak,
)
from resnet_cli.bench.run import choose, run_benchmarks
from resnet_cli.bench.subjects import Settings, batches_of, benchmark_network, random_split
from resnet_cli.cli import run_command
from resnet_cli.results.tables import column_names, is_pair, read_table
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.interrupt import Interrupted, Stopper
from resnet_cli.studies.paths.cut import CutNetwork, path_gradient
from resnet_cli.studies.walks import delete, evaluate_walks, intact

Captured = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("forks_of_torch")
SMALL = Settings(repeats=2, small=True)


# --- the baselines -------------------------------------------------------------------------------


def test_transforms_give_the_pixels_that_our_batches_give() -> None:
    split = random_split(20)
    ((images, labels),) = plain.evaluation_loader(split)
    ours, our_labels = batches_of(split).evaluation(0, 20)
    torch.testing.assert_close(images, ours)
    assert labels.tolist() == our_labels.tolist()


def test_a_whole_evaluation_for_each_deletion_counts_what_the_engine_counts() -> None:
    split = random_split(100)
    network = benchmark_network(SMALL, 56, split)
    baseline = plain.in_nchw(network)
    assert all(p.is_contiguous() for p in baseline.parameters())
    sets = [(), (0,), (1,), (0, 2)]
    wrong = plain.count_wrong(baseline, plain.evaluation_loader(split), sets)
    walks = [delete(intact(3), units) for units in sets]
    assert wrong == [o.wrong for o in evaluate_walks(network, batches_of(split), walks)]
    assert len(set(wrong)) > 1


def test_networks_under_test_predict_several_classes() -> None:
    split = random_split(100)
    logits = benchmark_network(Settings(), 20, split)(batches_of(split).evaluation(0, 100)[0])
    assert len(set(logits.argmax(1).tolist())) > 3


def test_one_backward_pass_is_the_path_of_the_study() -> None:
    split = random_split(6)
    network = benchmark_network(SMALL, 56, split)
    images, labels = batches_of(split).evaluation(0, 6)
    cut = CutNetwork(network, images, labels)
    for path in ([], [1], [0, 2], [0, 1, 2]):
        norm = plain.path_norm(network, images, labels, path)
        assert norm == pytest.approx(float(path_gradient(cut, path).norm()), rel=1e-4)


def test_the_training_loop_learns() -> None:
    split = random_split(128)
    network = benchmark_network(SMALL, 20, split)
    loop = plain.TrainingLoop(network, split)
    losses = [loop.step() for _ in range(30)]
    assert sum(losses[-5:]) / 5 < losses[0] - 0.3
    images, _ = next(iter(loop.loader))
    assert images.shape == (128, 3, 32, 32)
    assert functional.cross_entropy(network(images), torch.zeros(128, dtype=torch.int64)) > 0


# --- the harness ---------------------------------------------------------------------------------


def test_work_alternates_and_the_order_changes() -> None:
    turns: list[str] = []
    times = {"plain": iter([3.0, 4.0, 9.0]), "ours": iter([1.0, 2.0, 3.0])}

    def side(name: str) -> float:
        turns.append(name)
        return next(times[name])

    timing = alternate(lambda: side("plain"), lambda: side("ours"), 3)
    assert turns == ["plain", "ours", "ours", "plain", "plain", "ours"]
    assert (timing.plain, timing.ours) == ((3.0, 4.0, 9.0), (1.0, 2.0, 3.0))
    assert timing.ratios == [3.0, 2.0, 3.0]


def test_work_is_timed() -> None:
    assert 0.03 <= timed(lambda: time.sleep(0.03)) < 1


def _asleep(seconds: float) -> Work:
    def work() -> int:
        time.sleep(seconds)
        return os.getpid()

    return work


def test_a_side_works_in_a_process_of_its_own() -> None:
    with (
        BenchmarkProcess(_asleep, 0.03) as ours,
        BenchmarkProcess(_asleep, 0.01, ours=False) as baseline,
    ):
        assert 0.03 <= ours.seconds() < 5
        baseline.seconds()
        assert len({os.getpid(), ours.value, baseline.value}) == 3
        pid = ours.value
        os.kill(pid, signal.SIGINT)  # Ctrl-C reaches all processes of a terminal
        ours.seconds()
        assert ours.value == pid


def _threads_and_faults() -> Work:
    """A block large enough that glibc would give it back, taken and freed again and again."""

    def work() -> tuple[int, int]:
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(1 << 24)
        return torch.get_num_threads(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    return work


def test_only_our_side_keeps_freed_memory() -> None:
    with (
        BenchmarkProcess(_threads_and_faults, threads=2) as ours,
        BenchmarkProcess(_threads_and_faults, ours=False) as by,
    ):
        ours.seconds()
        by.seconds()
    assert ours.value[0] == 2
    if platform.libc_ver()[0] == "glibc":
        assert ours.value[1] < 100 < by.value[1]


def _fails() -> Work:
    def work() -> None:
        raise ValueError("no such work")

    return work


def test_an_error_of_a_side_is_raised() -> None:
    with BenchmarkProcess(_fails) as side, pytest.raises(ValueError, match="no such work"):
        side.seconds()


def _fill(megabytes: int) -> float:
    return float(torch.ones(megabytes * 250_000).sum())


def test_memory_is_that_of_a_process_of_its_own() -> None:
    with BenchmarkProcess(with_peak, _fill, 300) as side:
        side.seconds()
    found, peak, before = side.value
    assert found == 75_000_000
    assert 250 < peak - before < 500


def test_the_peak_is_a_speed() -> None:
    assert 0.1 < matrix_peak(1, 256) < 1e6


# --- the command ---------------------------------------------------------------------------------


def test_every_benchmark_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["bench", "--small", "--repeats", "2", "--out", "b", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary["items"]) == {item.name for item in ITEMS}
    for stem in ("bench", "bench_summary", "bench_scaling"):
        table = Path("b") / f"{stem}.csv"
        frame = read_table(table)
        assert tuple(frame.columns) == column_names(stem)
        assert is_pair(table)
        assert len(frame) > 0
    frame = read_table(Path("b/bench_summary.csv"))
    assert frame["item"].tolist() == [item.name for item in ITEMS]
    assert (frame["value"] > 0).all()
    assert (frame["lowest"] <= frame["value"]).all()
    assert (frame["value"] <= frame["highest"]).all()
    repeats = read_table(Path("b/bench.csv"))
    assert set(repeats[repeats["item"] == "lesion_single"]["side"]) == {"plain", "ours"}
    assert "errors differ by at most 0 images" in frame["remark"][0]


@pytest.mark.parametrize(
    ("better", "value", "reached"),
    [("higher", 2.0, "yes"), ("higher", 1.9, "no"), ("lower", 2.0, "yes"), ("lower", 2.1, "no")],
)
def test_a_target_is_reached_or_not(
    better: str, value: float, reached: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(settings: Settings) -> BenchmarkResult:
        return BenchmarkResult([value, value / 10, value * 10], {"ours": [1.0]}, amount=1)

    item = Item("help", "made up", 2.0, better, "x")  # type: ignore[arg-type]
    monkeypatch.setattr("resnet_cli.bench.run.ITEMS", (item,))
    monkeypatch.setitem(MEASURES, "help", measured)
    run_benchmarks(["help"], SMALL, tmp_path, Display(verbosity=-1), Stopper())
    (row,) = read_table(tmp_path / "bench_summary.csv").to_dict("records")
    assert (row["value"], row["reached"]) == (value, reached)


@pytest.mark.parametrize(("folder", "items"), [("bench", len(ITEMS)), ("bench/intel", 3)])
def test_the_page_on_speed_shows_what_was_measured(folder: str, items: int) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs/speed.md").read_text()
    rows = read_table(root / "results" / folder / "bench_summary.csv").set_index("item")
    measured_items = [item for item in ITEMS if item.name in rows.index]
    assert len(measured_items) == items
    for item in measured_items:
        row = rows.loc[item.name]
        sign = "at least" if item.better == "higher" else "at most"
        reached = "yes" if item.is_reached(row["value"]) else "**no**"
        asked, measured = f"{sign} {item.target:g}", f"{row['value']:.3g} {item.measured_in}"
        speed = "-"
        if not math.isnan(row["gflops"]):
            speed = f"{row['gflops']:.0f} ({100 * row['share_of_peak']:.0f} %)"
        assert f"| {item.title} | {asked} | {measured} | {reached} | {speed} |" in page


def test_an_unknown_benchmark_is_refused(capsys: Captured) -> None:
    with pytest.raises(UserError, match="unknown benchmark 'lesions'; did you mean"):
        choose(["lesions"])
    assert run_command(["bench", "lesions"]) == 2
    assert choose(["scaling", "help"]) == ["help", "scaling"]


def test_stopped_between_benchmarks(tmp_path: Path) -> None:
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        run_benchmarks(
            ["help", "lesion_single"],
            SMALL,
            tmp_path,
            Display(verbosity=-1),
            lambda: next(asked),  # type: ignore[arg-type]
        )
    assert read_table(tmp_path / "bench_summary.csv")["item"].tolist() == ["lesion_single"]
