"""The claims of paper 1 (He et al. 2016, arXiv:1603.05027)."""

from collections.abc import Iterator, Sequence

from resnet_cli.claims.he2016_judges import (
    EXCLUSIVE,
    FAILING,
    ORIGINAL,
    PAPER,
    PLACEMENTS,
    ROWS,
    SAME_WITHIN,
    SCALINGS,
    SHORTCUT_ONLY,
    about,
    above_original,
    failing_rows,
    higher_loss,
    lead_grows,
    lowest,
    scaled_gradients,
)
from resnet_cli.claims.verdict import Claim


def _claims() -> Iterator[Claim]:
    yield from _of_shortcuts()
    yield from _of_placements()
    yield from _of_depths()
    yield Claim(
        PAPER,
        "table4",
        "Pre-activation ResNet-1001 is slightly better with batch size 64 than with 128, CIFAR-10",
        {"table4-cifar10": ("preact-1001-cifar10", "preact-1001-batch64-cifar10")},
        above_original("table4", [("preact-1001-cifar10", "preact-1001-batch64-cifar10")]),
    )
    yield from _of_imagenet()


def _of_shortcuts() -> Iterator[Claim]:
    """Table 1, the curves of Figure 3, and the equations behind both."""
    source = "table1"

    def of_table(text: str, cases: Sequence[str], short: str = "") -> Claim:
        needs = {"table1": (ORIGINAL, *cases)}
        return Claim(PAPER, source, text, needs, lowest(source, ORIGINAL, cases), short=short)

    yield of_table(
        "The identity is the best of all shortcuts", ROWS, "The identity is the best shortcut"
    )
    yield of_table(
        "A shortcut scaled by a constant, 0 (a plain network) or 0.5, is worse than the identity",
        SCALINGS,
    )
    yield of_table("Exclusive gating, at any initial bias, is worse than the identity", EXCLUSIVE)
    yield of_table(
        "Shortcut-only gating, at any initial bias, is worse than the identity", SHORTCUT_ONLY
    )
    yield of_table("A 1x1 convolution on the shortcut is worse than the identity", ("convolution",))
    yield of_table("Dropout on the shortcut is worse than the identity", ("dropout",))
    yield Claim(
        PAPER,
        source,
        "Shortcuts of 0 and 0.5 with an unscaled F, exclusive gating with each bias from 0 to -5, "
        "and dropout fail (an error above 20 %), and the identity does not",
        {"table1": (ORIGINAL, *FAILING)},
        failing_rows,
    )
    for name, gates, (low, high) in (
        ("Exclusive", "exclusive-gating", ("0", "-6")),
        ("Shortcut-only", "shortcut-gating", ("0", "-6")),
    ):
        pair = (f"{gates}-bias{low}", f"{gates}-bias{high}")
        yield Claim(
            PAPER,
            source,
            f"{name} gating recovers as the shortcut nears the identity: bias -6 is better than 0",
            {"table1": (ORIGINAL, *pair)},
            above_original(source, [pair]),
        )
    curves = ("scaling-0.5-0.5", "exclusive-gating-bias-6", "shortcut-gating-bias0", "convolution")
    yield Claim(
        PAPER,
        "fig3",
        "Each of four other shortcuts ends at a higher training loss than the identity",
        {"fig3": (ORIGINAL, *curves)},
        higher_loss("fig3", [(case, ORIGINAL) for case in curves], at_first=False),
    )
    yield Claim(
        PAPER,
        "section2",
        "Equations (6) to (8): along the shortcuts alone, each unit multiplies the gradient by its "
        "lambda",
        {"signal": ()},
        scaled_gradients,
        is_check=True,
    )


