"""Editions: the meaning of a configuration never changes while its hash stays the same.

A configuration is stored and hashed with explicit values instead of `auto`, and with `edition: 2`.
One that was stored without an edition is of the first edition, in which `auto` may have had a
different meaning: `to_current_edition` replaces it by the explicit value of that time. The stored
file is never rewritten, and its `config_hash` remains that of the stored configuration.
"""

from collections.abc import Mapping
from typing import Any, Literal

EDITION: Literal[2] = 2
AFTER_ADDITION = ("original", "bn_after_addition", "relu_before_addition")
"""Placements without full pre-activation units (paper 1, Figure 4 a-c)."""


def explicit_model(model: Mapping[str, Any], edition: int = EDITION) -> dict[str, Any]:
    """A model's keys, with explicit values for keys that are `auto` or missing.

    `stage_change` (the shortcut where the shape changes): in CIFAR networks of two-layer or
    one-layer units, zero padding (option A of He et al. 2015, section 4.2; for pre-activation
    networks, models/preresnet.lua in facebookarchive's fb.resnet.torch); elsewhere, a 1x1
    projection (option B, as in the authors' resnet-1k-layers code). In the first edition,
    pre-activation networks had projections in both cases.
    `stride_in` (the layer of a bottleneck that has the stride): the first 1x1 in CIFAR networks
    (resnet-1k-layers), the 3x3 in ImageNet networks (fb.resnet.torch, torchvision).
    """
    cifar = model.get("stem", "cifar") == "cifar"
    residual = model.get("family", "resnet") == "resnet"
    option_a = cifar and residual and model.get("branch", "basic") != "bottleneck"
    if edition == 1:
        option_a = option_a and model.get("placement") in AFTER_ADDITION
    automatic = {
        "stage_change": "zero_padding" if option_a else "projection",
        "stride_in": "1x1" if cifar else "3x3",
    }
    return dict(model) | {k: v for k, v in automatic.items() if model.get(k, "auto") == "auto"}


def explicit_cases(
    model: Mapping[str, Any], cases: object, edition: int = EDITION
) -> list[Any] | object:
    """An experiment's cases, with the explicit values that `auto` has for each case's own model.

    A case inherits the keys of the experiment's model that it does not set, so its own explicit
    values are added wherever it would inherit different ones.
    """
    if not isinstance(cases, list | tuple):
        return cases
    base = explicit_model(model, edition)

    def explicit(case: Any) -> Any:
        own = case.get("model", {}) if isinstance(case, Mapping) else None
        if not isinstance(own, Mapping):
            return case
        whole = explicit_model({**model, **own}, edition)
        differs = {k: whole[k] for k in whole if k not in base or whole[k] != base[k] or k in own}
        return {**case, "model": differs} if differs else case

    return [explicit(case) for case in cases]


def to_current_edition(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration of a run, an experiment or a study, converted to the current edition.

    A training stored without `last_batch` and `inactive_units` dropped the smaller last batch of
    each epoch and did not change the parameters of inactive units.

    Raises:
        ValueError: it is from a newer edition.
    """
    content = {**stored, "edition": EDITION}
    if stored.get("figure") == "section4.3":  # the first edition's name for paper 2's section 5
        content["figure"] = "section5"
    train = stored.get("train")
    if isinstance(train, Mapping):
        content["train"] = {"last_batch": "drop", "inactive_units": "freeze", **train}
    if "edition" in stored:
        if stored["edition"] != EDITION:
            raise ValueError(f"edition {stored['edition']!r:.20}; this version reads 1 and 2")
        return content
    model = stored.get("model")
    if isinstance(model, Mapping):
        content["model"] = explicit_model(model, edition=1)
        if "cases" in stored:
            content["cases"] = explicit_cases(model, stored["cases"], edition=1)
    return content
