"""Provenance: what a result was measured with, so that it can be reproduced.

Nothing here identifies the machine or its user: the command and the checkpoint are recorded as
typed; everything else is versions, hashes and the processor's model name.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from glob import glob
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from resnet_cli import __version__
from resnet_cli.config.editions import to_current_edition
from resnet_cli.config.fields import as_tuple, validated
from resnet_cli.config.schema import (
    Case,
    DataConfig,
    ModelConfig,
    Profile,
    TrainConfig,
    config_hash,
)
from resnet_cli.results.layout import PROVENANCE_SUFFIX, RESULTS, RUNS
from resnet_cli.runtime.errors import UserError, one_line, shortened

PROGRAM = "resnet-cli"
MAX_BYTES = 16 << 20
"""The largest JSON file that is read."""
PACKAGES = ("torch", "torchvision", "numpy", "pandas")
SOURCE_SUFFIXES = (".py", ".yaml", ".yml", ".toml")


class _Record(BaseModel):
    """Part of a provenance file; keys added by later versions are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Checkpoint(_Record):
    """The weights that a study measured, or bundled weights used instead of trainings."""

    source: str
    """A path as typed, the names of bundled weights, or a run's folder."""
    sha256: str
    """SHA-256 of the file, 64 hex digits."""


class Platform(_Record):
    """The machine and the settings that computed a result."""

    system: str
    machine: str
    cpu: str
    threads: int
    device: str
    device_name: str
    processes: int
    deterministic: bool = False
    """Deterministic kernels only (`pick_device`); the first versions did not record this."""


class Trainings(_Record):
    """Finished trainings that a table includes, and what trained them."""

    runs: Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
    """`case, seed N` of each."""
    commit: str | None
    dirty: bool | None
    versions: dict[str, str]
    platform: Platform | None
    """None if the provenance of the training is missing; then the rest is unknown as well."""


class TableFile(_Record):
    """The CSV that a provenance file describes."""

    file: str
    rows: int
    sha256: str


