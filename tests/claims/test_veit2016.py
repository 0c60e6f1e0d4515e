"""Paper 2's claims, judged on artificial tables with known answers."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from error_tables import error_rows
from scipy import stats

from resnet_cli.claims.judge import judge_all
from resnet_cli.claims.veit2016 import CLAIMS
from resnet_cli.claims.verdict import Judgement, counts
from resnet_cli.claims.words import evidence
from resnet_cli.config.experiments import load_experiment
from resnet_cli.config.schema import config_hash
from resnet_cli.results.layout import provenance_path
from resnet_cli.results.provenance import Checkpoint, collect
from resnet_cli.results.tables import column_names, write_table
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.path_survival import path_survival

Row = dict[str, Any]
NUM_UNITS = 54


def write(
    folder: Path, experiment: str, stem: str, rows: Sequence[Mapping[str, Any]], seed: int = 0
) -> None:
    """Write a table with the provenance of its experiment, always of the same network."""
    name = experiment.split("/")[0]
    config = load_experiment(f"veit2016/{name}", "mini").model_dump(mode="json")
    provenance = collect(config, seeds=[seed], started=datetime.now(UTC), profile="mini")
    case = experiment.split("/")[-1]
    weights = "b" if case in ("vgg15", "exclusive-gating", "shortcut-gating") else "a"
    checkpoint = Checkpoint(source="x", sha256=weights * 64)
    provenance = provenance.model_copy(update={"checkpoint": checkpoint})
    write_table(rows, stem, folder / experiment, provenance)


def judged(folder: Path, text: str, profile: str = "mini") -> Judgement:
    found = judge_all("veit2016", folder, profile)
    (judgement,) = [one for one in found if text in one.claim.text]
    return judgement


def shown(judgement: Judgement) -> str:
    return "; ".join(evidence(judgement))


def deletion(k: int, sample: int, units: Sequence[int], error: float, baseline: float = 2.0) -> Row:
    blocks = " ".join(map(str, units))
    return {"k": k, "sample": sample, "blocks": blocks, "test_error": error} | {
        "baseline_error": baseline,
        "images": 360,
        "seed": 0,
        "loss": 0.1,
        "kl_divergence": 0.1,
        "agreement": 90.0,
    }


def singles(damages: Sequence[float], baseline: float = 2.0) -> list[Row]:
    return [
        deletion(1, unit, [unit], baseline + damage, baseline)
        for unit, damage in enumerate(damages)
    ]


def damages(low: float, **at: float) -> list[float]:
    """54 damages: `low`, except for given units such as `u18=9.0`."""
    found = [low] * NUM_UNITS
    for unit, damage in at.items():
        found[int(unit[1:])] = damage
    return found


# --- nothing there -------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["smoke", "mini", "cpu", "paper"])
def test_nothing_measured_names_the_commands(tmp_path: Path, profile: str) -> None:
    found = judge_all("veit2016", tmp_path, profile)
    assert {judgement.verdict for judgement in found} == {"not measured"}
    for judgement in found:
        assert judgement.commands
        for command in judgement.commands:
            assert command.startswith("resnet-cli run veit2016/")
            offered = "paper" if "fig4" in command else profile
            assert f" --profile {offered}" in command


def test_a_damaged_table_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "fig5a", "lesion_delete", [deletion(1, 0, [0], 2.0)])
    (tmp_path / "fig5a" / "lesion_delete.csv").write_text("k,sample\n")
    with pytest.raises(UserError, match=r"lesion_delete\.csv"):
        judge_all("veit2016", tmp_path, "mini")


# --- one unit deleted ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "verdict"),
    [
        ([85.0] * 14, "holds"),
        ([85.0] * 13 + [40.0], "does not hold"),  # any one layer
        ([85.0] * 13 + [69.5], "too close"),  # 71.5 %, of 72
    ],
)
def test_vgg(tmp_path: Path, layers: list[float], verdict: str) -> None:
    write(tmp_path, "fig3/vgg15", "lesion_delete", singles(layers))
    found = judged(tmp_path, "VGG")
    assert found.verdict == verdict
    assert f"lowest: {min(layers) + 2:.2f} %" in shown(found)
    assert found.claim.published == "to about 90 %, whichever layer is deleted"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (lambda: damages(0.1, u18=30.0, u36=20.0), "holds"),
        (lambda: damages(0.9), "too close"),
        (lambda: damages(30.0), "does not hold"),
    ],
)
def test_what_barely_changes(tmp_path: Path, found: Any, verdict: str) -> None:
    rows = [row | {"agreement": 99.0, "images": 10_000} for row in singles(found())]
    write(tmp_path, "fig3/preact110", "lesion_delete", rows)
    judgement = judged(tmp_path, "of a residual network barely")
    assert judgement.verdict == verdict
    assert "intact: 2.00 %" in shown(judgement)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (damages(0.1, u18=30.0, u36=20.0), "holds"),
        (damages(0.1, u5=25.0, u18=30.0, u36=10.0), "does not hold"),
        (damages(0.1, u5=20.0, u18=60.0, u36=21.0), "too close"),
        # Unit 0 does not downsample, so that the paper does not exempt it.
        (damages(0.1, u0=80.0, u18=30.0, u36=20.0), "does not hold"),
    ],
)
def test_downsampling_units(tmp_path: Path, found: list[float], verdict: str) -> None:
    write(tmp_path, "fig3/preact110", "lesion_delete", singles(found))
    assert judged(tmp_path, "matter most").verdict == verdict


@pytest.mark.parametrize(("last", "verdict"), [((31.0, 30.0), "holds"), ((60.0, 2.0), "too close")])
def test_trainings_that_differ_are_too_close(
    tmp_path: Path, last: tuple[float, float], verdict: str
) -> None:
    """Each unit that downsamples does 30 points of damage in the mean of two trainings."""
    for seed, damage in enumerate(last):
        rows = singles(damages(0.1, u18=30.0 + seed, u36=damage))
        write(tmp_path, f"fig3/preact110-seed{seed}", "lesion_delete", rows, seed)
    found = judged(tmp_path, "matter most")
    assert found.verdict == verdict
    assert f"unit 36: +{sum(last) / 2:.2f} points" in shown(found)


def test_the_median_of_an_even_number_of_units(tmp_path: Path) -> None:
    rows = singles([0.1] * 27 + [0.5] * 27)
    write(tmp_path, "fig3/preact110", "lesion_delete", rows)
    assert "median rise: +0.30 points" in shown(judged(tmp_path, "of a residual network barely"))


def test_the_error_of_one_class_is_not_that_of_the_network(tmp_path: Path) -> None:
    """A table of paths has no error; it comes from a lesion study of the same weights."""
    write(tmp_path, "fig6", "path_gradients", gradients([0.8**k for k in range(55)]))
    write(tmp_path, "fig3/preact110", "lesion_delete", singles([0.0] * 54))
    path = tmp_path / "fig3" / "preact110" / "lesion_classes.csv"
    path.write_text("k,baseline_error\n1,99.0\n")
    provenance_path(path).write_text(
        provenance_path(path.with_name("lesion_delete.csv")).read_text()
    )
    assert judged(tmp_path, "falls exponentially").verdict == "holds"


@pytest.mark.parametrize(
    ("low", "verdict"), [(10.0, "holds"), (43.0, "too close"), (75.0, "does not hold")]
)
def test_modest_damage(tmp_path: Path, low: float, verdict: str) -> None:
    """Half of chance is 45 % error; intact it is 2 %."""
    rows = singles(damages(0.1, u18=8.0, u36=low))
    write(tmp_path, "fig3/preact110", "lesion_delete", rows)
    assert judged(tmp_path, "is modest").verdict == verdict


@pytest.mark.parametrize("error", [3.1, 90.0])
def test_a_network_above_the_mark_decides_nothing(tmp_path: Path, error: float) -> None:
    rows = singles([0.0] * 54, baseline=error)
    for experiment in ("fig3/vgg15", "fig3/preact110", "fig5a", "fig8/plain"):
        write(tmp_path, experiment, "lesion_delete", rows)
    write(tmp_path, "fig8/stochastic-depth", "lesion_delete", singles([0.0] * 54))
    write(tmp_path, "fig6", "path_gradients", gradients([0.8**k for k in range(55)]))
    for text in ("VGG", "barely changes its error", "most", "modest", "of deleted", "resilient"):
        found = [j for j in judge_all("veit2016", tmp_path, "mini") if text in j.claim.text]
        measured = [j for j in found if j.claim.source != "fig4" and not j.claim.is_check]
        assert {j.verdict for j in measured if j.parts} == {"not trained long enough"}
    assert judged(tmp_path, "falls exponentially").verdict == "not trained long enough"


# --- stochastic depth ----------------------------------------------------------------------------


def write_fig8(folder: Path, pairs: Mapping[int, tuple[list[float], list[float]]]) -> None:
    for seed, both in pairs.items():
        suffix = f"-seed{seed}" if len(pairs) > 1 else ""
        for case, found in zip(("plain", "stochastic-depth"), both, strict=True):
            rows = [row | {"images": 10_000, "agreement": 99.0} for row in singles(found)]
            write(folder, f"fig8/{case}{suffix}", "lesion_delete", rows, seed)


BETTER = (damages(1.5, u18=30.0, u36=20.0), damages(0.25, u18=10.0, u36=12.0))
WORSE = (damages(1.0, u18=29.0, u36=19.0), damages(1.6, u18=11.0, u36=14.0))
ALIKE = (damages(1.6, u18=31.0, u36=21.0), damages(0.3, u18=10.5, u36=12.5))
"""Nearly as BETTER."""


@pytest.mark.parametrize(
    ("pairs", "verdict"), [({0: BETTER}, "too few draws"), ({0: BETTER, 1: ALIKE}, "holds")]
)
def test_stochastic_depth(
    tmp_path: Path, pairs: Mapping[int, tuple[list[float], list[float]]], verdict: str
) -> None:
    write_fig8(tmp_path, pairs)
    for text in ("more resilient", "at the units that"):
        found = judged(tmp_path, text)
        assert found.verdict == verdict
        assert found.seeds == (len(pairs), len(pairs))


def test_seeds_that_disagree_are_too_close(tmp_path: Path) -> None:
    write_fig8(tmp_path, {0: BETTER, 1: WORSE})
    assert judged(tmp_path, "more resilient").verdict == "too close"
    assert judged(tmp_path, "at the units that").verdict == "holds"


def test_the_mean_alone_does_not_decide(tmp_path: Path) -> None:
    """The damage of two harmful units falls, and that of all others rises."""
    pairs = {
        seed: (
            damages(0.4 + low, u0=71.0, u18=79.0, u36=70.0),
            damages(1.2 + low, u0=71.0, u18=40.0, u36=7.0),
        )
        for seed, low in enumerate((0.0, 0.05))
    }
    write_fig8(tmp_path, pairs)
    whole = judged(tmp_path, "more resilient")
    assert [part.verdict for part in whole.parts] == ["holds", "does not hold"]
    assert whole.verdict == "does not hold"


# --- several units -------------------------------------------------------------------------------


def draws_of(errors: Sequence[float], spread: float, count: int = 20) -> list[Row]:
    return [
        deletion(k, sample, range(k), error + spread * (2 * sample / (count - 1) - 1))
        for k, error in enumerate(errors, 1)
        for sample in range(count)
    ]


LINE = [2.0 + 4.0 * k for k in range(1, 21)]


@pytest.mark.parametrize(
    ("errors", "spread", "verdict"),
    [
        (LINE, 5.0, "holds"),
        ([2.0 + 0.2 * k**2 for k in range(1, 21)], 5.0, "holds"),
        ([error + 40 * (k > 8) for k, error in enumerate(LINE)], 5.0, "does not hold"),
        (LINE, 60.0, "too few draws"),
        ([40.0] * 20, 5.0, "too close"),
        ([90.0 - 4 * k for k in range(1, 21)], 5.0, "does not hold"),
    ],
)
def test_error_by_k(tmp_path: Path, errors: list[float], spread: float, verdict: str) -> None:
    write(tmp_path, "fig5a", "lesion_delete", draws_of(errors, spread))
    found = judged(tmp_path, "number of deleted units")
    assert found.verdict == verdict
    if verdict == "too few draws":
        needed = found.parts[1].limit
        assert needed is not None
        assert needed.value > 20


def test_error_by_reordering(tmp_path: Path) -> None:
    rows = [
        {"swaps": row.pop("k"), "sample": row.pop("sample"), "order": row.pop("blocks")}
        | {"kendall_tau": 0.9}
        | row
        for row in draws_of(LINE, 5.0)
    ]
    write(tmp_path, "fig5b", "lesion_reorder", rows)
    assert judged(tmp_path, "reordered").verdict == "holds"


def test_each_of_several_trainings_must_rise_smoothly(tmp_path: Path) -> None:
    stepped = [error + 40 * (k > 8) for k, error in enumerate(LINE)]
    for seed, errors in enumerate([LINE, LINE, stepped]):
        write(tmp_path, f"fig5a/main-seed{seed}", "lesion_delete", draws_of(errors, 5.0), seed)
    found = judged(tmp_path, "number of deleted units")
    assert found.verdict == "does not hold"
    assert found.deciding is not None
    assert found.deciding.training == "seed 2"
    assert "seed 2: largest step" in shown(found)
    write(tmp_path, "fig5a/main-seed2", "lesion_delete", draws_of(LINE, 5.0), 2)
    found = judged(tmp_path, "number of deleted units")
    assert found.verdict == "holds"
    assert found.seeds == (3, 3)


# --- paths ---------------------------------------------------------------------------------------


def gradients(norms: Sequence[float]) -> list[Row]:
    return [
        {"k": k, "sample": s, "grad_norm": norm * (1 + 0.1 * s), "images": 64, "seed": 0}
        for k, norm in enumerate(norms)
        for s in (-1, 0, 1)
    ]


def write_intact(folder: Path) -> None:
    """The error of the network that the paths were measured on."""
    write(folder, "fig3/preact110", "lesion_delete", singles(damages(0.1)))


@pytest.mark.parametrize(
    ("norms", "verdict"),
    [
        ([0.8**k for k in range(55)], "holds"),
        ([0.5**k if k < 40 else 0.0 for k in range(55)], "holds"),  # the rest has vanished
        ([0.8 ** min(k, 30) for k in range(55)], "does not hold"),  # R2 0.83
        ([1.0 / (1 + k) for k in range(55)], "does not hold"),  # a power law
        ([1.25**k for k in range(55)], "does not hold"),
    ],
)
def test_norm_by_length(tmp_path: Path, norms: list[float], verdict: str) -> None:
    write(tmp_path, "fig6", "path_gradients", gradients(norms))
    assert judged(tmp_path, "falls exponentially").verdict == "not measured"  # error unknown
    write_intact(tmp_path)
    found = judged(tmp_path, "falls exponentially")
    assert found.verdict == verdict
    if norms[1] == 0.8 and verdict == "holds":
        factor, straight = found.parts[1].measured
        assert factor.value == pytest.approx(0.8)
        assert straight.value == pytest.approx(1.0)


def spectrum(ratio: float, exact: float | None, units: int = NUM_UNITS) -> list[Row]:
    """Norms that fall by `ratio` for each unit, and exact norms that fall by `exact`."""
    rows = []
    for k in range(units + 1):
        paths = math.comb(units, k)
        row: Row = dict.fromkeys(column_names("path_spectrum"))
        row |= {"k": k, "paths": paths, "mean_norm": ratio**k, "total": paths * ratio**k}
        row |= {"std_norm": 0.1 * ratio**k}
        row["exact_norm"] = None if exact is None else paths * exact**k
        rows.append(row)
    return rows


def write_spectrum(
    folder: Path,
    experiment: str,
    ratio: float,
    exact: float | None = None,
    units: int = NUM_UNITS,
    seed: int = 0,
) -> None:
    norms = [ratio**k for k in range(units + 1)]
    write(folder, experiment, "path_spectrum", spectrum(ratio, exact, units), seed)
    write(folder, experiment, "path_gradients", gradients(norms), seed)


def binomial_mass(ratio: float, first: int, last: int) -> float:
    """Totals C(n, k) r^k are proportional to a binomial distribution with p = r / (1 + r)."""
    p = ratio / (1 + ratio)
    return float(stats.binom.cdf(last, NUM_UNITS, p) - stats.binom.cdf(first - 1, NUM_UNITS, p))


EFFECTIVE = "5 to 17 of 54 units"


@pytest.mark.parametrize(
    ("sampled", "exact", "verdict"),
    [  # a binomial of p = 0.2, and one of p = 0.5, where the paths are
        (0.25, 0.25, "holds"),
        (0.25, 1.0, "holds"),  # the exact spectrum is an addition
        (0.25, None, "holds"),
        (1.0, 0.25, "does not hold"),
        (0.01, 0.01, "does not hold"),  # too short
    ],
)
def test_published_lengths(
    tmp_path: Path, sampled: float, exact: float | None, verdict: str
) -> None:
    write_intact(tmp_path)
    write_spectrum(tmp_path, "fig6", sampled, exact)
    found = judged(tmp_path, EFFECTIVE)
    assert found.verdict == verdict
    share, paths, *rest = found.parts[0].measured
    assert share.value == pytest.approx(binomial_mass(sampled, 5, 17))
    assert f"{100 * paths.value:.2g}" == "0.45"  # the published share
    assert [quantity.value for quantity in rest] == pytest.approx(
        [] if exact is None else [binomial_mass(exact, 5, 17)]
    )


def test_each_of_several_trainings_must_have_short_paths(tmp_path: Path) -> None:
    write_intact(tmp_path)
    for seed, ratio in enumerate([0.25, 0.25, 1.0]):
        write_spectrum(tmp_path, f"fig6/main-seed{seed}", ratio, seed=seed)
    found = judged(tmp_path, EFFECTIVE)
    assert [part.verdict for part in found.parts] == ["holds", "holds", "does not hold"]
    assert found.verdict == "does not hold"
    norms = judged(tmp_path, "falls exponentially")  # a ratio of 1 does not fall
    assert {p.training for p in norms.parts if p.verdict != "holds"} == {"seed 2"}


def test_the_standard_error_of_a_share_is_that_of_the_draws(tmp_path: Path) -> None:
    """Compare with the spread of shares computed from new draws of the means."""
    import numpy as np

    write_intact(tmp_path)
    write_spectrum(tmp_path, "fig6", 0.25)
    share = judged(tmp_path, EFFECTIVE).parts[0].measured[0]
    generator = np.random.default_rng(0)
    k = np.arange(NUM_UNITS + 1)
    totals = np.array([math.comb(NUM_UNITS, int(n)) * 0.25**n for n in k])
    drawn = totals * (1 + 0.1 / math.sqrt(3) * generator.standard_normal((20_000, len(k))))
    shares = drawn[:, 5:18].sum(axis=1) / drawn.sum(axis=1)
    assert share.n == 3
    assert share.standard_error == pytest.approx(float(shares.std()), rel=0.05)


def test_another_estimator_than_the_published_one_decides_nothing(tmp_path: Path) -> None:
    write_intact(tmp_path)
    write_spectrum(tmp_path, "fig6", 0.25)
    for name in ("path_spectrum", "path_gradients"):
        path = tmp_path / "fig6" / f"{name}.provenance.json"
        content = json.loads(path.read_text())
        content["config"]["study"]["estimator"] = "image"
        content["config_hash"] = config_hash(content["config"])
        path.write_text(json.dumps(content))
    for text in (EFFECTIVE, "falls exponentially"):
        assert judged(tmp_path, text).verdict == "not measured"


def test_claims_of_54_units_do_not_apply_to_others(tmp_path: Path) -> None:
    write_intact(tmp_path)
    write_spectrum(tmp_path, "fig6", 0.25, 0.25, units=9)
    found = judged(tmp_path, EFFECTIVE)
    assert found.verdict == "not measured"
    assert found.reason is not None
    assert found.reason.value == 9
    assert found.commands == ()
    write_effective_paths(tmp_path, full=[1.0], active_23=[1.0])
    path = tmp_path / "effective_paths" / "table.provenance.json"
    content = json.loads(path.read_text())
    content["config"]["model"]["depth"] = 20
    content["config_hash"] = config_hash(content["config"])
    path.write_text(json.dumps(content))
    assert judged(tmp_path, "23 of 54").reason is not None


def test_checks_are_formulas(tmp_path: Path) -> None:
    rows = path_survival(54, (1, 10, 20))
    write(tmp_path, "fig7", "path_survival", rows)
    lengths = [
        {"k": k, "paths": math.comb(54, k), "fraction": math.comb(54, k) / 2**54} for k in range(55)
    ]
    write(tmp_path, "fig6", "path_lengths", lengths)
    for text in ("mostly long paths", "95 % of all paths"):
        found = judged(tmp_path, text)
        assert found.claim.is_check
        assert found.verdict == "holds"
    share = judged(tmp_path, "95 % of all paths").parts[0].measured[0].value
    assert share == pytest.approx(sum(math.comb(54, k) for k in range(19, 36)) / 2**54)
    assert counts(judge_all("veit2016", tmp_path, "mini"))["holds"] == 0
    rows[5]["fraction"] = rows[4]["fraction"]
    write(tmp_path, "fig7", "path_survival", rows)
    assert judged(tmp_path, "mostly long paths").verdict == "does not hold"


@pytest.mark.parametrize(
    ("exclusive", "shortcut", "error", "verdict"),
    [
        (0.1, 0.2, 2.0, "holds"),
        (0.1, 2.0, 2.0, "does not hold"),
        (0.1, 0.2, 80.0, "not trained long enough"),
        (0.1, 0.2, None, "not measured"),  # the error is unknown
    ],
)
def test_highways(
    tmp_path: Path, exclusive: float, shortcut: float, error: float | None, verdict: str
) -> None:
    for case, ratio in (("exclusive-gating", exclusive), ("shortcut-gating", shortcut)):
        write_spectrum(tmp_path, f"highway_paths/{case}", ratio)
        if error is not None:
            rows = singles([0.0] * NUM_UNITS, baseline=error)
            write(tmp_path, f"highway_lesion/{case}", "lesion_delete", rows)
    assert judged(tmp_path, "Highway").verdict == verdict


def test_a_checkpoint_of_others_stands_alone_in_its_folder(tmp_path: Path) -> None:
    """As `lesion --out results/veit2016/third-party/fig3` writes it: no VGG, no experiment. It
    must reach the error of `cpu`."""
    config = {"model": {"depth": 20, "placement": "original"}, "study": {"kind": "delete"}}
    provenance = collect(config, seeds=[0], started=datetime.now(UTC))
    rows = singles([0.1] * 3 + [30.0, 0.1, 0.1, 20.0, 0.1, 0.1], baseline=9.0)
    write_table(rows, "lesion_delete", tmp_path / "fig3", provenance)
    assert judged(tmp_path, "matter most", "third-party").verdict == "holds"
    vgg = judged(tmp_path, "VGG", "third-party")
    assert vgg.verdict == "not measured"
    assert vgg.commands == ("resnet-cli run veit2016/fig3 --profile mini",)


def test_a_provenance_without_the_network(tmp_path: Path) -> None:
    provenance = collect({}, seeds=[0], started=datetime.now(UTC))
    write_table(singles([0.1] * 9), "lesion_delete", tmp_path / "fig3", provenance)
    assert judged(tmp_path, "matter most", "third-party").verdict == "not measured"


# --- section 5 ---------------------------------------------------------------------------------


def write_effective_paths(folder: Path, **errors: Sequence[float | None]) -> None:
    by_case = {case.replace("_", "-"): values for case, values in errors.items()}
    rows = error_rows("veit2016/effective_paths", "cifar10", by_case)
    write(folder, "effective_paths", "table", rows)


@pytest.mark.parametrize(
    ("full", "active", "verdict"),
    [
        ([2.0, 2.2, 2.1], [2.0, 2.1, 2.2], "holds"),
        ([2.0, 2.2, 2.1], [1.2, 1.3, 1.1], "holds"),  # better
        ([2.0, 2.2, 2.1], [2.5, 2.7, 2.6], "too close"),  # +0.5
        ([2.0, 2.2, 2.1], [3.5, 3.6, 3.7], "does not hold"),
        ([1.0, 2.9, 0.0], [3.0, 3.5, 2.0], "too close"),  # seeds far apart
        ([2.0], [2.1], "holds"),
        ([2.0], [2.6], "too close"),
        ([2.0], [4.6], "does not hold"),
        ([1.0, 1.1], [1.0, None], "does not hold"),
        ([3.1], [3.1], "not trained long enough"),
    ],
)
def test_effective_paths(
    tmp_path: Path, full: list[float], active: list[float | None], verdict: str
) -> None:
    write_effective_paths(tmp_path, full=full, active_23=active, active_24=[1.0])
    found = judged(tmp_path, "23 of 54")
    assert found.verdict == verdict
    assert found.claim.published == "5.96 % against 6.10 % with all"
    assert "nan" not in shown(found)


def test_effective_paths_by_the_published_numbers(tmp_path: Path) -> None:
    write_effective_paths(tmp_path, full=[6.10], active_23=[5.96])
    assert judged(tmp_path, "23 of 54", "paper").verdict == "holds"


def test_effective_paths_without_the_full_model(tmp_path: Path) -> None:
    write_effective_paths(tmp_path, active_23=[1.0])
    assert judged(tmp_path, "23 of 54").verdict == "not measured"


def test_every_claim_has_an_experiment_that_measures_it() -> None:
    for claim in CLAIMS:
        for experiment, cases in claim.needs.items():
            names = {case.name for case in load_experiment(f"veit2016/{experiment}").cases}
            assert set(cases) <= names
