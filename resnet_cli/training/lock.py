"""The lock of a run's folder: one process at a time.

The lock is the operating system's, so it is released when its process ends: after a crash there is
nothing to clean up. A file next to it names the owner, for the message of a waiting process.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from resnet_cli.results.layout import LOCK_FILE, OWNER_FILE
from resnet_cli.results.provenance import typed_command
from resnet_cli.results.tables import as_user_error, atomic_write, remove_temporaries
from resnet_cli.runtime import processes
from resnet_cli.runtime.interrupt import Interrupted

POLL_SECONDS = 0.2


@contextmanager
def locked(
    folder: Path, should_stop: Callable[[], bool], note: Callable[[str], None]
) -> Iterator[None]:
    """Lock a run's folder (created if missing); wait while another process holds the lock.
    Temporary files of killed processes are removed.

    Under torchrun, the first process holds the lock for all.

    Args:
        should_stop: called while waiting.
        note: receives a message that names the process holding the lock.

    Raises:
        Interrupted: `should_stop` returned True while waiting.
        UserError: the folder cannot be written.
    """
    held: list[FileLock] = []
    processes.from_first(lambda: held.append(_acquire(folder, should_stop, note)))
    try:
        yield
    finally:
        for lock in held:
            (folder / OWNER_FILE).unlink(missing_ok=True)
            lock.release()


def _acquire(
    folder: Path, should_stop: Callable[[], bool], note: Callable[[str], None]
) -> FileLock:
    is_reported = False
    with as_user_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        while True:
            with suppress(Timeout):
                lock.acquire(timeout=0)
                break
            if not is_reported:
                note(f"{folder} is in use by {_owner(folder)}; waiting for it")
                is_reported = True
            if should_stop():
                raise Interrupted(f"stopped while {folder} was in use by {_owner(folder)}")
            time.sleep(POLL_SECONDS)
    remove_temporaries(folder)
    who = {"pid": os.getpid(), "host": socket.gethostname(), "command": typed_command(sys.argv)}
    try:
        atomic_write(folder / OWNER_FILE, json.dumps(who) + "\n")
    except BaseException:
        lock.release()
        raise
    return lock


def _owner(folder: Path) -> str:
    try:
        who = json.loads((folder / OWNER_FILE).read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']} ({who['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
