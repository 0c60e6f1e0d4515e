"""Commands on results: compare, report."""

from pathlib import Path
from typing import Annotated

import typer

from resnet_cli.cli.app import app, examples
from resnet_cli.cli.options import (
    ComparedProfileOption,
    JsonOption,
    Paper,
    QuietOption,
    ResultsOption,
)
from resnet_cli.cli.shared import make_display


@app.command(
    epilog=examples(
        "compare he2016 --profile mini",
        "compare veit2016 --json",
    )
)
def compare(
    paper: Annotated[Paper, typer.Argument(help="Which paper.")],
    profile: ComparedProfileOption = None,
    results: ResultsOption = Path("results"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Set measured beside published. Tables row by row, claims with verdicts."""
    from resnet_cli.claims.compare import compare as compare_paper
    from resnet_cli.claims.compare import show as show_comparison

    display = make_display(as_json, quiet)
    comparison = compare_paper(paper, profile, results)
    show_comparison(comparison, display)
    display.summary({"command": "compare"} | comparison.to_dict())


@app.command(
    epilog=examples(
        "report",
        "report --results results --out page.html",
    )
)
def report(
    results: ResultsOption = Path("results"),
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="[default: report.html in that folder]"),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write all results as one HTML page. Each table and figure beside the published."""
    from resnet_cli.report.page import write_report

    display = make_display(as_json, quiet)
    page = write_report(results, out or results / "report.html")
    display.line(f"wrote {page}", level=-1)
    display.summary({"command": "report", "files": [str(page)]})
