"""The tables of README.md and docs/ that are generated from the results.

`python -m resnet_cli.report.findings` (`make findings`) replaces the parts of these files between
`<!-- findings NAME -->` and `<!-- end -->`, using the claims and the tables in `results/`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pandas import DataFrame

from resnet_cli.claims.compare import Comparison, compare, measured_profiles
from resnet_cli.claims.evidence import Evidence, model_of, published_trainings
from resnet_cli.claims.judge import judge
from resnet_cli.claims.papers import PAPERS
from resnet_cli.claims.veit2016_paths import line_of_norms, samples_of
from resnet_cli.claims.verdict import JUDGED, VERDICTS, Claim, Judgement, Part, counts
from resnet_cli.claims.words import decisive, number, seeds, source_title
from resnet_cli.config.schema import PROFILES, ModelConfig
from resnet_cli.datasets.catalogue import title_of
from resnet_cli.models.resnet import make_places
from resnet_cli.report.explorer import spectra_with_lesions
from resnet_cli.report.labels import network_label
from resnet_cli.report.recalibration import recovered
from resnet_cli.results.tables import atomic_write, read_provenance, read_table
from resnet_cli.weights.cards import cards, network_of_card, training_length

FILES = ("README.md", "docs/papers.md", "docs/checkpoints.md")
SHOWN_COUNTS = (1, 5, 10, 20)
"""Numbers of deleted units in the table of re-estimated statistics."""
SHOWN_RECALIBRATION = "cpu/fig3/preact110/lesion_delete_recalibrated.csv"
"""The table in the short table's row on re-estimated statistics."""
MAX_UNITS = 3
"""Number of deletions, the most harmful, of which that row shows two."""
MAX_NUMBERS = 2
"""Number of measured quantities in a cell of the short table."""


def rewritten(text: str, results: Path) -> str:
    """A file's text with its generated parts replaced.

    Raises:
        KeyError: a part has an unknown name.
    """
    found = comparisons(results)
    parts: dict[str, Callable[[], str]] = {
        "short": lambda: short_table(found, results),
        "counts": lambda: counts_table(found),
        "networks": lambda: networks_table(results),
        "recalibration": lambda: recalibration_table(results),
        "controls": lambda: controls_list(results),
        "weights": weights_table,
        "he2016": lambda: claims_table(found["he2016"]),
        "veit2016": lambda: claims_table(found["veit2016"]),
    }

    def replacement(match: re.Match[str]) -> str:
        start, name, end = match.group(1), match.group(2), match.group(4)
        return f"{start}\n{parts[name]()}\n{end}"

    marked = r"(<!-- findings (\w+) -->)\n(.*?)(<!-- end -->)"
    return re.sub(marked, replacement, text, flags=re.DOTALL)


def comparisons(results: Path) -> dict[str, list[Comparison]]:
    """Paper -> its comparison at each profile with results, the closest to the paper's first."""
    return {
        paper: [
            compare(paper, name, results)
            for name in measured_profiles(paper, results)
            if name in PROFILES
        ]
        for paper in PAPERS
    }


def short_table(found: dict[str, list[Comparison]], results: Path) -> str:
    """The claims with a short form, each at the profile that decides it, or else at the first that
    measured it; then one row on re-estimated batch-norm statistics."""
    rows = []
    for of_paper in found.values():
        for judgements in zip(*(comparison.judgements for comparison in of_paper), strict=True):
            rows += [_short_row(_decided(judgements))] if judgements[0].claim.short else []
    rows += _recalibration_row(results / "veit2016" / SHOWN_RECALIBRATION)
    return _table(("claim", "published", "measured", "verdict"), rows)


def _recalibration_row(path: Path) -> list[list[str]]:
    """The row on single deletions with re-estimated statistics: the intact network and, of the most
    harmful deletions, the one that they repair least and the one that they repair most. None if the
    table is missing."""
    if not path.exists():
        return []
    both = _with_recalibrated(path)
    worst = both[both["k"] == 1].nlargest(MAX_UNITS, "test_error")
    repaired = (worst["test_error"] - worst["test_error_again"]).sort_values()
    shown = [worst.loc[repaired.index[end]] for end in (0, -1)]
    intact = "intact: {baseline_error:.2f} → {baseline_error_again:.2f} %"
    without = "without unit {blocks}: {test_error:.2f} → {test_error_again:.2f} %"
    measured = "; ".join((intact.format(**shown[0]), *(without.format(**row) for row in shown)))
    question = "Error after a deletion → after re-estimating batch-norm statistics"
    return [[question, "not in the papers", measured, f"no claim (`{path.parts[-4]}`)"]]


