"""Paper 1's claims on tables made by hand: holds, does not hold, not measured, ties, seeds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from resnet_cli.config import load_experiment
from resnet_cli.papers import published
from resnet_cli.results.claims import Claim
from resnet_cli.results.claims_he2016 import claims
from resnet_cli.results.tables import COLUMNS

Table = Mapping[str, Sequence[float | None]]
Judge = Callable[..., dict[str, Claim]]

TABLE1: dict[str, list[float | None]] = {
    "original": [1.0],
    "scaling-0-1": [90.0],
    "scaling-0.5-1": [91.0],
    "scaling-0.5-0.5": [3.0],
    "exclusive-gating-bias0to-5": [80.0],
    "exclusive-gating-bias-6": [2.0],
    "exclusive-gating-bias-7": [2.5],
    "shortcut-gating-bias0": [4.0],
    "shortcut-gating-bias-6": [1.5],
    "convolution": [3.5],
    "dropout": [88.0],
}


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Judge tables by hand (folder -> case -> errors by seed); claims by a part of their text."""

    def judge_tables(profile: str = "mini", **tables: Table) -> dict[str, Claim]:
        for name, errors in tables.items():
            folder = tmp_path / name.replace("_", "-")
            folder.mkdir()
            lines = [",".join(COLUMNS["table"])]
            for case, of_case in errors.items():
                for seed, error in enumerate(of_case):
                    shown = "" if error is None else repr(error)
                    status = "diverged" if error is None else "fail" if error > 20 else "ok"
                    lines.append(f"he2016/x,{case},digits,{seed},1,{status},{shown},{shown},")
            (folder / "table.csv").write_text("\n".join(lines) + "\n")
        return {claim.text: claim for claim in claims(tmp_path, profile)}

    return judge_tables


def find(judged: Mapping[str, Claim], text: str) -> Claim:
    """The one claim whose text has this part."""
    (claim,) = [claim for whole, claim in judged.items() if text in whole]
    return claim


# --- the paper's own numbers ---------------------------------------------------------------------


def test_every_claim_holds_of_the_papers_own_numbers(judge: Judge) -> None:
    """The claims are the paper's: its tables, written as a measurement, bear each of them out."""
    table = published("he2016")
    table = table[table["metric"] != "top5_error"]
    tables: dict[str, dict[str, list[float]]] = {}
    for row in table.to_dict("records"):
        error = 50.0 if row["status"] == "fail" else float(row["value"])
        tables.setdefault(str(row["source"]), {})[str(row["case"])] = [error]
    judged = judge("paper", **tables)
    assert {text: claim.verdict for text, claim in judged.items()} == dict.fromkeys(judged, "holds")
    assert [claim.source for claim in judged.values()] == (
        ["table1"] * 9 + ["table2"] * 5 + ["table3"] * 6 + ["table4", "text", "table5", "table5"]
    )


def test_nothing_measured_names_the_commands(judge: Judge, tmp_path: Path) -> None:
    judged = judge("mini")
    assert {claim.verdict for claim in judged.values()} == {"not measured"}
    assert all(claim.caveat == "" for claim in judged.values())
    identity = find(judged, "identity is the best of all")
    assert "resnet-cli run he2016/table1 --profile mini" in identity.evidence
    # Rows that mini does not offer: the profile that does.
    hundred = find(judged, "at every depth, CIFAR-100").evidence
    assert "run he2016/table3-cifar100 --profile cpu" in hundred  # 164 layers
    assert "run he2016/table3-cifar100 --profile paper" in hundred  # 1001 layers
    assert "run he2016/table5 --profile paper" in find(judged, "152 and 200 layers").evidence
    assert "run he2016/imagenet101 --profile paper" in find(judged, "ResNet-101").evidence
    batch = find(judged, "in batches of 64").evidence
    assert "run he2016/table4-cifar10 --profile mini" in batch  # batch 128's stand-in
    assert "run he2016/table4-cifar10 --profile paper" in batch


# --- Table 1 -------------------------------------------------------------------------------------


