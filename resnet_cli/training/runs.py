"""Runs: one folder under `runs/` for each training, found by its configuration.

A run's folder is named after the hash of its complete configuration, so a training that two
experiments need is done once, and a changed configuration never resumes another one's checkpoint.
The same configuration on different images has its own folder (`run_folder`).
    run.json               configuration, results and hashes of the files; written last, so it
                           marks a finished run
    training.csv           one row per epoch
    weights.safetensors    the trained network, with everything a study needs
    correct.npz            which test images it classifies correctly
    checkpoint.safetensors during training only
    tensorboard/, wandb/   the rows as logs for these programs, with `Context.log`
"""

from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from resnet_cli.config.editions import to_current_edition
from resnet_cli.config.fields import Strict
from resnet_cli.config.schema import Profile, RunConfig, config_hash
from resnet_cli.models.factory import build
from resnet_cli.results.layout import LOCK_FILE, RUN_FILE, WEIGHTS_FILE, run_folder
from resnet_cli.results.outcomes import RUN_KEY, write_outcomes
from resnet_cli.results.provenance import Provenance, collect
from resnet_cli.results.run_file import check_files, damaged_run, read_run_file, write_run_file
from resnet_cli.results.tables import atomic_write, check_writable, write_table
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError, one_line
from resnet_cli.runtime.interrupt import Interrupted, Stopper
from resnet_cli.training.checkpoint import has_checkpoint, remove_checkpoints
from resnet_cli.training.context import Context
from resnet_cli.training.epoch_log import EpochLog
from resnet_cli.training.evaluation import TOP5_FROM
from resnet_cli.training.lock import locked
from resnet_cli.training.loop import Trainer, TrainingProgress
from resnet_cli.training.run_folder import folder_of
from resnet_cli.weights.load import weights_bytes


@dataclass(frozen=True)
class FinishedRun:
    """A finished training."""

    folder: Path
    run: RunConfig
    rows: list[dict[str, Any]]
    """Rows of training.csv, without the columns experiment and case."""
    parameters: int
    num_classes: int
    diverged_at: int | None
    """The iteration, counted from 0, whose loss was not finite, or the iterations done before an
    evaluation that found a loss or weight that was not finite; None if the run did not diverge."""
    data: Mapping[str, str]
    """Fingerprints of the splits, as in provenance files."""
    started: str
    seconds: float
    top5_error: float | None = None
    """In percent, after the last iteration; None with fewer than TOP5_FROM classes."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the folder's files as the training wrote them; empty in the first edition."""

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS_FILE

    @property
    def test_error(self) -> float | None:
        """After the last iteration, in percent; None when the run diverged."""
        if self.diverged_at is not None or not self.rows:
            return None
        return self.rows[-1]["test_error"]  # type: ignore[no-any-return]

    @property
    def best_error(self) -> float | None:
        """The lowest test error at any evaluation, in percent."""
        errors = [row["test_error"] for row in self.rows if row["test_error"] is not None]
        return min(errors, default=None)

    def provenance(
        self, config: Mapping[str, Any], profile: Profile | None, device: str
    ) -> Provenance:
        """The provenance of a table that comes from this run alone."""
        return collect(
            config,
            seeds=(self.run.seed,),
            started=datetime.fromisoformat(self.started),
            profile=profile,
            data=self.data,
            device=device,
            duration_seconds=self.seconds,
        )


def find_finished(
    context: Context, run: RunConfig, note: Callable[[str], None] = lambda line: None
) -> FinishedRun | None:
    """The finished run of a configuration; None if there is none or it is damaged.

    Args:
        note: receives a message about a damaged run.
    """
    folder = folder_of(context, run)

    def read() -> FinishedRun | None:
        try:
            finished = read_finished(folder)
        except UserError as error:
            note(str(error))
            return None
        return finished if finished is not None and finished.run.hash == run.hash else None

    return processes.from_first(read)


