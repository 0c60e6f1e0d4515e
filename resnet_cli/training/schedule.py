"""The learning rate as a pure function of the iteration."""

import math

from resnet_cli.config.schema import TrainConfig


def total_iterations(config: TrainConfig, iterations_per_epoch: int) -> int:
    """The length of a run in iterations (optimizer steps)."""
    if config.iterations is not None:
        return config.iterations
    assert config.epochs is not None
    return config.epochs * iterations_per_epoch


def learning_rate(config: TrainConfig, iteration: int, total: int) -> float:
    """The learning rate of an iteration, counted from 0, in a run of `total` iterations.

    milestones: `warmup_lr` for the first `warmup_iterations`, then `lr`, multiplied by `gamma`
    at each milestone (paper 1, appendix: 0.01 for 400 iterations, then 0.1, divided by 10 at 32k
    and 48k of 64k iterations).
    one_cycle: a linear rise from 0 to `lr` over the first `one_cycle_rise` of the run, then a
    linear fall that would reach 0 at iteration `total` (after L. Smith 2018, arXiv:1803.09820).
    """
    if config.schedule == "one_cycle":
        peak = max(config.one_cycle_rise * total, 1.0)
        rising = (iteration + 1) / peak
        falling = (total - iteration) / max(total - peak, 1.0)
        return config.lr * max(min(rising, falling, 1.0), 0.0)
    if iteration < config.warmup_iterations:
        return config.warmup_lr
    passed = sum(iteration >= milestone for milestone in config.milestones)
    return config.lr * math.pow(config.gamma, passed)
