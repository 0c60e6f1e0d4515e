"""Experiments by name: found, laid over what they extend, resolved at a profile, and checked whole.

An experiment is resolved in this order, later over earlier:
`extends` file -> the file itself -> `profiles.<profile>` -> `--set key.path=value` -> the case.
Everything is checked before any data loads; what is wrong is said in one line with the key's path
and the valid choices.
"""

import fnmatch
import glob
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_cli.config.fields import validated
from resnet_cli.config.schema import PROFILES, DataConfig, Experiment
from resnet_cli.config.yaml_reader import MAX_YAML_BYTES, merge, parse_yaml
from resnet_cli.runtime.errors import UserError, one_line, shortened, unknown

_BASE = re.compile(r"(\.\./[A-Za-z0-9_-]+/)?[^./\\][^/\\]*")
"""What `extends` may name."""


def experiments_folder() -> Path:
    """The folder of the experiments: inside an installed package, else at the project's top."""
    installed = Path(__file__).parents[1] / "experiments"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "experiments"


def experiment_names() -> list[str]:
    """The names of all experiments that travel with the program, sorted."""
    folder = experiments_folder()
    paths = (p.relative_to(folder).with_suffix("") for p in folder.rglob("*.yaml"))
    return sorted(p.as_posix() for p in paths if not p.name.startswith("_"))


@dataclass(frozen=True)
class Listed:
    """What a list of experiments shows of one."""

    name: str
    title: str
    profiles: dict[str, dict[str, str]]
    """Profile -> `dataset` and `time`."""


def listed_experiments() -> list[Listed]:
    """All experiments that come with the program."""
    found = []
    for name in experiment_names():
        path = experiments_folder() / f"{name}.yaml"
        raw = _read(path)
        times, overrides = _times(raw, path), raw.get("profiles") or dict.fromkeys(PROFILES)
        profiles = {}
        for profile in (p for p in PROFILES if p in overrides):
            data = merge(raw, overrides[profile] or {}).get("data", {})
            dataset = str(data.get("dataset", DataConfig.model_fields["dataset"].default))
            profiles[profile] = {"dataset": dataset, "time": str(times.get(profile, ""))}
        found.append(Listed(name, str(raw.get("title", "")), profiles))
    return found


