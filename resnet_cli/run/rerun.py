"""Measure a result again from its provenance alone: `resnet-cli run x.provenance.json`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, NonNegativeInt

from resnet_cli.config.fields import Strict, validated
from resnet_cli.config.schema import AnyStudy, DataConfig, Experiment, RunConfig
from resnet_cli.datasets import catalogue
from resnet_cli.datasets.catalogue import SplitName
from resnet_cli.results.provenance import Provenance, explicit_config
from resnet_cli.run.experiment import study_experiment, study_of
from resnet_cli.run.trainings import Session, pretrained_name
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError, one_line, shortened
from resnet_cli.studies.base import stored_study
from resnet_cli.studies.runner import Written, run_study
from resnet_cli.studies.subject import INITIALISATION, find_subject
from resnet_cli.training.bundle import bundled_training
from resnet_cli.training.context import Context
from resnet_cli.training.runs import find_finished
from resnet_cli.weights.cards import bundled_names

SPLITS: tuple[SplitName, ...] = get_args(SplitName)


class StudySettings(Strict):
    """What the configuration of a measured study holds in addition to the experiment's own keys."""

    only: Annotated[tuple[NonNegativeInt, ...], Field(strict=False, min_length=1)] | None = None
    batch_statistics: bool = False
    seed: NonNegativeInt = 0
    engine: Engine = "fast"


class TypedStudy(StudySettings):
    """The configuration of a study that was typed as a command, as `run_study` records it."""

    edition: Literal[2]
    model: dict[str, Any] | None
    study: AnyStudy
    data: DataConfig
    assumptions: dict[str, str] = Field(default_factory=dict)
    """What the file of others does not say of its network."""
    overrides: dict[str, str] = Field(default_factory=dict)
    """What `--model` stated of it."""


@dataclass(frozen=True)
class RerunSpec:
    """What a provenance file says to run, and how."""

    path: Path
    provenance: Provenance
    work: Experiment | TypedStudy
    engine: Engine
    """Of the study."""

    @property
    def source(self) -> str:
        """Where the measured weights came from; empty without weights."""
        return "" if self.provenance.checkpoint is None else self.provenance.checkpoint.source

    @property
    def deterministic(self) -> bool:
        """Only deterministic kernels were used (`pick_device`)."""
        return self.provenance.platform.deterministic

    @property
    def pretrained(self) -> bool:
        """The result was measured on bundled weights."""
        return not set(self.source.split(", ")).isdisjoint(bundled_names())

    @property
    def trains(self) -> bool:
        """Measuring again may need training: not for a typed study or an initialisation."""
        return isinstance(self.work, Experiment) and not self.source.startswith(INITIALISATION)


def read_spec(path: Path) -> RerunSpec:
    """Read what a provenance file says to run. No file that it names is opened.

    Raises:
        UserError: the file cannot be read, was altered, or is the record of neither an experiment
            nor a study, or of a study of a network defined by a program.
    """
    try:
        return _spec(path, Provenance.read(path))
    except RecursionError:
        raise UserError(f"{path}: nested too deeply to be a provenance file") from None


def _spec(path: Path, provenance: Provenance) -> RerunSpec:
    config = explicit_config(path, provenance.config)
    source = f"{path}: the configuration does not fit this version"
    work: Experiment | TypedStudy
    engine: Engine = "fast"
    if "cases" in config:
        settings = {key: config[key] for key in StudySettings.model_fields if key in config}
        engine = validated(StudySettings, settings, source).engine
        own = {key: value for key, value in config.items() if key not in settings}
        work = validated(Experiment, own, source)
        try:
            work.runs()
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
    elif "train" in config:
        work = _experiment_of(validated(RunConfig, config, source), provenance)
    elif "study" in config:
        work = validated(TypedStudy, config, source)
        engine = work.engine
        _check_weights(path, provenance)
    else:
        raise UserError(
            f"{path}: neither an experiment nor a study; repeat its command: {_command(provenance)}"
        )
    return RerunSpec(path, provenance, work, engine)


def _experiment_of(run: RunConfig, provenance: Provenance) -> Experiment:
    """One training as an experiment of its own."""
    return Experiment(
        name=run.folder,
        profile=provenance.profile or "mini",
        title=f"{run.model.label} on {run.data.dataset}",
        model=run.model,
        data=run.data,
        train=run.train,
        seeds=(run.seed,),
    )


def _check_weights(path: Path, provenance: Provenance) -> None:
    """Refuse a typed study whose weights are unknown, or a program that would be executed."""
    if provenance.checkpoint is None:
        raise UserError(f"{path}: does not name the weights that were studied")
    source = provenance.checkpoint.source
    if Path(source).suffix.lower() == ".py":
        raise UserError(
            f"{path}: its weights are a program, {shortened(source)}, and a provenance file never "
            f"runs a program; repeat its command by hand: {_command(provenance)}"
        )


