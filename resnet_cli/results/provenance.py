"""Provenance: what a result was measured with, so that it can be measured again.

Nothing here names the machine or its user: the command and the checkpoint stand as they were
typed, everything else is versions, hashes and the model of the processor.
"""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from resnet_cli import __version__
from resnet_cli.config.schema import config_hash

PROGRAM = "resnet-cli"
PACKAGES = ("torch", "torchvision", "numpy", "pandas")
OUTPUT_FOLDERS = ("results", "runs")
SOURCE_SUFFIXES = (".py", ".yaml", ".yml", ".toml")


@dataclass(frozen=True)
class Checkpoint:
    """The weights a study measured, or the bundled ones that stood for a table's trainings."""

    source: str
    """Where they came from: a path as typed, names of bundled weights, or a run's folder."""
    sha256: str
    """SHA-256 of the file, 64 hex digits."""


@dataclass(frozen=True)
class Provenance:
    """Everything that determines a result, and the circumstances it was measured in."""

    config: dict[str, Any]
    """The complete resolved configuration, defaults included."""
    config_hash: str
    """SHA-256 of the configuration's canonical JSON, 64 hex digits."""
    profile: str | None
    """smoke, mini, cpu or paper; None for a command typed by hand."""
    command: str
    """The command as typed, quoted for a shell."""
    commit: str | None
    """The commit of the source tree, 40 hex digits; None when installed from a wheel."""
    dirty: bool | None
    """The source tree differed from that commit (`source_state`); None without a commit."""
    versions: dict[str, str]
    platform: dict[str, Any]
    """system, machine, cpu, threads, device, device_name, processes, deterministic."""
    data: dict[str, str]
    """Data set -> its fingerprint."""
    checkpoint: Checkpoint | None
    seeds: tuple[int, ...]
    started: str
    """ISO 8601, UTC, to the second."""
    duration_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, lists and numbers, keys in the order above."""
        content = asdict(self)
        content["seeds"] = list(self.seeds)
        return content


def collect(
    config: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    started: datetime,
    profile: str | None = None,
    data: Mapping[str, str] | None = None,
    checkpoint: Checkpoint | None = None,
    device: str = "cpu",
    command: Sequence[str] | None = None,
    duration_seconds: float | None = None,
) -> Provenance:
    """The provenance of a result that is complete now.

    Args:
        config: the resolved configuration as `model_dump(mode="json")` gives it.
        started: when the measurement began, with a time zone.
        data: the fingerprint of each data set used.
        device: `cpu`, `cuda` or `cuda:n`.
        command: the arguments, program first; by default those of this process.
        duration_seconds: by default the time since `started`; give it when a run was resumed and
            its earlier parts count.

    Raises:
        ValueError: `started` has no time zone.
    """
    if started.tzinfo is None:
        raise ValueError("started needs a time zone; use datetime.now(UTC)")
    if duration_seconds is None:
        duration_seconds = (datetime.now(UTC) - started).total_seconds()
    commit, dirty = source_state()
    return Provenance(
        config=dict(config),
        config_hash=config_hash(config),
        profile=profile,
        command=typed_command(sys.argv if command is None else command),
        commit=commit,
        dirty=dirty,
        versions=versions(),
        platform=describe_platform(device),
        data=dict(data or {}),
        checkpoint=checkpoint,
        seeds=tuple(seeds),
        started=started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        duration_seconds=round(duration_seconds, 3),
    )


def typed_command(arguments: Sequence[str]) -> str:
    """The command line quoted for a shell, without the program's folder.

    `/somewhere/bin/resnet-cli` and `python -m resnet_cli` both become `resnet-cli`; another
    program that called us keeps its name.
    """
    program, *rest = arguments or [""]
    name = program.replace("\\", "/").rsplit("/", 1)[-1]
    if name in ("", "__main__.py", "-m", PROGRAM, f"{PROGRAM}.exe", f"{PROGRAM}-script.py"):
        name = PROGRAM
    return shlex.join([name, *rest])


def source_state(package: Path | None = None) -> tuple[str | None, bool | None]:
    """The commit of the source tree the package sits in, and whether the tree differs from it.

    Dirty means that what ran may not be what the commit holds:
    - a tracked file is changed, added, removed or renamed, staged or not; or
    - there is an untracked file that git does not ignore, inside the package or, elsewhere, with
      the suffix of a source (.py, .yaml, .yml, .toml).
    Nothing under results/ and runs/ counts: there the program itself writes, and a second
    experiment of a session shall not call itself dirty for the first one's tables.

    Args:
        package: the package's folder; by default this one's.

    Returns:
        (commit, dirty), or (None, None) when git is missing, the package is not tracked by the
        repository around it (installed from a wheel), or nothing is committed yet.
    """
    package = Path(__file__).parents[1] if package is None else package
    top = package.parent
    tracked = _git(top, "ls-files", "--error-unmatch", f"{package.name}/__init__.py")
    commit = _git(top, "rev-parse", "--verify", "HEAD")
    if tracked is None or commit is None:
        return None, None
    excluded = [f":(exclude){folder}" for folder in OUTPUT_FOLDERS]
    changed = _git(top, "diff", "--name-only", "HEAD", "--", ".", *excluded)
    untracked = _git(top, "ls-files", "-z", "--others", "--exclude-standard", "--", ".", *excluded)
    if changed is None or untracked is None:
        return None, None
    new_sources = [
        name
        for name in untracked.split("\0")
        if name.startswith(f"{package.name}/") or PurePosixPath(name).suffix in SOURCE_SUFFIXES
    ]
    return commit.strip(), bool(changed.strip() or new_sources)


def versions() -> dict[str, str]:
    """The versions of resnet-cli, Python and the packages that compute."""
    found = {PROGRAM: __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def describe_platform(device: str = "cpu") -> dict[str, Any]:
    """What computed: system, machine, cpu (model), threads, device, device_name, processes, and
    whether only deterministic kernels (`pick_device`)."""
    import torch

    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    on_cuda = device.startswith("cuda") and torch.cuda.is_available()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if on_cuda else cpu_model(),
        "processes": torch.distributed.get_world_size() if distributed else 1,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@cache
def cpu_model() -> str:
    """The processor's model name, or the machine's type where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown"


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command in `folder`; None when git is missing or refuses.

    Variables such as GIT_DIR, which hooks set, would point to another repository: they are left
    out.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
