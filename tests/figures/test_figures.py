"""The figures: what they say, what they draw, and that files are whole."""

import io
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy
import pandas
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from resnet_cli.claims.papers import published
from resnet_cli.cli import run_command
from resnet_cli.config.experiments import load_experiment
from resnet_cli.figures.style import GREY, PALETTE, largest_calm, published_label, save
from resnet_cli.figures.titles import Heading, case_names, figure_title, heading_of, network_title
from resnet_cli.figures.training import table_figure, training_figure
from resnet_cli.report.redraw import main as redraw_main
from resnet_cli.report.redraw import redraw
from resnet_cli.results.tables import header
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.additivity import Additivity, additivity_figure
from resnet_cli.studies.base import Study
from resnet_cli.studies.delete import DeleteUnits
from resnet_cli.studies.delete_figures import (
    lesion_classes_figure,
    lesion_count_figure,
    lesion_ranked_figure,
    lesion_single_figure,
)
from resnet_cli.studies.greedy import GreedyDeletion, lesion_greedy_figure
from resnet_cli.studies.path_survival import PathSurvival, path_survival_figure
from resnet_cli.studies.paths.figures import exact_figure, paths_figure, spectrum_figure
from resnet_cli.studies.paths.study import Paths
from resnet_cli.studies.reorder import ReorderUnits, lesion_reorder_figure
from resnet_cli.studies.runner import draw
from resnet_cli.studies.signal import Signal, signal_figure

HEADING = Heading("fig3", "pre-act ResNet-110", "digits", 15, "mini")
TITLE = "Figure 3: What is shown (ResNet-110, digits)"
UNITS = 54


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = dict(matplotlib.rcParams)
    yield
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def training(cases: list[str], seeds: tuple[int, ...] = (0,), epochs: int = 6) -> pandas.DataFrame:
    rows = [
        {
            "experiment": "x",
            "case": case,
            "seed": seed,
            "epoch": epoch,
            "iteration": 11 * epoch,
            "lr": 0.1,
            "train_loss": 2.0 / epoch + 0.1 * seed,
            "train_error": 50.0,
            "test_loss": 1.0,
            "test_error": math.nan if epoch == 2 else 80.0 / epoch + 2 * seed,
            "images_per_second": 1.0,
            "seconds": 1.0,
        }
        for case in cases
        for seed in seeds
        for epoch in range(1, epochs + 1)
    ]
    return pandas.DataFrame(rows, columns=list(header("training")))


def table(**errors: float | None) -> pandas.DataFrame:
    """One seed a case; None has diverged, above 20 has failed."""
    rows = [
        {
            "experiment": "x",
            "case": case.replace("_", "-"),
            "dataset": "digits",
            "seed": 0,
            "params": 1,
            "status": "diverged" if error is None else "fail" if error > 20 else "ok",
            "test_error": math.nan if error is None else error,
            "best_error": math.nan if error is None else error,
            "paper_error": 6.61 if case == "original" else math.nan,
        }
        for case, error in errors.items()
    ]
    return pandas.DataFrame(rows, columns=list(header("table")))


def deletions(k: int, errors: list[float], baseline: float = 0.8) -> pandas.DataFrame:
    rows = [
        {
            "k": k,
            "sample": sample,
            "blocks": " ".join(str(sample + i) for i in range(k)),
            "test_error": error,
            "baseline_error": baseline,
            "images": 360,
            "seed": 0,
            "loss": 0.1,
            "kl_divergence": 0.1,
            "agreement": 99.0,
        }
        for sample, error in enumerate(errors)
    ]
    return pandas.DataFrame(rows, columns=list(header("lesion_delete")))


def reorders(taus: list[float]) -> pandas.DataFrame:
    rows = [
        {
            "swaps": 1,
            "sample": sample,
            "order": "",
            "kendall_tau": tau,
            "test_error": 90 * (1 - tau),
            "baseline_error": 0.8,
            "images": 360,
            "seed": 0,
            "loss": 0.1,
            "kl_divergence": 0.1,
            "agreement": 99.0,
        }
        for sample, tau in enumerate(taus)
    ]
    return pandas.DataFrame(rows, columns=list(header("lesion_reorder")))


def lengths(units: int = UNITS) -> pandas.DataFrame:
    counts = [math.comb(units, k) for k in range(units + 1)]
    fractions = [count / 2**units for count in counts]
    return pandas.DataFrame({"k": range(units + 1), "paths": counts, "fraction": fractions})


def gradients(last: int = UNITS) -> pandas.DataFrame:
    rows = [
        {"k": k, "sample": s, "grad_norm": math.exp(-k) * (1 + 0.1 * s), "images": 128, "seed": 0}
        for k in range(last + 1)
        for s in range(5)
    ]
    return pandas.DataFrame(rows)


def stages(key: str = "stage") -> pandas.DataFrame:
    rows = [
        {key: value, "k": k, "paths": math.comb(3, k), "exact_norm": 2.0 ** -abs(k - value)}
        | {"share_exact": 0.25}
        for value in (1, 2)
        for k in range(4)
    ]
    stem = "path_spectrum_stages" if key == "stage" else "path_spectrum_unit"
    return pandas.DataFrame(rows)[list(header(stem))]