def counts_table(found: dict[str, list[Comparison]]) -> str:
    """The number of claims with each verdict, by paper and profile."""
    rows = [
        [f"{paper}, `{comparison.profile}`", *map(str, counts(comparison.judgements).values())]
        for paper, of_paper in found.items()
        for comparison in of_paper
    ]
    return _table(("claims", *VERDICTS), rows)


def claims_table(of_paper: Sequence[Comparison]) -> str:
    """Every claim of a paper with its verdict at each profile, and the measurement that decides: at
    the first profile unless another is named."""
    rows = []
    for judgements in zip(*(comparison.judgements for comparison in of_paper), strict=True):
        decided = _decided(judgements)
        rests = decisive(decided)
        if rests and decided.seeds is not None and not decided.claim.is_check:
            rests += f" [{seeds(decided)}]"
        if rests and decided.profile != of_paper[0].profile:
            rests = f"`{decided.profile}`: {rests}"
        claim = decided.claim
        text = f"{claim.text} (check)" if claim.is_check else claim.text
        verdicts = [judgement.verdict for judgement in judgements]
        rows.append([source_title(claim.source), text, *verdicts, rests])
    profiles = [f"`{comparison.profile}`" for comparison in of_paper]
    return _table(("source", "claim", *profiles, "measured"), rows)


def networks_table(results: Path) -> str:
    """Each network whose gradient was measured at every path length, by depth: the damage of
    deleting one unit, and the change of a path's gradient with its length. The standard error of
    the sampled total is that over draws of paths."""
    rows = []
    for path, lesion_path in spectra_with_lesions(results / "veit2016"):
        spectrum, lesions, provenance = (
            read_table(path),
            read_table(lesion_path),
            read_provenance(path),
        )
        single = lesions[lesions["k"] == 1]
        line = line_of_norms(spectrum.set_index("k")["mean_norm"])
        if line is None:
            continue
        draws = samples_of(read_table(path.with_name("path_gradients.csv")))
        exact = float(spectrum["exact_norm"].sum())
        spread = spectrum["paths"].astype(float) * spectrum["std_norm"].fillna(0) / draws**0.5
        error = float((spread**2).sum() ** 0.5) / exact
        mean_length = float((spectrum["k"] * spectrum["exact_norm"]).sum()) / exact
        name = network_label(path.relative_to(results / "veit2016").parts[0], provenance)
        if path.parent.name != "fig6":  # one of several trainings
            name += f", seed {provenance['seeds'][0]}"
        rows.append(
            (
                name,
                len(spectrum) - 1,
                f"{single['baseline_error'].iloc[0]:.2f}",
                f"{(single['test_error'] - single['baseline_error']).median():+.2f}",
                f"{10**line.slope:.2f}",
                f"{line.rvalue**2:.2f}",
                f"{mean_length:.1f}",
                draws,
                f"{_rounded(spectrum['total'].sum() / exact, 2)} ± {_rounded(error, 1)}",
            )
        )
    header = (
        "network",
        "units",
        "error (%)",
        "median rise, one unit deleted (points)",
        "gradient of a path, per unit",
        "R² of the line",
        "mean path length, weighted by the exact gradient",
        "paths drawn for each length",
        "sampled total / exact total",
    )
    rows.sort(key=lambda row: (row[1], row[0]))
    return _table(header, [[str(cell) for cell in row] for row in rows])


def _rounded(value: float, digits: int) -> str:
    """A number with so many significant digits, without an exponent: `220`, `0.3`."""
    return f"{float(f'{value:.{digits}g}'):g}"


