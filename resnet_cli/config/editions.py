"""Editions: what a configuration means never changes under an unchanged hash.

A configuration is stored and hashed with every `auto` written out, and with `edition: 2`. One that
was stored without an edition is of the first edition, whose `auto` may mean something else than
today's: `of_any_edition` writes out what it meant. The stored file is never rewritten, and its own
hash is the `config_hash` of its own text.
"""

from collections.abc import Mapping
from typing import Any, Literal

EDITION: Literal[2] = 2
AFTER_ADDITION = ("original", "bn_after_addition", "relu_before_addition")
"""Placements whose units are not pre-activated (paper 1, Figure 4 a-c)."""


def explicit_model(model: Mapping[str, Any], edition: int = EDITION) -> dict[str, Any]:
    """A model's keys with each `auto`, stated or left out, written out.

    `stage_change`: the zero padding of option A (He et al. 2015, section 4.2) in CIFAR networks of
    two-layer and one-layer units (models/preresnet.lua of facebookarchive's fb.resnet.torch for the
    pre-activation ones); a 1x1 projection (option B; the authors' resnet-1k-layers code) elsewhere.
    In the first edition pre-activation networks had projections too. `stride_in`, the layer of a
    bottleneck that has the stride: the first 1x1 in CIFAR networks (resnet-1k-layers), the 3x3 in
    ImageNet's (fb.resnet.torch, torchvision).
    """
    cifar = model.get("stem", "cifar") == "cifar"
    residual = model.get("family", "resnet") == "resnet"
    option_a = cifar and residual and model.get("branch", "basic") != "bottleneck"
    if edition == 1:
        option_a = option_a and model.get("placement") in AFTER_ADDITION
    meant = {
        "stage_change": "zero_padding" if option_a else "projection",
        "stride_in": "1x1" if cifar else "3x3",
    }
    return dict(model) | {k: v for k, v in meant.items() if model.get(k, "auto") == "auto"}


def explicit_cases(
    model: Mapping[str, Any], cases: object, edition: int = EDITION
) -> list[Any] | object:
    """An experiment's cases, each with what `auto` means for its own model.

    A case inherits the keys of the experiment's model that it does not state, so what `auto` means
    for the case is stated wherever the case would inherit something else.
    """
    if not isinstance(cases, list | tuple):
        return cases
    base = explicit_model(model, edition)

    def explicit(case: Any) -> Any:
        own = case.get("model", {}) if isinstance(case, Mapping) else None
        if not isinstance(own, Mapping):
            return case
        meant = explicit_model({**model, **own}, edition)
        differs = {k: meant[k] for k in meant if k not in base or meant[k] != base[k] or k in own}
        return {**case, "model": differs} if differs else case

    return [explicit(case) for case in cases]


def of_any_edition(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration, of a run, an experiment or a study, in the words of this edition.

    A training that was stored without `last_batch` and `inactive_units` dropped the smaller batch
    that ends an epoch, and left parameters of inactive units as they were.

    Raises:
        ValueError: a newer edition wrote it.
    """
    content = {**stored, "edition": EDITION}
    if stored.get("figure") == "section4.3":  # as the first edition called paper 2's section 5
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