def test_exact_spectra_are_curves_of_their_own() -> None:
    figure = exact_figure(stages(), "stage", TITLE)
    assert [line.get_label() for line in figure.axes[0].lines] == [
        "stage 1; 90 % in 0–3",
        "stage 2; 90 % in 0–3",
    ]
    assert "in the stage" in figure.axes[0].get_xlabel()


def spectrum(units: int = UNITS, exact: bool = True) -> pandas.DataFrame:
    frame = lengths(units)[["k", "paths"]].copy()
    frame["mean_norm"] = [math.exp(-k) for k in frame["k"]]
    frame["std_norm"] = 0.0
    frame["total"] = [
        float(n) * norm for n, norm in zip(frame["paths"], frame["mean_norm"], strict=True)
    ]
    frame["exact_norm"] = [math.exp(-((k - 4) ** 2) / 8) if exact else math.nan for k in frame["k"]]
    frame["share_total"] = frame["total"] / frame["total"].sum()
    frame["share_exact"] = frame["exact_norm"] / frame["exact_norm"].sum()
    frame["cancellation"] = frame["exact_norm"] / frame["total"]
    return frame[list(header("path_spectrum"))]


def texts(figure: Figure) -> list[str]:
    """All that a figure says: titles, axis labels, legends, notes."""
    found = [figure.get_suptitle()]
    legends = list(figure.legends)
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        found += [text.get_text() for text in axes.texts]
        legends += [axes.get_legend()] if axes.get_legend() else []
    found += [text.get_text() for legend in legends for text in legend.get_texts()]
    return [text for text in found if text]


def lines(axes: Axes, linestyle: str) -> list[Any]:
    return [line for line in axes.lines if line.get_linestyle() == linestyle]


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert len(set(image.convert("L").tobytes())) > 2
        return image.size


# --- training ----------------------------------------------------------------------------------


def test_training_draws_error_solid_and_loss_dashed() -> None:
    figure = training_figure(training(["original", "preact"]), TITLE)
    errors, losses = figure.axes
    assert texts(figure) == [
        TITLE,
        "iteration",
        "test error (%)",
        "training loss (nats)",
        "original unit",
        "full pre-activation",
        "test error",
        "training loss",
    ]
    assert [line.get_color() for line in lines(errors, "-")] == list(PALETTE[:2])
    assert [line.get_color() for line in lines(losses, "--")] == list(PALETTE[:2])
    x, y = lines(errors, "-")[0].get_data()
    assert list(x) == [11, 33, 44, 55, 66]  # the epoch without evaluation is left out
    assert list(y) == pytest.approx([80, 80 / 3, 20, 16, 80 / 6])
    assert losses.get_yscale() == "log"


def test_training_with_seeds_draws_the_median_and_a_band() -> None:
    figure = training_figure(training(["main"], seeds=(0, 1, 5)), TITLE)
    errors = figure.axes[0]
    assert lines(errors, "-")[0].get_ydata()[0] == pytest.approx(82.0)
    assert len(errors.collections) == 1


def test_training_of_many_cases_has_a_panel_for_each_against_the_first() -> None:
    cases = [f"case{number}" for number in range(6)]
    figure = training_figure(training(cases), TITLE)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == cases[1:]
    assert "case0 (in every panel)" in texts(figure)


def test_a_panel_compares_with_the_original_of_the_same_depth() -> None:
    cases = ["original-110", "original-164", "preact-110", "preact-164", "bn_after_addition-164"]
    frame = training(cases)
    frame["test_error"] += frame["case"].map({"original-110": 5.0, "original-164": 9.0}).fillna(0)
    figure = training_figure(frame, TITLE)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    firsts = {name: float(lines(axes, "-")[0].get_ydata()[0]) for name, axes in panels.items()}
    assert firsts == {
        "full pre-activation, 110": 85.0,
        "full pre-activation, 164": 89.0,
        "BN after addition, 164": 89.0,
    }
    assert "the original unit of the same depth" in texts(figure)


@pytest.mark.parametrize("cases", [["original", "dropout"], ["a", "b", "c", "d", "e", "dropout"]])
def test_an_exploding_loss_does_not_stretch_the_axis(cases: list[str]) -> None:
    frame = training(cases)
    frame.loc[(frame["case"] == "dropout") & (frame["epoch"] > 1), "train_loss"] = 1e18
    figure = training_figure(frame, TITLE)
    losses = [axes for axes in figure.axes if axes.get_yscale() == "log"]
    assert losses
    assert all(axes.get_ylim()[1] < 10 for axes in losses)
    assert "dropout 0.5 (loss off the scale)" in texts(figure)
    assert sum("off the scale" in text for text in texts(figure)) == 1


