"""A result again from its provenance alone: `resnet-cli run results/…/x.provenance.json`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, NonNegativeInt

from resnet_cli.config.editions import of_any_edition
from resnet_cli.config.fields import Strict, validated
from resnet_cli.config.schema import (
    DataConfig,
    Experiment,
    LesionStudy,
    Profile,
    RunConfig,
    config_hash,
)
from resnet_cli.results.tables import PROVENANCE_SUFFIX
from resnet_cli.run.experiment import pretrained_name
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError, one_line, shortened
from resnet_cli.studies.runner import AnyStudy, Written, run_study
from resnet_cli.studies.subject import INITIALISATION, find_subject
from resnet_cli.training.bundle import bundled_training
from resnet_cli.training.context import Context, SplitName
from resnet_cli.training.runs import find_finished
from resnet_cli.weights.load import bundled_names

STUDY_KEYS = ("only", "batch_statistics", "seed", "engine")
"""What a study's provenance says beside the experiment it belongs to."""
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


class _Weights(Strict):
    """The weights that a result was measured on."""

    source: str
    sha256: str


class _Platform(Strict):
    """What computed a result, as far as it says how to measure again."""

    model_config = ConfigDict(extra="ignore")

    deterministic: bool = False


class _Beside(Strict):
    """What stands beside the configuration, as far as it says how to measure again."""

    model_config = ConfigDict(extra="ignore")

    command: str = ""
    profile: Profile | None = None
    platform: _Platform = _Platform()
    data: dict[str, str] = Field(default={})
    checkpoint: _Weights | None = None


class _Engine(Strict):
    """How a study of an experiment was computed, see STUDY_KEYS."""

    engine: Engine = "fast"


class _Asked(_Engine):
    """The configuration of a study that was typed by hand, as `run_study` describes it."""

    edition: Literal[2]
    model: dict[str, Any] | None
    study: Annotated[AnyStudy, Field(discriminator="kind")]
    data: DataConfig
    only: Annotated[tuple[NonNegativeInt, ...], Field(strict=False, min_length=1)] | None
    """A list in JSON, so a tuple need not come."""
    batch_statistics: bool
    seed: NonNegativeInt


@dataclass(frozen=True)
class TypedStudy:
    """A study that was typed by hand, of weights that a file holds."""

    checkpoint: str
    sha256: str
    data: DataConfig
    study: AnyStudy
    seed: int
    only: tuple[int, ...] | None
    batch_statistics: bool


@dataclass(frozen=True)
class Told:
    """What a provenance file tells to run, and how."""

    path: Path
    work: Experiment | TypedStudy
    engine: Engine
    """Of the study."""
    deterministic: bool
    """Of the device's kernels (`pick_device`)."""
    of_bundled_weights: bool
    """The result was measured on weights that travel with the program."""
    untrained: bool
    """The result was measured on an initialisation, so nothing is to be trained for it."""
    data: Mapping[str, str]
    """`data set/split` -> the fingerprint of what was measured on; empty where nothing was."""


def is_provenance(name: str) -> bool:
    """The name of a provenance file, not of an experiment."""
    return name.endswith(PROVENANCE_SUFFIX)


