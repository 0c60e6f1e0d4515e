"""What the report says of each paper: its idea, its figures, and why they come out as they do.

Numbers and verdicts are read from the results; here are only words that do not depend on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from resnet_cli.claims.papers import PAPERS


@dataclass(frozen=True)
class Story:
    """One figure of the article."""

    experiment: str
    """Whose result is shown, without its paper."""
    plot: str
    """The stem of its picture."""
    heading: str
    method: str
    """What was done."""
    why: str
    """How the outcome is explained."""
    sources: Sequence[str] = ()
    """The tables and figures whose claims it bears on."""


@dataclass(frozen=True)
class Paper:
    """A paper in a few words."""

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
        "Leave the shortcut alone, put batch norm and ReLU before the convolutions: 1,001 layers "
        "train, and deeper is better.",
        (
            Story(
                "table1",
                "table",
                "The shortcut should be the identity",
                "The same network is trained with other shortcuts: scaled by a constant, gated, "
                "convolved, or with dropout (Table 1).",
                "With h(x) = λx the gradient that comes through the shortcuts alone is a product "
                "of all λ. It vanishes or explodes with depth unless every λ is 1.",
                ("table1", "fig3"),
            ),
            Story(
                "signal",
                "signal",
                "What other shortcuts do to the signal",
                "Activations, gradients and the shortcut's factor are measured at every unit, "
                "before and after training. The paper argues by these equations and does not "
                "measure them.",
                "A gate that starts open multiplies the shortcut by one half at each unit; one "
                "with a bias of -6 starts near the identity.",
            ),
            Story(
                "table2",
                "table",
                "Batch norm and ReLU belong before the convolutions",
                "Five orders of batch norm, ReLU and addition are trained at two depths (Table 2).",
                "After the addition, batch norm and ReLU act on the shortcut's signal; before "
                "the convolutions they leave it as it is.",
                ("table2", "fig6a", "fig6b"),
            ),
            Story(
                "fig1",
                "training",
                "Only pre-activation gains from 1,001 layers",
                "A network of 333 units is trained with the original and with the pre-activation "
                "unit (Figure 1, Table 3).",
                "In the original unit the ReLU after each addition cuts the shortcut's signal, "
                "which slows training down in a very deep network.",
                ("fig1", "table3"),
            ),
        ),
    ),
    Paper(
        "veit2016",
        "Veit, Wilber, Belongie 2016",
        "Residual Networks Behave Like Ensembles of Relatively Shallow Networks",
        "1605.06431",
        "A network of n units is 2ⁿ paths: delete a unit and the rest work on, as an ensemble. "
        "Short paths carry nearly all gradient.",
        (
            Story(
                "fig3",
                "lesion_single",
                "One layer less: fatal for a VGG, not for a residual network",
                "Each layer of a VGG, and the residual branch of each unit, is deleted in turn "
                "(Figure 3).",
                "A VGG has one path, and every layer is on it. Half of the paths of a residual "
                "network avoid any given unit. The units that downsample are the exception: no "
                "other path makes up for the features that they create.",
                ("fig3", "fig8"),
            ),
            Story(
                "fig5a",
                "lesion_count",
                "Many units less: the error rises step by step",
                "1 to 20 units are deleted at random, several draws each (Figure 5a).",
                "Each deletion removes half of the remaining paths. A draw that includes a unit "
                "that matters alone costs far more than the number of units suggests.",
                ("fig5a", "fig5b"),
            ),
            Story(
                "recalibration",
                "recalibration",
                "How much of the damage new batch-norm statistics recover",
                "After a deletion every later batch norm still normalises with statistics of "
                "activations that no longer occur. Here these statistics are re-estimated on "
                "unlabelled training images, without a gradient. The intact network, "
                "re-estimated with the same images, is the second baseline.",
                "The part of the damage that disappears is recoverable by re-estimation. The "
                "technique is known from pruning and from networks of variable size (EagleEye, "
                "slimmable networks, Once-for-All, REFLOW, REPAIR; PRACTISE drops blocks and "
                "trains adapters). For the deletions of this paper we found none that report it; "
                "the search was not exhaustive.",
            ),
            Story(
                "fig6",
                "paths",
                "Short paths carry the gradient",
                "The gradient at the input is measured along sampled paths of every length, and "
                "exactly for all paths of a length together (Figure 6).",
                "There are few short paths and astronomically many long ones, but the gradient "
                "of a path shrinks with every residual branch on it. The published estimate adds "
                "norms of paths that partly cancel, so it overstates the long ones.",
                ("fig6b", "fig6c", "discussion"),
            ),
            Story(
                "effective_paths",
                "table",
                "Training only short paths",
                "In each batch 23 of the 54 units take part, so that only paths of up to 23 units "
                "are trained (section 5).",
                "If short paths do the work, training the others is not needed.",
                ("section5",),
            ),
        ),
    ),
)
assert tuple(paper.key for paper in ABOUT) == PAPERS
