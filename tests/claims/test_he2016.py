"""Paper 1's claims, judged on its own numbers, on tables that contradict it, and on curves."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from error_tables import ErrorsByCase, error_rows

from resnet_cli.claims.evidence import published_trainings
from resnet_cli.claims.he2016 import CLAIMS
from resnet_cli.claims.he2016_judges import SAME_WITHIN
from resnet_cli.claims.judge import judge_all
from resnet_cli.claims.verdict import Claim, Judgement
from resnet_cli.claims.words import evidence
from resnet_cli.config.experiments import load_experiment
from resnet_cli.results.layout import provenance_path
from resnet_cli.results.outcomes import case_key, write_outcomes
from resnet_cli.results.provenance import collect
from resnet_cli.results.tables import write_table

Judge = Callable[..., dict[str, Judgement]]

TABLE1: dict[str, list[float | None]] = {
    "original": [1.0],
    "scaling-0-1": [90.0],
    "scaling-0.5-1": [91.0],
    "scaling-0.5-0.5": [12.0],
    "exclusive-gating-bias0": [80.0],
    **{f"exclusive-gating-bias-{bias}": [75.0 - bias] for bias in (1, 2, 3, 4, 5)},
    "exclusive-gating-bias-6": [9.0],
    "exclusive-gating-bias-7": [10.0],
    "shortcut-gating-bias0": [13.0],
    "shortcut-gating-bias-6": [7.0],
    "convolution": [12.5],
    "dropout": [88.0],
}
"""Errors like the paper's; on 360 images, no comparison is too close."""


