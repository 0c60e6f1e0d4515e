"""The units that are active in a training step: all, a random subset, or a fixed number."""

from collections.abc import Sequence

import torch

from resnet_cli.config.schema import TrainConfig
from resnet_cli.models.network import Network
from resnet_cli.runtime.seeding import stream


def survival_probabilities(config: TrainConfig, num_units: int) -> list[float]:
    """For each unit, in forward order, the probability that its F is active in a training step.

    Stochastic depth (Huang et al. 2016, arXiv:1603.09382, equation 4): linear decay,
    p_l = 1 - l/L (1 - p_L), l from 1 to L. Active units (paper 2, section 5): k/n for all units.
    In evaluation, F is multiplied by this probability (Huang et al., equation 5). Paper 2 does not
    say how it evaluates; the expected value during training leads to the same rule.
    """
    if config.stochastic_depth is not None:
        last = config.stochastic_depth
        return [1 - index / num_units * (1 - last) for index in range(1, num_units + 1)]
    if config.active_units is not None:
        return [config.active_units / num_units] * num_units
    return [1.0] * num_units


def set_survival(network: Network, config: TrainConfig) -> None:
    """Set each unit's probability, by which its F is multiplied in evaluation."""
    probabilities = survival_probabilities(config, len(network.units))
    for unit, probability in zip(network.unit_list, probabilities, strict=True):
        unit.survival = probability


def draw_active(
    config: TrainConfig, num_units: int, seed: int, iteration: int
) -> Sequence[bool] | None:
    """Whether each unit is active in an iteration; None if all are.

    The draw depends only on the seed and the iteration.
    """
    if config.stochastic_depth is None and config.active_units is None:
        return None
    generator = stream(seed, "active units", iteration)
    if config.active_units is not None:
        chosen = torch.randperm(num_units, generator=generator)[: config.active_units].tolist()
        return [index in set(chosen) for index in range(num_units)]
    draws = torch.rand(num_units, generator=generator).tolist()
    return [d < p for d, p in zip(draws, survival_probabilities(config, num_units), strict=True)]
