"""Run one command line: its exit code, and errors as one line on stderr."""

import errno
import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import typer

from resnet_cli.cli.app import app
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import RunError, UserError, shortened
from resnet_cli.runtime.text import visible


def run_command(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code: 0, 1, 2 or 130."""
    code = 1
    try:
        code = _outcome(arguments)
    finally:
        processes.finish(code)
    return code


def _outcome(arguments: list[str] | None) -> int:
    if any("\0" in argument for argument in arguments or ()):  # no shell can pass one on
        _say("an argument contains a null byte, which is not valid in a file name")
        return 2
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        code = command(arguments, prog_name="resnet-cli", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Exit as exit_:
        return int(exit_.exit_code)
    except _USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help page
            print(error.format_message(), file=sys.stderr)  # type: ignore[attr-defined]
            return 2
        _say(_usage_message(error))
        return 2
    except UserError as error:
        _say(str(error))
        return 2
    except RunError as error:
        _say(str(error))
        return 1
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:  # no permission, a name that is too long, a failing disk
        if error.filename is None:  # standard output: a full device, a closed terminal
            _say(f"the output cannot be written: {error.strerror or error}; redirect it elsewhere")
            return 2
        _say(f"{shortened(error.filename)}: {error.strerror}")
        return 2 if error.errno == errno.ENAMETOOLONG else 1
    except Exception as error:
        from resnet_cli.runtime.interrupt import Interrupted

        if isinstance(error, Interrupted):
            _say(str(error))
            return 130
        if _is_out_of_memory(error):
            _say("not enough memory; try a smaller batch, a smaller network or fewer images")
            return 1
        raise


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, PyTorch on the CPU or PyTorch on a GPU ran out of memory."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError):
        return True
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


# The base class of errors in options and arguments; its place depends on the version of typer.
_USAGE_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def _usage_message(error: Any) -> str:
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "resnet-cli"
    message = error.format_message().replace("Value error, ", "")
    surplus = re.fullmatch(r"Got unexpected extra argument\S* \((\S+)\)", message.strip())
    if surplus is not None and any("--checkpoint" in p.opts for p in error.ctx.command.params):
        message += f"; to name a network: --checkpoint {surplus[1]}"
    return f"{' '.join(message.split())} (see {path} --help)"


def _say(message: str) -> None:
    """Print one line on stderr; control characters from files and arguments are escaped."""
    if processes.may_print_errors():
        with suppress(OSError):  # stderr cannot be written either: the exit code remains
            print(f"resnet-cli: {visible(message)}", file=sys.stderr, flush=True)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):  # replace characters that the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    code = run_command()
    try:
        sys.stdout.flush()
    except OSError:  # already reported; Python would try again at exit and print a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