def write_errors(
    folder: Path, experiment: str, errors: ErrorsByCase, profile: str = "mini"
) -> Path:
    """A table.csv with the provenance of its experiment."""
    loaded = load_experiment(f"he2016/{experiment}", profile)
    rows = error_rows(loaded.name, loaded.data.dataset, errors)
    config = loaded.model_dump(mode="json")
    provenance = collect(config, seeds=[0], started=datetime.now(UTC), profile=profile)
    write_table(rows, "table", folder / experiment, provenance)
    return folder / experiment


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Judges tables (experiment -> case -> errors by seed); returns judgements by text."""

    def judge_tables(profile: str = "mini", **tables: ErrorsByCase) -> dict[str, Judgement]:
        for name, errors in tables.items():
            write_errors(tmp_path, name.replace("_", "-"), errors, profile)
        return {found.claim.text: found for found in judge_all("he2016", tmp_path, profile)}

    return judge_tables


def find(judged: Mapping[str, Judgement], text: str) -> Judgement:
    """The only judgement whose claim contains this text."""
    (found,) = [found for whole, found in judged.items() if text in whole]
    return found


# --- the paper's own numbers ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_the_paper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judgement]:
    folder = tmp_path_factory.mktemp("nothing")
    found = judge_all("he2016", folder, "paper", published_trainings("he2016"))
    return {judgement.claim.text: judgement for judgement in found}


def test_nothing_that_the_paper_published_contradicts_it(
    of_the_paper: dict[str, Judgement],
) -> None:
    of_tables = [j for j in of_the_paper.values() if j.claim.source.startswith(("table", "text"))]
    assert len(of_tables) == 24
    assert {judgement.verdict for judgement in of_tables} == {"holds", "too close"}


TOO_CLOSE = {
    "ReLU-only pre-activation is about as good as the original unit (within 0.2 points), at 110 "
    "and 164 layers": (0.10, 1.0),
    "The lead of full pre-activation grows with depth, 110 to 164 to 1001 layers, CIFAR-10": (
        0.23,
        1.7,
    ),
    "Full pre-activation is better than the original at 152 and 200 layers, ImageNet": (0.20, 0.5),
    "From 152 to 200 layers the original gets worse and full pre-activation better, ImageNet": (
        0.40,
        1.0,
    ),
}
"""Claim -> (the paper's own margin in points, z)."""


def test_what_stays_too_close_by_the_papers_own_numbers(
    of_the_paper: dict[str, Judgement],
) -> None:
    close = {text: j.deciding for text, j in of_the_paper.items() if j.verdict == "too close"}
    found = {
        text: (round(abs(part.tested.value), 2), round(part.tested.z, 1))
        for text, part in close.items()
        if part is not None and part.tested is not None
    }
    assert found == TOO_CLOSE


# --- contradictions ------------------------------------------------------------------------------


def contradicted(claim: Claim) -> dict[str, list[float | None]]:
    """Errors of three trainings that contradict a claim by three standard errors."""
    level, spread = 2.0, 0.1
    step = 3 * spread * math.sqrt(1 / 3 + 1 / 3) + (SAME_WITHIN if "within" in claim.text else 0)
    ((_, cases),) = claim.needs.items()
    best = [case for case in cases if case.startswith("full_") or "bias -6 is" in claim.text]
    errors = {}
    for case in cases:
        if case.startswith("original"):
            error = level
        elif best:
            error = level + step if case.startswith("full_") or case.endswith("-6") else level
        else:
            error = level - step
        errors[case] = [error - spread, error, error + spread]
    return errors


@pytest.mark.parametrize(
    "claim",
    [claim for claim in CLAIMS if claim.source in ("table1", "table2")],
    ids=lambda claim: claim.text[:40],
)
def test_a_table_that_contradicts_a_claim_by_three_standard_errors(
    claim: Claim, judge: Judge
) -> None:
    judged = judge(**{claim.source: contradicted(claim)})
    assert find(judged, claim.text).verdict == "does not hold"


def test_a_table_that_agrees_with_the_paper(judge: Judge) -> None:
    of_table1 = [j for j in judge(table1=TABLE1).values() if j.claim.source == "table1"]
    assert {judgement.verdict for judgement in of_table1} == {"holds"}


def test_on_360_images_two_images_are_too_close(judge: Judge) -> None:
    table = TABLE1 | {"original": [100 * 3 / 360], "shortcut-gating-bias-6": [100 * 5 / 360]}
    judged = judge(table1=table)
    assert find(judged, "identity is the best of all").verdict == "too close"
    assert find(judged, "Shortcut-only gating, at any").verdict == "too close"
    assert find(judged, "1x1 convolution").verdict == "holds"


def test_more_than_ten_classes_cannot_fail(of_the_paper: dict[str, Judgement]) -> None:
    hundred = find(of_the_paper, "at every depth, CIFAR-100")
    assert "original unit, 164: 25.16 %, " in evidence(hundred)[0]
    ten = find(of_the_paper, "Dropout on the shortcut")
    assert evidence(ten)[0].startswith("dropout 0.5: fails, original unit: 6.61 %")


def test_a_diverged_case_is_worse_than_the_identity(judge: Judge) -> None:
    judged = judge(table1=TABLE1 | {"dropout": [None]})
    assert find(judged, "Dropout on the shortcut").verdict == "holds"
    assert "diverges" in evidence(find(judged, "Dropout on the shortcut"))[0]


def test_outcomes_next_to_the_table_are_paired(judge: Judge, tmp_path: Path) -> None:
    table = {"original": [2.5], "convolution": [3.75]}
    folder = write_errors(tmp_path, "table1", table)
    outcomes = {}
    for case, (error,) in table.items():
        outcome = np.ones(360, dtype=bool)
        outcome[: round(error * 3.6)] = False
        outcomes[case_key(case, 0)] = outcome
    without = find(judge(), "1x1 convolution").parts[0]
    write_outcomes(folder, outcomes)
    paired = find(judge(), "1x1 convolution").parts[0]
    assert (without.unpaired, paired.unpaired) == (True, False)
    assert without.tested is not None
    assert paired.tested is not None
    assert paired.tested.standard_error > without.tested.standard_error  # type: ignore[operator]


# --- long enough ---------------------------------------------------------------------------------


def test_a_reference_above_the_mark_decides_nothing(judge: Judge) -> None:
    judged = judge(table1=TABLE1 | {"original": [3.1]})  # mini: 3 %
    of_table1 = [j for j in judged.values() if j.claim.source == "table1"]
    assert {judgement.verdict for judgement in of_table1} == {"not trained long enough"}
    assert "needed to decide: 3.00 %" in evidence(of_table1[0])[0]


def test_each_depth_has_its_own_reference(judge: Judge) -> None:
    table = {
        "original-110": [2.0],
        "bn_after_addition-110": [15.0],
        "original-164": [14.0],
        "bn_after_addition-164": [6.0],
    }
    found = find(judge(table2=table), "BN after the addition is worse than the original unit")
    assert [part.verdict for part in found.parts] == ["holds", "not trained long enough"]
    assert found.verdict == "not trained long enough"


def test_at_paper_the_published_error_and_a_point_more_decide(judge: Judge) -> None:
    table = {"original": [7.6], "convolution": [12.0]}
    assert find(judge("paper", table1=table), "1x1 convolution").verdict == "holds"
    table["original"] = [7.7]
    judged = judge("paper", table1=table)
    assert find(judged, "1x1 convolution").verdict == "not trained long enough"


# --- missing rows --------------------------------------------------------------------------------


def test_nothing_measured_names_the_commands(judge: Judge) -> None:
    judged = judge()
    assert {judgement.verdict for judgement in judged.values()} == {"not measured"}
    identity = find(judged, "identity is the best of all")
    assert identity.commands == ("resnet-cli run he2016/table1 --profile mini",)
    hundred = find(judged, "at every depth, CIFAR-100")  # ResNet-1001 only at paper
    assert hundred.commands == ("resnet-cli run he2016/table3-cifar100 --profile paper",)
    imagenet = find(judged, "152 and 200 layers").commands
    assert imagenet == ("resnet-cli run he2016/table5 --profile paper --data-dir FOLDER",)


def test_a_missing_row_does_not_save_a_refuted_claim(judge: Judge) -> None:
    rest = {case: errors for case, errors in TABLE1.items() if case != "dropout"}
    judged = judge(table1=rest)
    assert find(judged, "identity is the best of all").verdict == "not measured"
    assert "1 of 10 comparisons not measured" in evidence(find(judged, "best of all"))
    judged = judge(table1=rest | {"original": [2.9], "convolution": [0.3]})
    assert find(judged, "identity is the best of all").verdict == "does not hold"


def test_one_bias_does_not_stand_for_six(judge: Judge, tmp_path: Path) -> None:
    """Tables of the first edition name bias 0 after the paper's row."""
    biases = [f"exclusive-gating-bias-{bias}" for bias in (1, 2, 3, 4, 5)]
    table = {case: errors for case, errors in TABLE1.items() if case not in biases}
    path = write_errors(tmp_path, "table1", table) / "table.csv"
    path.write_text(path.read_text().replace("-bias0,", "-bias0to-5,", 1))
    provenance_path(path).unlink()
    judged = judge()
    assert find(judged, "identity is the best of all").verdict == "holds"
    failing = find(judged, "dropout fail")
    assert failing.verdict == "not measured"
    assert "5 of 10 comparisons not measured" in evidence(failing)
    assert find(judge(table1=TABLE1), "dropout fail").verdict == "holds"
    one_learns = TABLE1 | {"exclusive-gating-bias-5": [5.0]}
    assert find(judge(table1=one_learns), "dropout fail").verdict == "does not hold"


def test_the_network_that_was_trained_is_named(judge: Judge) -> None:
    judged = judge("smoke", table2={"original-110": [5.0], "bn_after_addition-110": [9.0]})
    found = find(judged, "BN after the addition is worse than the original unit")
    assert found.networks[0] == "resnet8"
    assert "original unit, 8: 5.00 %" in evidence(found)[0]


# --- curves --------------------------------------------------------------------------------------


SEEDS = 3


def write_curves(folder: Path, losses: Mapping[str, Sequence[float]], seeds: int = SEEDS) -> None:
    """Losses by epoch, in each further training one percent higher."""
    rows = [
        dict.fromkeys(("lr", "train_error", "test_loss", "test_error"), 1.0)
        | {"experiment": "he2016/fig1", "case": case, "seed": seed, "epoch": epoch}
        | {"iteration": 10 * epoch, "train_loss": loss * (1 + seed / 100)}
        | {"images_per_second": 1.0, "seconds": 1.0}
        for case, of_case in losses.items()
        for seed in range(seeds)
        for epoch, loss in enumerate(of_case, 1)
    ]
    config = load_experiment("he2016/fig1", "mini").model_dump(mode="json")
    provenance = collect(config, seeds=[*range(seeds)], started=datetime.now(UTC), profile="mini")
    write_table(rows, "training", folder / "fig1", provenance)


@pytest.mark.parametrize(
    ("original", "verdict"),
    [
        ([4.0] * 3 + [0.1] * 9, "holds"),
        ([2.0] * 3 + [9.0] * 9, "too close"),  # the beginning alone counts
        ([2.0, 90.0, 2.0] + [9.0] * 9, "too close"),  # and no single epoch decides
        ([0.5] * 3 + [0.1] * 9, "does not hold"),
        ([math.nan, math.nan, 4.0] + [0.1] * 9, "holds"),
    ],
)
def test_losses_at_first(original: list[float], verdict: str, judge: Judge, tmp_path: Path) -> None:
    write_curves(tmp_path, {"original-1001-cifar10": original, "preact-1001-cifar10": [2.0] * 12})
    errors = {"original-1001-cifar10": [50.0] * SEEDS, "preact-1001-cifar10": [1.0] * SEEDS}
    assert find(judge(fig1=errors), "With 1001 layers").verdict == verdict


def test_the_losses_of_one_training_each_are_too_few(judge: Judge, tmp_path: Path) -> None:
    losses = {"original-1001-cifar10": [4.0] * 12, "preact-1001-cifar10": [2.0] * 12}
    write_curves(tmp_path, losses, seeds=1)
    found = find(judge(fig1={case: [1.0] for case in losses}), "With 1001 layers")
    assert found.verdict == "too few draws"
    assert "trainings of each: 1, needed: 2" in evidence(found)[0]


def test_without_curves_or_errors_a_loss_is_not_measured(judge: Judge, tmp_path: Path) -> None:
    errors = {"original-1001-cifar10": [50.0], "preact-1001-cifar10": [1.0]}
    assert find(judge(fig1=errors), "With 1001 layers").verdict == "not measured"
    (tmp_path / "fig1" / "table.csv").unlink()
    write_curves(tmp_path, {case: [2.0] * 8 for case in errors})
    assert find(judge(), "With 1001 layers").verdict == "not measured"


# --- identities ----------------------------------------------------------------------------------


def test_the_equations_are_a_check_and_no_claim() -> None:
    results = Path(__file__).parents[2] / "results" / "he2016" / "mini"
    (check,) = [j for j in judge_all("he2016", results, "mini") if j.claim.is_check]
    assert check.verdict == "holds"
    assert check.claim.source == "section2"
    assert all(part.measured[0].value < 1e-6 for part in check.parts)


def test_the_json_of_a_judgement_has_no_numbers_that_json_lacks(judge: Judge) -> None:
    from resnet_cli.claims.words import judgement_to_dict

    judged = judge(table1=TABLE1 | {"dropout": [None]})
    json.dumps([judgement_to_dict(found) for found in judged.values()], allow_nan=False)
