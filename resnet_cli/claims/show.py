"""Print a comparison: a table for each measured source and data set, and the claims."""

from collections.abc import Sequence

from resnet_cli.claims.compare import Comparison, Row
from resnet_cli.claims.evidence import finite
from resnet_cli.claims.verdict import VERDICTS, Judgement, counts
from resnet_cli.claims.words import CAVEATS, COUNTED, evidence, legend, seeds, unpaired_note
from resnet_cli.datasets.catalogue import title_of
from resnet_cli.runtime.display import Display

COLUMNS = ("case", "paper", "ours", "network", "seeds", "95 % interval", "difference", "status")


def show(comparison: Comparison, display: Display) -> None:
    """Print the rows, then the claims."""
    paper, profile = comparison.paper, comparison.profile
    tables: dict[str, dict[str, list[Row]]] = {}
    for row in comparison.rows:
        tables.setdefault(row.source, {}).setdefault(row.paper_data, []).append(row)
    missing, shown = [], []
    for source, of_source in tables.items():
        found = [name for name, rows in of_source.items() if any(row.measured for row in rows)]
        if not found:
            missing.append(source)
        for name, of_data in of_source.items():
            whole = f"{source} of {title_of(name)}" if len(of_source) > 1 else source
            if name in found:
                _show_source(f"{paper} {whole}", profile, of_data, display)
                shown += of_data
            elif found:
                missing.append(whole)
    if shown:
        display.paragraph(_note(shown), level=-1)
    if missing:
        display.paragraph(f"nothing measured at profile {profile}: {', '.join(missing)}", level=-1)
    display.line("", level=-1)
    _show_claims(comparison, display)
    if comparison.others:
        display.paragraph(f"other results: --profile {' | '.join(comparison.others)}", level=-1)


def _note(rows: Sequence[Row]) -> str:
    """An explanation of the columns of these rows."""
    parts = ["ours: median over seeds"]
    if any(row.measured is not None and row.measured.interval for row in rows):
        parts.append("95 % interval: Student's t, of the mean, clipped to 0 to 100")
    if any(row.measured is not None and not row.is_comparable for row in rows):
        parts.append("no difference where our network or data are not the paper's")
    return "; ".join(parts)


def _show_claims(comparison: Comparison, display: Display) -> None:
    """Print the claims and the number of claims for each verdict. Checks come last and are not
    counted."""
    paper, profile = comparison.paper, comparison.profile
    judgements = comparison.judgements
    claims = [judgement for judgement in judgements if not judgement.claim.is_check]
    checks = [judgement for judgement in judgements if judgement.claim.is_check]
    if profile in CAVEATS:
        display.paragraph(f"profile {profile}: {CAVEATS[profile]}", level=-1)
    display.paragraph(f"verdicts: {legend()}", level=-1)
    if any(part.unpaired for judgement in claims for part in judgement.parts):
        display.paragraph(unpaired_note(), level=-1)
    for judgement in (*claims, *checks):
        claim, verdict = judgement.claim, judgement.verdict
        shown = f"CHECK, {verdict}" if claim.is_check else verdict.upper()
        display.paragraph(f"{shown}  {claim.source}: {claim.text}", level=-1)
        _show_evidence(judgement, display)
    found = counts(judgements)
    listed = ", ".join(f"{found[verdict]} {COUNTED[verdict]}" for verdict in VERDICTS)
    suffix = f"; checks, not counted: {len(checks)}" if checks else ""
    display.paragraph(
        f"{paper}, profile {profile}, {len(claims)} claims: {listed}{suffix}", level=-1
    )


def _show_evidence(judgement: Judgement, display: Display) -> None:
    lines = evidence(judgement)
    if lines and judgement.seeds is not None and not judgement.claim.is_check:
        lines[-1] += f" [{seeds(judgement)}]"
    for line in [*lines, *judgement.commands]:
        display.paragraph(line, indent=4, level=-1)


def _show_source(name: str, profile: str, rows: Sequence[Row], display: Display) -> None:
    """Print the table of one source, without columns that would be empty."""
    found = [row.measured for row in rows if row.measured is not None]
    datasets = list(dict.fromkeys(measured.dataset for measured in found))
    left_out = set()
    if all(measured.interval is None for measured in found):
        left_out.add("95 % interval")
    if all(measured.model is None for measured in found):
        left_out.add("network")
    if all(row.difference is None for row in rows):
        left_out.add("difference")
    kept = [index for index, column in enumerate(COLUMNS) if column not in left_out]
    title = f"{name}: test error in percent, profile {profile}, {', '.join(datasets)}"
    cells = [_shown(row) for row in rows]
    display.table(title, [COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in cells])


def _shown(row: Row) -> list[object]:
    """The cells of a row."""
    publication, found = row.publication or None, row.measured
    if found is None:
        return [row.title, publication, None, None, None, None, None, row.status]
    interval = found.interval
    return [
        row.title,
        publication,
        finite(found.median),
        found.network,
        found.num_seeds,
        f"{interval[0]:.1f} to {interval[1]:.1f}" if interval is not None else None,
        f"{row.difference:+.2f}" if row.difference is not None else None,
        row.status,
    ]
