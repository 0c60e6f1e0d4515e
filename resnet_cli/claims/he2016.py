"""The claims of paper 1 (He et al. 2016, arXiv:1603.05027), judged by what was measured.

Each claim is a comparison of medians over seeds, too close to call by the rule of
`resnet_cli.claims.judge`. A claim about several rows holds when it holds for each, does not hold
when one of them contradicts it, and is else too close. Where a row is missing the claim is not
measured, unless the rows that are there already refute it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

from resnet_cli.claims.compare import (
    Measured,
    Measurements,
    read_measurements,
)
from resnet_cli.claims.judge import (
    Claim,
    Verdict,
    above,
    all_of,
    at_most,
    margin,
    spread_at,
)
from resnet_cli.claims.papers import case_title, published
from resnet_cli.config.experiments import experiment_names, experiment_profiles, load_experiment
from resnet_cli.config.fields import FAILS_ABOVE
from resnet_cli.datasets import catalogue

PAPER = "he2016"
SAME_WITHIN = 0.2
"""Points. "About the same" means no further apart than this: twice what the paper itself passes
over (0.10, ReLU-only pre-activation at 110 layers), and less than the smallest difference that it
counts (0.21, ReLU before addition at 164)."""

CAVEATS: dict[str, str] = {
    "smoke": "profile smoke: networks of 5 to 20 layers after one epoch on 256 digits; it shows "
    "that the code runs and says nothing about the claim",
    "mini": "profile mini: the paper's depth, but 16x16 digits and 15 epochs (Table 1: 30) instead "
    "of CIFAR; one of the 360 test images is 0.28 points",
    "cpu": "profile cpu: a third of the paper's units and 2 epochs (CIFAR-100: half and "
    "10) instead of 164, so a failure is an error above 60 %, not 20",
}
"""What a short profile cannot show."""

ORIGINAL = "original"
SCALINGS = ("scaling-0-1", "scaling-0.5-1", "scaling-0.5-0.5")
EXCLUSIVE_FAILING = tuple(f"exclusive-gating-bias{-bias}" for bias in range(6))
"""One row of the paper, "0 to -5"."""
EXCLUSIVE = (*EXCLUSIVE_FAILING, "exclusive-gating-bias-6", "exclusive-gating-bias-7")
SHORTCUT_ONLY = ("shortcut-gating-bias0", "shortcut-gating-bias-6")
SHORTCUTS = (*SCALINGS, *EXCLUSIVE, *SHORTCUT_ONLY, "convolution", "dropout")
SCALING_NAMES = (
    ("the identity", ORIGINAL),
    ("shortcut 0", SCALINGS[0]),
    ("shortcut 0.5", SCALINGS[1]),
    ("shortcut and F 0.5", SCALINGS[2]),
)
FAILING = ("scaling-0-1", "scaling-0.5-1", *EXCLUSIVE_FAILING, "dropout")
PLACEMENTS = (
    "original",
    "bn_after_addition",
    "relu_before_addition",
    "relu_only_preactivation",
)
"""All of Table 2 but the full pre-activation."""


def claims(folder: Path, profile: str) -> list[Claim]:
    """All claims, in the paper's order.

    Args:
        folder: `results/he2016/<profile>`.

    Raises:
        UserError: a table there cannot be read.
    """
    judge = _Judge(read_measurements(folder), profile)
    return [
        *_shortcuts(judge),
        *_placements(judge),
        *_depths(judge),
        *_state_of_the_art(judge),
        *_imagenet(judge),
    ]


def _shortcuts(judge: "_Judge") -> Iterator[Claim]:
    """Table 1: the identity against all else."""
    table = "table1"
    best = judge.lowest(
        "The identity is the best of all shortcuts", table, ORIGINAL, [(table, SHORTCUTS)]
    )
    yield judge.headline(
        best, [("the identity", ORIGINAL)], others=("the best of the others", SHORTCUTS)
    )
    for what, cases in (
        ("A shortcut scaled by a constant, 0 (a plain network) or 0.5,", SCALINGS),
        ("Exclusive gating, at any initial bias,", EXCLUSIVE),
        ("Shortcut-only gating, at any initial bias,", SHORTCUT_ONLY),
        ("A 1x1 convolution on the shortcut", ("convolution",)),
        ("Dropout on the shortcut", ("dropout",)),
    ):
        claim = judge.all(
            f"{what} is worse than the identity, or fails",
            table,
            [judge.above(table, case, ORIGINAL) for case in cases],
        )
        if cases == SCALINGS:
            claim = judge.headline(claim, SCALING_NAMES)
        yield claim
    yield judge.all(
        "Shortcuts of 0 and of 0.5 beside an unscaled F, exclusive gating with open gates, and "
        "dropout fail, and the identity does not",
        table,
        [
            judge.mark(table, (*FAILING, ORIGINAL)),
            *(judge.fails(table, case) for case in FAILING),
            judge.succeeds(table, ORIGINAL),
        ],
    )
    yield judge.all(
        "Exclusive gating recovers as the shortcut nears the identity: bias -6 is better than 0",
        table,
        [judge.above(table, EXCLUSIVE[0], "exclusive-gating-bias-6")],
    )
    yield judge.all(
        "Shortcut-only gating recovers as the shortcut nears the identity: bias -6 is better than "
        "0",
        table,
        [judge.above(table, SHORTCUT_ONLY[0], SHORTCUT_ONLY[1])],
    )


def _placements(judge: "_Judge") -> Iterator[Claim]:
    """Table 2: where BN and ReLU stand."""
    table = "table2"
    depths = (110, 164)
    for what, case in (
        ("BN after the addition", "bn_after_addition"),
        ("ReLU before the addition", "relu_before_addition"),
    ):
        yield judge.all(
            f"{what} is worse than the original unit, at 110 and 164 layers",
            table,
            [judge.above(table, f"{case}-{depth}", f"original-{depth}") for depth in depths],
        )
    yield judge.all(
        "ReLU-only pre-activation is about as good as the original unit (within "
        f"{SAME_WITHIN} points), at 110 and 164 layers",
        table,
        [
            judge.about(table, f"relu_only_preactivation-{depth}", f"original-{depth}")
            for depth in depths
        ],
    )
    for depth in depths:
        yield judge.lowest(
            f"Full pre-activation is the best of the five placements at {depth} layers",
            table,
            f"full_preactivation-{depth}",
            [(table, [f"{case}-{depth}" for case in PLACEMENTS])],
        )


def _depths(judge: "_Judge") -> Iterator[Claim]:
    """Table 3: original against full pre-activation by depth."""
    table = "table3"
    for title, suffix, depths in (
        ("CIFAR-10", "cifar10", ("110-one_layer", "110", "164", "1001")),
        ("CIFAR-100", "cifar100", ("164", "1001")),
    ):
        yield judge.all(
            f"Full pre-activation is better than the original at every depth, {title}",
            table,
            [
                judge.above(table, f"original-{depth}-{suffix}", f"preact-{depth}-{suffix}")
                for depth in depths
            ],
        )
        rising = [depth for depth in depths if depth != "110-one_layer"]
        yield judge.all(
            f"The lead of full pre-activation grows with depth, {' to '.join(rising)} layers, "
            f"{title}",
            table,
            [judge.lead_grows(table, low, high, suffix) for low, high in pairwise(rising)],
        )
        claim = judge.all(
            "From 164 to 1001 layers the original gets worse and full pre-activation better, "
            f"{title}",
            table,
            [
                judge.above(table, f"original-1001-{suffix}", f"original-164-{suffix}"),
                judge.above(table, f"preact-164-{suffix}", f"preact-1001-{suffix}"),
            ],
        )
        if suffix == "cifar10":
            kinds = (("original", "original"), ("pre-activation", "preact"))
            cases = [
                (f"{name} {depth}", f"{kind}-{depth}-{suffix}")
                for name, kind in kinds
                for depth in (164, 1001)
            ]
            claim = judge.headline(claim, cases)
        yield claim


def _state_of_the_art(judge: "_Judge") -> Iterator[Claim]:
    """Table 4: the one row that no other table has."""
    yield judge.all(
        "Pre-activation ResNet-1001 is slightly better in batches of 64 than of 128, CIFAR-10",
        "table4",
        [judge.above("table4", "preact-1001-cifar10", "preact-1001-batch64-cifar10")],
    )


def _imagenet(judge: "_Judge") -> Iterator[Claim]:
    """Table 5, and section 4.1 in the text."""
    yield judge.all(
        "BN after the addition is worse than the original ResNet-101, ImageNet",
        "text",
        [judge.above("text", "bn_after_addition-101-224", "original-101-224")],
    )
    table = "table5"
    yield judge.all(
        "Full pre-activation is better than the original at 152 and 200 layers, ImageNet",
        table,
        [
            judge.above(table, f"original-{depth}-320", f"preact-{depth}-320")
            for depth in (152, 200)
        ],
    )
    yield judge.all(
        "From 152 to 200 layers the original gets worse and full pre-activation better, ImageNet",
        table,
        [
            judge.above(table, "original-200-320", "original-152-320"),
            judge.above(table, "preact-152-320", "preact-200-320"),
        ],
    )


# --- judging -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """One comparison that a claim consists of."""

    verdict: Verdict
    text: str
    rows: Sequence[Measured] = ()
    missing: Sequence[tuple[str, str]] = ()
    """(source, case) of the rows that are missing."""


@dataclass(frozen=True)
class _Judge:
    """Judges claims by the medians of one profile."""

    measurements: Measurements
    profile: str

    def all(self, text: str, source: str, parts: Sequence[_Part]) -> Claim:
        """The claim that every part holds."""
        missing = list(dict.fromkeys(row for part in parts for row in part.missing))
        told = [part.text for part in parts if part.text]
        rows = [row for part in parts for row in part.rows]
        if any(row.num_seeds > 1 for row in rows):
            told.append(_seeds(rows))
        if missing and rows:
            told.append("not measured: " + "; ".join(case_title(case) for _, case in missing))
        if missing:
            told.append(self._command(missing))
        return Claim(
            PAPER,
            source,
            text,
            all_of(part.verdict for part in parts),
            "; ".join(told),
            self._caveat(rows),
            dataset=", ".join(sorted({row.dataset for row in rows})),
            seeds=_seeds(rows) if rows else "",
        )

    def headline(
        self,
        claim: Claim,
        cases: Sequence[tuple[str, str]],
        others: tuple[str, Sequence[str]] | None = None,
    ) -> Claim:
        """The claim with the errors of some cases, published and ours: (name, case) of each, and
        of `others`, (name, cases), the lowest."""
        names = [f"{name}: " for name, _ in cases]
        wanted = [case for _, case in cases]
        candidates = others[1] if others is not None else ()
        errors, texts = _published_errors(claim.source)
        theirs = [texts[case] for case in wanted]
        measured = self.measurements.get(claim.source, {})
        mine = [_error(measured[case]) if case in measured else "not measured" for case in wanted]
        if others is not None:
            names.append(f"{others[0]}: ")
            theirs.append(texts[min(candidates, key=errors.__getitem__)])
            found = [measured[case] for case in candidates if case in measured]
            best = min(found, key=lambda row: row.median, default=None)
            mine.append(_error(best) if best is not None else "not measured")
        any_found = any(text != "not measured" for text in mine)
        return replace(
            claim,
            headline=True,
            published="; ".join(map("".join, zip(names, theirs, strict=True))),
            ours="; ".join(map("".join, zip(names, mine, strict=True))) if any_found else "",
        )

    def lowest(
        self, text: str, source: str, best: str, others: Sequence[tuple[str, Sequence[str]]]
    ) -> Claim:
        """The claim that a case's error is below all others'; tells only what decides."""
        parts = [self.above(table, case, best) for table, cases in others for case in cases]
        measured = [part for part in parts if part.verdict != "not measured"]
        if not measured:
            return self.all(text, source, parts)
        verdict = all_of(part.verdict for part in measured)
        told = []
        for word, of in (("below it", "does not hold"), ("not told apart from it", "too close")):
            if found := [part.text for part in measured if part.verdict == of]:
                told.append(f"{word}: {'; '.join(found)}")
        if verdict == "holds":
            nearest = min(measured, key=lambda part: part.rows[0].median)
            told.append(f"the lowest of the {len(measured)} others: {nearest.text}")
        rows = list({id(row): row for part in measured for row in part.rows}.values())
        gaps = [part for part in parts if part.verdict == "not measured"]
        return self.all(text, source, [_Part(verdict, "; ".join(told), rows), *gaps])

    def above(self, source: str, higher: str, lower: str) -> _Part:
        """The error of `higher` is above that of `lower`."""
        rows, missing = self._find(source, higher, lower)
        if missing:
            return _Part("not measured", "", (), missing)
        least = self._margin(*rows)
        verdict = above(rows[0].median - rows[1].median, least)
        return _Part(verdict, _against(rows, least if verdict == "too close" else None), rows)

    def about(self, source: str, case: str, other: str) -> _Part:
        """The two errors differ by SAME_WITHIN points at most."""
        rows, missing = self._find(source, case, other)
        if missing:
            return _Part("not measured", "", (), missing)
        least = self._margin(*rows)
        verdict = at_most(abs(rows[0].median - rows[1].median), SAME_WITHIN, least)
        return _Part(verdict, _against(rows, least if verdict == "too close" else None), rows)

    def fails(self, source: str, case: str, wanted: bool = True) -> _Part:
        """The case fails or diverges, as most of its trainings have it."""
        rows, missing = self._find(source, case)
        if missing:
            return _Part("not measured", "", (), missing)
        (row,) = rows
        least = self._margin(row)
        if row.fails_above is not None and abs(row.median - row.fails_above) < least:
            return _Part("too close", f"{_named(row)} (too close: margin {least:.2f})", rows)
        is_so = (row.status != "ok") == wanted
        return _Part("holds" if is_so else "does not hold", _named(row), rows)

    def succeeds(self, source: str, case: str) -> _Part:
        """The case neither fails nor diverges."""
        return self.fails(source, case, wanted=False)

    def mark(self, source: str, cases: Sequence[str]) -> _Part:
        """Which error is a failure: told, and no comparison."""
        rows, _ = self._find(source, *cases)
        marks = sorted({row.fails_above for row in rows if row.fails_above is not None})
        if not marks:
            return _Part("holds", "")
        told = f"failing is an error above {' or '.join(f'{mark:g}' for mark in marks)} %"
        return _Part("holds", told if marks == [FAILS_ABOVE] else f"{told} here, in the paper 20 %")

    def lead_grows(self, source: str, low: str, high: str, suffix: str) -> _Part:
        """The original's error minus full pre-activation's is larger at depth `high`."""
        cases = [
            f"{kind}-{depth}-{suffix}" for depth in (low, high) for kind in ("original", "preact")
        ]
        rows, missing = self._find(source, *cases)
        if missing:
            return _Part("not measured", "", (), missing)
        first, second = (rows[i].median - rows[i + 1].median for i in (0, 2))
        least = self._margin(*rows)
        verdict = above(second - first, least)
        told = f"lead {_points(first)} at {low} and {_points(second)} at {high} layers"
        if verdict == "too close":
            told += f" (too close: margin {least:.2f})"
        return _Part(verdict, told, rows)

    def _margin(self, *rows: Measured) -> float:
        return margin(*rows, spread=spread_at(self.profile))

    def _find(self, source: str, *cases: str) -> tuple[list[Measured], list[tuple[str, str]]]:
        """The rows of these cases, and those that are missing."""
        table = self.measurements.get(source, {})
        found = [table[case] for case in cases if case in table]
        return found, [(source, case) for case in cases if case not in table]

    def _caveat(self, rows: Sequence[Measured]) -> str:
        """What the profile and the number of seeds leave open; empty when nothing was measured."""
        if not rows:
            return ""
        told = [CAVEATS[self.profile]] if self.profile in CAVEATS else []
        if min(row.num_seeds for row in rows) == 1:
            told.append("one seed tells nothing about the spread between trainings")
        return "; ".join(told)

    def _command(self, missing: Sequence[tuple[str, str]]) -> str:
        """The commands that measure the missing rows, at this profile where it offers them."""
        order = [self.profile, *(p for p in ("mini", "cpu", "paper") if p != self.profile)]
        commands: dict[str, None] = {}
        for source, case in missing:
            for profile in order:
                if (source, case) in _offered(profile):
                    name, data = _offered(profile)[source, case]
                    folder = " --data-dir FOLDER" if not catalogue.dataset(data).is_fixed else ""
                    commands.setdefault(f"resnet-cli run {name} --profile {profile}{folder}")
                    break
        return ", ".join(commands)


@cache
def _offered(profile: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(source, case) -> the experiment that measures this row at a profile, and its data set."""
    offered: dict[tuple[str, str], tuple[str, str]] = {}
    for name in experiment_names():
        if name.startswith(f"{PAPER}/") and profile in experiment_profiles(name):
            experiment = load_experiment(name, profile)
            for case in experiment.cases:
                measures = name, experiment.data.dataset
                offered.setdefault((str(experiment.figure), case.name), measures)
    return offered


