"""The bundled weights and their model cards, read without torch.

Weights `NAME.safetensors` have a card, `NAME.json`: how they were trained, on what, by which
command and commit, and what was measured. `resnet_cli.training.bundle` writes both.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_cli.config.editions import to_current_edition
from resnet_cli.config.schema import ModelConfig, RunConfig
from resnet_cli.runtime.errors import UserError, shortened, unknown


def bundled_folder() -> Path:
    """The folder of the weights that come with the program."""
    return Path(__file__).parent / "bundled"


def bundled_names() -> list[str]:
    """Names of the bundled weights, as `--checkpoint NAME` takes them."""
    return sorted(path.stem for path in bundled_folder().glob("*.safetensors"))


def bundled_path(name: str) -> Path:
    """The file of bundled weights.

    Raises:
        UserError: there are none of this name; it may be that of a file that does not exist.
    """
    if Path(name).parent != Path(".") or Path(name).suffix:
        raise UserError(f"--checkpoint {shortened(name)}: no such file")
    if name not in bundled_names():
        raise unknown("bundled weights", name, bundled_names())
    return bundled_folder() / f"{name}.safetensors"


def bundled_weights_of(run: RunConfig) -> str | None:
    """The name of the bundled weights that a training of this configuration gave, if there are any.

    `train.precision` may differ: it says how a device computes, and not what is trained. Weights
    of the same precision come first.

    Raises:
        UserError: a card is damaged.
    """
    alike = None
    for name in bundled_names():
        trained = bundled_run(name)
        if trained.hash == run.hash:
            return name
        if alike is None and _at_any_precision(trained) == _at_any_precision(run):
            alike = name
    return alike


def bundled_run(name: str) -> RunConfig:
    """The training that bundled weights come from, according to their card.

    Raises:
        UserError: the card is damaged.
    """
    card = read_card(name)
    try:
        return RunConfig.model_validate(to_current_edition(card["run"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_card(name, error) from None


def read_card(name: str) -> dict[str, Any]:
    """The model card of bundled weights.

    Raises:
        UserError: it is damaged.
    """
    try:
        card: dict[str, Any] = json.loads(_card_path(name).read_text(encoding="utf-8"))
        return dict(card)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise damaged_card(name, error) from None


def cards() -> list[dict[str, Any]]:
    """The cards of all bundled weights, each checked against its file's hash, with the network's
    name, number of units and parameters.

    Raises:
        UserError: a card is damaged, or a file is not the one its card describes.
    """
    return [_checked_card(name) for name in bundled_names()]


def _checked_card(name: str) -> dict[str, Any]:
    card, run = read_card(name), bundled_run(name)
    path = bundled_folder() / f"{name}.safetensors"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != card.get("sha256"):
        raise UserError(f"{path}: is not the file its card describes; install again")
    # A safetensors file begins with the length of its header, and the header, which is JSON.
    shapes = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    weights = {k: v["shape"] for k, v in shapes.items() if k.startswith("model.")}
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return card | {
        "network": run.model.label,
        "units": len({k.split(".")[2] for k in weights if k.startswith("model.units.")}),
        "parameters": sum(math.prod(v) for k, v in weights.items() if not k.endswith(buffers)),
        "dataset": run.data.dataset,
    }


def network_of(card: Mapping[str, Any]) -> str:
    """The network of a card of `cards`, with its width where that is unusual."""
    width = unusual_width(bundled_run(card["name"]).model)
    return f"{card['network']}, {width}" if width else str(card["network"])


def card_lines(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A card for people, as headings with their text.

    Args:
        card: one of `cards`.
    """
    run = bundled_run(card["name"])
    lines = [
        ("network", f"{network_of(card)}: {card['units']} units"),
        ("parameters", f"{card['parameters']:,}, stored as float16 in {card['bytes']:,} bytes"),
        ("data", f"{run.data.dataset}, normalised by {run.data.explicit().normalize}"),
        ("test error", f"{card['test_error']:.2f} % on {card['images']:,} images"),
        ("trained for", f"{training_length(card)} in {run.train.precision}, seed {run.seed}"),
    ]
    if run.train.active_units is not None:
        lines.append(("trained with", f"{run.train.active_units} units active in each batch"))
    if run.train.stochastic_depth is not None:
        survival = f"stochastic depth, survival {run.train.stochastic_depth:g} of the last unit"
        lines.append(("trained with", survival))
    return [*lines, *((key, str(card[key])) for key in ("command", "commit", "sha256"))]


def epochs_of(card: Mapping[str, Any]) -> int:
    """How many epochs the network of a card was trained, the last perhaps in part."""
    return int(card["epochs"] or card["training"]["rows"][-1]["epoch"])


def training_length(card: Mapping[str, Any]) -> str:
    """`50 epochs` or `32,000 iterations`: how long the network of a card was trained."""
    return f"{card['epochs']} epochs" if card["epochs"] else f"{card['iterations']:,} iterations"


def unusual_width(model: ModelConfig) -> str:
    """`24-176 wide` of a network whose stages have unusual widths; else nothing."""
    widths = model.stage_widths()
    if widths == model.model_copy(update={"widths": None}).stage_widths():
        return ""
    return f"{widths[0]}-{widths[-1]} wide"


def damaged_card(name: str, error: Exception) -> UserError:
    return UserError(f"{_card_path(name)}: a damaged model card ({type(error).__name__})")


def _card_path(name: str) -> Path:
    return bundled_folder() / f"{name}.json"


def _at_any_precision(run: RunConfig) -> RunConfig:
    return run.model_copy(update={"train": run.train.model_copy(update={"precision": "float32"})})