class Provenance(_Record):
    """Everything that determines a result, and how and where it was measured."""

    config: dict[str, Any]
    """The complete resolved configuration, including defaults."""
    config_hash: str
    """SHA-256 of the configuration's canonical JSON, 64 hex digits."""
    profile: Profile | None
    """None for a command that does not run an experiment."""
    command: str
    """The command as typed, quoted for a shell."""
    commit: str | None
    """The commit of the source tree, 40 hex digits; None when installed from a wheel."""
    dirty: bool | None
    """Whether the source tree differed from that commit (`source_state`); None without a commit."""
    versions: dict[str, str]
    platform: Platform
    data: dict[str, str]
    """`data set/split` -> its fingerprint."""
    checkpoint: Checkpoint | None
    seeds: Annotated[tuple[int, ...], BeforeValidator(as_tuple)]
    started: str
    """ISO 8601, UTC, to the second."""
    duration_seconds: float
    trainings: Annotated[tuple[Trainings, ...], BeforeValidator(as_tuple)] = ()
    """Trainings of another commit, other versions or another platform than those above."""
    table: TableFile | None = None

    @classmethod
    def read(cls, path: Path) -> "Provenance":
        """The provenance in a file.

        Raises:
            UserError: the file cannot be read or is not valid, or its configuration was changed.
        """
        content = read_json_object(path)
        if not isinstance(content.get("config"), dict):
            raise UserError(
                f"{path}: not a provenance file, because it has no configuration; give one that "
                "this program wrote"
            )
        if content.get("config_hash") != config_hash(content["config"]):
            raise _altered(path)
        return validated(cls, content, str(path))

    def to_json(self) -> str:
        """The content of the file, with the keys in the order above."""
        optional = ("trainings", "table")
        content = self.model_dump(
            mode="json", exclude={name for name in optional if not getattr(self, name)}
        )
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _altered(path: Path) -> UserError:
    return UserError(
        f"{path}: the configuration does not match its hash, so it was altered; restore the file "
        "or measure the result again"
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: the file cannot be read, or is not a JSON object.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a regular file; give the path of a JSON file")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES:,} bytes, so not a provenance file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UserError:
        raise
    except (ValueError, RecursionError):
        raise UserError(f"{path}: is not valid JSON; measure the result again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a provenance file; measure the result again")
    return content


def recorded_weights(folder: Path) -> set[str]:
    """The hashes of the weights whose results are in a folder or below it."""
    found = set()
    for name in glob(f"**/*{PROVENANCE_SUFFIX}", root_dir=folder, recursive=True):
        with suppress(UserError):  # damaged: its table is measured again
            checkpoint = read_json_object(folder / name).get("checkpoint")
            digest = checkpoint.get("sha256") if isinstance(checkpoint, dict) else None
            if isinstance(digest, str):
                found.add(digest)
    return found


def check_types(path: Path, content: Mapping[str, Any]) -> None:
    """Check the types of the values that are present, and the hash of the configuration. Keys may
    be missing.

    Raises:
        UserError: a type is wrong or the configuration was altered; the message names the file and
            the key.
    """
    present = {key: value for key, value in content.items() if value is not None}
    try:
        Provenance.model_validate(present)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            if found["type"] != "missing":
                where = ".".join(map(str, found["loc"]))
                raise UserError(f"{path}: {shortened(where)}: {one_line(found['msg'])}") from None
    recorded, config = content.get("config_hash"), content.get("config")
    if recorded is not None and config is not None and recorded != config_hash(config):
        raise _altered(path)


class _StoredConfig(BaseModel):
    """The parts of a stored configuration that reports and verdicts read one by one."""

    model: ModelConfig | None = None
    data: DataConfig | None = None
    train: TrainConfig | None = None
    cases: tuple[Case, ...] = ()


def explicit_config(path: Path, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored configuration of a provenance file, converted to the current edition.

    Raises:
        UserError: it is from a newer edition, or its network, data, training or cases are not
            valid.
    """
    try:
        config = to_current_edition(stored)
    except ValueError as error:
        raise UserError(f"{path}: {error}; install a newer resnet-cli") from None
    for case in validated(_StoredConfig, config, f"{path}: config").cases:
        model = (config.get("model") or {}) | case.model
        validated(ModelConfig, model, f"{path}: config: case {case.name}")
    return config


def collect(
    config: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    started: datetime,
    profile: Profile | None = None,
    data: Mapping[str, str] | None = None,
    checkpoint: Checkpoint | None = None,
    device: str = "cpu",
    command: Sequence[str] | None = None,
    duration_seconds: float | None = None,
) -> Provenance:
    """The provenance of a result that was completed just now.

    Args:
        config: the resolved configuration, from `model_dump(mode="json")`.
        started: when the measurement began, with a time zone.
        data: the fingerprint of each split used.
        device: `cpu`, `cuda` or `cuda:n`.
        command: the program and its arguments; by default those of this process.
        duration_seconds: by default the time since `started`; needed if the run was resumed, so
            that all its parts count.

    Raises:
        ValueError: `started` has no time zone.
    """
    if started.tzinfo is None:
        raise ValueError("started has no time zone; use datetime.now(UTC)")
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

    `/some/folder/bin/resnet-cli` and `python -m resnet_cli` both become `resnet-cli`; any other
    program that uses this package keeps its name.
    """
    program, *rest = arguments or [""]
    name = program.replace("\\", "/").rsplit("/", 1)[-1]
    if name in ("", "__main__.py", "-m", PROGRAM, f"{PROGRAM}.exe", f"{PROGRAM}-script.py"):
        name = PROGRAM
    return shlex.join([name, *rest])


def source_state(package: Path | None = None) -> tuple[str | None, bool | None]:
    """The commit of the source tree around the package, and whether the tree differs from it.

    Dirty means that the code that ran may differ from the commit:
    - a tracked file is changed, added, removed or renamed, staged or not; or
    - there is an untracked file that git does not ignore, either inside the package or with a
      source suffix (.py, .yaml, .yml, .toml).
    Files under results/ and runs/ do not count: the program itself writes there, and the tables of
    one experiment must not make the next one dirty.

    Args:
        package: the package's folder; by default this one's.

    Returns:
        (commit, dirty), or (None, None) if git is missing, the package is not tracked by the
        surrounding repository (installed from a wheel), or nothing has been committed yet.
    """
    package = Path(__file__).parents[1] if package is None else package
    top = package.parent
    tracked = _git(top, "ls-files", "--error-unmatch", f"{package.name}/__init__.py")
    commit = _git(top, "rev-parse", "--verify", "HEAD")
    if tracked is None or commit is None:
        return None, None
    excluded = [f":(exclude){folder}" for folder in (RESULTS, RUNS)]
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
    """The versions of resnet-cli, Python and the packages that affect numbers."""
    found = {PROGRAM: __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def describe_platform(device: str = "cpu") -> Platform:
    """The platform of this process, including PyTorch's settings."""
    import torch

    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    on_cuda = device.startswith("cuda") and torch.cuda.is_available()
    return Platform(
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        cpu=cpu_model(),
        threads=torch.get_num_threads(),
        device=device,
        device_name=torch.cuda.get_device_name(device) if on_cuda else cpu_model(),
        processes=torch.distributed.get_world_size() if distributed else 1,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


@cache
def cpu_model() -> str:
    """The processor's model name, or the machine type if the name is not available."""
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
    """The output of a git command in `folder`; None if git is missing or the command fails.

    Variables such as GIT_DIR, which git hooks set, are removed: they could point to another
    repository.
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