def _of_placements() -> Iterator[Claim]:
    """Table 2, the placements of BN and ReLU, and the curves of Figure 6."""
    source, depths = "table2", (110, 164)
    for what, case in (
        ("BN after the addition", "bn_after_addition"),
        ("ReLU before the addition", "relu_before_addition"),
    ):
        pairs = [(f"{case}-{depth}", f"original-{depth}") for depth in depths]
        yield Claim(
            PAPER,
            source,
            f"{what} is worse than the original unit, at 110 and 164 layers",
            {"table2": [case for pair in pairs for case in pair]},
            above_original(source, pairs),
        )
    pairs = [(f"relu_only_preactivation-{depth}", f"original-{depth}") for depth in depths]
    yield Claim(
        PAPER,
        source,
        "ReLU-only pre-activation is about as good as the original unit (within "
        f"{SAME_WITHIN} points), at 110 and 164 layers",
        {"table2": [case for pair in pairs for case in pair]},
        about(source, pairs),
    )
    for depth in depths:
        best = f"full_preactivation-{depth}"
        others = [f"{case}-{depth}" for case in PLACEMENTS]
        yield Claim(
            PAPER,
            source,
            f"Full pre-activation is the best of the five placements at {depth} layers",
            {"table2": (best, *others)},
            lowest(source, best, others),
        )
    yield Claim(
        PAPER,
        "fig6a",
        "With BN after the addition the training loss falls more slowly at first",
        {"fig6a": ("original-110", "bn_after_addition-110")},
        higher_loss("fig6", [("bn_after_addition-110", "original-110")], at_first=True),
    )
    yield Claim(
        PAPER,
        "fig6b",
        "Full pre-activation ends at a slightly higher training loss than the original, 164 layers",
        {"fig6b": ("original-164", "full_preactivation-164")},
        higher_loss("fig6", [("full_preactivation-164", "original-164")], at_first=False),
    )


def _of_depths() -> Iterator[Claim]:
    """Table 3, original and full pre-activation by depth, and the curves of Figure 1."""
    source = "table3"
    for title, suffix, depths in (
        ("CIFAR-10", "cifar10", ("110-one_layer", "110", "164", "1001")),
        ("CIFAR-100", "cifar100", ("164", "1001")),
    ):
        experiment = f"table3-{suffix}"
        pairs = [(f"original-{depth}-{suffix}", f"preact-{depth}-{suffix}") for depth in depths]
        yield Claim(
            PAPER,
            source,
            f"Full pre-activation is better than the original at every depth, {title}",
            {experiment: [case for pair in pairs for case in pair]},
            above_original(source, pairs),
        )
        rising = [depth for depth in depths if depth != "110-one_layer"]
        yield Claim(
            PAPER,
            source,
            f"The lead of full pre-activation grows with depth, {' to '.join(rising)} layers, "
            f"{title}",
            {experiment: [case for pair in pairs for case in pair if "one_layer" not in case]},
            lead_grows(suffix, rising),
        )
        turns = [
            (f"original-1001-{suffix}", f"original-164-{suffix}"),
            (f"preact-164-{suffix}", f"preact-1001-{suffix}"),
        ]
        yield Claim(
            PAPER,
            source,
            "From 164 to 1001 layers the original gets worse and full pre-activation better, "
            f"{title}",
            {experiment: [case for pair in turns for case in pair]},
            above_original(source, turns),
            short="Only pre-activation gains from depth" if suffix == "cifar10" else "",
        )
    curves = ("original-1001-cifar10", "preact-1001-cifar10")
    yield Claim(
        PAPER,
        "fig1",
        "With 1001 layers the original's training loss falls more slowly at first than full "
        "pre-activation's",
        {"fig1": curves},
        higher_loss("fig1", [curves], at_first=True),
    )


def _of_imagenet() -> Iterator[Claim]:
    """Table 5, and section 4.1 in the text."""
    pair = ("bn_after_addition-101-224", "original-101-224")
    yield Claim(
        PAPER,
        "text",
        "BN after the addition is worse than the original ResNet-101, ImageNet",
        {"imagenet101": pair},
        above_original("text", [pair]),
    )
    pairs = [(f"original-{depth}-320", f"preact-{depth}-320") for depth in (152, 200)]
    cases = [case for pair in pairs for case in pair]
    yield Claim(
        PAPER,
        "table5",
        "Full pre-activation is better than the original at 152 and 200 layers, ImageNet",
        {"table5": cases},
        above_original("table5", pairs),
    )
    turns = [("original-200-320", "original-152-320"), ("preact-152-320", "preact-200-320")]
    yield Claim(
        PAPER,
        "table5",
        "From 152 to 200 layers the original gets worse and full pre-activation better, ImageNet",
        {"table5": cases},
        above_original("table5", turns),
    )


CLAIMS: tuple[Claim, ...] = tuple(_claims())
