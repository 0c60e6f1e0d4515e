"""A result again from its provenance alone: `resnet-cli run results/…/x.provenance.json`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from resnet_cli.config import DataConfig, Experiment, RunConfig, config_hash
from resnet_cli.context import Context, find_subject
from resnet_cli.display import Display
from resnet_cli.errors import UserError, one_line
from resnet_cli.models.weights import bundled_names
from resnet_cli.results.tables import PROVENANCE_SUFFIX
from resnet_cli.study_runner import AnyStudy, Written, run_study

STUDY_KEYS = ("only", "batch_statistics", "seed", "engine")
"""What a study's provenance says beside the experiment it belongs to."""


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


def is_provenance(name: str) -> bool:
    """The name of a provenance file, not of an experiment."""
    return name.endswith(PROVENANCE_SUFFIX)


def read(path: Path) -> Experiment | TypedStudy:
    """What a provenance file tells to run.

    Raises:
        UserError: the file cannot be read, was altered, or comes from a command that is no
            experiment and no study.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: is no JSON, so no provenance") from None
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        raise UserError(f"{path}: is no provenance: it holds no configuration")
    if content.get("config_hash") != config_hash(config):
        raise UserError(f"{path}: its configuration is not the one its hash was made of")
    try:
        if "cases" in config:
            kept = {k: v for k, v in config.items() if k not in STUDY_KEYS}
            return Experiment.model_validate(kept)
        if "train" in config:
            return _experiment_of(RunConfig.model_validate(config), content)
        if "study" in config:
            return _typed_study(config, content)
    except (ValidationError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: its configuration does not fit this version: {one_line(error)}"
        ) from None
    raise UserError(f"{path}: no experiment and no study; repeat its command: {_command(content)}")


def is_of_bundled_weights(path: Path) -> bool:
    """The result that a provenance file (one that `read` takes) belongs to was measured on bundled
    weights."""
    checkpoint = json.loads(path.read_text(encoding="utf-8")).get("checkpoint") or {}
    return not set(str(checkpoint.get("source")).split(", ")).isdisjoint(bundled_names())


def _experiment_of(run: RunConfig, content: Mapping[str, Any]) -> Experiment:
    """One training as an experiment of its own."""
    return Experiment(
        name=run.folder,
        profile=content.get("profile") or "mini",
        title=f"{run.model.label} on {run.data.dataset}",
        model=run.model,
        data=run.data,
        train=run.train,
        seeds=(run.seed,),
    )


def _typed_study(config: Mapping[str, Any], content: Mapping[str, Any]) -> TypedStudy:
    checkpoint = content["checkpoint"]
    study: AnyStudy = TypeAdapter(AnyStudy).validate_python(config["study"])
    only = config["only"]
    return TypedStudy(
        checkpoint=checkpoint["source"],
        sha256=checkpoint["sha256"],
        data=DataConfig.model_validate(config["data"]),
        study=study,
        seed=config["seed"],
        only=None if only is None else tuple(only),
        batch_statistics=config["batch_statistics"],
    )


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


def _command(content: Mapping[str, Any]) -> str:
    return str(content.get("command"))[:300]