def is_over(context: Context, run: RunConfig) -> bool:
    """Whether a training is finished and its checkpoints are removed."""
    finished = find_finished(context, run)
    return finished is not None and processes.from_first(
        lambda: not has_checkpoint(finished.folder)
    )


def read_finished(folder: Path) -> FinishedRun | None:
    """The finished run in a folder, after checking the hashes of its files; None if there is none.

    Raises:
        UserError: the run is damaged.
    """
    content = read_run_file(folder)
    if content is None:
        return None
    check_files(folder, content)
    try:
        finished = finished_from(folder, content)
    except ValueError as error:
        raise damaged_run(folder, f"{RUN_FILE}: {one_line(error, 120)}") from None
    if not finished.files and not finished.weights.is_file():
        raise damaged_run(folder, f"{WEIGHTS_FILE} is missing")
    return finished


class _Epoch(Strict):
    """A row of training.csv, without the columns experiment and case."""

    seed: int
    epoch: int
    iteration: int
    lr: float | None
    train_loss: float | None
    train_error: float | None
    test_loss: float | None
    test_error: float | None
    images_per_second: float | None
    seconds: float | None


class _Description(Strict):
    """The content of run.json."""

    hash: str
    run: dict[str, Any]
    rows: list[_Epoch]
    parameters: int
    num_classes: PositiveInt
    diverged_at: int | None
    data: dict[str, str]
    started: str
    seconds: float
    top5_error: float | None = None
    files: dict[str, str] = Field(default_factory=dict)


def finished_from(folder: Path, content: Mapping[str, Any]) -> FinishedRun:
    """A finished run from its description (`description_of`).

    Raises:
        ValueError: the description is not valid, or its hash is not that of its configuration.
    """
    described = _Description.model_validate(content)
    if described.hash != config_hash(described.run):
        raise ValueError("the configuration does not match its hash")
    datetime.fromisoformat(described.started)
    run = RunConfig.model_validate(to_current_edition(described.run))
    fields = {name: content[name] for name in content if name not in ("hash", "run")}
    return FinishedRun(folder=folder, run=run, **fields)


def train_run(
    context: Context,
    run: RunConfig,
    *,
    experiment: str,
    case: str,
    profile: Profile | None,
    stopper: Stopper,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda line: None,
) -> FinishedRun:
    """Train a configuration to its end, resuming from a checkpoint if there is one.

    If another process is training it, wait and use its result. The log given by `context` is also
    written for a run that is already finished.

    Args:
        experiment, case: where the training is used, for its training.csv.
        note: receives messages (resumed, damaged checkpoint renamed).

    Raises:
        Interrupted: `stopper` returned True; the state is saved.
        UserError: the data are missing, or the folder cannot be written.
    """
    while True:
        folder = folder_of(context, run)
        with locked(folder, stopper, note):
            finished = find_finished(context, run, note)
            if finished is None:
                context.split(run.data, "train")  # the folder depends on the images
                if folder_of(context, run) != folder:
                    continue
                finished = _train(
                    context, run, folder, experiment, case, profile, stopper, report, note
                )
            else:
                _log(context, finished)
            if processes.rank() == 0:
                remove_checkpoints(folder)
            _unlock(folder)
            return finished


def write_log(
    context: Context, finished: FinishedRun, stopper: Stopper, note: Callable[[str], None]
) -> None:
    """Write the log given by `context` for a finished run.

    Raises:
        Interrupted: `stopper` returned True while another process held the run's folder.
        UserError: the folder cannot be written.
    """
    if context.log is not None:
        with locked(finished.folder, stopper, note):
            _log(context, finished)
            _unlock(finished.folder)


def _unlock(folder: Path) -> None:
    """Remove the lock file of a finished run; waiting processes will find the run finished."""
    if processes.rank() == 0:
        (folder / LOCK_FILE).unlink(missing_ok=True)


def _log(context: Context, finished: FinishedRun) -> None:
    if context.log is not None:
        EpochLog(finished.folder, finished.rows, finished.started, context.log).close()


