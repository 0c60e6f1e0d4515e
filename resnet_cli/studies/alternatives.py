"""Testing assumptions about third-party weights on labelled images.

The shapes of a checkpoint do not determine where a bottleneck has its stride, whether the stem ends
with a pooling, or which nonlinearity was trained. If labelled images are available, each plausible
value is compared with the assumed one on the same few hundred images. It replaces the assumed value
only if it is significantly better in a sign test (normal approximation, p < 0.001) on the images
that only one of the two classifies correctly. Of several such values the one with the lowest loss
is taken.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from resnet_cli.runtime.interrupt import Interrupted
from resnet_cli.studies.progress import Report
from resnet_cli.studies.subject import Subject
from resnet_cli.weights.assumptions import Assumption
from resnet_cli.weights.load import load_network

IMAGES = 300
"""Images on which the alternatives are compared: enough to distinguish 10 % error from 20 %."""
FEW = 40
"""Images that are enough to reject a wrong nonlinearity, which misclassifies nearly all."""
BATCH_SIZE = 20
"""Images in a batch; the command can be stopped between batches."""
CLEAR = 3.3
"""Standard errors of a significant difference (p = 0.001)."""


@dataclass(frozen=True)
class Trial:
    """One assumption with another value, measured."""

    assumption: Assumption
    value: str
    images: int
    error: float
    """In percent, with the value."""
    error_before: float
    """In percent, with the assumption as it was."""
    is_taken: bool = False
    """The value is significantly better than the assumed one, and has the lowest loss."""
    as_good: tuple[str, ...] = ()
    """Other values that are significantly better too, and not significantly worse than this one."""

    def __str__(self) -> str:
        text = (
            f"tried {self.assumption.key}={self.value} on {self.images} images: error "
            f"{self.error:.1f} % instead of {self.error_before:.1f} %"
        )
        if self.is_taken:
            text += f"; taken. In other commands, state --model {self.assumption.key}={self.value}"
            if self.as_good:
                text += f". {' and '.join(self.as_good)}: not significantly worse on these images"
        return text


def try_alternatives(
    subject: Subject,
    should_stop: Callable[[], bool] = lambda: False,
    report: Report = lambda done, total: None,
) -> tuple[Subject, list[Trial]]:
    """The subject with the assumptions that labelled images support, and the trials.

    Only assumptions that `--model` does not state are tested, one after another.

    Args:
        report: called with (values tried, all values).

    Raises:
        Interrupted: `should_stop` returned true.
        UserError: the data are missing.
    """
    trials: list[Trial] = []
    if not any(assumption.others for assumption in subject.loaded.assumptions):
        return subject, trials
    total = sum(len(assumption.others) for assumption in subject.loaded.assumptions)
    report(0, total)
    done, now = 0, _outcome(subject, should_stop)
    for assumption in subject.loaded.assumptions:
        better: dict[str, tuple[Subject, _Outcome]] = {}
        tried: list[Trial] = []
        for value in assumption.others:
            other = _with(subject, assumption.key, value)
            found = _outcome(other, should_stop, FEW)
            if not now.first(FEW).is_clearly_better_than(found):
                found = _outcome(other, should_stop)
            tried.append(
                Trial(assumption, value, found.images, found.error, now.first(found.images).error)
            )
            if found.is_clearly_better_than(now.first(found.images)):
                better[value] = other, found
            done += 1
            report(done, total)
        if better:
            best = min(better, key=lambda value: better[value][1].loss)
            subject, now = better.pop(best)
            close = [v for v, (_, found) in better.items() if not now.is_clearly_better_than(found)]
            tried = [
                replace(t, is_taken=True, as_good=tuple(close)) if t.value == best else t
                for t in tried
            ]
        trials += tried
    return subject, trials


def _with(subject: Subject, key: str, value: str) -> Subject:
    overrides = {**subject.loaded.overrides, key: value}
    loaded = load_network(subject.loaded.source, overrides)
    loaded.network.to(subject.context.device)
    return replace(subject, loaded=loaded)


@dataclass(frozen=True)
class _Outcome:
    """The predictions of a network on the first test images."""

    right: Tensor
    """bool [N]."""
    loss: float
    """Mean cross-entropy in nats; infinite if a logit is not finite."""

    @property
    def images(self) -> int:
        return len(self.right)

    @property
    def error(self) -> float:
        """In percent."""
        return 100.0 * float((~self.right).float().mean())

    def first(self, images: int) -> "_Outcome":
        """The outcome on the first images only; the loss is that of all."""
        return _Outcome(self.right[:images], self.loss)

    def is_clearly_better_than(self, other: "_Outcome") -> bool:
        """By the sign test on the images that only one of the two classifies correctly."""
        gained = int((self.right & ~other.right).sum())
        lost = int((other.right & ~self.right).sum())
        return gained - lost > CLEAR * math.sqrt(max(1, gained + lost))


@torch.inference_mode()
def _outcome(
    subject: Subject, should_stop: Callable[[], bool], images: int | None = None
) -> _Outcome:
    batches = subject.batches("test")
    right, losses = [], []
    limit = min(images or IMAGES, IMAGES, len(batches))
    for start in range(0, limit, BATCH_SIZE):
        if should_stop():
            raise Interrupted("stopped; nothing was measured")
        x, labels = batches.evaluation(start, min(start + BATCH_SIZE, limit))
        logits = subject.network(x)
        right.append(((logits.argmax(1) == labels) & logits.isfinite().all(1)).cpu())
        losses.append(functional.cross_entropy(logits, labels, reduction="none").cpu())
    loss = float(torch.cat(losses).mean())
    return _Outcome(torch.cat(right), loss if math.isfinite(loss) else math.inf)
