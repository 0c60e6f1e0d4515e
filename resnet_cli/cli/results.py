"""Commands on results: compare, report."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from resnet_cli.cli.app import app, examples
from resnet_cli.cli.options import (
    ComparedProfileOption,
    JsonOption,
    Paper,
    QuietOption,
    ShownResultsOption,
)
from resnet_cli.cli.shared import make_display
from resnet_cli.results.layout import REPORT_FILE, RESULTS, results_to_show

if TYPE_CHECKING:
    from resnet_cli.runtime.display import Display


def results_to_compare(display: "Display", given: Path | None, papers: Iterable[str]) -> Path:
    """The folder given, or the one that holds results of the papers, which is then named."""
    folder = given or results_to_show(papers)
    if given is None and folder != RESULTS:
        display.line(f"nothing of {' or '.join(papers)} in results/: those of {folder}")
    return folder


@app.command(
    epilog=examples(
        "compare he2016 --profile mini",
        "compare veit2016 --json",
    )
)
def compare(
    paper: Annotated[Paper, typer.Argument(help="Which paper.")],
    profile: ComparedProfileOption = None,
    results: ShownResultsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Set measured beside published. Tables row by row, claims with verdicts."""
    from resnet_cli.claims.compare import compare as compare_paper
    from resnet_cli.claims.show import show as show_comparison

    display = make_display(as_json, quiet)
    folder = results_to_compare(display, results, (paper,))
    comparison = compare_paper(paper, profile, folder)
    show_comparison(comparison, display)
    display.summary({"command": "compare"} | comparison.to_dict())


@app.command(
    epilog=examples(
        "report",
        "report --results results --out page.html",
    )
)
def report(
    results: ShownResultsOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="[default: results/report.html]"),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write all results as one HTML page. Each table and figure beside the published."""
    from resnet_cli.report.page import write_report

    display = make_display(as_json, quiet)
    folder = results_to_compare(display, results, get_args(Paper))
    page = write_report(folder, out or (results or RESULTS) / REPORT_FILE)
    display.line(f"wrote {page}", level=-1)
    display.summary({"command": "report", "files": [str(page)]})


@app.command(
    epilog=examples(
        "plot results/veit2016/mini/fig5a/lesion_delete.csv",
        "plot results/veit2016/mini/fig6 --format svg --out figures",
    )
)
def plot(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="A CSV with its provenance, or their folder.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="[default: next to the table]")
    ] = None,
    kind: Annotated[
        Literal["png", "svg"], typer.Option("--format", help="Pixels, or lines and text.")
    ] = "png",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw the figures of a table again. Nothing is trained or measured."""
    from resnet_cli.report.redraw import plot as plot_table

    display = make_display(as_json, quiet)
    files = plot_table(table, out, kind)
    for path in files:
        display.line(f"wrote {path}", level=-1)
    display.summary({"command": "plot", "files": [str(path) for path in files]})