def test_no_error_runs_off_its_axis() -> None:
    frame = training([f"case{number}" for number in range(6)])
    frame.loc[frame["case"] == "case5", "test_error"] = 95.0
    assert training_figure(frame, TITLE).axes[0].get_ylim()[1] > 95


def test_a_training_of_which_only_the_end_is_known_is_a_point_and_says_so() -> None:
    frame = training(["full", "active-23"])
    frame = frame[(frame["case"] != "full") | (frame["epoch"] == 6)]
    names = {"full": "all 54 units", "active-23": "23 of 54 units"}
    figure = training_figure(frame, TITLE, names)
    assert lines(figure.axes[0], "-")[0].get_marker() == "o"
    assert {"all 54 units (only the end is known)", "23 of 54 units"} <= set(texts(figure))
    assert "only the end" not in "".join(texts(training_figure(training(["a"], epochs=1), TITLE)))


def test_the_largest_of_what_did_not_explode() -> None:
    assert largest_calm([2.0, 3.0, 1e18], 1e3) == 3.0
    assert largest_calm([2.0, 1e18], 1e3) == 2.0
    assert largest_calm([1e18], 1e3) == 1e18
    assert largest_calm([2.0, math.inf, math.nan, 30.0], 1e3) == 30.0
    assert math.isnan(largest_calm([math.nan], 1e3))


def test_training_that_diverged_ends_its_lines() -> None:
    frame = training(["main"])
    frame.loc[frame["epoch"] > 3, ["train_loss", "test_error"]] = [math.inf, math.nan]
    losses = training_figure(frame, TITLE).axes[1]
    assert list(lines(losses, "--")[0].get_xdata()) == [11, 22, 33]
    frame[["train_loss", "test_error"]] = math.nan
    _save_to_memory(training_figure(frame, TITLE))


def test_training_of_one_epoch_is_visible() -> None:
    axes = training_figure(training(["main"], epochs=1), TITLE).axes[0]
    assert lines(axes, "-")[0].get_marker() == "o"


def test_large_iterations_are_written_in_thousands() -> None:
    frame = training(["main"])
    frame["iteration"] *= 1000
    figure = training_figure(frame, TITLE)
    _save_to_memory(figure)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[:3] == ["0", "15k", "30k"]


# --- table -------------------------------------------------------------------------------------


def test_table_shows_measured_beside_published() -> None:
    numbers = published("he2016").query("source == 'table1'")
    frame = table(original=1.1, scaling_0_1=None, dropout=88.0, convolution=2.0)
    frame["case"] = ["original", "scaling-0-1", "dropout", "convolution"]
    figure = table_figure(frame, TITLE, numbers)
    axes = figure.axes[0]
    names = ["original unit", "shortcut 0, F 1", "dropout 0.5", "1x1 convolution"]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    said = texts(figure)
    assert said[:2] == [TITLE, "test error (%)"]
    assert said.count("measured") == 2  # a column and the bars in the legend
    for text in ("1.10", "diverged", "fail, 88.0", "2.00", "published", "6.61", "12.22"):
        assert text in said
    assert said.count("fail, > 20") == 2
    assert "published: CIFAR-10" in said
    marks = [line for line in axes.lines if line.get_marker() == "D"]
    assert [round(float(line.get_xdata()[0]), 2) for line in marks] == [6.61, 12.22]
    assert all(line.get_markerfacecolor() == "white" for line in marks)
    assert axes.get_xlim() == pytest.approx((0, 1.25 * 12.22))


def test_table_takes_paper_error_when_no_numbers_are_given() -> None:
    figure = table_figure(table(original=1.1, other=2.0), TITLE)
    assert [float(line.get_xdata()[0]) for line in figure.axes[0].lines] == [6.61]
    assert "published" in texts(figure)


def test_table_without_a_published_number_does_not_speak_of_one() -> None:
    assert not any("published" in text for text in texts(table_figure(table(a=1.0), TITLE)))


def test_table_of_several_seeds_shows_median_and_points() -> None:
    frame = pandas.concat([table(a=e).assign(seed=s) for s, e in enumerate([1.0, 3.0, 1.5])])
    figure = table_figure(frame, TITLE)
    assert "1.50" in texts(figure)
    assert "one seed" in texts(figure)
    assert sorted(figure.axes[0].lines[0].get_xdata()) == [1.0, 1.5, 3.0]


def test_a_bar_that_is_cut_off_is_broken_and_said_to_be() -> None:
    figure = table_figure(table(a=1.0, b=88.0), TITLE)
    strokes = [line for line in figure.axes[0].lines if line.get_ydata()[0] > 1.4]
    assert len(strokes) == 4
    assert "measured: fail, bar cut off" in texts(figure)
    whole = table_figure(table(a=60.0, b=88.0).assign(status=["ok", "fail"]), TITLE)
    assert whole.axes[0].get_xlim() == (0, 100)
    assert len(whole.axes[0].lines) == 0
    assert "measured: fail" in texts(whole)


