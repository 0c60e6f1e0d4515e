"""Every folder and file name below `runs/` and `results/`.

runs/<run>/                                 one training (`RunConfig.folder`)
runs/<run>-<fingerprint>/                   the same configuration on different images
results/<paper>/<profile>/<experiment>/     an experiment of a paper
results/<...>/<case>[-seed<n>]/             one network of a study with several networks
results/local/<experiment>/<profile>/       any other experiment
results/local/<command>-<name>-<options>/   a study from the command line
results/local/<...>-<weights>/              the same with other weights of this name
results/local/again-<...>/                  a result measured again from its provenance
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from resnet_cli.config.schema import Experiment, RunConfig

RUNS = Path("runs")
RESULTS = Path("results")
LOCAL = "local"

RUN_FILE = "run.json"
"""A run's configuration and results; written last, so it marks a finished run."""
WEIGHTS_FILE = "weights.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
PREVIOUS_CHECKPOINT = "checkpoint.previous.safetensors"
NEW_CHECKPOINT = "checkpoint.new.safetensors"
LOCK_FILE = ".lock"
OWNER_FILE = ".owner.json"
"""The process that holds the lock, for the message of a waiting process."""
LOG_FOLDER = "tensorboard"

PROVENANCE_SUFFIX = ".provenance.json"
OUTCOMES_FILE = "correct.npz"
REPORT_FILE = "report.html"
PLAN_FILE = "examine.json"
"""The sizes of an examination."""
EXAMINATION_FILE = "examine.html"


def results_to_show(papers: Iterable[str]) -> Path:
    """The folder of results to compare and report: `results`, or, if it has no results for these
    papers, the results that come with the program."""
    if any((RESULTS / paper).is_dir() for paper in papers):
        return RESULTS
    installed = Path(__file__).parents[1] / "measured"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "results"


def provenance_path(table: Path) -> Path:
    """The provenance file next to a table: `table.csv` -> `table.provenance.json`."""
    return table.with_suffix(PROVENANCE_SUFFIX)


def table_path(provenance: Path) -> Path:
    """The table that a provenance file describes: `table.provenance.json` -> `table.csv`."""
    return provenance.with_name(provenance.name.removesuffix(PROVENANCE_SUFFIX) + ".csv")


def is_provenance(name: str) -> bool:
    """Whether a name is that of a provenance file rather than an experiment."""
    return name.endswith(PROVENANCE_SUFFIX)


def partial_table(table: Path, rank: int = 0) -> Path:
    """The file with the draws of an unfinished table, for the process with this rank."""
    return table.with_suffix(f".partial{rank or ''}.jsonl")


def run_folder(run: RunConfig, runs: Path = RUNS, fingerprint: str = "") -> Path:
    """The folder of a training; the fingerprint of its training images is added if the same
    configuration was already trained on other images."""
    return runs / "-".join(filter(None, (run.folder, fingerprint[:10])))


def experiment_folder(experiment: Experiment, results: Path = RESULTS) -> Path:
    """`results/<paper>/<profile>/<experiment>`, or `results/local/<experiment>/<profile>`."""
    if experiment.paper is None:
        return results / LOCAL / experiment.name / experiment.profile
    name = experiment.name.removeprefix(f"{experiment.paper}/")
    return results / experiment.paper / experiment.profile / name


def case_folder(experiment: Experiment, case: str, seed: int) -> str:
    """The folder of one network's study inside the experiment's folder: `plain`, `plain-seed2`, or
    `.` if there is only one network."""
    several_seeds = len(experiment.seeds) > 1
    if len(experiment.cases) == 1 and not several_seeds:
        return "."
    return f"{case}-seed{seed}" if several_seeds else case


def local_folder(
    command: str, name: str, options: Mapping[str, object], weights: Sequence[str] = ()
) -> Path:
    """The folder for a study from the command line. Each combination of options has its own, so
    that no result replaces that of another question.

    Args:
        name: the weights or the experiment.
        options: those that are not at their default. None and False are left out; of those that
            are True only the name is used.
        weights: the hashes of the weights; they are added if other weights have this name.
    """
    words = [
        option if value is True else f"{option}{value}"
        for option, value in options.items()
        if value is not None and value is not False
    ]
    words += [digest[:10] for digest in weights]
    return RESULTS / LOCAL / "-".join([command, name, *words]).replace("/", "-")


def repeated_folder(provenance: Path) -> Path:
    """The folder for a result measured again from a provenance file, named after the folders below
    `results/` that lead to that file."""
    folders = Path(os.path.abspath(provenance)).parent.parts[1:]
    last = len(folders) - 1
    start = max((i + 1 for i in range(last) if folders[i] == RESULTS.name), default=last)
    return RESULTS / LOCAL / "-".join(("again", *folders[start:]))
