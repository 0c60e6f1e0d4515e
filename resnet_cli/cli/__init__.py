"""The command line: parse, call, print.

Heavy modules are imported inside the commands that use them, so that `--help` answers quickly.
`--help` lists the commands in the order of these modules.
"""

from importlib import import_module

from resnet_cli.cli.app import app
from resnet_cli.cli.entry import main, run_command

__all__ = ["app", "main", "run_command"]

for _module in ("train", "run", "results", "examine", "studies", "inspect"):
    import_module(f"resnet_cli.cli.{_module}")  # adds its commands
