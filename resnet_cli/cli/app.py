"""The application, how commands are added to it, and what happens before each command."""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer

from resnet_cli import __version__
from resnet_cli.runtime import processes
from resnet_cli.runtime.allocator import keep_freed_memory

C = TypeVar("C", bound=Callable[..., None])
T = TypeVar("T")


def _examples(*commands: str) -> str:
    """The end of a help page: complete commands to copy, one per line."""
    return "\n".join(("\b", "Examples:", *(f"  resnet-cli {command}" for command in commands)))


app = typer.Typer(
    name="resnet-cli",
    help="Reproduce two papers on residual networks: identity mappings (He et al. 2016), and "
    "lesions and paths (Veit et al. 2016).",
    epilog=_examples("train", "lesion --blocks 1", "paths --exact", "COMMAND --help"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def command(name: str, *examples: str) -> Callable[[C], C]:
    """Add a function as a command; its docstring is the help text.

    The type of the function's argument `options` is a dataclass. Its fields become options too,
    after the function's own, and the function receives them as one object.
    """

    def add(function: C) -> C:
        own = dict(inspect.signature(function, eval_str=True).parameters)
        group = own.pop("options").annotation

        @wraps(function)
        def run(**values: Any) -> None:
            function(options=take(group, values), **values)

        add_command(name, run, [*own.values(), *option_parameters(group)], examples)
        return function

    return add


def option_parameters(group: type[Any]) -> list[inspect.Parameter]:
    """The fields of a dataclass as parameters, those of its base classes last."""
    parameters = inspect.signature(group, eval_str=True).parameters
    classes = (base for base in group.__mro__ if is_dataclass(base))
    return [parameters[name] for base in classes for name in inspect.get_annotations(base)]


def take(group: type[T], values: dict[str, Any]) -> T:
    """Remove a dataclass's fields from the values of options, and return them as an object."""
    names = [parameter.name for parameter in option_parameters(group)]
    return group(**{name: values.pop(name) for name in names if name in values})


def add_command(
    name: str,
    run: Callable[..., None],
    parameters: Sequence[inspect.Parameter],
    examples: Sequence[str],
) -> None:
    """Add a function of keyword arguments as a command with these parameters."""
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in keywords}
    app.command(name=name, epilog=_examples(*examples))(run)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"resnet-cli {__version__}")
        raise typer.Exit


DISTRIBUTED = ("train", "run", "reproduce", "eval", "lesion", "paths", "signal")
"""Commands whose work the processes of torchrun share; any other runs in the first process only."""


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    keep_freed_memory()
    if context.invoked_subcommand in DISTRIBUTED:
        if sys.stderr.isatty() and processes.rank() == 0:
            print("loading PyTorch", end="\r", file=sys.stderr, flush=True)
        processes.start()
    elif processes.rank() > 0:
        raise typer.Exit