def test_table1_holds(judge: Judge) -> None:
    judged = judge(table1=TABLE1)
    of_table1 = [claim for claim in judged.values() if claim.source == "table1"]
    assert [claim.verdict for claim in of_table1] == ["holds"] * 9
    identity = find(judged, "identity is the best of all").evidence
    assert identity == (
        "the lowest of the 10 others: shortcut-gating-bias-6 1.50 % against original 1.00 % "
        "(+0.50); 1 seed each"
    )
    assert find(judged, "fail (error above 20 %)").evidence == (
        "scaling-0-1 fail (90.00 %); scaling-0.5-1 fail (91.00 %); "
        "exclusive-gating-bias0to-5 fail (80.00 %); dropout fail (88.00 %); original 1.00 %; "
        "1 seed each"
    )


def test_a_better_shortcut_refutes_the_identity(judge: Judge) -> None:
    judged = judge(table1=TABLE1 | {"convolution": [0.5]})
    identity = find(judged, "identity is the best of all")
    assert identity.verdict == "does not hold"
    assert identity.evidence.startswith(
        "not above it: convolution 0.50 % against original 1.00 % (-0.50)"
    )
    assert find(judged, "1x1 convolution").verdict == "does not hold"
    assert find(judged, "Dropout on the shortcut").verdict == "holds"


def test_a_tie_is_no_win(judge: Judge) -> None:
    judged = judge(table1=TABLE1 | {"shortcut-gating-bias-6": [1.0]})
    identity = find(judged, "identity is the best of all")
    assert identity.verdict == "does not hold"
    assert "shortcut-gating-bias-6 1.00 % against original 1.00 % (a tie)" in identity.evidence
    assert find(judged, "Shortcut-only gating, at any").verdict == "does not hold"


def test_nothing_is_rounded(judge: Judge) -> None:
    """Errors that look the same at two decimals are still told apart."""
    judged = judge(table1=TABLE1 | {"shortcut-gating-bias-6": [1.0 + 1e-9], "dropout": [1 - 1e-9]})
    assert find(judged, "Shortcut-only gating, at any").verdict == "holds"
    assert find(judged, "Dropout on the shortcut").verdict == "does not hold"


def test_a_missing_row_leaves_a_claim_unmeasured(judge: Judge) -> None:
    rest = {case: errors for case, errors in TABLE1.items() if case != "dropout"}
    judged = judge(table1=rest)
    identity = find(judged, "identity is the best of all")
    assert identity.verdict == "not measured"
    assert "the lowest of the 9 others: shortcut-gating-bias-6" in identity.evidence
    assert identity.evidence.endswith(
        "not measured: dropout; resnet-cli run he2016/table1 --profile mini"
    )
    assert find(judged, "Dropout on the shortcut").verdict == "not measured"
    assert find(judged, "1x1 convolution").verdict == "holds"


def test_a_missing_row_does_not_save_a_refuted_claim(judge: Judge) -> None:
    rest = {case: errors for case, errors in TABLE1.items() if case != "dropout"}
    identity = find(judge(table1=rest | {"convolution": [0.9]}), "identity is the best of all")
    assert identity.verdict == "does not hold"
    assert "not measured: dropout" in identity.evidence


def test_what_should_fail_but_trains_is_told(judge: Judge) -> None:
    judged = judge(table1=TABLE1 | {"dropout": [5.0]})
    failing = find(judged, "fail (error above 20 %)")
    assert failing.verdict == "does not hold"
    assert "; dropout 5.00 %; " in failing.evidence
    assert find(judged, "Dropout on the shortcut").verdict == "holds"  # worse, if not failed


def test_where_all_fail_nothing_is_shown(judge: Judge) -> None:
    failing = find(judge(table1=TABLE1 | {"original": [25.0]}), "fail (error above 20 %)")
    assert failing.verdict == "does not hold"
    assert "original fail (25.00 %)" in failing.evidence


def test_another_mark_of_a_failure_is_told(judge: Judge) -> None:
    limit = load_experiment("he2016/table1", "cpu").fail_above
    caveat = find(judge("cpu", table1=TABLE1), "dropout fail").caveat
    assert f"a failure is an error above {limit:g} %, not 20" in caveat