def recalibration_table(results: Path) -> str:
    """Errors after deletions with batch-norm statistics as trained and re-estimated, for the
    deletion that does most damage as trained, and for the one that does most after
    re-estimation. Random sets without the first unit of a stage are shown on their own."""
    rows = []
    for path in sorted(results.glob("veit2016/**/lesion_delete_recalibrated.csv")):
        both = _with_recalibrated(path)
        profile = path.relative_to(results / "veit2016").parts[0]
        provenance = read_provenance(path)
        name = network_label(profile, provenance, path.parent.name)
        for units, of_k in _by_count(both, model_of(provenance["config"], "")):
            columns = ("test_error", "test_error_again")
            worst = [of_k.sort_values(column).iloc[-1] for column in columns]
            pairs = (
                (of_k["baseline_error"].iloc[0], of_k["baseline_error_again"].iloc[0]),
                (of_k["test_error"].median(), of_k["test_error_again"].median()),
                *((row[columns[0]], row[columns[1]]) for row in worst),
            )
            images = f"{of_k['images'].iloc[0]:,}"
            rows.append([name, units, images, *(f"{old:.2f} → {new:.2f}" for old, new in pairs)])
    header = (
        "network",
        "units deleted",
        "test images",
        "intact (%)",
        "median (%)",
        "worst as trained (%)",
        "worst re-estimated (%)",
    )
    return _table(header, rows)


def _by_count(both: DataFrame, model: ModelConfig | None) -> Iterator[tuple[str, DataFrame]]:
    """The rows of each number of deleted units, and for several units those without the first unit
    of a stage, with a description. A network of another program has no `model`."""
    firsts = {place.index for place in make_places(model) if place.number == 1} if model else set()
    for k in SHOWN_COUNTS:
        rows = both[both["k"] == k]
        if rows.empty:
            continue
        if k == 1:
            yield "1", rows
            continue
        yield f"{k} at random, {len(rows)} draws", rows
        deleted = rows["blocks"].str.split().map(lambda units: {int(unit) for unit in units})
        inner = rows[deleted.map(firsts.isdisjoint)]
        if 0 < len(inner) < len(rows):
            yield f"of these, the {len(inner)} draws without the first unit of a stage", inner


def controls_list(results: Path) -> str:
    """The sentences on tables of `veit2016/recalibration`, of all profiles."""
    folders = sorted(path for path in (results / "veit2016").iterdir() if path.is_dir())
    return "\n".join(f"- {sentence}" for folder in folders for sentence in recovered(folder))


def _with_recalibrated(path: Path) -> DataFrame:
    """The rows of lesion_delete.csv joined with those of lesion_delete_recalibrated.csv, whose
    columns of the same name end with `_again`."""
    keys = ["k", "sample", "blocks", "seed"]
    own = read_table(path.with_name("lesion_delete.csv"))
    return own.merge(read_table(path), on=keys, suffixes=("", "_again"))


def weights_table() -> str:
    """The bundled weights."""
    rows = [
        [
            f"`{card['name']}`",
            network_of_card(card),
            title_of(card["dataset"]),
            training_length(card),
            f"{card['test_error']:.2f}",
        ]
        for card in cards()
    ]
    return _table(("name", "network", "data", "training", "test error (%)"), rows)


def _short_row(judgement: Judgement) -> list[str]:
    claim, part = judgement.claim, judgement.deciding
    return [
        f"“{claim.text}” ({source_title(claim.source)})",
        _published(claim, judgement.parts.index(part) if part is not None else 0),
        _brief(part),
        f"{judgement.verdict} (`{judgement.profile}`)",
    ]


def _published(claim: Claim, part: int) -> str:
    """The paper's numbers: as the claim states them, or else those of one of its comparisons.

    Args:
        part: the position of the comparison.
    """
    if claim.published:
        return claim.published
    as_measured = Evidence(claim.paper, "paper", Path(), published_trainings(claim.paper))
    parts = judge(claim, as_measured).parts
    return _brief(parts[part] if part < len(parts) else None)


def _brief(part: Part | None) -> str:
    """The first measured quantities of a comparison, and its limit."""
    if part is None:
        return ""
    limit = (part.limit,) if part.limit is not None else ()
    shown = (*part.measured, *limit)[:MAX_NUMBERS]
    return "; ".join(f"{quantity.name}: {number(quantity)}" for quantity in shown)


def _decided(judgements: Sequence[Judgement]) -> Judgement:
    """The first judgement that decides, or else the first with a measurement, or else the first."""
    decided = (judgement for judgement in judgements if judgement.verdict in JUDGED)
    measured = (judgement for judgement in judgements if judgement.verdict != "not measured")
    return next(decided, next(measured, judgements[0]))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Replace the generated parts of FILES in the working folder."""
    for name in FILES:
        path = Path(name)
        atomic_write(path, rewritten(path.read_text(encoding="utf-8"), Path("results")))


if __name__ == "__main__":
    main()
