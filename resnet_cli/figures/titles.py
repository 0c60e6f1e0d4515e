"""The text in plots: titles, and the names of networks, data sets and cases."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_cli.claims.papers import case_title
from resnet_cli.config.schema import Case, Experiment
from resnet_cli.datasets.catalogue import title_of, titles

PAPERS = {"he2016": "He et al. 2016", "veit2016": "Veit et al. 2016"}
FAMILIES = {"preact": "pre-act ResNet", "resnet": "ResNet", "vgg": "VGG"}


@dataclass(frozen=True)
class Heading:
    """What a plot's title says in addition to what is shown."""

    figure: str | None = None
    """The paper's table or figure, as in an experiment: `fig5a`, `table1`."""
    network: str = ""
    dataset: str = ""
    training: str = ""
    """The length of the training: `14 epochs`."""
    profile: str | None = None
    changes: tuple[int, ...] = ()
    """The units that change the shape, for figures that mark them."""
    chance: float | None = None
    """The error of guessing in percent, for figures that mark it."""
    paper: str | None = None
    """The paper that `figure` belongs to: `he2016`."""

    @property
    def unit(self) -> str:
        """The word for a part of the network: `layer` for a VGG, otherwise `unit`."""
        return "layer" if self.network.startswith("VGG") else "unit"

    def over(self, shown: str) -> str:
        """The title of a plot: `Veit et al. 2016, Figure 5b: Error after reordering units
        (ResNet-110, CIFAR-10, 14 epochs, profile cpu)`.

        A network named in `shown` is not repeated, and a data set at the end of `shown` is removed.
        """
        for name in titles().values():
            shown = shown.removesuffix(f", {name}")
        setting = [] if self.network in shown else [self.network]
        setting += [title_of(self.dataset), self.training]
        setting += [f"profile {self.profile}"] if self.profile else []
        details = ", ".join(part for part in setting if part)
        source = figure_title(self.figure)
        if source and self.paper:
            source = f"{PAPERS[self.paper]}, {source}"
        title = f"{source}: {shown}" if source else shown
        return f"{title} ({details})" if details else title


def heading_of(
    experiment: Experiment, case: Case | None = None, seed: int | None = None
) -> Heading:
    """The heading of the plots of an experiment, of one case, or of one training.

    The network is named if all cases have the same, apart from the shortcut and the placement.
    """
    cases = [case] if case is not None else experiment.cases
    runs = [experiment.run_config(case, experiment.seeds[0]) for case in cases]
    networks = {network_title(run.model.label).split(", ")[0] for run in runs}
    network = networks.pop() if len(networks) == 1 else ""
    if case is not None and len(experiment.cases) > 1:
        name = case_name(case)
        network = network if name in network else f"{network}, {name}"
    if seed is not None:
        network += f", seed {seed}"
    return Heading(
        experiment.figure,
        network,
        runs[0].data.dataset,
        ", ".join(training_lengths([run.train.model_dump() for run in runs])),
        experiment.profile,
        paper=experiment.paper,
    )


def training_lengths(trains: Iterable[Mapping[str, Any]]) -> list[str]:
    """The lengths of trainings: `["1 and 14 epochs", "32,000 iterations"]`.

    Args:
        trains: the `train:` blocks of configurations.
    """
    found = []
    trains = list(trains)
    for unit in ("epochs", "iterations"):
        lengths = sorted({train[unit] for train in trains if train.get(unit)})
        if lengths:
            found.append(f"{listed(lengths)} {unit.removesuffix('s') if lengths == [1] else unit}")
    return found


def listed(numbers: Sequence[int]) -> str:
    """`20, 110 and 1001`; with separators from 10,000 on."""
    *most, last = (str(n) if n < 10_000 else f"{n:,}" for n in numbers)
    return f"{', '.join(most)} and {last}" if most else last


def case_name(case: Case) -> str:
    """A case in words: its title in the experiment, or the meaning of its name."""
    return case.title or case_title(case.name)


def case_names(experiment: Experiment) -> dict[str, str]:
    """The cases of an experiment in words. If the profile's depth differs from the paper's depth in
    a name, both are given: "original unit, 38 for 110"."""
    names = {}
    for case, run in experiment.runs():
        depth, name = str(run.model.depth), case_name(case)
        paper = re.search(r"(?<=, )\d{2,}\b", name) if case.title is None else None
        if paper is not None and paper[0] != depth:
            name = name.replace(paper[0], f"{depth} for {paper[0]}")
        names[case.name] = name
    return names


def network_title(label: str) -> str:
    """A network in words: `preact110` is "pre-act ResNet-110", `resnet110-dropout`
    "ResNet-110, dropout"; the name of third-party weights is returned unchanged."""
    found = re.fullmatch(r"(preact|resnet|vgg)(\d+)(?:-(.+))?", label)
    if found is None:
        return label
    family, depth, rest = found.groups()
    words = [f"{FAMILIES[family]}-{depth}", *(part for part in (rest or "").split("-") if part)]
    return ", ".join(words).replace("_", " ")


def figure_title(figure: str | None) -> str:
    """`fig5a` is "Figure 5a", `table1` "Table 1", `section5` "Section 5"; anything else is ""."""
    found = re.fullmatch(r"(fig|table|section)([\d.]+[a-z]?)", figure or "")
    if found is None:
        return ""
    kind = {"fig": "Figure", "table": "Table", "section": "Section"}[found[1]]
    return f"{kind} {found[2]}"