def test_the_columns_of_a_table_lie_within_the_figure() -> None:
    numbers = published("he2016").query("source == 'table1'")
    figure = table_figure(table(original=1.1, dropout=None), TITLE, numbers)
    _save_to_memory(figure)
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= figure.axes[0].bbox.x1 - 1
        assert box.x1 <= figure.bbox.width


def test_table_of_perfect_and_of_failed_networks() -> None:
    assert table_figure(table(a=0.0), TITLE).axes[0].get_xlim() == (0, 1)
    assert table_figure(table(a=None), TITLE).axes[0].get_xlim() == (0, 100)


def test_a_number_not_checked_is_called_approximate() -> None:
    numbers = published("he2016").query("source == 'table1'").assign(checked="m")
    said = texts(table_figure(table(original=1.1), TITLE, numbers))
    assert "published, approximate: CIFAR-10" in said
    assert published_label("5 to 17", "m") == "published, approximate: 5 to 17"
    assert published_label("5 to 17", "v") == "published: 5 to 17"


# --- lesions -----------------------------------------------------------------------------------


def test_single_deletions_of_two_networks() -> None:
    networks = {"VGG-15": deletions(1, [88.0, 90.0], 1.4), "ResNet-110": deletions(1, [60, 1, 1])}
    figure = lesion_single_figure(networks, TITLE, changes={"ResNet-110": [0, 2]}, chance=90.0)
    axes = figure.axes[0]
    assert list(lines(axes, "-")[0].get_ydata()) == [88, 90]
    assert list(lines(axes, "-")[1].get_xdata()) == [0, 1, 2]
    baselines = [line for line in lines(axes, "--") if line.get_color() != GREY]
    assert [line.get_ydata()[0] for line in baselines] == pytest.approx([1.4, 0.8])
    assert [line.get_xdata()[0] for line in lines(axes, ":")] == [0, 2]
    said = texts(figure)
    assert said[:3] == [TITLE, "deleted unit or layer (index)", "test error (%)"]
    assert said[3:] == [
        "VGG-15",
        "ResNet-110",
        "changes the shape",
        "VGG-15, intact (1.40 %)",
        "ResNet-110, intact (0.80 %)",
        "guessing (90 %)",
    ]
    styles = {text.get_text(): line for text, line in _legend(figure)}
    assert styles["changes the shape"] == ":"
    assert styles["guessing (90 %)"] == "-."


def _legend(figure: Figure) -> list[tuple[Any, str]]:
    (legend,) = figure.legends
    styles = [line.get_linestyle() for line in legend.get_lines()]
    return list(zip(legend.get_texts(), styles, strict=True))


def test_single_deletions_of_one_network_name_it_in_the_title_only() -> None:
    said = texts(lesion_single_figure({"VGG-15": deletions(1, [88.0])}, TITLE))
    assert said[3:] == ["one layer deleted", "intact (0.80 %)"]


def test_single_deletions_are_averaged_over_trainings_and_other_k_left_out() -> None:
    frame = pandas.concat([deletions(1, [10, 20]), deletions(1, [30, 20]), deletions(2, [99])])
    axes = lesion_single_figure({"n": frame}, TITLE).axes[0]
    assert list(lines(axes, "-")[0].get_ydata()) == [20, 20]


def test_single_deletions_need_some() -> None:
    with pytest.raises(UserError, match="nothing to draw: lesion_delete of n with k = 1"):
        lesion_single_figure({"n": deletions(2, [1.0])}, TITLE)


def test_deletions_by_count() -> None:
    frame = pandas.concat([deletions(k, [k, 2 * k, 3 * k]) for k in (1, 2, 5)])
    figure = lesion_count_figure(frame, TITLE, chance=90)
    axes = figure.axes[0]
    medians = [line.get_ydata()[0] for line in axes.lines if line.get_color() == PALETTE[1]]
    assert medians == [2, 4, 10]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "5"]
    assert "intact network (0.80 %)" in texts(figure)
    assert "units deleted at random" in texts(figure)


def test_reorder_draws_every_sample_and_boxes_where_there_are_enough() -> None:
    taus = [1.0 - 0.001 * i for i in range(10)] + [0.88, 0.8]
    figure = lesion_reorder_figure(reorders(taus), TITLE, bins=4)
    axes = figure.axes[0]
    assert len(axes.patches) == 1
    points = [line for line in axes.lines if line.get_marker() == "."]
    assert list(points[0].get_xdata()) == taus
    assert axes.get_xlim()[0] > axes.get_xlim()[1]  # disorder grows to the right
    assert axes.get_xlim()[0] == 1.0  # no tau is larger
    assert "Kendall tau of new and old order; boxes: tau in bins of 0.05" in texts(figure)


def test_reorder_of_a_single_order() -> None:
    figure = lesion_reorder_figure(reorders([1.0, 1.0]), TITLE)
    assert len(figure.axes[0].patches) == 0
    _save_to_memory(figure)


# --- paths -------------------------------------------------------------------------------------


