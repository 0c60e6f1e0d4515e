"""Names of profiles, networks and commands for the report, from the provenance of tables."""

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_cli.claims.evidence import dataset_of
from resnet_cli.config.schema import PROFILES
from resnet_cli.datasets.catalogue import find_dataset, title_of
from resnet_cli.figures.titles import FAMILIES, listed, training_lengths
from resnet_cli.weights.cards import bundled_names, read_card, training_length

SCHEDULES = {
    "paper": "the paper's schedule",
    "cpu": "short schedule",
    "mini": "",
    "smoke": "trained for seconds",
}
"""The schedule of a profile, after its data: `CIFAR-10, short schedule`."""

PROFILE_WORDS: Mapping[str, str] = {
    "paper": "the published protocol, on GPUs",
    "cpu": "natural images, hours on two cores; errors are above the published ones",
    "mini": "the papers' depths on 16x16 handwritten digits, minutes; shows effects, not numbers",
    "smoke": "tiny networks, seconds; shows that the code runs",
}
"""The measurements of a profile, and what they can show."""

Provenance = Mapping[str, Any]
"""The content returned by `read_provenance`."""


def profile_label(profile: str, datasets: Iterable[str], network: str = "") -> str:
    """`CIFAR-10, short schedule`; for a folder that is not a profile, its network.

    Args:
        datasets: the data sets; an entry may name several, joined by `, `.
        network: the result of `checkpoint_label`.
    """
    if profile not in PROFILES:
        return network or profile
    names = dict.fromkeys(name for entry in datasets for name in entry.split(", ") if name)
    titles = ", ".join(title_of(name) for name in names) or profile
    schedule = SCHEDULES[profile] if names else ""
    return titles[:1].upper() + titles[1:] + (f", {schedule}" if schedule else "")


def checkpoint_label(provenance: Provenance) -> str:
    """The network of a study of given weights: `ResNet-20, ours, 50 epochs` or
    `ResNet-20, published by akamaster`."""
    checkpoint = provenance.get("checkpoint") or {}
    source = Path(str(checkpoint.get("source") or ""))
    names = " and ".join(_networks(_models(provenance)))
    if source.name in bundled_names():
        return f"{names}, ours, {training_length(read_card(source.name))}"
    publisher = re.match(r"(?:resnet\d+-)?(\w+)", source.stem)  # publisher-network, or the reverse
    if publisher and "-" in source.stem:
        return f"{names}, published by {publisher[1]}"
    return f"{names}, {source.name}" if source.name else names


def network_label(profile: str, provenance: Provenance, case: str = "") -> str:
    """The network of a study at a profile: `ResNet-110, 14 epochs, CIFAR-10`.

    Args:
        case: the network's case, if the experiment has several.
    """
    dataset = title_of(dataset_of(provenance.get("config") or {}))
    if profile not in PROFILES:
        return f"{checkpoint_label(provenance)}, {dataset}"
    names = {
        str(entry.get("name")) for entry in (provenance.get("config") or {}).get("cases") or ()
    }
    own = [case] if case in names else []
    return ", ".join([*training_label(provenance, own).split(", ")[1:], dataset])


def training_label(provenance: Provenance, cases: Collection[str] = ()) -> str:
    """The trainings of an experiment: `CIFAR-10, ResNet-38, 2 epochs`; empty without a network.

    Args:
        cases: only these cases; empty: all.
    """
    config = provenance.get("config") or {}
    base = config.get("train") or {}
    if not provenance.get("seeds") or not config.get("model"):
        return ""
    trains = [base | (case.get("train") or {}) for case in _cases(config, cases)]
    parts = [
        title_of(dataset_of(config)),
        *_networks(_models(provenance, cases)),
        *training_lengths(trains),
    ]
    return ", ".join(parts)


def _cases(config: Provenance, cases: Collection[str]) -> list[Provenance]:
    found = config.get("cases") or [{}]
    return [case for case in found if not cases or case.get("name") in cases] or [{}]


def _models(provenance: Provenance, cases: Collection[str] = ()) -> list[Provenance]:
    config = provenance.get("config") or {}
    base = config.get("model") or {}
    return [base | (case.get("model") or {}) for case in _cases(config, cases)]


def _networks(models: Sequence[Provenance]) -> list[str]:
    """One entry for each family of networks: `VGG-15`, `ResNet-110, 164 and 1001`."""
    depths: dict[str, list[int]] = {}
    for model in models:
        family = str(model.get("family"))
        depths.setdefault(FAMILIES.get(family, family), []).append(int(model.get("depth") or 0))
    return [f"{family}-{listed(sorted(set(found)))}" for family, found in depths.items()]


# --- commands ------------------------------------------------------------------------------------

KEPT = ("--set", "--seed")
"""Options with a value that change the results."""


def repeat_command(experiment: str, profile: str, provenance: Provenance) -> str:
    """The command that repeats a result: one experiment, without a budget or a shard, and with
    `DATA` as the folder of data. For a study of given weights, the command as typed, without its
    folders."""
    try:
        typed = shlex.split(str(provenance.get("command") or ""))
    except ValueError:  # an unbalanced quote
        typed = []
    if profile not in PROFILES and typed[:1] == ["resnet-cli"]:
        return _without_folders(typed)
    words = ["resnet-cli", "run", experiment, "--profile", profile]
    for option, value in _options(typed):
        if option in KEPT:
            words += [option, shlex.quote(value)]
    if "--pretrained" in typed:
        words.append("--pretrained")
    dataset = dataset_of(provenance.get("config") or {})
    entry = find_dataset(dataset)
    if provenance.get("seeds") and dataset and not (entry and entry.embedded):
        words += ["--data-dir", "DATA"]
    return " ".join(words)


def _options(words: Sequence[str]) -> list[tuple[str, str]]:
    """(option, the word after it or after its `=`) for each option."""
    found = []
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            found.append((option, value if equals else "".join(words[place + 1 : place + 2])))
    return found


def _without_folders(words: Sequence[str]) -> str:
    kept, before = [], ""
    for word in words:
        if before == "--data-dir":
            kept.append("DATA")
        elif before == "--checkpoint":
            kept.append(shlex.quote(Path(word).name))
        elif before != "--out" and word != "--out":
            kept.append(shlex.quote(word))
        before = word
    return " ".join(kept)