def test_a_divergence_is_a_failure(judge: Judge) -> None:
    judged = judge(table1=TABLE1 | {"dropout": [None], "scaling-0-1": [None, 5.0]})
    failing = find(judged, "fail (error above 20 %)")
    assert failing.verdict == "holds"
    assert "scaling-0-1 diverged" in failing.evidence
    dropout = find(judged, "Dropout on the shortcut")
    assert dropout.verdict == "holds"
    assert "dropout diverged against original 1.00 % (unbounded)" in dropout.evidence


def test_two_divergences_are_a_tie(judge: Judge) -> None:
    judged = judge(table1=TABLE1 | {"dropout": [None], "original": [None]})
    assert find(judged, "Dropout on the shortcut").verdict == "does not hold"
    assert "(a tie)" in find(judged, "Dropout on the shortcut").evidence


def test_gating_that_does_not_recover(judge: Judge) -> None:
    judged = judge(table1=TABLE1 | {"exclusive-gating-bias-6": [85.0]})
    assert find(judged, "Exclusive gating recovers").verdict == "does not hold"
    assert find(judged, "Shortcut-only gating recovers").verdict == "holds"


# --- seeds ---------------------------------------------------------------------------------------


def test_medians_decide_and_overlaps_are_told(judge: Judge) -> None:
    judged = judge(
        "paper",
        table1=TABLE1
        | {"original": [1.0, 1.1, 9.0], "convolution": [1.2, 1.3, 1.4], "dropout": [88.0, 5.0]},
    )
    convolution = find(judged, "1x1 convolution")
    assert convolution.verdict == "holds"  # 1.3 against 1.1, though the means say otherwise
    assert convolution.evidence == (
        "convolution 1.30 % against original 1.10 % (+0.20), 95 % intervals overlap; 3 seeds each"
    )
    assert convolution.caveat == ""
    assert find(judged, "Dropout on the shortcut").evidence.endswith("2 to 3 seeds each")


def test_one_seed_and_a_short_profile_are_caveats(judge: Judge) -> None:
    judged = judge("mini", table1=TABLE1)
    caveat = find(judged, "1x1 convolution").caveat
    assert "16x16 digits and 15 epochs (Table 1: 30) instead of CIFAR" in caveat
    assert caveat.endswith("one seed tells nothing about the spread between trainings")


@pytest.mark.parametrize(
    ("profile", "word"), [("smoke", "that the code runs"), ("cpu", "a third of the paper's units")]
)
def test_caveats_of_short_profiles(judge: Judge, profile: str, word: str) -> None:
    assert word in find(judge(profile, table1=TABLE1), "1x1 convolution").caveat


def test_paper_with_several_seeds_has_no_caveat(judge: Judge) -> None:
    table = {"original": [1.0, 1.2], "convolution": [3.0, 3.1]}
    assert find(judge("paper", table1=table), "1x1 convolution").caveat == ""


# --- Table 2 -------------------------------------------------------------------------------------


def placements(**changes: Sequence[float]) -> dict[str, Sequence[float]]:
    """Table 2 as the paper has it, with changes (`-` written as `__`)."""
    table: dict[str, Sequence[float]] = {}
    for name, of_110, of_164 in (
        ("original", 6.61, 5.93),
        ("bn_after_addition", 8.17, 6.50),
        ("relu_before_addition", 7.84, 6.14),
        ("relu_only_preactivation", 6.71, 5.91),
        ("full_preactivation", 6.37, 5.46),
    ):
        table |= {f"{name}-110": [of_110], f"{name}-164": [of_164]}
    return table | {key.replace("__", "-"): value for key, value in changes.items()}