def read(path: Path) -> Told:
    """What a provenance file tells to run. Nothing that it names is opened here.

    Raises:
        UserError: the file cannot be read, was altered, or comes from a command that is no
            experiment and no study, or from a study of a program's network.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: is no JSON, so no provenance") from None
    try:
        return _told(path, content)
    except RecursionError:
        raise UserError(f"{path}: is nested too deep to be a provenance") from None


def _told(path: Path, content: Any) -> Told:
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        raise UserError(f"{path}: is no provenance: it holds no configuration")
    if content.get("config_hash") != config_hash(config):
        raise UserError(f"{path}: its configuration is not the one its hash was made of")
    try:
        config = of_any_edition(config)
    except ValueError as error:
        raise UserError(f"{path}: {error}; install a newer resnet-cli") from None
    beside = validated(_Beside, content, str(path))
    source = f"{path}: its configuration does not fit this version"
    work: Experiment | TypedStudy
    engine: Engine = "fast"
    if "cases" in config:
        engine = validated(_Engine, {"engine": config.get("engine", "fast")}, source).engine
        kept = {key: value for key, value in config.items() if key not in STUDY_KEYS}
        work = validated(Experiment, kept, source)
        _check_cases(work, source)
    elif "train" in config:
        work = _experiment_of(validated(RunConfig, config, source), beside)
    elif "study" in config:
        asked = validated(_Asked, config, source)
        work, engine = _typed_study(path, asked, beside), asked.engine
    else:
        raise UserError(
            f"{path}: no experiment and no study; repeat its command: {_command(beside)}"
        )
    weights = "" if beside.checkpoint is None else beside.checkpoint.source
    return Told(
        path,
        work,
        engine=engine,
        deterministic=beside.platform.deterministic,
        of_bundled_weights=not set(weights.split(", ")).isdisjoint(bundled_names()),
        untrained=weights.startswith(INITIALISATION),
        data=beside.data,
    )


def _check_cases(experiment: Experiment, source: str) -> None:
    """Refuse an experiment of which a case does not fit."""
    try:
        experiment.runs()
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _experiment_of(run: RunConfig, beside: _Beside) -> Experiment:
    """One training as an experiment of its own."""
    return Experiment(
        name=run.folder,
        profile=beside.profile or "mini",
        title=f"{run.model.label} on {run.data.dataset}",
        model=run.model,
        data=run.data,
        train=run.train,
        seeds=(run.seed,),
    )


def _typed_study(path: Path, asked: _Asked, beside: _Beside) -> TypedStudy:
    if beside.checkpoint is None:
        raise UserError(f"{path}: names no weights that its study was asked of")
    weights = beside.checkpoint
    if Path(weights.source).suffix.lower() == ".py":
        raise UserError(
            f"{path}: its weights are a program, {shortened(weights.source)}, which no provenance "
            f"may run; repeat its command by hand: {_command(beside)}"
        )
    return TypedStudy(
        checkpoint=weights.source,
        sha256=weights.sha256,
        data=asked.data,
        study=asked.study,
        seed=asked.seed,
        only=asked.only,
        batch_statistics=asked.batch_statistics,
    )


def check_data(told: Told, context: Context) -> None:
    """Refuse data that are not those of the result.

    A training that is there already, in its folder or bundled, tells what it was trained on; only
    for what is still to be measured the data are read.

    Of an experiment whose cases see one split in several forms (image sizes, numbers of images) a
    provenance tells only one; it must be among them.

    Raises:
        UserError: they are others, or missing, or not those that the configuration names.
    """
    found = _fingerprints(told, context) if told.data else {}
    for name, recorded in told.data.items():
        if name not in found:
            raise UserError(
                f"{told.path}: tells of the data {shortened(name)!r}, which its configuration "
                f"does not use (it uses {', '.join(found) or 'none'})"
            )
        if recorded not in found[name]:
            here, mend = list(found[name].items())[-1]
            raise UserError(
                f"{told.path}: was measured on {name} with the fingerprint {recorded[:12]}…, here "
                f"it is {here[:12]}…, so the result would be another; {mend}"
            )


def _fingerprints(told: Told, context: Context) -> dict[str, dict[str, str]]:
    """`data set/split` -> the fingerprints of all that would be measured on, each with what to do
    when it is not the one wanted."""
    found: dict[str, dict[str, str]] = {}
    if isinstance(told.work, TypedStudy) or told.work.study is not None:
        for data in _studied_data(told.work):
            for split in SPLITS:
                name = f"{data.dataset}/{split}"
                if name in told.data:
                    fingerprint = context.split(data, split).fingerprint
                    found.setdefault(name, {})[fingerprint] = _mend(data)
        return found
    for _, run in told.work.runs():
        bundled = pretrained_name(run, context)
        finished = find_finished(context, run) if bundled is None else bundled_training(bundled)
        if finished is None:
            prints = {
                f"{run.data.dataset}/{split}": context.split(run.data, split).fingerprint
                for split in SPLITS
            }
            mend = _mend(run.data)
        else:
            prints = dict(finished.data)
            mend = f"move {finished.folder} away, which was trained on that"
            if bundled is not None:
                mend = f"the bundled weights {bundled} were trained on that"
        for name, fingerprint in prints.items():
            found.setdefault(name, {})[fingerprint] = mend
    return found


def _studied_data(work: Experiment | TypedStudy) -> list[DataConfig]:
    """What a study asks its networks about: those of an experiment see the data of their
    trainings, of which it may take a part."""
    if isinstance(work, TypedStudy):
        return [work.data]
    images = work.study.images if isinstance(work.study, LesionStudy) else None
    changes = {} if images is None else {"test_images": images}
    return [run.data.model_copy(update=changes) for _, run in work.runs()]


def _mend(data: DataConfig) -> str:
    if data.dataset == "digits":
        return "these data come with the program: take the versions that the provenance tells"
    return "name the folder of the same data by --data-dir"


def run_typed(
    typed: TypedStudy,
    context: Context,
    display: Display,
    out: Path,
    should_stop: Callable[[], bool],
) -> Written:
    """Ask a typed study again, of the same weights and data.

    Raises:
        Interrupted: `should_stop` said so.
        UserError: the weights are not there or not the same, or the data are missing.
    """
    subject = find_subject(context, typed.checkpoint)
    if subject.loaded.sha256 != typed.sha256:
        raise UserError(
            f"{typed.checkpoint}: these weights have the hash {subject.loaded.sha256[:12]}…, those "
            f"of the result {typed.sha256[:12]}…; put the same file there"
        )
    if subject.data != typed.data:
        normalization = context.normalization(typed.data)
        subject = replace(subject, data=typed.data, normalization=normalization)
    return run_study(
        subject,
        typed.study,
        seed=typed.seed,
        out=out,
        display=display,
        only=typed.only,
        batch_statistics=typed.batch_statistics,
        should_stop=should_stop,
    )


def _command(beside: _Beside) -> str:
    return one_line(beside.command, 300) or "it tells none"
