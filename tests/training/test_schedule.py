"""The learning rate at each iteration, and the length of a run."""

import pytest

from resnet_cli.config.schema import TrainConfig
from resnet_cli.training.schedule import learning_rate, total_iterations

PAPER = TrainConfig(iterations=64_000)


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [
        (0, 0.01),
        (399, 0.01),
        (400, 0.1),
        (31_999, 0.1),
        (32_000, 0.01),
        (47_999, 0.01),
        (48_000, 0.001),
        (63_999, 0.001),
    ],
)
def test_the_defaults_are_the_schedule_of_paper_1(iteration: int, expected: float) -> None:
    assert learning_rate(PAPER, iteration, 64_000) == pytest.approx(expected, rel=1e-12)


def test_the_schedule_of_paper_1_has_four_pieces() -> None:
    rates = [learning_rate(PAPER, iteration, 64_000) for iteration in range(64_000)]
    pieces = [(round(rate, 12), rates.count(rate)) for rate in dict.fromkeys(rates)]
    # 0.01 stands for the warm-up and for the time between the milestones, to the last bit or not.
    assert sum(count for rate, count in pieces if rate == 0.01) == 400 + 16_000
    assert sum(count for rate, count in pieces if rate == 0.1) == 32_000 - 400
    assert sum(count for rate, count in pieces if rate == 0.001) == 16_000


def test_no_warm_up_and_no_milestone_is_a_constant_rate() -> None:
    config = TrainConfig(iterations=10, lr=0.3, warmup_iterations=0, milestones=())
    assert {learning_rate(config, iteration, 10) for iteration in range(10)} == {0.3}


def test_milestones_may_fall_within_the_warm_up() -> None:
    config = TrainConfig(iterations=10, warmup_iterations=5, milestones=(2, 7), gamma=0.5, lr=1.0)
    rates = [learning_rate(config, iteration, 10) for iteration in range(10)]
    assert rates == [0.01] * 5 + [0.5] * 2 + [0.25] * 3


def test_one_cycle_by_hand() -> None:
    # 10 iterations, peak at 0.4 x 10 = 4: up by quarters, then down by sixths towards 0 at 10.
    config = TrainConfig(iterations=10, schedule="one_cycle", lr=1.0, one_cycle_rise=0.4)
    rates = [learning_rate(config, iteration, 10) for iteration in range(10)]
    by_hand = [0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert rates == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 330, 64_000])
@pytest.mark.parametrize("rise", [0.001, 0.3, 0.5, 0.999])
def test_one_cycle_rises_to_its_peak_then_falls_and_stays_positive(total: int, rise: float) -> None:
    config = TrainConfig(iterations=total, schedule="one_cycle", lr=0.2, one_cycle_rise=rise)
    rates = [learning_rate(config, iteration, total) for iteration in range(total)]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < min(rates) <= max(rates) <= 0.2
    assert abs(peak - rise * total) <= 1


def test_one_cycle_is_never_negative_past_its_end() -> None:
    config = TrainConfig(iterations=10, schedule="one_cycle")
    assert [learning_rate(config, iteration, 10) for iteration in (10, 11, 100)] == [0.0] * 3


def test_total_iterations_from_either_length() -> None:
    assert total_iterations(TrainConfig(epochs=3), iterations_per_epoch=22) == 66
    assert total_iterations(TrainConfig(iterations=64_000), iterations_per_epoch=22) == 64_000
