"""The figures of paths, spectra and signals."""

import colorsys
import math
import re
from importlib.resources import files

import numpy
import pytest
from figure_tables import (
    TITLE,
    gradients,
    lengths,
    save_to_memory,
    signals,
    spectrum,
    stages,
    texts,
)

from resnet_cli.figures.style import CHANGES_SHAPE, EXACT, PALETTE, PATHS, SAMPLED
from resnet_cli.studies.paths.figures import (
    exact_figure,
    paths_figure,
    spectra_figure,
    spectrum_figure,
)
from resnet_cli.studies.signal_figures import signal_figure


def test_exact_spectra_are_curves_of_their_own() -> None:
    figure = exact_figure(stages(), "stage", TITLE)
    assert [line.get_label() for line in figure.axes[0].lines] == [
        "stage 1; 90 % in 0–3",
        "stage 2; 90 % in 0–3",
    ]
    assert "in the stage" in figure.axes[0].get_xlabel()


def test_paths_are_three_axes_in_a_row() -> None:
    figure = paths_figure(lengths(), gradients(), TITLE, spectrum=spectrum())
    first, second, third = figure.axes
    assert [axes.get_title()[:3] for axes in figure.axes] == ["(a)", "(b)", "(c)"]
    assert max(first.lines[0].get_ydata()) == pytest.approx(100 * math.comb(54, 27) / 2**54)
    assert second.get_yscale() == "log"
    assert list(second.lines[0].get_ydata())[:2] == pytest.approx([1.2, 1.2 * math.exp(-1)])
    assert len(second.collections) == 2
    assert "(c) sampled: (a) × (b), 5 paths per length" in texts(figure)
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


def test_every_measured_length_is_shown() -> None:
    frame = gradients()
    frame["grad_norm"] = 10.0 ** (-0.7 * frame["k"])  # over 37 decades
    bottom, top = paths_figure(lengths(), frame, TITLE).axes[1].get_ylim()
    assert bottom < 10.0 ** (-0.7 * 54)
    assert top > 1


def test_the_legend_of_shares_covers_no_axes() -> None:
    figure = paths_figure(lengths(), gradients(), TITLE, spectrum=spectrum())
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not any(axes.get_window_extent().overlaps(box) for axes in figure.axes)
    assert figure.axes[2].get_legend() is None


def test_a_quantity_has_one_colour_in_figures_and_page() -> None:
    first, second, third = paths_figure(lengths(), gradients(), TITLE, spectrum=spectrum()).axes
    assert first.lines[0].get_color() == PATHS
    assert second.lines[0].get_color() == third.lines[0].get_color() == SAMPLED
    assert third.lines[1].get_color() == EXACT
    page = (files("resnet_cli.report") / "page.css").read_text(encoding="utf-8")
    shown = {"paths": PATHS, "sampled": SAMPLED, "exact": EXACT, "down": CHANGES_SHAPE}
    for name, color in shown.items():
        for found in re.findall(rf"--{name}: (#[0-9a-f]{{6}})", page):  # light and dark
            apart = {other: abs(math.sin(hue(found) - hue(other))) for other in PALETTE[:5]}
            assert min(apart, key=apart.__getitem__) == color, (name, found)


def hue(color: str) -> float:
    """Half of the angle on the colour circle, so that opposite colours are farthest."""
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return math.pi * colorsys.rgb_to_hsv(red, green, blue)[0]


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
    save_to_memory(paths_figure(lengths(9), frame, TITLE))


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


def test_signals_of_many_networks_have_a_panel_each() -> None:
    tables = {f"shortcut {number}": signals(0.9**number) for number in range(6)}
    tables["shortcut 5"]["activation_norm"] *= 1e12
    figure = signal_figure(tables, TITLE)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    names = [*(f"shortcut {number}" for number in range(5)), "shortcut 5 (off the scale)"]
    assert [axes.get_title() for axes in panels] == names
    assert len({axes.get_ylim() for axes in panels}) == 1
    assert panels[0].get_ylim()[1] < 1e4
    gain, gain_trained = panels[3].get_lines()[4:6]
    assert list(gain_trained.get_ydata()) == pytest.approx(
        [0.9 * 0.9 ** (3 * (6 - unit)) for unit in range(7)]
    )
    assert gain.get_color() == gain_trained.get_color()


def test_spectra_of_two_networks_are_drawn_together() -> None:
    figure = spectra_figure({"a": spectrum(), "b": spectrum(9)}, TITLE)
    of_path, shares = figure.axes
    assert [len(line.get_xdata()) for line in of_path.lines] == [55, 10]
    assert [line.get_color() for line in shares.lines] == [*PALETTE[:1] * 2, *PALETTE[1:2] * 2]
    exact = spectrum(9)["share_exact"]
    assert list(shares.lines[3].get_ydata()) == pytest.approx(list(100 * exact))
    assert {"a", "b", "sampled", "exact"} <= set(texts(figure))
    some = spectrum(9).assign(share_total=math.nan, share_exact=math.nan)
    assert len(spectra_figure({"a": some, "b": some}, TITLE).axes) == 1


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
