"""One command line, and its exit code: errors as one line on stderr."""

import errno
import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import typer

from resnet_cli.cli.app import app
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import RunError, UserError, shortened
from resnet_cli.runtime.text import visible


def run_command(arguments: list[str] | None = None) -> int:
    """Carry out one command line and return its exit code: 0, 1, 2 or 130."""
    code = 1
    try:
        code = _outcome(arguments)
    finally:
        processes.finish(code)
    return code


def _outcome(arguments: list[str] | None) -> int:
    if any("\0" in argument for argument in arguments or ()):  # no shell can pass one on
        _say("an argument holds a null byte, which no name of a file can")
        return 2
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        code = command(arguments, prog_name="resnet-cli", standalone_mode=False)
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
    except OSError as error:  # no permission, a name too long, a disk that fails
        if error.filename is None:  # of the output: a full device, a terminal that is gone
            _say(f"the output cannot be written: {error.strerror or error}")
            return 1
        _say(f"{shortened(error.filename)}: {error.strerror}")
        return 2 if error.errno == errno.ENAMETOOLONG else 1
    except Exception as error:
        from resnet_cli.runtime.interrupt import Interrupted

        if isinstance(error, Interrupted):
            _say(str(error))
            return 130
        if _is_out_of_memory(error):
            _say("not enough memory; a smaller batch, network or image, or fewer, may fit")
            return 1
        raise


def _is_out_of_memory(error: Exception) -> bool:
    """Python, PyTorch on the CPU and PyTorch on a GPU each say it in their own way."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError):
        return True
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


# The class of all errors in options and arguments, wherever this version of typer keeps it.
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
    """One line on stderr, whatever a file or an argument put into the message."""
    if processes.may_print_errors():
        print(f"resnet-cli: {visible(message)}", file=sys.stderr, flush=True)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):  # a character that the terminal lacks is no crash
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    code = run_command()
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again at its exit, and print a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    sys.exit(code)
