"""Run by torchrun in a benchmark: `python -m resnet_cli.bench.torchrun_steps DEPTH STEPS`.

The first process prints the duration of the training steps in the slowest process, in seconds.
"""

import sys

from resnet_cli.bench.items import steps_in_groups
from resnet_cli.bench.measure import timed
from resnet_cli.bench.subjects import Settings
from resnet_cli.runtime import processes
from resnet_cli.runtime.allocator import keep_freed_memory


def main(depth: int, steps: int) -> None:
    """Train a network of this depth for one step to warm up, then time `steps` more steps."""
    keep_freed_memory()
    processes.start()
    work = steps_in_groups(Settings(), depth, steps)
    processes.gather_lists([None])  # a barrier, so that all processes begin together
    seconds = processes.gather_lists([timed(work)])
    if processes.rank() == 0:
        print(max(seconds))
    processes.finish(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
