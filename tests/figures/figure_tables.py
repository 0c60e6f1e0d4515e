"""Tables to draw, and what can be read from a figure: shared by the tests of figures."""

import io
import math
from pathlib import Path
from typing import Any

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from resnet_cli.figures.titles import Heading
from resnet_cli.results.tables import column_names

HEADING = Heading("fig3", "pre-act ResNet-110", "digits", "15 epochs", "mini")

TITLE = "Figure 3: What is shown (ResNet-110, digits)"

UNITS = 54


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
    return pandas.DataFrame(rows, columns=list(column_names("training")))


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
    return pandas.DataFrame(rows, columns=list(column_names("table")))


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
    return pandas.DataFrame(rows, columns=list(column_names("lesion_delete")))


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
    return pandas.DataFrame(rows, columns=list(column_names("lesion_reorder")))


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
    return pandas.DataFrame(rows)[list(column_names(stem))]


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
    return frame[list(column_names("path_spectrum"))]


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


def greedy(steps: int = 5) -> pandas.DataFrame:
    frame = pandas.concat([deletions(k, [0.9 * k]) for k in range(1, steps + 1)])
    return frame.drop(columns="sample").assign(unit=frame["k"])[list(column_names("lesion_greedy"))]


def additivity() -> pandas.DataFrame:
    frame = pandas.concat([deletions(k, [2.0 * k, 3.0 * k]) for k in (2, 5)])
    damages = {
        "joint_damage": frame["test_error"] - 0.8,
        "summed_damage": 1.0 * frame["k"],
        "joint_loss_damage": 0.1 * frame["k"],
        "summed_loss_damage": 0.2 * frame["k"],
    }
    return frame.assign(**damages)[list(column_names("lesion_additivity"))]


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
    return pandas.DataFrame(rows, columns=list(column_names("lesion_classes")))


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
    return pandas.DataFrame(rows, columns=list(column_names("path_survival")))


def save_to_memory(figure: Figure) -> None:
    figure.savefig(io.BytesIO(), format="png")


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
    return pandas.DataFrame(rows, columns=list(column_names("signal")))


def influences() -> pandas.DataFrame:
    frame = deletions(1, [1.0 + unit for unit in range(6)])
    scores = {"n": 1, "unit": frame["sample"], "block_influence": 0.1 * frame["sample"]}
    frame = frame.assign(**scores, angular_distance=0.05 * frame["sample"])
    return frame[list(column_names("influence"))]


def iteratives() -> pandas.DataFrame:
    frame = deletions(1, [90.0 - 10 * unit for unit in range(6)])
    frame = frame.assign(unit=frame["sample"], cosine=0.1 * frame["sample"], norm_ratio=0.5)
    return frame[list(column_names("iterative"))]


def effects() -> pandas.DataFrame:
    rows = [(i, j, 1 / (j - i), 360) for i in range(5) for j in range(i + 1, 6)]
    return pandas.DataFrame(rows, columns=list(column_names("effects")))


def cumulative() -> pandas.DataFrame:
    rows = [(k, 1 - 0.5**k, 1 - 0.3**k, 128) for k in range(UNITS + 1)]
    return pandas.DataFrame(rows, columns=list(column_names("path_cumulative")))
