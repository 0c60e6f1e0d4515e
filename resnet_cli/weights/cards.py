"""The bundled weights and their model cards, read without torch.

The weights `NAME.safetensors` have a card, `NAME.json`: how they were trained, on which data, by
which command and commit, and the measurements. `resnet_cli.training.bundle` writes both files.
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
    """The folder of bundled weights."""
    return Path(__file__).parent / "bundled"


def bundled_names() -> list[str]:
    """The names of the bundled weights, for `--checkpoint NAME`."""
    return sorted(path.stem for path in bundled_folder().glob("*.safetensors"))


def bundled_path(name: str) -> Path:
    """The file of bundled weights.

    Raises:
        UserError: there are no bundled weights with this name.
    """
    if Path(name).parent != Path(".") or Path(name).suffix:
        raise UserError(f"--checkpoint {shortened(name)}: no such file; check the path")
    if name not in bundled_names():
        raise unknown("bundled weights", name, bundled_names())
    return bundled_folder() / f"{name}.safetensors"


def bundled_weights_of(run: RunConfig) -> str | None:
    """The name of the bundled weights that were trained with this configuration, if there are any.

    `train.precision` may differ, because it affects only how the device computes. Weights with the
    same precision are preferred.

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
        UserError: the card is damaged.
    """
    try:
        card: dict[str, Any] = json.loads(_card_path(name).read_text(encoding="utf-8"))
        return dict(card)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise damaged_card(name, error) from None


def cards() -> list[dict[str, Any]]:
    """The cards of all bundled weights, with the network's name and its numbers of units and
    parameters added. Each card is checked against the hash of its file.

    Raises:
        UserError: a card is damaged, or a file is not the one that its card describes.
    """
    return [_checked_card(name) for name in bundled_names()]


def _checked_card(name: str) -> dict[str, Any]:
    card, run = read_card(name), bundled_run(name)
    path = bundled_folder() / f"{name}.safetensors"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != card.get("sha256"):
        raise UserError(f"{path}: not the file that its card describes; reinstall resnet-cli")
    # A safetensors file begins with the length of its header, followed by the header in JSON.
    shapes = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    weights = {k: v["shape"] for k, v in shapes.items() if k.startswith("model.")}
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return card | {
        "network": run.model.label,
        "units": len({k.split(".")[2] for k in weights if k.startswith("model.units.")}),
        "parameters": sum(math.prod(v) for k, v in weights.items() if not k.endswith(buffers)),
        "dataset": run.data.dataset,
    }


def network_of_card(card: Mapping[str, Any]) -> str:
    """The name of the network of a card from `cards`, with its width if that is unusual."""
    width = unusual_width(bundled_run(card["name"]).model)
    return f"{card['network']}, {width}" if width else str(card["network"])


def card_lines(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of a card to print, as pairs of heading and text.

    Args:
        card: a card from `cards`.
    """
    run = bundled_run(card["name"])
    lines = [
        ("network", f"{network_of_card(card)}: {card['units']} units"),
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
    """The number of epochs for which a card's network was trained; the last may be incomplete."""
    return int(card["epochs"] or card["training"]["rows"][-1]["epoch"])


def training_length(card: Mapping[str, Any]) -> str:
    """How long a card's network was trained: `50 epochs` or `32,000 iterations`."""
    return f"{card['epochs']} epochs" if card["epochs"] else f"{card['iterations']:,} iterations"


def unusual_width(model: ModelConfig) -> str:
    """A text such as `24-176 wide` if the widths of the stages are unusual; otherwise empty."""
    widths = model.stage_widths()
    if widths == model.model_copy(update={"widths": None}).stage_widths():
        return ""
    return f"{widths[0]}-{widths[-1]} wide"


def damaged_card(name: str, error: Exception) -> UserError:
    return UserError(
        f"{_card_path(name)}: the model card is damaged ({type(error).__name__}); reinstall "
        "resnet-cli"
    )


def _card_path(name: str) -> Path:
    return bundled_folder() / f"{name}.json"


def _at_any_precision(run: RunConfig) -> RunConfig:
    return run.model_copy(update={"train": run.train.model_copy(update={"precision": "float32"})})
