"""What the page calls a profile, a network and a command, from the provenance of tables."""

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
"""A profile beside its data: `CIFAR-10, short schedule`."""

PROFILE_WORDS: Mapping[str, str] = {
    "paper": "the published protocol, on GPUs",
    "cpu": "real images, hours on two cores; errors stay above the published ones",
    "mini": "the papers' depths on 16x16 handwritten digits, minutes; shows effects, not numbers",
    "smoke": "tiny networks, seconds; shows that the code runs",
}
"""A profile: what is measured there, and what that can show."""

Provenance = Mapping[str, Any]
"""As `read_provenance` returns it."""


def profile_label(profile: str, datasets: Iterable[str], network: str = "") -> str:
    """`CIFAR-10, short schedule`; for a folder that is no profile, its network.

    Args:
        datasets: of what was measured, each perhaps several joined by `, `.
        network: as `checkpoint_label` has it.
    """
    if profile not in PROFILES:
        return network or profile
    names = dict.fromkeys(name for told in datasets for name in told.split(", ") if name)
    told = ", ".join(title_of(name) for name in names) or profile
    schedule = SCHEDULES[profile] if names else ""
    return told[:1].upper() + told[1:] + (f", {schedule}" if schedule else "")


def checkpoint_label(told: Provenance) -> str:
    """`ResNet-20, ours, 50 epochs`, `ResNet-20, published by akamaster`: the network that a study
    of given weights took."""
    checkpoint = told.get("checkpoint") or {}
    source = Path(str(checkpoint.get("source") or ""))
    names = " and ".join(_networks(_models(told)))
    if source.name in bundled_names():
        return f"{names}, ours, {training_length(read_card(source.name))}"
    publisher = re.match(r"(?:resnet\d+-)?(\w+)", source.stem)  # publisher-network, or the reverse
    if publisher and "-" in source.stem:
        return f"{names}, published by {publisher[1]}"
    return f"{names}, {source.name}" if source.name else names


def network_label(profile: str, told: Provenance, case: str = "") -> str:
    """`ResNet-110, 14 epochs, CIFAR-10`: the network that a study of a profile took; of several
    that of `case`."""
    dataset = title_of(_dataset(told))
    if profile not in PROFILES:
        return f"{checkpoint_label(told)}, {dataset}"
    names = {str(entry.get("name")) for entry in (told.get("config") or {}).get("cases") or ()}
    own = [case] if case in names else []
    return ", ".join([*training_label(told, own).split(", ")[1:], dataset])


def _dataset(told: Provenance) -> str:
    return str(((told.get("config") or {}).get("data") or {}).get("dataset") or "")


def training_label(told: Provenance, cases: Collection[str] = ()) -> str:
    """`CIFAR-10, ResNet-38, 2 epochs`: what an experiment trained, from its resolved config.

    Args:
        cases: only these; empty for all.
    """
    config = told.get("config") or {}
    dataset = _dataset(told)
    base = config.get("train") or {}
    if not told.get("seeds") or not config.get("model"):
        return ""
    trains = [base | (case.get("train") or {}) for case in _cases(config, cases)]
    parts = [title_of(dataset), *_networks(_models(told, cases)), *training_lengths(trains)]
    return ", ".join(parts)


def _cases(config: Provenance, cases: Collection[str]) -> list[Provenance]:
    found = config.get("cases") or [{}]
    return [case for case in found if not cases or case.get("name") in cases] or [{}]


def _models(told: Provenance, cases: Collection[str] = ()) -> list[Provenance]:
    config = told.get("config") or {}
    base = config.get("model") or {}
    return [base | (case.get("model") or {}) for case in _cases(config, cases)]


def _networks(models: Sequence[Provenance]) -> list[str]:
    """`VGG-15`, `ResNet-110, 164 and 1001`: a family at a time."""
    depths: dict[str, list[int]] = {}
    for model in models:
        family = str(model.get("family"))
        depths.setdefault(FAMILIES.get(family, family), []).append(int(model.get("depth") or 0))
    return [f"{family}-{listed(sorted(set(found)))}" for family, found in depths.items()]


# --- commands ------------------------------------------------------------------------------------

KEPT = ("--set", "--seed")
"""Options with a value that decide what is measured."""


def repeat_command(experiment: str, profile: str, told: Provenance) -> str:
    """The command that reproduces a result: one experiment, without a budget or a shard, the data
    as `DATA`. Of a command that studied given weights, what was typed but for its folders."""
    try:
        typed = shlex.split(str(told.get("command") or ""))
    except ValueError:  # a stray quote
        typed = []
    if profile not in PROFILES and typed[:1] == ["resnet-cli"]:
        return _without_folders(typed)
    words = ["resnet-cli", "run", experiment, "--profile", profile]
    for option, value in _options(typed):
        if option in KEPT:
            words += [option, shlex.quote(value)]
    if "--pretrained" in typed:
        words.append("--pretrained")
    dataset = _dataset(told)
    entry = find_dataset(dataset)
    if told.get("seeds") and dataset and not (entry and entry.embedded):
        words += ["--data-dir", "DATA"]
    return " ".join(words)


def _options(words: Sequence[str]) -> list[tuple[str, str]]:
    """(option, the word after it or after its `=`)."""
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