def _train(
    context: Context,
    run: RunConfig,
    folder: Path,
    experiment: str,
    case: str,
    profile: Profile | None,
    stopper: Stopper,
    report: Callable[[TrainingProgress], None],
    note: Callable[[str], None],
) -> FinishedRun:
    """`train_run` in a folder that this process has locked."""
    check_writable(folder)
    if folder != run_folder(run, context.runs):
        note(f"{run_folder(run, context.runs)} is for different images; training in {folder}")
    data = run.data
    normalization = context.normalization(data)
    splits = {"train": context.split(data, "train"), "test": context.split(data, "test")}
    num_classes = len(splits["train"].classes)
    network = build(run.model, num_classes, run.seed).to(context.device)
    trainer = Trainer(
        run,
        network,
        context.batches(data, "train", normalization),
        context.batches(data, "test", normalization),
        folder,
        report,
        stopper,
        "plain" if context.deterministic and context.device.type == "cuda" else context.engine,
        note,
        fingerprint=splits["train"].fingerprint,
    )
    for warning in trainer.warnings:
        note(warning)
    if trainer.position.iteration:
        note(f"resuming {folder} at iteration {trainer.position.iteration} of {trainer.total}")
    began = datetime.now(UTC) - timedelta(seconds=trainer.position.seconds)
    started = began.isoformat(timespec="seconds")
    log = None
    if context.log is not None:
        log = EpochLog(folder, trainer.position.rows, started, context.log)
        trainer.report = _also_logged(report, log)
    with closing(log) if log is not None else nullcontext():
        is_over = trainer.fit()
    if not is_over:
        raise Interrupted(
            f"stopped at iteration {trainer.position.iteration} of {trainer.total}, saved in "
            f"{folder}; the same command resumes from there"
        )
    position = trainer.position
    final = trainer.final
    finished = FinishedRun(
        folder=folder,
        run=run,
        rows=position.rows,
        parameters=sum(p.numel() for p in network.parameters()),
        num_classes=num_classes,
        diverged_at=position.iteration if position.diverged else None,
        data={f"{data.dataset}/{name}": split.fingerprint for name, split in splits.items()},
        started=started,
        seconds=position.seconds,
        top5_error=final.top5_error if final is not None and num_classes >= TOP5_FROM else None,
    )
    outcome = {
        "test_error": finished.test_error,
        "best_error": finished.best_error,
        "iterations": position.iteration,
        "experiment": experiment,
        "case": case,
        "profile": profile,
    }

    def write() -> FinishedRun:
        atomic_write(
            finished.weights,
            weights_bytes(network, run, splits["train"].classes, normalization, outcome),
        )
        rows = [{"experiment": experiment, "case": case} | row for row in finished.rows]
        provenance = finished.provenance(run.model_dump(mode="json"), profile, str(context.device))
        write_table(rows, "training", folder, provenance)
        names = [WEIGHTS_FILE, "training.csv"]
        if final is not None:
            names.append(write_outcomes(folder, {RUN_KEY: final.correct.numpy()}).name)
        write_run_file(folder, description_of(finished), names)
        written = read_finished(folder)
        assert written is not None
        return written

    return processes.from_first(write)


def _also_logged(
    report: Callable[[TrainingProgress], None], log: EpochLog
) -> Callable[[TrainingProgress], None]:
    """A progress report that also adds each epoch's row to a log."""

    def both(progress: TrainingProgress) -> None:
        report(progress)
        if progress.row is not None:
            log.add(progress.row)

    return both


def description_of(finished: FinishedRun) -> dict[str, Any]:
    """The content of run.json; `finished_from` reads it."""
    return {
        "hash": finished.run.hash,
        "run": finished.run.model_dump(mode="json"),
        "rows": finished.rows,
        "parameters": finished.parameters,
        "num_classes": finished.num_classes,
        "diverged_at": finished.diverged_at,
        "data": dict(finished.data),
        "started": finished.started,
        "seconds": finished.seconds,
        "top5_error": finished.top5_error,
    }