def test_one_depth_refutes_a_claim_about_two(judge: Judge) -> None:
    judged = judge(table2=placements(bn_after_addition__164=[5.0]))
    claim = find(judged, "BN after the addition is worse than the original unit")
    assert claim.verdict == "does not hold"
    assert "bn_after_addition-164 5.00 % against original-164 5.93 % (-0.93)" in claim.evidence
    assert find(judged, "ReLU before the addition").verdict == "holds"
    assert find(judged, "best of the five placements at 110").verdict == "holds"
    assert find(judged, "best of the five placements at 164").verdict == "does not hold"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(6.80, "holds"), (6.85, "does not hold"), (6.45, "holds"), (6.30, "does not hold")],
)
def test_about_the_same_has_a_margin(judge: Judge, error: float, verdict: str) -> None:
    judged = judge(table2=placements(relu_only_preactivation__110=[error]))
    assert find(judged, "about as good as the original").verdict == verdict


# --- Table 3 -------------------------------------------------------------------------------------


def depths(leads: Mapping[str, float]) -> dict[str, list[float]]:
    """CIFAR-10 rows in which full pre-activation leads by so many points at each depth."""
    table: dict[str, list[float]] = {}
    for depth, lead in leads.items():
        table |= {f"original-{depth}-cifar10": [7.0], f"preact-{depth}-cifar10": [7.0 - lead]}
    return table


GROWS = "lead of full pre-activation grows with depth, 110 to 164 to 1001 layers"


@pytest.mark.parametrize(
    ("leads", "verdict"),
    [
        ({"110": 0.25, "164": 0.5, "1001": 2.5}, "holds"),
        ({"110": 0.5, "164": 0.25, "1001": 2.5}, "does not hold"),
        ({"110": 0.25, "164": 0.25, "1001": 2.5}, "does not hold"),
        ({"110": -1.0, "164": -0.5, "1001": -0.25}, "holds"),  # of growth alone
        ({"110": 0.25, "164": 0.5}, "not measured"),
        ({"110": 0.5, "164": 0.25}, "does not hold"),
    ],
)
def test_the_lead_by_depth(judge: Judge, leads: dict[str, float], verdict: str) -> None:
    judged = judge(table3_cifar10=depths(leads))
    assert find(judged, GROWS).verdict == verdict


def test_leads_are_told(judge: Judge) -> None:
    claim = find(judge(table3_cifar10=depths({"110": 0.25, "164": 0.25, "1001": 2.5})), GROWS)
    assert claim.evidence == (
        "lead +0.25 at 110 and +0.25 at 164 layers, a tie; lead +0.25 at 164 and +2.50 at 1001 "
        "layers; 1 seed each"
    )


def test_lead_every_depth_and_the_direction_of_each(judge: Judge) -> None:
    judged = judge(
        table3_cifar10=depths({"110-one_layer": 1.0, "110": 0.25, "164": 0.5, "1001": 2.5})
    )
    better = "Full pre-activation is better than the original at every depth, CIFAR-10"
    assert judged[better].verdict == "holds"
    worse = (
        "From 164 to 1001 layers the original gets worse and full pre-activation better, CIFAR-10"
    )
    assert judged[worse].verdict == "does not hold"  # the original stays at 7 %


# --- headlines -----------------------------------------------------------------------------------


def test_headlines_have_numbers_published_and_ours(judge: Judge) -> None:
    judged = judge(table1=TABLE1 | {"scaling-0-1": [None]})
    headlines = [claim for claim in judged.values() if claim.headline]
    assert [claim.source for claim in headlines] == ["table1", "table1", "table3"]
    best, scaled, by_depth = headlines
    assert best.published == "the identity: 6.61 %; the best of the others: 6.91 %"
    assert best.ours == "the identity: 1.00 %; the best of the others: 1.50 %"
    assert (best.dataset, best.seeds) == ("digits", "1 seed each")
    assert scaled.published == (
        "the identity: 6.61 %; shortcut 0: fails; shortcut 0.5: fails; shortcut and F 0.5: 12.35 %"
    )
    assert scaled.ours == (
        "the identity: 1.00 %; shortcut 0: diverges; shortcut 0.5: fails (91.00 %); "
        "shortcut and F 0.5: 3.00 %"
    )
    assert by_depth.published.endswith("; pre-activation 164: 5.46 %; pre-activation 1001: 4.92 %")
    assert (by_depth.ours, by_depth.dataset, by_depth.seeds) == ("", "", "")
