"""The application that commands are added to, and what happens before each."""

import sys
from typing import Annotated

import typer

from resnet_cli import __version__
from resnet_cli.runtime import processes
from resnet_cli.runtime.allocator import keep_freed_memory


def examples(*commands: str) -> str:
    """The end of a help page: whole commands, one a line, to be copied."""
    return "\n".join(("\b", "Examples:", *(f"  resnet-cli {command}" for command in commands)))


app = typer.Typer(
    name="resnet-cli",
    help="Reproduce two papers on residual networks: identity mappings (He et al. 2016), and "
    "lesions and paths (Veit et al. 2016).",
    epilog=examples("train", "lesion --blocks 1", "paths --exact", "COMMAND --help"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"resnet-cli {__version__}")
        raise typer.Exit


SHARED = ("train", "run", "reproduce", "eval", "lesion", "paths", "signal")
"""The commands whose work several processes share under torchrun; of others, one does all."""


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    keep_freed_memory()
    if context.invoked_subcommand in SHARED:
        if sys.stderr.isatty() and processes.rank() == 0:
            print("loading PyTorch", end="\r", file=sys.stderr, flush=True)
        processes.start()
    elif processes.rank() > 0:
        raise typer.Exit
