"""A paper's claim set against what was measured: a verdict with the figures behind it."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["holds", "does not hold", "not measured"]


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, judged at one profile. Nothing is rounded in its favour."""

    paper: str
    source: str
    """Table, figure or section: `table1`, `fig5a`, `section4.3`."""
    text: str
    """The claim in a sentence."""
    verdict: Verdict
    evidence: str
    """The measured figures that decide, with their numbers of seeds and samples; for `not
    measured`, the command that would measure it."""
    caveat: str = ""
    """What the profile cannot show, for example a short schedule or other data."""
    headline: bool = False
    """One of the few claims that the paper stands for; these have numbers."""
    published: str = ""
    """A headline's figures as the paper has them."""
    ours: str = ""
    """A headline's figures as measured, in the same form; empty when nothing was."""
    dataset: str = ""
    """What was measured on; empty when nothing was, or no data were needed."""
    seeds: str = ""
    """How many trainings decide: `1 seed`, `3 seeds each`; empty likewise."""