def _times(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """The key `time:`, taken out of a file's content: how long each profile takes."""
    times = raw.pop("time", {})
    if not isinstance(times, dict) or not set(times) <= set(PROFILES):
        raise UserError(f"{path}: time: a mapping of {', '.join(PROFILES)} to text is expected")
    return times


def expand_names(names: Iterable[str]) -> list[str]:
    """Experiments by name, YAML path, folder (all in it) or glob, in order, each once.

    Raises:
        UserError: a folder or a pattern has no experiment in it.
    """
    found: dict[str, None] = {}
    for name in names:
        folder = name.rstrip("/")
        inside = [n for n in experiment_names() if n.startswith(f"{folder}/")]
        if _is(Path.is_dir, Path(name)):
            inside = sorted(
                str(p) for p in Path(name).rglob("*.yaml") if not p.name.startswith("_")
            )
        elif any(mark in name for mark in "*?["):
            inside = [n for n in experiment_names() if fnmatch.fnmatch(n, name)]
            inside = inside or sorted(glob.glob(name))
            if not inside:
                raise UserError(f"{name}: no experiment matches (names: resnet-cli list)")
        elif not inside:
            inside = [name]
        if not inside:
            raise UserError(f"{name}: holds no experiment (*.yaml)")
        found |= dict.fromkeys(inside)
    return list(found)


def find_experiment(name: str) -> Path:
    """The YAML file of an experiment given by path, or by name under `experiments/`.

    Raises:
        UserError: there is no such file or experiment.
    """
    if name.lower().endswith((".yaml", ".yml")):
        if not _is(Path.is_file, Path(name)):
            raise UserError(f"no such experiment file: {shortened(name)} (names: resnet-cli list)")
        return Path(name)
    if name not in experiment_names():
        if _is(Path.is_file, Path(name)):
            raise UserError(f"{shortened(name)}: is not a YAML file; end its name in .yaml")
        ends = [known for known in experiment_names() if f"/{name}" in known and name]
        if ends:
            raise UserError(f"no experiment is called {name!r} alone; name {' or '.join(ends)}")
        raise unknown("experiment", name, experiment_names(), shown_by="resnet-cli list")
    return experiments_folder() / f"{name}.yaml"


def load_experiment(
    name: str,
    profile: str | None = None,
    settings: Iterable[str] = (),
    seed: int | None = None,
) -> Experiment:
    """Read, resolve and check one experiment.

    Args:
        name: a YAML path, or a name under `experiments/`.
        profile: one of PROFILES; None takes the first of mini, smoke, cpu, paper that the file has.
        settings: `key.path=value` overrides, as `--set` takes them.
        seed: replaces the experiment's seeds by this one.

    Raises:
        UserError: anything in the file, the profile or the settings does not fit.
    """
    path = find_experiment(name)
    raw = _read(path)
    profiles = raw.pop("profiles", {})
    if not isinstance(profiles, dict):
        raise UserError(f"{path}: profiles: a mapping of {', '.join(PROFILES)} is expected")
    for key in profiles:
        if key not in PROFILES:
            raise UserError(f"{path}: {unknown('profile', key, PROFILES)}")
    if profile is None:
        profile = next((p for p in ("mini", "smoke", "cpu", "paper") if p in profiles), "mini")
    elif profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    elif profiles and profile not in profiles:
        raise UserError(f"{path}: has no profile {profile!r} (it has {', '.join(profiles)})")
    times = _times(raw, path)
    if profile in times:
        raw["time"] = times[profile]
    override = profiles.get(profile) or {}
    if not isinstance(override, dict):
        raise UserError(f"{path}: profiles.{profile}: a mapping of overrides is expected")
    raw = merge(raw, override)
    home = experiments_folder().resolve()
    inside = path.resolve().is_relative_to(home)
    identity = path.resolve().relative_to(home) if inside else Path(path.name)
    own: dict[str, Any] = {"name": identity.with_suffix("").as_posix(), "profile": profile}
    own |= {} if seed is None else {"seeds": [seed]}
    settings = tuple(settings)
    whole = raw
    for setting in settings:
        whole = merge(whole, parse_setting(setting))
    try:
        return _resolved(whole, own, str(path))
    except UserError as error:
        try:
            _resolved(raw, own, str(path))
        except UserError:
            raise error from None
        told = ", ".join(repr(shortened(setting)) for setting in settings)
        return _resolved(whole, own, f"--set {told}")  # fails again, naming what is to blame


def _resolved(raw: Mapping[str, Any], own: Mapping[str, Any], source: str) -> Experiment:
    """The experiment that a file's content and what is not its own to say make up."""
    for key in ("name", "profile"):
        if key in raw:
            raise UserError(
                f"{source}: {key}: is taken from the file's name and --profile; remove it"
            )
    experiment = validated(Experiment, dict(raw) | dict(own), source)
    experiment.runs()  # each case must fit as well
    return experiment


def experiment_profiles(name: str) -> tuple[str, ...]:
    """The profiles that an experiment offers, in the order of PROFILES; all when it names none.

    Raises:
        UserError: there is no such experiment, or its file cannot be read.
    """
    path = find_experiment(name)
    profiles = _read(path).get("profiles", {})
    if not isinstance(profiles, dict):
        raise UserError(f"{path}: profiles: a mapping of {', '.join(PROFILES)} is expected")
    return tuple(p for p in PROFILES if not profiles or p in profiles)


def profiles_of(names: Iterable[str], profile: str) -> dict[str, tuple[str, ...]]:
    """The profiles of each experiment, of which at least one must have the given one.

    Raises:
        UserError: there is no such profile, or no experiment has it.
    """
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    found = {name: experiment_profiles(name) for name in names}
    if not any(profile in offered for offered in found.values()):
        raise UserError(f"none of these {len(found)} experiments has the profile {profile!r}")
    return found


def parse_setting(setting: str) -> dict[str, Any]:
    """`train.lr=0.2` -> {"train": {"lr": 0.2}}; the value is YAML.

    Raises:
        UserError: no `=`, an empty key, or a value that is no YAML.
    """
    key, equals, value = setting.partition("=")
    parts = key.strip().split(".")
    source = f"--set {shortened(setting)!r}"
    if not equals or not all(parts):
        raise UserError(f"{source}: write key.path=value, for example train.epochs=2")
    nested: Any = parse_yaml(value, source)
    for part in reversed(parts):
        nested = {part: nested}
    assert isinstance(nested, dict)
    return nested


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """`Path.is_file` or `is_dir`, with a line of ours for a name that no file can have."""
    try:
        return kind(path)
    except OSError as error:
        raise UserError(f"{shortened(path)}: {error.strerror}") from None


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """One file, laid over the file it extends."""
    if path in seen:
        raise UserError(f"{path}: extends itself by way of {', '.join(p.name for p in seen)}")
    try:
        size = path.stat().st_size
        if size > 4 * MAX_YAML_BYTES:  # characters of up to four bytes
            raise UserError(f"{path}: has {size:,} bytes; no experiment is that long")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error, 300)}") from None
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path}: an experiment is a mapping of keys to values; this is not")
    base = raw.pop("extends", None)
    if base is None:
        return raw
    if not isinstance(base, str) or not _BASE.fullmatch(base):
        raise UserError(
            f"{path}: extends: names a file of its folder, or ../folder/name (got {base!r:.80})"
        )
    base_path = path.parent / f"{base.removesuffix('.yaml')}.yaml"
    if not _is(Path.is_file, base_path):
        raise UserError(f"{path}: extends: there is no {shortened(base_path.name)} beside it")
    return merge(_read(base_path, (*seen, path)), raw)
