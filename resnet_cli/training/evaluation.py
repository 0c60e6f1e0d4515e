"""Evaluation of a network on a split, shared by the trainer, `eval` and the studies."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from resnet_cli.datasets.batches import Batches
from resnet_cli.models.network import Network
from resnet_cli.runtime import processes
from resnet_cli.runtime.device import arithmetic, autocast

BATCH_SIZE = 125
"""Images per batch on a CPU: small batches keep activations in its cache."""
TOP5_FROM = 100
"""Minimum number of classes for which the top-5 error is reported."""
CUDA_BATCH_SIZE = 1000
"""Images per batch on a GPU, which small batches do not fill."""


@dataclass(frozen=True)
class Evaluation:
    """The result of one pass over a split."""

    images: int
    wrong: int
    loss: float
    """Mean cross-entropy in nats."""
    correct: Tensor
    """bool [N], whether the image's class has the largest logit and all logits are finite."""
    wrong_top5: int | None = None
    """Images whose class is not among the five largest logits; None with five classes or fewer."""

    @property
    def error(self) -> float:
        """Top-1 error in percent."""
        return 100.0 * self.wrong / self.images

    @property
    def top5_error(self) -> float | None:
        """Top-5 error in percent; None with five classes or fewer."""
        return None if self.wrong_top5 is None else 100.0 * self.wrong_top5 / self.images


@torch.inference_mode()
def evaluate(
    network: Network,
    batches: Batches,
    precision: str = "float32",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Errors and loss over all images in evaluation mode; the mode is restored afterwards.

    Images with a logit that is not finite count as wrong. Under torchrun each process evaluates its
    share of the batches, and all processes return the same result.

    Args:
        report: called after every batch with the numbers of this process's batches done and in
            total.
    """
    was_training = network.training
    network.eval()
    device = network.device
    wrong = torch.zeros((), dtype=torch.int64, device=device)
    wrong_top5 = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    has_top5 = False
    corrects = []
    try:
        size = BATCH_SIZE if device.type == "cpu" else CUDA_BATCH_SIZE
        starts = range(0, len(batches), size)
        own_starts = starts[processes.share(len(starts))]
        for done, start in enumerate(own_starts, 1):
            images, labels = batches.evaluation(start, start + size)
            with arithmetic(precision), autocast(device, precision):
                logits = network(images)
            logits = logits.float()
            finite = logits.isfinite().all(1)
            correct = (logits.argmax(1) == labels) & finite
            wrong += (~correct).sum()
            if logits.shape[1] > 5:
                has_top5 = True
                among = (logits.topk(5).indices == labels[:, None]).any(1)
                wrong_top5 += (~among | ~finite).sum()
            loss += functional.cross_entropy(logits, labels, reduction="sum").double()
            corrects.append(correct.cpu())
            report(done, len(own_starts))
    finally:
        network.train(was_training)
    count = len(batches)
    own = (int(wrong), int(wrong_top5), has_top5, float(loss), corrects)
    wrongs, wrongs_top5, have_top5, losses, per_process = zip(
        *processes.gather_lists([own]), strict=True
    )
    return Evaluation(
        count,
        sum(wrongs),
        sum(losses) / count,
        torch.cat([part for parts in per_process for part in parts]),
        sum(wrongs_top5) if any(have_top5) else None,
    )
