"""Reproducing a result from its provenance alone: `resnet-cli run x.provenance.json`."""

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
    """The keys that a study's recorded configuration has in addition to those of an experiment."""

    only: Annotated[tuple[NonNegativeInt, ...], Field(strict=False, min_length=1)] | None = None
    batch_statistics: bool = False
    seed: NonNegativeInt = 0
    engine: Engine = "fast"


class CommandStudy(StudySettings):
    """The configuration of a study that was run as a command, as recorded by `run_study`."""

    edition: Literal[2]
    model: dict[str, Any] | None
    study: AnyStudy
    data: DataConfig
    assumptions: dict[str, str] = Field(default_factory=dict)
    """Assumed properties of a third-party network."""
    overrides: dict[str, str] = Field(default_factory=dict)
    """Properties set with `--model`."""


@dataclass(frozen=True)
class RerunSpec:
    """The content of a provenance file that determines what to run, and how."""

    path: Path
    provenance: Provenance
    work: Experiment | CommandStudy
    engine: Engine
    """The engine of the study."""

    @property
    def source(self) -> str:
        """The source of the measured weights; empty if there are none."""
        return "" if self.provenance.checkpoint is None else self.provenance.checkpoint.source

    @property
    def deterministic(self) -> bool:
        """Whether only deterministic kernels were used (`pick_device`)."""
        return self.provenance.platform.deterministic

    @property
    def pretrained(self) -> bool:
        """Whether the result was measured on bundled weights."""
        return not set(self.source.split(", ")).isdisjoint(bundled_names())

    @property
    def trains(self) -> bool:
        """Whether reproducing the result may need a training, as for experiments with training."""
        return isinstance(self.work, Experiment) and not self.source.startswith(INITIALISATION)


def read_spec(path: Path) -> RerunSpec:
    """Read a provenance file, without opening any file that it names.

    Raises:
        UserError: the file cannot be read, was altered, describes neither an experiment nor a
            study, or describes a study of a network defined by a Python file.
    """
    try:
        return _spec(path, Provenance.read(path))
    except RecursionError:
        raise UserError(f"{path}: nested too deeply to be a provenance file") from None


def _spec(path: Path, provenance: Provenance) -> RerunSpec:
    config = explicit_config(path, provenance.config)
    source = f"{path}: the configuration is not valid in this version"
    work: Experiment | CommandStudy
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
        work = validated(CommandStudy, config, source)
        engine = work.engine
        _check_weights(path, provenance)
    else:
        raise UserError(
            f"{path}: describes neither an experiment nor a study; repeat its command: "
            f"{_command(provenance)}"
        )
    return RerunSpec(path, provenance, work, engine)


def _experiment_of(run: RunConfig, provenance: Provenance) -> Experiment:
    """An experiment with this training alone."""
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
    """Check that a study's weights are known and are not a program that would be executed."""
    if provenance.checkpoint is None:
        raise UserError(
            f"{path}: does not name the weights that were studied; repeat its command: "
            f"{_command(provenance)}"
        )
    source = provenance.checkpoint.source
    if Path(source).suffix.lower() == ".py":
        raise UserError(
            f"{path}: its network is defined by {shortened(source)}, and Python files are not run "
            f"from a provenance file; repeat its command yourself: {_command(provenance)}"
        )


def _command(provenance: Provenance) -> str:
    command = provenance.command
    return one_line(command, 300) if command.strip() else "none is recorded"


def check_data(spec: RerunSpec, context: Context) -> None:
    """Check that the data are those of the result.

    A finished or bundled training records the data on which it was trained; other data are read to
    compute their fingerprints.

    If the cases of an experiment use one split in several forms (image sizes, numbers of images),
    its provenance records only one of them, which must be among those found.

    Raises:
        UserError: the data are different, missing, or not those that the configuration names.
    """
    recorded = spec.provenance.data
    found = _fingerprints(spec, context) if recorded else {}
    for name, fingerprint in recorded.items():
        if name not in found:
            raise UserError(
                f"{spec.path}: records the data {shortened(name)!r}, but its configuration uses "
                f"{', '.join(found) or 'none'}; measure the result again"
            )
        if fingerprint not in found[name]:
            here, fix = list(found[name].items())[-1]
            raise UserError(
                f"{spec.path}: was measured on {name} with the fingerprint {fingerprint[:12]}…, "
                f"but here it is {here[:12]}…; {fix}"
            )


def _fingerprints(spec: RerunSpec, context: Context) -> dict[str, dict[str, str]]:
    """`data set/split` -> fingerprint of the data that would be used -> how to fix a mismatch."""
    found: dict[str, dict[str, str]] = {}

    def add(fingerprints: Mapping[str, str], fix: str) -> None:
        for name, fingerprint in fingerprints.items():
            found.setdefault(name, {})[fingerprint] = fix

    if isinstance(spec.work, CommandStudy) or spec.work.study is not None:
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
                f"{finished.folder} was trained on these data: give the folder of the recorded "
                "data with --data-dir",
            )
        else:
            add(finished.data, f"the bundled weights {bundled} were trained on these data")
    return found


def _split_fingerprints(
    context: Context, data: DataConfig, splits: Iterable[SplitName]
) -> dict[str, str]:
    return {f"{data.dataset}/{name}": context.split(data, name).fingerprint for name in splits}


def _studied_data(work: Experiment | CommandStudy) -> list[DataConfig]:
    """The data of a study; for an experiment, those of its trainings, of which the study may use a
    part."""
    if isinstance(work, CommandStudy):
        return [work.data]
    images = study_of(work).test_images
    changes = {} if images is None else {"test_images": images}
    return [run.data.model_copy(update=changes) for _, run in work.runs()]


def _how_to_fix(data: DataConfig) -> str:
    if catalogue.dataset(data.dataset).embedded:
        return "these data are part of resnet-cli: install the version recorded in the file"
    return "give the folder of the same data with --data-dir"


def rerun_study(spec: RerunSpec, session: Session, out: Path) -> Written:
    """Reproduce a result without training: a study run as a command, or signals at initialisation.

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
            f"{checkpoint.source}: these weights have the hash {subject.loaded.sha256[:12]}…, but "
            f"the result was measured on {checkpoint.sha256[:12]}…; restore the original file"
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
