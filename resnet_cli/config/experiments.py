"""Experiments: found by name, merged with the files they extend, resolved and checked.

An experiment is merged in this order, where later values replace earlier ones:
`extends` file -> the file itself -> `profiles.<profile>` -> `--set key.path=value` -> the case.
Everything is checked before any data are loaded. An error is one line with the key's path and the
valid choices.
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
"""Valid values of `extends`."""


def experiments_folder() -> Path:
    """The folder of experiments: inside an installed package, or at the top of the source tree."""
    installed = Path(__file__).parents[1] / "experiments"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "experiments"


def experiment_names() -> list[str]:
    """The names of all experiments that come with the program, sorted."""
    folder = experiments_folder()
    paths = (p.relative_to(folder).with_suffix("") for p in folder.rglob("*.yaml"))
    return sorted(p.as_posix() for p in paths if not p.name.startswith("_"))


@dataclass(frozen=True)
class ListedExperiment:
    """One entry in the list of experiments."""

    name: str
    title: str
    profiles: dict[str, dict[str, str]]
    """Profile -> `dataset` and `time`."""


def listed_experiments() -> list[ListedExperiment]:
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
        found.append(ListedExperiment(name, str(raw.get("title", "")), profiles))
    return found


def _times(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """Remove the key `time:` from a file's content and return it: how long each profile takes."""
    times = raw.pop("time", {})
    if not isinstance(times, dict) or not set(times) <= set(PROFILES):
        raise UserError(f"{path}: time: must be a mapping of {', '.join(PROFILES)} to text")
    return times


def expand_names(names: Iterable[str]) -> list[str]:
    """Expand names, YAML paths, folders (all experiments in them) and globs, in order, each once.

    Raises:
        UserError: a folder has no experiment, or no experiment matches a pattern.
    """
    found: dict[str, None] = {}
    for name in names:
        folder = name.rstrip("/")
        inside = [n for n in experiment_names() if n.startswith(f"{folder}/")]
        if _path_is(Path.is_dir, Path(name)):
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
            raise UserError(f"{name}: contains no experiment (*.yaml); give another folder")
        found |= dict.fromkeys(inside)
    return list(found)


def find_experiment(name: str) -> Path:
    """The YAML file of an experiment given by its path or by its name under `experiments/`.

    Raises:
        UserError: there is no such file or experiment.
    """
    if name.lower().endswith((".yaml", ".yml")):
        if not _path_is(Path.is_file, Path(name)):
            raise UserError(f"no such experiment file: {shortened(name)} (names: resnet-cli list)")
        return Path(name)
    if name not in experiment_names():
        if _path_is(Path.is_file, Path(name)):
            raise UserError(f"{shortened(name)}: not a YAML file; its name must end in .yaml")
        ends = [known for known in experiment_names() if f"/{name}" in known and name]
        if ends:
            raise UserError(f"no experiment is called just {name!r}; give {' or '.join(ends)}")
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
        profile: one of PROFILES; None means the first of mini, smoke, cpu, paper in the file.
        settings: overrides of the form `key.path=value`, as for `--set`.
        seed: used instead of the experiment's seeds.

    Raises:
        UserError: the file, the profile or a setting is not valid.
    """
    path = find_experiment(name)
    raw = _read(path)
    profiles = _profiles(raw, path)
    raw.pop("profiles", None)
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
        raise UserError(f"{path}: profiles.{profile}: must be a mapping of overrides")
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
        given = ", ".join(repr(shortened(setting)) for setting in settings)
        return _resolved(whole, own, f"--set {given}")  # fails again, naming the settings


def _resolved(raw: Mapping[str, Any], own: Mapping[str, Any], source: str) -> Experiment:
    """The experiment given by a file's content and by the keys that a file must not set."""
    for key in ("name", "profile"):
        if key in raw:
            raise UserError(
                f"{source}: {key}: must not be set (it comes from the file's name or --profile); "
                "remove it"
            )
    experiment = validated(Experiment, dict(raw) | dict(own), source)
    experiment.runs()  # validates every case
    return experiment


def experiment_profiles(name: str) -> tuple[str, ...]:
    """The profiles of an experiment, in the order of PROFILES; all of them if its file has none.

    Raises:
        UserError: there is no such experiment, or its file cannot be read.
    """
    path = find_experiment(name)
    profiles = _profiles(_read(path), path)
    return tuple(p for p in PROFILES if not profiles or p in profiles)


def _profiles(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The overrides of each profile in a file's content."""
    profiles = raw.get("profiles", {})
    if not isinstance(profiles, dict):
        raise UserError(f"{path}: profiles: must be a mapping of {', '.join(PROFILES)}")
    return profiles


def profiles_of(names: Iterable[str], profile: str) -> dict[str, tuple[str, ...]]:
    """The profiles of each experiment; at least one experiment must have the given profile.

    Raises:
        UserError: there is no such profile, or no experiment has it.
    """
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    found = {name: experiment_profiles(name) for name in names}
    if not any(profile in offered for offered in found.values()):
        raise UserError(
            f"none of these {len(found)} experiments has the profile {profile!r}; use another "
            "--profile"
        )
    return found


def parse_setting(setting: str) -> dict[str, Any]:
    """`train.lr=0.2` -> {"train": {"lr": 0.2}}; the value is YAML.

    Raises:
        UserError: there is no `=`, a key is empty, or the value is not valid YAML.
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


def _path_is(kind: Callable[[Path], bool], path: Path) -> bool:
    """`Path.is_file` or `Path.is_dir`, with a UserError for a name that no file can have."""
    try:
        return kind(path)
    except OSError as error:
        raise UserError(f"{shortened(path)}: {error.strerror}; give another name") from None


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The content of a file, merged over the file that it extends."""
    # Resolved, since a circle through other folders makes the path longer each time.
    here = path.resolve()
    if here in seen:
        raise UserError(f"{path}: extends itself through {', '.join(p.name for p in seen)}")
    try:
        size = path.stat().st_size
        if size > 4 * MAX_YAML_BYTES:  # characters of up to four bytes
            raise UserError(f"{path}: {size:,} bytes, too large for an experiment")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error, 300)}") from None
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path}: must be a mapping of keys to values")
    base = raw.pop("extends", None)
    if base is None:
        return raw
    if not isinstance(base, str) or not _BASE.fullmatch(base):
        raise UserError(
            f"{path}: extends: must name a file in the same folder, or ../folder/name "
            f"(got {base!r:.80})"
        )
    base_path = path.parent / f"{base.removesuffix('.yaml')}.yaml"
    if not _path_is(Path.is_file, base_path):
        raise UserError(f"{path}: extends: there is no file {shortened(base_path)}")
    return merge(_read(base_path, (*seen, here)), raw)