def test_paths_are_three_axes_in_a_row() -> None:
    figure = paths_figure(lengths(), gradients(), TITLE, spectrum=spectrum())
    first, second, third = figure.axes
    assert [axes.get_title()[:3] for axes in figure.axes] == ["(a)", "(b)", "(c)"]
    assert max(first.lines[0].get_ydata()) == pytest.approx(100 * math.comb(54, 27) / 2**54)
    assert second.get_yscale() == "log"
    assert list(second.lines[0].get_ydata())[:2] == pytest.approx([1.2, 1.2 * math.exp(-1)])
    assert len(second.collections) == 2
    assert "(a) × (b), 5 paths a length" in texts(figure)
    sampled, exact = third.lines
    assert sum(sampled.get_ydata()) == pytest.approx(100)
    assert sum(exact.get_ydata()) == pytest.approx(100)
    assert "published: 5 to 17, CIFAR-10" in texts(figure)


@pytest.mark.parametrize("rising", [False, True])
def test_the_legend_of_gradients_is_where_the_curve_is_low(rising: bool) -> None:
    frame = gradients(9)
    if rising:
        frame = frame.assign(k=9 - frame["k"])
    figure = paths_figure(lengths(9), frame, TITLE)
    figure.draw_without_rendering()
    second = figure.axes[1]
    legend = second.get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    points = second.transData.transform(second.lines[0].get_xydata())
    assert not any(box.contains(x, y) for x, y in points)


def test_the_published_interval_is_for_networks_of_as_many_units() -> None:
    figure = paths_figure(lengths(9), gradients(9), TITLE)
    assert not any("published" in text for text in texts(figure))


def test_paths_without_a_spectrum_multiply_by_themselves() -> None:
    figure = paths_figure(lengths(9), gradients(9), TITLE)
    (line,) = figure.axes[2].lines
    weights = numpy.array([math.comb(9, k) * math.exp(-k) for k in range(10)])
    assert list(line.get_ydata()) == pytest.approx(list(100 * weights / weights.sum()))


def test_the_band_of_the_product_is_the_standard_error_of_the_mean() -> None:
    frame = gradients(9)
    figure = paths_figure(lengths(9), frame, TITLE)
    assert "± standard error" in texts(figure)
    (line,) = figure.axes[2].lines
    shares = numpy.asarray(line.get_ydata())
    (band,) = figure.axes[2].collections
    corners = band.get_paths()[0].vertices
    norms = frame.loc[frame["k"] == 3, "grad_norm"].to_numpy()
    relative = norms.std(ddof=1) / math.sqrt(len(norms)) / norms.mean()
    heights = sorted({float(y) for x, y in numpy.asarray(corners) if x == 3.0})
    assert heights == pytest.approx([shares[3] * (1 - relative), shares[3] * (1 + relative)])
    spread = spectrum(9).assign(std_norm=frame.groupby("k")["grad_norm"].std().to_numpy())
    assert len(paths_figure(lengths(9), frame, TITLE, spectrum=spread).axes[2].collections) == 1


def test_paths_whose_gradient_vanished() -> None:
    frame = gradients(9)
    frame.loc[frame["k"] > 3, "grad_norm"] = 0.0
    assert list(paths_figure(lengths(9), frame, TITLE).axes[1].lines[0].get_xdata()) == [
        0,
        1,
        2,
        3,
    ]
    frame["grad_norm"] = 0.0
    _save_to_memory(paths_figure(lengths(9), frame, TITLE))


def test_spectrum_shades_the_interval_of_each_curve() -> None:
    figure = spectrum_figure(spectrum(), TITLE)
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert len(axes.lines) == len(axes.collections) == 2
    said = texts(figure)
    assert "exact: norm of their sum; 90 % in 1–7" in said
    assert any(text.startswith("sampled: paths × mean norm; 90 % in ") for text in said)


def test_spectrum_without_the_exact_norm() -> None:
    figure = spectrum_figure(spectrum(exact=False), TITLE)
    assert len(figure.axes[0].lines) == 1


# --- beyond the paper --------------------------------------------------------------------------


def greedy(steps: int = 5) -> pandas.DataFrame:
    frame = pandas.concat([deletions(k, [0.9 * k]) for k in range(1, steps + 1)])
    return frame.drop(columns="sample").assign(unit=frame["k"])[list(header("lesion_greedy"))]


def additivity() -> pandas.DataFrame:
    frame = pandas.concat([deletions(k, [2.0 * k, 3.0 * k]) for k in (2, 5)])
    damages = {
        "joint_damage": frame["test_error"] - 0.8,
        "summed_damage": 1.0 * frame["k"],
        "joint_loss_damage": 0.1 * frame["k"],
        "summed_loss_damage": 0.2 * frame["k"],
    }
    return frame.assign(**damages)[list(header("lesion_additivity"))]


def classes(k: int = 1) -> pandas.DataFrame:
    rows = [
        {
            "blocks": " ".join(map(str, range(sample, sample + k))),
            "class": index,
            "images": 36,
            "test_error": 5.0 * index + sample,
            "baseline_error": 1.0,
            "class_name": name,
            "k": k,
            "sample": sample,
            "seed": 0,
        }
        for sample in range(3)
        for index, name in enumerate(("cat", "dog"))
    ]
    return pandas.DataFrame(rows, columns=list(header("lesion_classes")))