@cache
def _published_errors(source: str) -> tuple[dict[str, float], dict[str, str]]:
    """By case of a table: the published error, infinite where it fails, and in words."""
    table = published(PAPER)
    errors, texts = {}, {}
    for row in table[(table["source"] == source) & (table["metric"] != "top5_error")].itertuples():
        fails = row.status == "fail"
        errors[str(row.case)] = math.inf if fails else float(str(row.value))
        texts[str(row.case)] = "fails" if fails else f"{errors[str(row.case)]:.2f} %"
    return errors, texts


def _error(row: Measured) -> str:
    """`1.39 %`, `fails (86.94 %)`, `diverges`: a measurement without its name."""
    if row.status == "diverged":
        return "diverges"
    return f"fails ({row.median:.2f} %)" if row.status == "fail" else f"{row.median:.2f} %"


def _named(row: Measured) -> str:
    """`dropout 0.5: fails (89.72 %)`."""
    return f"{case_title(row.case)}: {_error(row)}"


def _against(rows: Sequence[Measured], least: float | None) -> str:
    """`dropout 0.5: fails (89.72 %) against original unit: 1.39 % (+88.33)`; with the margin where
    the two are too close."""
    one, other = rows
    told = _points(one.median - other.median)
    if least is not None:
        told += f", too close: margin {least:.2f}"
    return f"{_named(one)} against {_named(other)} ({told})"


def _points(difference: float) -> str:
    """`+0.28`; where a network diverged there is no number."""
    if math.isnan(difference):
        return "a tie"
    return f"{difference:+.2f}" if math.isfinite(difference) else "unbounded"


def _seeds(rows: Sequence[Measured]) -> str:
    """`1 seed each`, `3 to 5 seeds each`."""
    low, high = min(r.num_seeds for r in rows), max(r.num_seeds for r in rows)
    count = f"{low}" if low == high else f"{low} to {high}"
    return f"{count} seed{'s' if high > 1 else ''} each"
