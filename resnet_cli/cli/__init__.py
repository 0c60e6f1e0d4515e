"""The command line: parse, call, print.

Heavy modules are imported inside the commands that use them, so that `--help` answers at once.
Commands stand in the order in which `--help` lists them.
"""

from resnet_cli.cli import experiments, results, studies, tools  # noqa: F401  (each adds its commands)
from resnet_cli.cli.app import app
from resnet_cli.cli.entry import main, run_command

__all__ = ["app", "main", "run_command"]