def survival(units: int = UNITS) -> pandas.DataFrame:
    rows = [
        {
            "deleted": d,
            "k": k,
            "paths": math.comb(units, k),
            "remaining": math.comb(units - d, k),
            "fraction": math.comb(units - d, k) / math.comb(units, k),
        }
        for d in (1, 10, 20)
        for k in range(units + 1)
    ]
    return pandas.DataFrame(rows, columns=list(header("path_survival")))


def test_ranked_draws_the_worst_unit_first() -> None:
    figure = lesion_ranked_figure(deletions(1, [1.0, 9.0, 4.0]), TITLE, changes=[2])
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([8.2, 3.2, 0.2])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "0"]
    assert "changes the shape" in texts(figure)
    with pytest.raises(UserError, match="lesion_delete with k = 1 has no rows"):
        lesion_ranked_figure(deletions(2, [1.0]), TITLE)


def test_greedy_is_drawn_against_the_mean_of_random_deletions() -> None:
    random = pandas.concat([deletions(k, [1.0 * k, 3.0 * k]) for k in (1, 2, 3)])
    figure = lesion_greedy_figure(greedy(), TITLE, random=random, chance=90)
    mean, steps = figure.axes[0].lines[:2]
    assert list(mean.get_ydata()) == [2.0, 4.0, 6.0]
    assert list(steps.get_ydata()) == pytest.approx([0.9, 1.8, 2.7, 3.6, 4.5])
    assert {"random, mean", "least harmful first", "guessing (90 %)"} <= set(texts(figure))
    alone = lesion_greedy_figure(greedy(), TITLE)
    assert not any("random" in text for text in texts(alone))


def test_additivity_draws_joint_against_summed_damage() -> None:
    figure = additivity_figure(additivity(), TITLE)
    error = figure.axes[0].collections[0].get_offsets()
    assert numpy.asarray(error)[:, 0].tolist() == [2.0, 2.0, 5.0, 5.0]
    assert numpy.asarray(error)[:, 1].tolist() == pytest.approx([3.2, 5.2, 9.2, 14.2])
    assert "loss increase (nats)" in " ".join(texts(figure))


def test_classes_are_drawn_by_unit_or_by_k() -> None:
    for k, label in ((1, "deleted unit (index)"), (2, "units deleted together, k")):
        figure = lesion_classes_figure(classes(k), TITLE)
        assert label in texts(figure)
        grid = figure.axes[0].images[0].get_array()
        assert grid is not None
        expected = [[-1, 0, 1], [4, 5, 6]] if k == 1 else [[0], [5]]
        assert grid.tolist() == expected


def test_path_survival_has_a_line_for_each_number_of_deleted_units() -> None:
    figure = path_survival_figure(survival(), TITLE)
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == [
        "1 deleted",
        "10 deleted",
        "20 deleted",
    ]
    first, last = axes.lines[1].get_ydata()[1], axes.lines[1].get_ydata()[-1]
    assert (first, last) == (pytest.approx(100 * 44 / 54), 0.0)


# --- files -------------------------------------------------------------------------------------


def _save_to_memory(figure: Figure) -> None:
    figure.savefig(io.BytesIO(), format="png")


# --- signals -------------------------------------------------------------------------------------


def signals(factor: float = 0.5, units: int = 6, trained: bool = True) -> pandas.DataFrame:
    rows = [
        {
            "state": state,
            "unit": unit,
            "activation_norm": 10.0 + unit,
            "gradient_norm": 0.1 * 1.5 ** (units - unit),
            "shortcut_factor": factor if unit < units else math.nan,
            "shortcut_product": factor ** (units - unit),
            "shortcut_gain": 0.9 * factor ** (units - unit),
            "images": 16,
            "seed": 0,
        }
        for state in (("initial", "trained") if trained else ("initial",))
        for unit in range(units + 1)
    ]
    return pandas.DataFrame(rows, columns=list(header("signal")))


def test_signals_of_one_network_have_a_curve_for_each_state() -> None:
    figure = signal_figure({"n": signals()}, TITLE)
    assert len(figure.axes) == 3
    for axes in figure.axes[:2]:
        assert axes.get_yscale() == "log"
        assert len(axes.get_lines()) == 2
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "at initialisation",
        "trained",
        "product of the lambdas or mean gates, equation (8)",
    ]
    gain, product = figure.axes[2].get_lines()[:2]
    assert list(gain.get_ydata()) == [0.9 * 0.5 ** (6 - unit) for unit in range(7)]
    assert list(product.get_ydata()) == [0.5 ** (6 - unit) for unit in range(7)]


