"""The figures of deletions, orders and the studies built on them."""

from typing import Any

import numpy
import pandas
import pytest
from figure_tables import (
    HEADING,
    TITLE,
    additivity,
    classes,
    deletions,
    greedy,
    lines,
    reorders,
    save_to_memory,
    survival,
    texts,
)
from matplotlib.figure import Figure

from resnet_cli.figures.style import GREY
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.additivity import additivity_figure
from resnet_cli.studies.delete import DeleteUnits
from resnet_cli.studies.delete_figures import (
    lesion_classes_figure,
    lesion_count_figure,
    lesion_ranked_figure,
    lesion_single_figure,
)
from resnet_cli.studies.greedy import lesion_greedy_figure
from resnet_cli.studies.lesion_figures import medians_figure
from resnet_cli.studies.path_survival import path_survival_figure
from resnet_cli.studies.reorder import lesion_reorder_figure


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
        "intact (1.40 %)",
        "intact (0.80 %)",
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
    medians = [line.get_ydata()[0] for line in axes.lines if line.get_linewidth() == 1.6]
    assert medians == [2, 4, 10]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "5"]
    assert "intact network (0.80 %)" in texts(figure)
    assert "units deleted at random" in texts(figure)


def test_medians_of_two_networks_are_drawn_together() -> None:
    first = pandas.concat([deletions(k, [k, 2 * k, 9 * k]) for k in (1, 2, 5)])
    figure = medians_figure({"a": first, "b": deletions(1, [7.0])}, "k", "units", TITLE)
    curves = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in curves] == [[2, 4, 10], [7]]
    assert {"a", "b", "units (dashed: intact)"} <= set(texts(figure))


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
    save_to_memory(figure)


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


def test_only_the_deletions_that_were_measured_are_drawn() -> None:
    for k, name in ((1, "lesion_single"), (2, "lesion_count")):
        frames = {"lesion_delete": deletions(k, [1.0, 2.0])}
        (figure,) = DeleteUnits(k=(k,)).figures(frames, HEADING)
        assert figure.name == name