def _command(provenance: Provenance) -> str:
    command = provenance.command
    return one_line(command, 300) if command.strip() else "none is recorded"


def check_data(spec: RerunSpec, context: Context) -> None:
    """Refuse to measure on data other than those of the result.

    A training that is there already, in its folder or bundled, records what it was trained on; the
    data themselves are read only for what is still to be measured.

    The provenance of an experiment whose cases see one split in several forms (image sizes,
    numbers of images) records only one of them; it must be among those found.

    Raises:
        UserError: the data are different, missing, or not those that the configuration names.
    """
    recorded = spec.provenance.data
    found = _fingerprints(spec, context) if recorded else {}
    for name, fingerprint in recorded.items():
        if name not in found:
            raise UserError(
                f"{spec.path}: records the data {shortened(name)!r}, which its configuration does "
                f"not use (it uses {', '.join(found) or 'none'})"
            )
        if fingerprint not in found[name]:
            here, fix = list(found[name].items())[-1]
            raise UserError(
                f"{spec.path}: was measured on {name} with the fingerprint {fingerprint[:12]}…, "
                f"but here it is {here[:12]}…; {fix}"
            )


def _fingerprints(spec: RerunSpec, context: Context) -> dict[str, dict[str, str]]:
    """`data set/split` -> the fingerprints that would be measured on, each with how to fix a
    mismatch."""
    found: dict[str, dict[str, str]] = {}

    def add(fingerprints: Mapping[str, str], fix: str) -> None:
        for name, fingerprint in fingerprints.items():
            found.setdefault(name, {})[fingerprint] = fix

    if isinstance(spec.work, TypedStudy) or spec.work.study is not None:
        for data in _studied_data(spec.work):
            used = [s for s in SPLITS if f"{data.dataset}/{s}" in spec.provenance.data]
            add(_split_fingerprints(context, data, used), _how_to_fix(data))
        return found
    for _, run in spec.work.runs():
        bundled = pretrained_name(run, context)
        finished = find_finished(context, run) if bundled is None else bundled_training(bundled)
        if finished is None:
            add(_split_fingerprints(context, run.data, SPLITS), _how_to_fix(run.data))
        elif bundled is None:
            add(
                finished.data,
                f"{finished.folder} was trained on it: name the folder of the recorded data with "
                "--data-dir",
            )
        else:
            add(finished.data, f"the bundled weights {bundled} were trained on it")
    return found


def _split_fingerprints(
    context: Context, data: DataConfig, splits: Iterable[SplitName]
) -> dict[str, str]:
    return {f"{data.dataset}/{name}": context.split(data, name).fingerprint for name in splits}


def _studied_data(work: Experiment | TypedStudy) -> list[DataConfig]:
    """The data that a study measures on: for an experiment those of its trainings, of which the
    study may use a part."""
    if isinstance(work, TypedStudy):
        return [work.data]
    images = study_of(work).test_images
    changes = {} if images is None else {"test_images": images}
    return [run.data.model_copy(update=changes) for _, run in work.runs()]


def _how_to_fix(data: DataConfig) -> str:
    if catalogue.dataset(data.dataset).embedded:
        return "these data come with scikit-learn: install the versions that the file records"
    return "name the folder of the same data with --data-dir"


def rerun_study(spec: RerunSpec, session: Session, out: Path) -> Written:
    """Measure again a result that needs no training: a typed study, or signals of initialisations.

    Raises:
        Interrupted: the session was stopped.
        UserError: the weights are missing or different, or the data are missing.
    """
    typed, checkpoint = spec.work, spec.provenance.checkpoint
    if isinstance(typed, Experiment):
        return study_experiment(typed, session, out)
    assert checkpoint is not None
    subject = find_subject(session.context, checkpoint.source, overrides=typed.overrides)
    if subject.loaded.sha256 != checkpoint.sha256:
        raise UserError(
            f"{checkpoint.source}: these weights have the hash {subject.loaded.sha256[:12]}…, "
            f"those of the result {checkpoint.sha256[:12]}…; put the same file there"
        )
    if subject.data != typed.data:
        normalization = session.context.normalization(typed.data)
        subject = replace(subject, data=typed.data, normalization=normalization)
    study = stored_study(typed.model_dump(mode="json"))
    assert study is not None
    return run_study(
        subject,
        study,
        seed=typed.seed,
        out=out,
        display=session.display,
        should_stop=session.stopper,
    )