def test_signals_of_several_networks_have_a_row_for_each_state() -> None:
    tables = {"identity": signals(1.0), "half": signals(0.5), "none": signals(0.0, trained=False)}
    tables["none"]["shortcut_gain"] = 0.0  # a factor of nothing has no place on a log scale
    figure = signal_figure(tables, TITLE)
    assert len(figure.axes) == 6
    assert [len(axes.get_lines()) for axes in figure.axes] == [3, 3, 5, 2, 2, 4]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:3] == ["identity", "half", "none"]


def test_signals_that_exploded_do_not_stretch_the_axis() -> None:
    tables = {"identity": signals(1.0), "half": signals(0.5), "dropout": signals(1.0)}
    trained = tables["dropout"]["state"] == "trained"
    tables["dropout"].loc[trained, "activation_norm"] *= 1e12
    figure = signal_figure(tables, TITLE)
    assert figure.axes[3].get_ylim()[1] < 100
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:3] == ["identity", "half", "dropout (trained: off the scale)"]
    alone = signal_figure({"dropout": tables["dropout"]}, TITLE)
    assert alone.axes[0].get_ylim()[1] > 1e13
    assert not any("off the scale" in text for text in texts(alone))


def test_a_narrow_logarithmic_axis_has_plain_numbers() -> None:
    figure = signal_figure({"n": signals(1.0)}, TITLE)
    _save_to_memory(figure)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert {"5", "10", "20"} <= set(labels)


BENCHMARKS = {"bench", "bench_summary", "bench_scaling", "reliability"}
"""Tables that are read, not drawn."""
FRAMES = {
    "training": training(["original", "preact"]),
    "table": table(original=1.1, other=88.0),
    "lesion_delete": pandas.concat([deletions(k, [1.0 * k] * 4) for k in (1, 2, 3)]),
    "lesion_reorder": reorders([1.0 - 0.01 * i for i in range(20)]),
    "path_lengths": lengths(),
    "path_gradients": gradients(),
    "path_spectrum": spectrum(),
    "path_spectrum_stages": stages(),
    "path_spectrum_unit": stages("unit"),
    "lesion_greedy": greedy(),
    "lesion_additivity": additivity(),
    "lesion_classes": classes(),
    "path_survival": survival(),
    "signal": signals(),
}


STUDIES: dict[str, tuple[Study, dict[str, tuple[int, int]]]] = {
    "lesion_delete": (
        DeleteUnits(k=(1, 2, 3)),
        {"lesion_single.png": (720, 510), "lesion_count.png": (720, 510)},
    ),
    "lesion_classes": (
        DeleteUnits(per_class=True, only=(1,)),
        {"lesion_classes.png": (1080, 276)},
    ),
    "lesion_reorder": (ReorderUnits(swaps=(1,)), {"lesion_reorder.png": (720, 510)}),
    "path_spectrum": (
        Paths(stages=True, unit=0),
        {
            "paths.png": (1440, 480),
            "path_spectrum.png": (720, 510),
            "path_spectrum_stages.png": (720, 510),
            "path_spectrum_unit.png": (720, 510),
        },
    ),
    "lesion_greedy": (GreedyDeletion(), {"lesion_greedy.png": (720, 510)}),
    "lesion_additivity": (Additivity(), {"lesion_additivity.png": (1080, 510)}),
    "path_survival": (PathSurvival(), {"path_survival.png": (720, 510)}),
    "signal": (Signal(), {"signal.png": (1440, 468)}),
}


@pytest.mark.parametrize("table", STUDIES)
def test_the_figures_of_a_study(tmp_path: Path, table: str) -> None:
    study, files = STUDIES[table]
    written = draw(study.figures(FRAMES, HEADING), tmp_path / "new")
    assert {path.name: size(path) for path in written} == files
    assert {figure.name for figure in study.figures(FRAMES, HEADING)} <= set(study.pictures)


def test_a_long_title_is_broken_into_lines_that_fit() -> None:
    title = HEADING.over("Deleting one layer of a VGG, or one unit of a residual network")
    figure = spectrum_figure(spectrum(), title)
    _save_to_memory(figure)
    box = figure._suptitle.get_window_extent()  # type: ignore[attr-defined]
    assert "\n" in figure.get_suptitle()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_only_the_deletions_that_were_measured_are_drawn() -> None:
    for k, name in ((1, "lesion_single"), (2, "lesion_count")):
        frames = {"lesion_delete": deletions(k, [1.0, 2.0])}
        (figure,) = DeleteUnits(k=(k,)).figures(frames, HEADING)
        assert figure.name == name


