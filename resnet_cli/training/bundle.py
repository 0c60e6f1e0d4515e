"""Bundled weights: finished runs as small files with a model card, shipped with the program.

A bundle is `NAME.safetensors`, the weights in float16, and its card, `NAME.json`: how it was
trained, on which data, by which command and commit, the measurements of each epoch, and the test
error of exactly these rounded weights.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from resnet_cli.results.provenance import Checkpoint
from resnet_cli.results.tables import check_writable, column_names, read_provenance, write_together
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.subject import find_subject
from resnet_cli.training.context import Context
from resnet_cli.training.evaluation import evaluate
from resnet_cli.training.runs import FinishedRun, description_of, finished_from, read_finished
from resnet_cli.weights import cards
from resnet_cli.weights.cards import bundled_run, damaged_card, read_card
from resnet_cli.weights.load import load_network, weights_bytes

MAX_BYTES = 4_000_000


def bundle(
    context: Context,
    run_folder: str,
    name: str,
    out: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Make a bundle of a finished run; return the path of its weights.

    Args:
        report: called with the numbers of batches done and in total while the rounded weights are
            evaluated.

    Raises:
        UserError: the folder does not hold a finished run, the name is not valid, the file is too
            large, or the folder cannot be written.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise UserError(f"--name {name!r}: use lower-case letters, digits, - and _")
    folder = out or cards.bundled_folder()
    check_writable(folder)
    subject = find_subject(context, run_folder)
    finished = read_finished(Path(run_folder))
    if finished is None:
        raise UserError(
            f"--export {run_folder}: not a finished run of this program, and a bundle's card "
            "describes one; give a folder below runs/"
        )
    run = finished.run
    training = read_provenance(Path(run_folder) / "training.csv")
    network = subject.loaded.network
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())
    result = evaluate(network, subject.batches("test"), report=report)
    outcome = dict(subject.loaded.outcome) | {
        "test_error": result.error,
        "images": result.images,
        "epochs": run.train.epochs,
        "command": training["command"],
        "commit": training["commit"],
        "data": training["data"],
        "float32_sha256": subject.loaded.sha256,
    }
    names = subject.loaded.class_names or ()
    content = weights_bytes(
        network, run, names, subject.normalization, outcome, dtype=torch.float16
    )
    if len(content) > MAX_BYTES:
        raise UserError(
            f"{name}: {len(content):,} bytes; a bundle may have at most {MAX_BYTES:,}: bundle a "
            "smaller network"
        )
    card = {
        "name": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "run": run.model_dump(mode="json"),
        "training": {k: v for k, v in description_of(finished).items() if k != "run"},
    } | outcome
    path = folder / f"{name}.safetensors"
    text = json.dumps(card, indent=1, sort_keys=True) + "\n"
    write_together({path: content, path.with_suffix(".json"): text})
    return path


def bundled_training(name: str) -> FinishedRun:
    """The training that bundled weights come from, according to their card: its epochs and final
    results. The oldest cards contain only the last epoch, with its test error.

    Raises:
        UserError: the card is damaged.
    """
    card, run = read_card(name), bundled_run(name)
    path = cards.bundled_folder() / f"{name}.safetensors"
    try:
        if "training" in card:
            return finished_from(path, {"run": card["run"]} | card["training"])
        loaded = load_network(name)
        columns = column_names("training")[2:]  # without experiment and case
        last: dict[str, Any] = dict.fromkeys(columns)
        last |= {"seed": run.seed, "epoch": card["epochs"], "iteration": card["iterations"]}
        return FinishedRun(
            folder=path,
            run=run,
            rows=[last | {"test_error": card["test_error"]}],
            parameters=sum(p.numel() for p in loaded.network.parameters()),
            num_classes=loaded.num_classes,
            diverged_at=None,
            data=card["data"],
            started=datetime.now(UTC).isoformat(timespec="seconds"),  # the card does not say
            seconds=0.0,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise damaged_card(name, error) from None


def bundled_checkpoint(names: Sequence[str]) -> Checkpoint | None:
    """The provenance entry of bundled weights that replace trainings; None if there are none.

    For several, it holds all their names and one hash over their hashes.

    Raises:
        UserError: a card is damaged.
    """
    if not names:
        return None
    hashes = [str(read_card(name)["sha256"]) for name in names]
    digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
    return Checkpoint(source=", ".join(names), sha256=hashes[0] if len(hashes) == 1 else digest)
