"""The report's texts on each paper: its idea, its figures, and the explanation of their results.

Numbers and verdicts come from the results; these texts do not depend on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from resnet_cli.claims.papers import PAPERS


@dataclass(frozen=True)
class Story:
    """One figure of the article."""

    experiment: str
    """The experiment that is shown, without its paper."""
    plot: str
    """The stem of the picture's file."""
    heading: str
    method: str
    """What was measured."""
    why: str
    """The explanation of the result."""
    sources: Sequence[str] = ()
    """The tables and figures whose claims are shown with it."""


@dataclass(frozen=True)
class Paper:
    """A short description of a paper."""

    key: str
    authors: str
    title: str
    arxiv: str
    says: str
    stories: Sequence[Story]


ABOUT = (
    Paper(
        "he2016",
        "He, Zhang, Ren, Sun 2016",
        "Identity Mappings in Deep Residual Networks",
        "1603.05027",
        "With an identity shortcut, and batch norm and ReLU before the convolutions, networks of "
        "1,001 layers can be trained, and deeper networks are better.",
        (
            Story(
                "table1",
                "table",
                "The shortcut should be the identity",
                "The same network is trained with other shortcuts: scaled by a constant, gated, "
                "convolved, or with dropout (Table 1).",
                "With h(x) = λx, the gradient along the shortcuts alone is multiplied by every λ. "
                "It vanishes or explodes with depth unless all λ are 1.",
                ("table1", "fig3"),
            ),
            Story(
                "signal",
                "signal",
                "What other shortcuts do to the signal",
                "Activations, gradients and the shortcut's factor are measured at every unit, "
                "before and after training. The paper derives these quantities but does not "
                "measure them.",
                "At initialisation, a gate with bias 0 halves the shortcut at each unit, and one "
                "with bias -6 is close to the identity.",
            ),
            Story(
                "table2",
                "table",
                "Batch norm and ReLU belong before the convolutions",
                "Five orders of batch norm, ReLU and addition are trained at two depths (Table 2).",
                "After the addition, batch norm and ReLU change the signal of the shortcut; before "
                "the convolutions, they leave it unchanged.",
                ("table2", "fig6a", "fig6b"),
            ),
            Story(
                "fig1",
                "training",
                "Only pre-activation gains from 1,001 layers",
                "A network of 333 units is trained with original and with pre-activation units "
                "(Figure 1, Table 3).",
                "In the original unit, the ReLU after each addition truncates the signal of the "
                "shortcut, which slows down the training of a very deep network.",
                ("fig1", "table3"),
            ),
        ),
    ),
    Paper(
        "veit2016",
        "Veit, Wilber, Belongie 2016",
        "Residual Networks Behave Like Ensembles of Relatively Shallow Networks",
        "1605.06431",
        "A network of n units is a collection of 2ⁿ paths that behaves like an ensemble: if a unit "
        "is deleted, the other paths still work. Short paths carry nearly all of the gradient.",
        (
            Story(
                "fig3",
                "lesion_single",
                "Deleting one layer: fatal for a VGG, not for a residual network",
                "Each layer of a VGG, and the residual branch of each unit, is deleted in turn "
                "(Figure 3).",
                "A VGG has a single path through all layers. In a residual network, half of the "
                "paths bypass any given unit. The units that downsample are the exception; "
                "re-estimated batch-norm statistics, below, recover part of their damage.",
                ("fig3", "fig8"),
            ),
            Story(
                "fig5a",
                "lesion_count",
                "Deleting many units: the error rises gradually",
                "1 to 20 units are deleted at random, several draws each (Figure 5a).",
                "Each deletion removes half of the remaining paths. A draw that includes an "
                "important unit does far more damage than the number of units suggests.",
                ("fig5a", "fig5b"),
            ),
            Story(
                "recalibration",
                "recalibration",
                "How much of the damage re-estimated batch-norm statistics repair",
                "After a deletion, every later batch norm still uses the statistics of activations "
                "that no longer occur. Here these statistics are re-estimated on unlabelled "
                "training images, without gradients. Arrows lead from the error as trained to "
                "that with re-estimated statistics; parentheses give the range over draws of "
                "images and the error with the statistics of another lesion.",
                "The technique is known from pruning and from networks of variable size "
                "(EagleEye, slimmable networks, Once-for-All, REFLOW, REPAIR; PRACTISE drops "
                "blocks and trains adapters). We found no work that reports it for the deletions "
                "of this paper, but the search was not exhaustive.",
            ),
            Story(
                "fig6",
                "paths",
                "Short paths carry the gradient",
                "The gradient at the input is measured along sampled paths of each length, and "
                "exactly for all paths of a length together (Figure 6).",
                "There are few short paths and astronomically many long ones, but each residual "
                "branch on a path reduces its gradient. The published estimate adds the norms of "
                "gradients that partly cancel, so it overestimates the contribution of long paths.",
                ("fig6b", "fig6c", "discussion"),
            ),
            Story(
                "effective_paths",
                "table",
                "Training only short paths",
                "In each batch, 23 of the 54 units are active, so that only paths through at most "
                "23 units are trained (section 5).",
                "If only short paths matter, the others need not be trained.",
                ("section5",),
            ),
        ),
    ),
)
assert tuple(paper.key for paper in ABOUT) == PAPERS