@pytest.mark.parametrize("table", sorted(set(STUDIES) - {"lesion_delete"}))
def test_an_empty_table_is_refused(tmp_path: Path, table: str) -> None:
    frames = FRAMES | {table: FRAMES[table].iloc[:0]}
    with pytest.raises(UserError, match=f"nothing to draw: {table} has no rows"):
        draw(STUDIES[table][0].figures(frames, HEADING), tmp_path)


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    first = save(spectrum_figure(spectrum(), TITLE), tmp_path / "a.png")
    second = save(spectrum_figure(spectrum(), TITLE), tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()


def test_the_users_own_style_changes_nothing(tmp_path: Path) -> None:
    first = save(spectrum_figure(spectrum(), TITLE), tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        second = save(spectrum_figure(spectrum(), TITLE), tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match=r"a\.png: cannot be written: a folder stands"):
        save(spectrum_figure(spectrum(), TITLE), tmp_path / "a.png")


def test_a_title_is_broken_before_its_parenthesis_and_not_within_words() -> None:
    figure = spectrum_figure(spectrum(), HEADING.over("Error after deleting one unit"))
    assert figure.get_suptitle().splitlines() == [
        "Figure 3: Error after deleting one unit",
        "(pre-act ResNet-110, digits, 15 epochs, profile mini)",
    ]


def test_titles_say_what_where_and_on_what() -> None:
    title = "Figure 3: Shown (pre-act ResNet-110, digits, 15 epochs, profile mini)"
    assert HEADING.over("Shown") == title
    assert Heading(None, "ResNet-20", "cifar10").over("Shown") == "Shown (ResNet-20, CIFAR-10)"
    assert Heading("discussion", "", "", 1).over("Shown") == "Shown (1 epoch)"
    assert Heading().over("Shown") == "Shown"
    # Neither the network nor the paper's data set is named twice.
    told = Heading("table3", "ResNet-110", "digits").over("By depth, ResNet-110, CIFAR-10")
    assert told == "Table 3: By depth, ResNet-110, CIFAR-10 (digits)".replace(", CIFAR-10", "")


def test_names_in_words() -> None:
    assert [
        figure_title(name) for name in ("fig5a", "table1", "section4.3", "discussion", None)
    ] == [
        "Figure 5a",
        "Table 1",
        "Section 4.3",
        "",
        "",
    ]
    assert network_title("preact110") == "pre-act ResNet-110"
    assert network_title("vgg15") == "VGG-15"
    assert network_title("resnet110-exclusive_gating") == "ResNet-110, exclusive gating"
    assert network_title("my-weights") == "my-weights"


def test_headings_of_experiments() -> None:
    table1 = load_experiment("he2016/table1", "mini")
    title = heading_of(table1).over(table1.title)
    assert title == "Table 1: Six kinds of shortcut, ResNet-110 (digits, 30 epochs, profile mini)"
    dropout = next(case for case in table1.cases if case.name == "dropout")
    assert heading_of(table1, dropout).network == "ResNet-110, dropout 0.5"
    fig3 = load_experiment("veit2016/fig3", "mini")
    assert heading_of(fig3).network == ""  # a VGG and a ResNet
    assert [heading_of(fig3, case).network for case in fig3.cases] == [
        "VGG-15",
        "pre-act ResNet-110",
    ]
    fig8 = load_experiment("veit2016/fig8", "mini")
    assert heading_of(fig8, fig8.cases[1], 2).network == (
        "pre-act ResNet-110, stochastic depth, seed 2"
    )


def test_a_case_of_another_depth_than_the_papers_tells_both() -> None:
    names = case_names(load_experiment("he2016/fig6a", "cpu"))
    assert list(names.values()) == ["original unit, 38 for 110", "BN after addition, 38 for 110"]
    names = case_names(load_experiment("he2016/fig6a", "mini"))
    assert list(names.values()) == ["original unit, 110", "BN after addition, 110"]
    names = case_names(load_experiment("he2016/table1", "cpu"))
    assert names["exclusive-gating-bias-6"] == "exclusive gate, bias -6"


RESULTS = Path(__file__).parents[2] / "results"


def test_redrawn_plots_are_those_that_run_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["run", "veit2016/fig3", "--profile", "smoke", "-q"]) == 0
    before = {path: path.read_bytes() for path in Path("results").rglob("*.png")}
    assert len(before) == 3  # one of each case, one of both
    for path in before:
        path.unlink()
    redraw_main(["results"])
    assert {path: path.read_bytes() for path in Path("results").rglob("*.png")} == before


@pytest.mark.parametrize(
    ("folder", "plots"),
    [
        ("veit2016/cpu/fig5a", ["lesion_count.png", "lesion_single.png"]),
        ("veit2016/cpu/fig3", ["lesion_single.png"]),
        (
            "veit2016/third-party/fig6",
            ["path_spectrum.png", "path_spectrum_stages.png", "paths.png"],
        ),
        ("he2016/cpu/table1", ["table.png", "training.png"]),
    ],
)
def test_plots_are_drawn_again_from_tables_alone(
    tmp_path: Path, folder: str, plots: list[str]
) -> None:
    for source in (RESULTS / folder).rglob("*"):
        if source.suffix in (".csv", ".json"):
            copy = tmp_path / source.relative_to(RESULTS / folder)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(source.read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written = redraw(tmp_path)
    assert sorted(path.name for path in written) == plots
    assert all(path.stat().st_size < 200_000 for path in written)
    assert all(path.read_bytes() == old for path, old in before.items())


def test_matplotlib_is_imported_only_to_draw() -> None:
    modules = "resnet_cli.figures.training, resnet_cli.studies.runner"
    code = f"import sys, {modules}; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
