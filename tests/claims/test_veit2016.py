"""Paper 2's claims, judged from made tables whose answers are known."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from resnet_cli.claims import veit2016 as claims_veit2016
from resnet_cli.claims.judge import Claim, counts
from resnet_cli.claims.veit2016 import JUDGES, claims
from resnet_cli.config.experiments import load_experiment
from resnet_cli.results.provenance import collect
from resnet_cli.results.tables import header, write_table
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.path_survival import path_survival

Row = dict[str, Any]
NUM_UNITS = 54
TEXTS = [judge.text for judge in JUDGES]


def write(
    folder: Path, experiment: str, stem: str, rows: Sequence[Mapping[str, Any]], seed: int = 0
) -> None:
    """A table with the provenance that the experiment would give it."""
    name = experiment.split("/")[0]
    config = load_experiment(f"veit2016/{name}", "mini").model_dump(mode="json")
    provenance = collect(config, seeds=[seed], started=datetime.now(UTC), profile="mini")
    write_table(rows, stem, folder / experiment, provenance)


def judged(folder: Path, text: str, profile: str = "mini") -> Claim:
    (claim,) = [claim for claim in claims(folder, profile) if text in claim.text]
    return claim


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
    """54 damages: `low` but where told, `u18=9.0`."""
    found = [low] * NUM_UNITS
    for unit, damage in at.items():
        found[int(unit[1:])] = damage
    return found


# --- nothing there -------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["smoke", "mini", "cpu", "paper"])
def test_nothing_measured_names_the_commands(tmp_path: Path, profile: str) -> None:
    for claim, judge in zip(claims(tmp_path, profile), JUDGES, strict=True):
        assert claim.verdict == "not measured"
        assert (claim.paper, claim.source, claim.text) == ("veit2016", judge.source, judge.text)
        taken = "paper --data-dir FOLDER" if judge.experiment == "fig4" else profile
        assert claim.evidence == f"resnet-cli run veit2016/{judge.experiment} --profile {taken}"
        assert not claim.caveat


def test_no_claim_of_the_issue_is_missing() -> None:
    words = ["VGG", "residual network barely", "downsample matter most", "number of deleted units"]
    words += ["reordered", "falls exponentially", "5 to 17", "few and short", "23 of 54"]
    words += ["more resilient", "resilience at the units that downsample", "Highway"]
    assert all(any(word in text for text in TEXTS) for word in words)
    assert len(set(TEXTS)) == len(TEXTS)


def test_no_measurement_gives_two_claims_on_path_lengths() -> None:
    assert [judge.source for judge in JUDGES].count("fig6c") == 1


def test_a_damaged_table_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "fig5a", "lesion_delete", singles(damages(0.1)))
    (tmp_path / "fig5a" / "lesion_delete.csv").write_text("k,sample\n1,2\n")
    with pytest.raises(UserError, match=r"lesion_delete.csv: column 3 is missing"):
        claims(tmp_path, "mini")


def test_each_profile_has_its_caveat(tmp_path: Path) -> None:
    write(tmp_path, "fig3/vgg15", "lesion_delete", singles([80.0] * 14))
    for profile, words in (
        ("smoke", "the code runs"),
        ("mini", "16x16 digits"),
        ("cpu", "14 epochs"),
    ):
        caveat = judged(tmp_path, "VGG", profile).caveat
        assert caveat.startswith(f"{profile}: ")
        assert words in caveat
        assert caveat.endswith("; a single seed")
    assert judged(tmp_path, "VGG", "paper").caveat == "a single seed"


# --- single deletions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "verdict"),
    [
        ([88.0] * 14, "holds"),
        ([75.0] * 8 + [5.0] * 6, "holds"),
        ([73.0] * 8 + [5.0] * 6, "too close"),  # the median falls to 75 %; margin 4.6 points
        ([67.0] * 8 + [5.0] * 6, "too close"),
        ([64.0] * 8 + [5.0] * 6, "does not hold"),
        ([88.0] * 6 + [5.0] * 8, "does not hold"),
    ],
)
def test_vgg(tmp_path: Path, layers: list[float], verdict: str) -> None:
    write(tmp_path, "fig3/vgg15", "lesion_delete", singles(layers))
    claim = judged(tmp_path, "VGG")
    assert claim.verdict == verdict
    assert claim.evidence.startswith("intact 2.00 %; after deleting one of 14 layers median")
    assert "training" not in claim.evidence  # one: the caveat has it


@pytest.mark.parametrize(
    ("low", "verdict"),
    [
        (0.0, "holds"),
        (0.4, "too close"),
        (1.0, "too close"),
        (1.5, "too close"),
        (4.0, "does not hold"),
    ],
)
@pytest.mark.parametrize(
    ("experiment", "text"),
    [("fig3/preact110", "of a residual network barely"), ("fig4", "ImageNet")],
)
def test_a_residual_network(
    tmp_path: Path, low: float, verdict: str, experiment: str, text: str
) -> None:
    rows = singles(damages(low, u18=30.0, u36=20.0))
    if experiment == "fig4":  # has no mini profile to write a provenance from
        write(tmp_path, "fig5a", "lesion_delete", rows)
        (tmp_path / "fig5a").rename(tmp_path / "fig4")
    else:
        write(tmp_path, experiment, "lesion_delete", rows)
    claim = judged(tmp_path, text)
    assert claim.verdict == verdict
    assert "30.00 at worst (unit 18)" in claim.evidence
    assert claim.evidence.endswith(f"{2 if low <= 1 else 54} units by more than 1")


def test_what_barely_changes_by_the_images(tmp_path: Path) -> None:
    """A damage of 0.4 points is below 1 on 10,000 images, and too close to it on 360."""
    rows = [row | {"images": 10_000} for row in singles(damages(0.4))]
    write(tmp_path, "fig3/preact110", "lesion_delete", rows)
    claim = judged(tmp_path, "of a residual network barely")
    assert claim.verdict == "holds"
    assert claim.published == "from 6.10 %, barely changes (no number given)"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (damages(0.1, u18=30.0, u36=20.0), "holds"),
        (damages(0.1, u0=50.0, u18=30.0, u36=20.0), "holds"),
        (damages(0.1, u18=30.0), "does not hold"),
        (damages(0.1, u17=30.0, u35=20.0), "does not hold"),
        ([0.1 + 1.0 * unit for unit in range(54)], "does not hold"),
        (damages(0.1, u17=30.0, u18=40.0, u36=35.0), "too close"),  # 5 points; margin 7.1
        (damages(0.1, u17=30.0, u18=45.0, u36=40.0), "holds"),
        (damages(0.1, u1=50.0, u18=30.0, u36=20.0), "does not hold"),  # only the first is aside
        (damages(0.0), "does not hold"),
    ],
)
def test_downsampling_units(tmp_path: Path, found: list[float], verdict: str) -> None:
    write(tmp_path, "fig3/preact110", "lesion_delete", singles(found))
    claim = judged(tmp_path, "matter most")
    assert claim.verdict == verdict
    assert claim.evidence.startswith("unit 18: ")
    assert "unit 36: " in claim.evidence


def test_ranks_of_the_downsampling_units(tmp_path: Path) -> None:
    found = damages(0.1, u0=50.0, u18=30.0, u36=20.0)
    write(tmp_path, "fig3/preact110", "lesion_delete", singles(found))
    assert judged(tmp_path, "matter most").evidence == (
        "unit 18: +30.00 points, rank 2 of 54, unit 36: +20.00 points, rank 3 of 54; the worst of "
        "the others is unit 1 with +0.10; left aside: unit 0, which does not downsample: +50.00 "
        "points, rank 1"
    )


@pytest.mark.parametrize("error", [45.1, 90.0, math.nan])
def test_a_network_that_learned_nothing_decides_nothing(tmp_path: Path, error: float) -> None:
    rows = singles([0.0] * 54, baseline=error)
    for experiment in ("fig3/vgg15", "fig3/preact110", "fig5a", "fig8/plain"):
        write(tmp_path, experiment, "lesion_delete", rows)
    write(tmp_path, "fig8/stochastic-depth", "lesion_delete", singles([0.0] * 54))
    for text in ("VGG", "of a residual network barely", "matter most", "number of", "resilient"):
        claim = judged(tmp_path, text, "smoke")
        assert claim.verdict == "not measured"
        assert "it learned too little; resnet-cli run veit2016/fig" in claim.evidence
        assert claim.evidence.endswith("--profile mini")


# --- stochastic depth ----------------------------------------------------------------------------


def write_fig8(folder: Path, pairs: Mapping[int, tuple[list[float], list[float]]]) -> None:
    for seed, both in pairs.items():
        suffix = f"-seed{seed}" if len(pairs) > 1 else ""
        for case, found in zip(("plain", "stochastic-depth"), both, strict=True):
            write(folder, f"fig8/{case}{suffix}", "lesion_delete", singles(found), seed)


BETTER = (damages(1.5, u18=30.0, u36=20.0), damages(0.25, u18=10.0, u36=12.0))


def test_stochastic_depth_over_seeds(tmp_path: Path) -> None:
    write_fig8(tmp_path, {0: BETTER, 1: BETTER})
    whole, downsampling = (judged(tmp_path, t) for t in ("more resilient", "at the units that"))
    assert (whole.verdict, downsampling.verdict) == ("holds", "holds")
    assert (
        "falls, 25.00 to 11.00 points (by seed 25.00 to 11.00, 25.00 to 11.00)"
        in downsampling.evidence
    )
    before, after = (52 * 1.5 + 50) / 54, (52 * 0.25 + 22) / 54
    assert f"all units falls, {before:.2f} to {after:.2f} points (by seed" in whole.evidence
    assert "do not downsample falls, 1.50 to 0.25 points" in whole.evidence
    assert whole.evidence.endswith("intact 2.00 and 2.00 %, 2 trainings each")
    assert not whole.caveat.endswith("single seed")


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        ((damages(1.5), damages(0.25)), "holds"),
        ((damages(0.5), damages(0.6)), "too close"),  # falls of 1.25 and -0.1 in the median
        ((damages(0.5), damages(9.0)), "too close"),  # -8.5: between the seeds anything may be
    ],
)
def test_seeds_that_disagree(
    tmp_path: Path, second: tuple[list[float], list[float]], verdict: str
) -> None:
    write_fig8(tmp_path, {0: (damages(1.5), damages(0.25)), 1: second})
    claim = judged(tmp_path, "more resilient")
    assert claim.verdict == verdict
    assert ("is too close" in claim.evidence) == (verdict == "too close")


def test_the_mean_alone_does_not_decide(tmp_path: Path) -> None:
    """As at `cpu`: two units that stood out fall, and all others rise."""
    pair = (damages(0.4, u0=71.0, u18=79.0, u36=70.0), damages(1.2, u0=71.0, u18=40.0, u36=7.0))
    rows = [[row | {"images": 10_000} for row in singles(found)] for found in pair]
    for case, found in zip(("plain", "stochastic-depth"), rows, strict=True):
        write(tmp_path, f"fig8/{case}", "lesion_delete", found)
    whole, downsampling = (judged(tmp_path, t) for t in ("more resilient", "at the units that"))
    assert (whole.verdict, downsampling.verdict) == ("does not hold", "holds")
    means = [sum(found) / 54 for found in pair]
    assert means[1] < means[0]
    assert whole.evidence == (
        f"mean damage of all units falls, {means[0]:.2f} to {means[1]:.2f} points; median of those "
        "that do not downsample rises, 0.40 to 1.20 points; from plain training to stochastic "
        "depth; intact 2.00 and 2.00 %"
    )
    assert whole.caveat.endswith("; a single seed")


def test_nor_does_the_median_alone(tmp_path: Path) -> None:
    write_fig8(
        tmp_path, {0: (damages(8.0), damages(1.0, u18=80.0, u36=80.0, u0=90.0, u1=90.0, u2=90.0))}
    )
    claim = judged(tmp_path, "more resilient")
    assert "all units is too close, 8.00 to " in claim.evidence
    assert "do not downsample falls, 8.00 to 1.00" in claim.evidence
    assert claim.verdict == "too close"


def test_stochastic_depth_on_one_seed_by_the_images(tmp_path: Path) -> None:
    write_fig8(tmp_path, {0: (damages(0.5, u18=20.0), damages(0.4, u18=40.0))})
    whole, downsampling = (judged(tmp_path, t) for t in ("more resilient", "at the units that"))
    assert (whole.verdict, downsampling.verdict) == ("too close", "does not hold")
    assert whole.caveat.endswith("; a single seed")


def test_seeds_are_paired(tmp_path: Path) -> None:
    write(tmp_path, "fig8/plain-seed0", "lesion_delete", singles(damages(0.5)), 0)
    write(tmp_path, "fig8/stochastic-depth-seed1", "lesion_delete", singles(damages(0.4)), 1)
    claim = judged(tmp_path, "more resilient")
    assert claim.verdict == "not measured"
    assert claim.evidence.startswith("no seed was trained both ways; resnet-cli run veit2016/fig8")


# --- several units -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ([2.0 + 1.5 * k for k in range(1, 21)], "holds"),
        ([2.0 + 0.1 * k**2 for k in range(1, 21)], "holds"),
        ([2.0 + 1.5 * k - 4 * (k == 9) for k in range(1, 21)], "holds"),  # one small dip
        ([2.0 + 0.01 * k for k in range(1, 20)] + [90.0], "does not hold"),  # a cliff
        ([2.0] * 20, "does not hold"),
        ([40.0 - k for k in range(1, 21)], "does not hold"),
    ],
)
def test_error_by_k(tmp_path: Path, errors: list[float], verdict: str) -> None:
    rows = [
        deletion(k, sample, range(k), error + spread)
        for k, error in enumerate(errors, 1)
        for sample, spread in enumerate((-1.0, 0.0, 5.0))
    ]
    write(tmp_path, "fig5a", "lesion_delete", rows)
    claim = judged(tmp_path, "number of deleted units")
    assert claim.verdict == verdict
    assert (
        f"median error {errors[0]:.2f} % at k = 1, {errors[-1]:.2f} % at k = 20" in claim.evidence
    )
    assert "(60 deletions)" in claim.evidence
    assert "nan" not in claim.evidence


@pytest.mark.parametrize(
    ("leap", "verdict"), [(14.0, "holds"), (23.0, "too close"), (60.0, "does not hold")]
)
def test_a_step_near_the_limit(tmp_path: Path, leap: float, verdict: str) -> None:
    """Steps of 3 points but for one: of 17 in 71, 26 in 80, 63 in 117, on 360 images."""
    errors = [20.0 + 3.0 * (k - 1) + leap * (k > 10) for k in range(1, 21)]
    rise = errors[-1] - errors[0]
    step = 3.0 + leap
    rows = [deletion(k, 0, range(k), error) for k, error in enumerate(errors, 1)]
    write(tmp_path, "fig5a", "lesion_delete", rows)
    claim = judged(tmp_path, "number of deleted units")
    assert claim.verdict == verdict
    assert f"the largest step is {100 * step / rise:.0f} % of the rise, 25 % allowed" in (
        claim.evidence
    )
    assert ("too close" in claim.evidence) == (verdict == "too close")


def reorderings(errors: Sequence[float], taus: Sequence[float]) -> list[Row]:
    return [
        {"swaps": index // 5 + 1, "sample": index % 5, "order": "0 1", "kendall_tau": tau}
        | {
            name: value
            for name, value in deletion(1, 0, [0], error).items()
            if name not in ("k", "sample", "blocks")
        }
        for index, (error, tau) in enumerate(zip(errors, taus, strict=True))
    ]


def test_error_by_disorder(tmp_path: Path) -> None:
    taus = [1.0 - 0.002 * (index // 5) - 0.0001 * (index % 5) for index in range(100)]
    write(tmp_path, "fig5b", "lesion_reorder", reorderings([90 * (1 - t) for t in taus], taus))
    claim = judged(tmp_path, "reordered")
    assert claim.verdict == "holds"
    assert claim.evidence.startswith("Spearman of error and 1 - tau 1.000")
    assert "100 orders, tau 0.962 to 1.000" in claim.evidence
    # The order of the errors no longer goes with tau inside each number of swaps.
    write(tmp_path, "fig5b", "lesion_reorder", reorderings([2.0] * 100, taus))
    flat = judged(tmp_path, "reordered")
    assert flat.verdict == "does not hold"
    assert "no rise" in flat.evidence
    backwards = reorderings([90 * t for t in taus], taus)
    write(tmp_path, "fig5b", "lesion_reorder", backwards)
    assert judged(tmp_path, "reordered").verdict == "does not hold"


def test_the_interval_of_a_rank_correlation() -> None:
    low, high = claims_veit2016._fisher(0.6, 103)
    half = 1.959964 * math.sqrt(1.06 / 100)
    assert (math.atanh(low), math.atanh(high)) == pytest.approx(
        (math.atanh(0.6) - half, math.atanh(0.6) + half)
    )
    assert claims_veit2016._fisher(1.0, 103) == (1.0, 1.0)
    assert claims_veit2016._fisher(0.6, 3) == (-1.0, 1.0)


# --- paths ---------------------------------------------------------------------------------------


def gradients(norms: Sequence[float]) -> list[Row]:
    return [
        {"k": k, "sample": s, "grad_norm": norm * (1 + 0.1 * s), "images": 64, "seed": 0}
        for k, norm in enumerate(norms)
        for s in (-1, 0, 1)
    ]


@pytest.mark.parametrize(
    ("norms", "verdict"),
    [
        ([0.8**k for k in range(55)], "holds"),
        ([0.8 ** min(k, 30) for k in range(55)], "does not hold"),  # R2 0.83
        ([1.0 / (1 + k) for k in range(55)], "does not hold"),  # a power law
        ([1.25**k for k in range(55)], "does not hold"),
    ],
)
def test_norm_by_length(tmp_path: Path, norms: list[float], verdict: str) -> None:
    write(tmp_path, "fig6", "path_gradients", gradients(norms))
    claim = judged(tmp_path, "falls exponentially")
    assert claim.verdict == verdict
    assert "over lengths 0 to 54 (165 paths)" in claim.evidence
    if verdict == "holds":
        assert "multiplies the norm by 0.800; R2 1.000" in claim.evidence


def test_vanished_gradients_are_left_out(tmp_path: Path) -> None:
    norms = [0.5**k if k < 40 else 0.0 for k in range(55)]
    write(tmp_path, "fig6", "path_gradients", gradients(norms))
    claim = judged(tmp_path, "falls exponentially")
    assert claim.verdict == "holds"
    assert "multiplies the norm by 0.500; R2 1.000 over lengths 0 to 39" in claim.evidence


def spectrum(ratio: float, exact: float | None, units: int = NUM_UNITS) -> list[Row]:
    """Norms that fall by `ratio` a unit, exact ones by `exact` (their binomial, in both)."""
    rows = []
    for k in range(units + 1):
        paths = math.comb(units, k)
        row: Row = dict.fromkeys(header("path_spectrum"))
        row |= {"k": k, "paths": paths, "mean_norm": ratio**k, "total": paths * ratio**k}
        row["exact_norm"] = None if exact is None else paths * exact**k
        rows.append(row)
    return rows


def binomial_mass(p: float, first: int, last: int, units: int = NUM_UNITS) -> float:
    """Totals C(n, k) r^k are a binomial with p = r / (1 + r), up to their sum."""
    return float(stats.binom.cdf(last, units, p) - stats.binom.cdf(first - 1, units, p))


EFFECTIVE = "5 to 17 of 54 units"


@pytest.mark.parametrize(
    ("sampled", "exact", "verdict"),
    [  # a binomial of p = 0.2, and one of p = 0.5, where the paths are
        (0.25, 0.25, "holds"),
        (0.25, 1.0, "does not hold"),
        (1.0, 0.25, "does not hold"),
        (1.0, 1.0, "does not hold"),
        (0.01, 0.01, "does not hold"),  # too short
    ],
)
def test_published_lengths(tmp_path: Path, sampled: float, exact: float, verdict: str) -> None:
    write(tmp_path, "fig6", "path_spectrum", spectrum(sampled, exact))
    claim = judged(tmp_path, EFFECTIVE)
    assert claim.verdict == verdict
    held = [100 * binomial_mass(ratio / (1 + ratio), 5, 17) for ratio in (sampled, exact)]
    paths = sum(math.comb(NUM_UNITS, k) for k in range(5, 18)) / 2**NUM_UNITS
    assert f"{100 * paths:.2g}" == "0.45"  # the published share
    told = (
        f"lengths 5 to 17 of 54 (0.45 % of all paths) hold {held[0]:.1f} % sampled, "
        f"{held[1]:.1f} % exact"
    )
    assert claim.ours == told
    assert claim.published == "lengths 5 to 17 of 54, 0.45 % of all paths"
    differing = {(0.25, 1.0): "exact", (1.0, 0.25): "sampled"}.get((sampled, exact))
    start = f"not by the {differing} spectrum: " if differing else ""
    assert claim.evidence.startswith(f"{start}{told}; shortest intervals sampled: 50 % in ")
    for share in ("50 %", "90 %", "95 %", "99 %"):
        assert claim.evidence.count(f"{share} in ") == 2
    if exact == 1.0:
        # With equal norms the gradient lies where the paths are: on 21 to 33, and no shorter run.
        assert binomial_mass(0.5, 22, 33) < 0.9 < binomial_mass(0.5, 21, 33)
        inside = f"90 % in 21-33 ({100 * binomial_mass(0.5, 21, 33):.3g} % of paths)"
        assert inside in claim.evidence.partition("; exact: ")[2]


def test_claims_of_54_units_do_not_apply_to_others(tmp_path: Path) -> None:
    write(tmp_path, "fig6", "path_spectrum", spectrum(0.25, 0.25, units=9))
    claim = judged(tmp_path, EFFECTIVE)
    assert claim.verdict == "not measured"
    assert (
        claim.evidence == "does not apply to 9 units; resnet-cli run veit2016/fig6 --profile mini"
    )
    write_table43(tmp_path, full=[1.0], active_23=[1.0])
    path = tmp_path / "effective_paths" / "table.provenance.json"
    told = json.loads(path.read_text())
    told["config"]["model"]["depth"] = 20
    path.write_text(json.dumps(told))
    claim = judged(tmp_path, "23 of 54")
    assert claim.verdict == "not measured"
    assert claim.evidence.startswith("does not apply to 9 units; ")


def test_without_the_exact_spectrum_its_claim_is_not_measured(tmp_path: Path) -> None:
    write(tmp_path, "fig6", "path_spectrum", spectrum(0.25, None))
    claim = judged(tmp_path, EFFECTIVE)
    assert claim.verdict == "not measured"
    assert claim.evidence.startswith("exact_norm was not measured at every length; ")


def test_paths_left(tmp_path: Path) -> None:
    rows = path_survival(54, (1, 10, 20))
    write(tmp_path, "fig7", "path_survival", rows)
    claim = judged(tmp_path, "mostly long paths")
    assert claim.verdict == "holds"
    left = 100 * math.comb(44, 10) / math.comb(54, 10)
    assert f"10 deleted: 81.5 % of length 1, {left:.3g} % of length 10" in claim.evidence
    assert claim.by_formula
    assert claim.caveat == ""  # the profile has no part in it
    assert [c.source for c in claims(tmp_path, "mini") if c.by_formula] == ["fig7"]
    assert counts(claims(tmp_path, "mini"))["holds"] == 0
    rows[5]["fraction"] = rows[4]["fraction"]
    write(tmp_path, "fig7", "path_survival", rows)
    assert judged(tmp_path, "mostly long paths").verdict == "does not hold"


def write_highways(folder: Path, exclusive: float, shortcut: float, **errors: float) -> None:
    """Spectra that fall by these ratios a unit, and errors for highway_lesion."""
    ratios = {"identity": 1.0, "exclusive-gating": exclusive, "shortcut-gating": shortcut}
    for case, ratio in ratios.items():
        write(folder, f"highway_paths/{case}", "path_spectrum", spectrum(1.0, ratio))
    for case, error in errors.items():
        rows = singles([0.0] * NUM_UNITS, baseline=error)
        write(folder, f"highway_lesion/{case.replace('_', '-')}", "lesion_delete", rows)


def test_highways(tmp_path: Path) -> None:
    write_highways(tmp_path, 0.1, 0.2)
    claim = judged(tmp_path, "Highway")
    assert claim.verdict == "holds"
    assert "identity: 21 to 33 of 54 units" in claim.evidence
    assert claim.caveat.endswith("errors not known, run highway_lesion")
    write_highways(tmp_path, 0.1, 1.0, identity=1.0, exclusive_gating=2.0, shortcut_gating=3.0)
    claim = judged(tmp_path, "Highway")
    assert claim.verdict == "does not hold"
    assert "shortcut gating: 21 to 33 of 54 units, error 3.00 %" in claim.evidence
    assert not claim.caveat.endswith("highway_lesion")
    (tmp_path / "highway_paths/exclusive-gating/path_spectrum.csv").unlink()
    assert judged(tmp_path, "Highway").verdict == "not measured"


def test_highways_that_learned_nothing_are_not_judged(tmp_path: Path) -> None:
    write_highways(tmp_path, 1.0, 0.1, identity=1.0, exclusive_gating=80.0, shortcut_gating=3.0)
    claim = judged(tmp_path, "Highway")
    assert claim.verdict == "holds"
    assert "error 80.00 %, not judged: it learned too little" in claim.evidence
    write_highways(tmp_path, 0.1, 0.1, identity=1.0, exclusive_gating=80.0, shortcut_gating=80.0)
    claim = judged(tmp_path, "Highway")
    assert claim.verdict == "not measured"
    assert claim.evidence.startswith("no gated network learned enough; resnet-cli run veit2016/hi")


def test_a_checkpoint_of_others_stands_alone_in_its_folder(tmp_path: Path) -> None:
    """As `lesion --out results/veit2016/third-party/fig3` writes it: no VGG, no experiment."""
    config = {"model": {"depth": 20, "placement": "original"}, "study": {"kind": "delete"}}
    provenance = collect(config, seeds=[0], started=datetime.now(UTC))
    rows = singles([0.1] * 3 + [30.0, 0.1, 0.1, 20.0, 0.1, 0.1])
    write_table(rows, "lesion_delete", tmp_path / "fig3", provenance)
    claim = judged(tmp_path, "matter most", "third-party")
    assert claim.verdict == "holds"
    assert claim.evidence.startswith("unit 3: +30.00 points, rank 1 of 9, unit 6: +20.00")
    assert judged(tmp_path, "of a residual network barely", "third-party").verdict == "holds"
    vgg = judged(tmp_path, "VGG", "third-party")
    assert (vgg.verdict, vgg.evidence) == (
        "not measured",
        "resnet-cli run veit2016/fig3 --profile mini",
    )


def test_a_provenance_without_the_network(tmp_path: Path) -> None:
    provenance = collect({}, seeds=[0], started=datetime.now(UTC))
    write_table(singles([0.1] * 9), "lesion_delete", tmp_path / "fig3", provenance)
    claim = judged(tmp_path, "matter most", "third-party")
    assert claim.verdict == "not measured"
    assert claim.evidence.startswith("its provenance does not say of which network; ")


# --- section 4.3 ---------------------------------------------------------------------------------


def write_table43(
    folder: Path, *, dataset: str = "digits", **errors: Sequence[float | None]
) -> None:
    rows = [
        {
            "experiment": "veit2016/effective_paths",
            "case": case.replace("_", "-"),
            "dataset": dataset,
            "seed": seed,
            "params": 1,
            "status": "diverged" if error is None else "ok",
            "test_error": error,
            "best_error": error,
            "paper_error": None,
        }
        for case, values in errors.items()
        for seed, error in enumerate(values)
    ]
    write(folder, "effective_paths", "table", rows)


@pytest.mark.parametrize(
    ("full", "active", "verdict"),
    [
        ([6.0, 6.2, 6.1], [6.0, 6.1, 6.2], "holds"),
        ([6.0, 6.2, 6.1], [5.2, 5.3, 5.1], "holds"),  # better
        ([6.0, 6.2, 6.1], [6.4, 6.6, 6.5], "too close"),  # +0.4, yet surely higher by the seeds
        ([6.0, 6.2, 6.1], [6.7, 6.9, 6.8], "too close"),  # +0.7; margin 0.7 above 0.5
        ([6.0, 6.2, 6.1], [7.5, 7.6, 7.7], "does not hold"),
        ([1.0, 5.0, 0.0], [3.0, 3.5, 2.0], "too close"),  # +0.83, and seeds far apart
        ([0.56, 0.83, 0.56], [1.11, 11.11, 10.0], "too close"),  # at `mini`
        ([2.0], [2.5], "too close"),  # of single trainings in a short schedule
        ([2.0], [4.4], "too close"),
        ([2.0], [4.6], "does not hold"),
        ([1.0, 1.0], [1.0, 1.0], "holds"),
        ([1.0, 1.0], [1.2, 1.2], "too close"),
        ([1.0, 1.1], [1.0, None], "does not hold"),
    ],
)
def test_effective_paths(
    tmp_path: Path, full: list[float], active: list[float | None], verdict: str
) -> None:
    write_table43(tmp_path, full=full, active_23=active, active_24=[1.0], dataset="cifar10")
    claim = judged(tmp_path, "23 of 54")
    assert claim.verdict == verdict
    assert "(published 5.96 against 6.10 %)" in claim.evidence
    assert "nan" not in claim.evidence
    assert ("single seed" in claim.caveat) == (len(full) == 1)


def test_one_training_has_one_error(tmp_path: Path) -> None:
    write_table43(tmp_path, full=[11.35], active_23=[20.98], dataset="cifar10")
    assert judged(tmp_path, "23 of 54").evidence == (
        "23 units active: 20.98 %, all units active: 11.35 %; 23 active units minus all +9.63 "
        "points (published 5.96 against 6.10 %)"
    )


def test_on_360_images_nothing_trains_as_well(tmp_path: Path) -> None:
    write_table43(tmp_path, full=[1.1, 1.2, 1.0], active_23=[1.0, 1.1, 1.2])
    claim = judged(tmp_path, "23 of 54")
    assert claim.verdict == "too close"
    assert "too close: margin 1.73" in claim.evidence


def test_the_interval_is_welchs(tmp_path: Path) -> None:
    full, active = [1.0, 1.2, 1.1, 1.5], [1.0, 1.3, 0.9]
    write_table43(tmp_path, full=full, active_23=active)

    def moments(values: list[float]) -> tuple[float, float]:
        mean = sum(values) / len(values)
        return mean, sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)

    (a, va), (f, vf) = moments(active), moments(full)
    freedom = (va + vf) ** 2 / (va**2 / 2 + vf**2 / 3)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(va + vf)
    expected = (
        f"minus all {a - f:+.2f} points, 95 % interval {a - f - half:+.2f} to {a - f + half:+.2f}"
    )
    assert expected in judged(tmp_path, "23 of 54").evidence


def test_effective_paths_without_the_full_model(tmp_path: Path) -> None:
    write_table43(tmp_path, active_23=[1.0])
    assert judged(tmp_path, "23 of 54").verdict == "not measured"


# --- headlines -----------------------------------------------------------------------------------


def test_headlines_have_numbers_published_and_ours(tmp_path: Path) -> None:
    write(tmp_path, "fig3/vgg15", "lesion_delete", singles([80.0] * 13 + [90.0]))
    write(tmp_path, "fig3/preact110", "lesion_delete", singles(damages(0.1, u0=50.0)))
    headlines = [claim for claim in claims(tmp_path, "mini") if claim.headline]
    assert [claim.source for claim in headlines] == ["fig3", "fig3", "fig6c", "section4.3"]
    vgg, resnet, paths, _ = headlines
    assert vgg.published == "to about 90 %, whichever layer is deleted"
    assert vgg.ours == "from 2.00 % to 82.00 % in the median of 14 layers, 82.00 to 92.00 %"
    assert (vgg.dataset, vgg.seeds) == ("digits", "1 seed")
    assert resnet.ours == (
        "from 2.00 %, by 0.10 points in the median; by more than 1 for 1 of 54 units, 50.00 at "
        "worst"
    )
    assert (paths.verdict, paths.published, paths.ours) == ("not measured", "", "")
    assert all(not claim.ours for claim in claims(tmp_path, "mini") if not claim.headline)
