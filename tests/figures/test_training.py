"""Training curves, and the errors that trainings ended with."""

import math

import pandas
import pytest
from figure_tables import TITLE, lines, save_to_memory, table, texts, training
from matplotlib.text import Text

from resnet_cli.claims.papers import published
from resnet_cli.figures.style import PALETTE, published_label
from resnet_cli.figures.training import table_figure, training_figure


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


def test_originals_of_several_depths_are_compared_with_the_first() -> None:
    depths = ("20", "32", "44", "56", "110")
    figure = training_figure(training([f"original-{depth}" for depth in depths]), TITLE)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"original unit, {depth}" for depth in depths]
    assert [len(lines(axes, "-")) for axes in figure.axes[1:5]] == [2, 2, 2, 2]
    assert "original unit, 20 (in every panel)" in texts(figure)


def test_every_case_is_in_a_panel() -> None:
    cases = ["original-56", "original-110", "preact-110", "dropout-110", "original-164"]
    figure = training_figure(training(cases), TITLE)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [
        "original unit, 56",
        "full pre-activation, 110",
        "dropout 0.5, 110",
        "original unit, 164",
    ]
    assert "the original unit of the same depth or the first case" in texts(figure)


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
    point, curve = (line for line in figure.axes[0].lines if len(line.get_xdata()))
    assert (point.get_marker(), point.get_linestyle()) == ("o", "None")
    assert curve.get_linestyle() == "-"
    assert {"all 54 units (final values only)", "23 of 54 units"} <= set(texts(figure))
    assert "only the end" not in "".join(texts(training_figure(training(["a"], epochs=1), TITLE)))


def test_training_that_diverged_ends_its_lines() -> None:
    frame = training(["main"])
    frame.loc[frame["epoch"] > 3, ["train_loss", "test_error"]] = [math.inf, math.nan]
    losses = training_figure(frame, TITLE).axes[1]
    assert list(lines(losses, "--")[0].get_xdata()) == [11, 22, 33]
    for cases in (1, 6, 31):
        frame = training([f"case{number}" for number in range(cases)])
        frame[["train_loss", "test_error"]] = math.nan
        save_to_memory(training_figure(frame, TITLE))


@pytest.mark.parametrize("cases", [["main"], [f"case{number}" for number in range(31)]])
@pytest.mark.parametrize(("evaluations", "linestyle"), [(1, "None"), (2, "None"), (3, "-")])
def test_two_points_are_no_curve(cases: list[str], evaluations: int, linestyle: str) -> None:
    frame = training(cases)
    frame = frame[frame["epoch"].isin([4, 5, 6][:evaluations])]
    axes = training_figure(frame, TITLE).axes[0]
    drawn = [line for line in axes.lines if len(line.get_xdata())]
    assert drawn[-1].get_linestyle() == linestyle
    assert drawn[-1].get_marker() == "o"


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
    save_to_memory(figure)
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


def test_many_cases_are_one_bundle() -> None:
    figure = training_figure(training([f"case{i}" for i in range(200)], seeds=(0, 1)), TITLE)
    (axes,) = figure.axes
    (bundle,) = axes.collections
    assert len(bundle.get_segments()) == 400  # type: ignore[attr-defined]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["200 cases", "median"]
    figure = training_figure(training([f"case{i}" for i in range(30)]), TITLE)
    assert sum(axes.get_visible() for axes in figure.axes) > 30


@pytest.mark.parametrize("text", ["costs $5", "$", r"$\frac{1}{2}$", "a_b^c"])
def test_names_and_titles_are_text_and_no_formulas(text: str) -> None:
    frame = training(["main", "other"])
    for figure in (
        training_figure(frame, text, {"main": text}),
        table_figure(table(main=1.0), text, None, {"main": text}),
    ):
        save_to_memory(figure)
        assert figure.get_suptitle() == text
        assert text in texts(figure)
        shown = [t for t in figure.findobj(Text) if t.get_text() == text]  # type: ignore[attr-defined]
        assert not any(t.get_parse_math() for t in shown)
