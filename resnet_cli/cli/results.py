"""Commands on results: compare, report, plot."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from resnet_cli.cli.app import command
from resnet_cli.cli.options import OutputOptions, Paper, ShownResultsOption, starting_with
from resnet_cli.config.schema import PROFILES
from resnet_cli.results.layout import REPORT_FILE, RESULTS, results_to_show

if TYPE_CHECKING:
    from resnet_cli.runtime.display import Display


def results_to_compare(display: "Display", given: Path | None, papers: Iterable[str]) -> Path:
    """The given folder, or else the one that has results of the papers; prints that one's path."""
    folder = given or results_to_show(papers)
    if given is None and folder != RESULTS:
        display.line(f"no results of {' or '.join(papers)} in results/; using those in {folder}")
    return folder


@command(
    "compare",
    "compare he2016 --profile mini",
    "compare veit2016 --json",
)
def compare(
    options: OutputOptions,
    paper: Annotated[Paper, typer.Argument(help="The paper.")],
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="PROFILE",
            help="smoke, mini, cpu or paper, or another folder of results/<paper>/, such as "
            "resnet20.  [default: the first of paper, cpu, mini, smoke that has results]",
            autocompletion=starting_with(lambda: PROFILES),
        ),
    ] = None,
    results: ShownResultsOption = None,
) -> None:
    """Compare measured with published results. Tables row by row, claims with verdicts."""
    from resnet_cli.claims.compare import compare as compare_paper
    from resnet_cli.claims.show import show as show_comparison

    display = options.display()
    folder = results_to_compare(display, results, (paper,))
    comparison = compare_paper(paper, profile, folder)
    show_comparison(comparison, display)
    display.summary({"command": "compare"} | comparison.to_dict())


@command(
    "report",
    "report",
    "report --results results --out page.html",
)
def report(
    options: OutputOptions,
    results: ShownResultsOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="[default: results/report.html]"),
    ] = None,
) -> None:
    """Write all results as one HTML page. They are shown next to the published results."""
    from resnet_cli.report.page import write_report

    display = options.display()
    folder = results_to_compare(display, results, get_args(Paper))
    page = write_report(folder, out or (results or RESULTS) / REPORT_FILE)
    display.line(f"wrote {page}", level=-1)
    display.summary({"command": "report", "files": [str(page)]})


@command(
    "plot",
    "plot results/veit2016/mini/fig5a/main-seed0/lesion_delete.csv",
    "plot results/veit2016/mini/fig6 --format svg --out figures",
)
def plot(
    options: OutputOptions,
    table: Annotated[
        Path,
        typer.Argument(metavar="TABLE", help="A CSV with its provenance, or a folder."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="[default: next to the table]")
    ] = None,
    kind: Annotated[Literal["png", "svg"], typer.Option("--format", help="Image format.")] = "png",
) -> None:
    """Redraw the figures of a table. Nothing is trained or measured."""
    from resnet_cli.report.redraw import plot as plot_table

    display = options.display()
    files = plot_table(table, out, kind)
    for path in files:
        display.line(f"wrote {path}", level=-1)
    display.summary({"command": "plot", "files": [str(path) for path in files]})
