"""The command line: parse, call, print.

Heavy modules are imported inside the commands that use them, so that `--help` answers at once.
Commands stand in the order in which `--help` lists them.
"""

from importlib import import_module

from resnet_cli.cli.app import app
from resnet_cli.cli.entry import main, run_command

__all__ = ["app", "main", "run_command"]

for _module in ("train", "run", "results", "studies", "examine", "inspect"):
    import_module(f"resnet_cli.cli.{_module}")  # each adds its commands
