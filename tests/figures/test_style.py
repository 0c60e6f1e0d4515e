"""Titles, axes and files of figures."""

import math
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from figure_tables import HEADING, TITLE, save_to_memory, signals, spectrum, training

from resnet_cli.figures.style import largest_calm, new_figure, save
from resnet_cli.figures.training import training_figure
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.paths.figures import spectrum_figure
from resnet_cli.studies.signal_figures import signal_figure


def test_the_largest_of_what_did_not_explode() -> None:
    assert largest_calm([2.0, 3.0, 1e18], 1e3) == 3.0
    assert largest_calm([2.0, 1e18], 1e3) == 2.0
    assert largest_calm([1e18], 1e3) == 1e18
    assert largest_calm([2.0, math.inf, math.nan, 30.0], 1e3) == 30.0
    assert math.isnan(largest_calm([math.nan], 1e3))


def test_a_narrow_logarithmic_axis_has_plain_numbers() -> None:
    figure = signal_figure({"n": signals(1.0)}, TITLE)
    save_to_memory(figure)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert {"5", "10", "20"} <= set(labels)


def test_a_long_title_is_broken_into_lines_that_fit() -> None:
    title = HEADING.over("Deleting one layer of a VGG, or one unit of a residual network")
    figure = spectrum_figure(spectrum(), title)
    save_to_memory(figure)
    box = figure._suptitle.get_window_extent()  # type: ignore[attr-defined]
    assert "\n" in figure.get_suptitle()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


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
    with pytest.raises(UserError, match=r"a\.png: cannot be written: there is a folder"):
        save(spectrum_figure(spectrum(), TITLE), tmp_path / "a.png")


def test_a_title_is_broken_before_its_parenthesis_and_not_within_words() -> None:
    figure = spectrum_figure(spectrum(), HEADING.over("Error after deleting one unit"))
    assert figure.get_suptitle().splitlines() == [
        "Figure 3: Error after deleting one unit",
        "(pre-act ResNet-110, digits, 15 epochs, profile mini)",
    ]


def test_a_title_is_not_broken_between_profile_and_its_name() -> None:
    for length in range(40, 90):
        figure = new_figure(f"Shown ({'a ' * (length // 2)}{'a' * (length % 2)}, profile cpu)")
        assert "profile cpu)" in figure.get_suptitle()


def test_the_lines_of_a_title_have_about_the_same_length() -> None:
    shown = "Deleting one layer of a VGG, or one unit of a residual network"
    figure = new_figure(f"Figure 3: {shown} (CIFAR-10)", width=4.5)
    assert figure.get_suptitle().splitlines() == [
        "Figure 3:",
        "Deleting one layer of a VGG, or",
        "one unit of a residual network",
        "(CIFAR-10)",
    ]


@pytest.mark.slow
def test_matplotlib_is_imported_only_to_draw() -> None:
    modules = "resnet_cli.figures.training, resnet_cli.studies.runner"
    code = f"import sys, {modules}; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_large_iterations_are_written_in_thousands() -> None:
    frame = training(["main"])
    frame["iteration"] *= 1000
    figure = training_figure(frame, TITLE)
    save_to_memory(figure)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[:3] == ["0", "15k", "30k"]


def test_svg_is_text_and_equal_for_equal_figures(tmp_path: Path) -> None:
    written = [save(spectrum_figure(spectrum(), TITLE), tmp_path / f"{n}.svg") for n in "ab"]
    first, second = (path.read_text(encoding="utf-8") for path in written)
    assert first == second
    assert first.startswith("<?xml")
    assert "gradient norm at the input</text>" in first
