"""What a stored configuration means stays the same, whatever `auto` means today."""

import json
from pathlib import Path
from typing import Any

import pytest

from resnet_cli.config.editions import explicit_cases, explicit_model, to_current_edition
from resnet_cli.config.experiments import load_experiment
from resnet_cli.config.schema import Experiment, ModelConfig, RunConfig, config_hash
from resnet_cli.results.tables import read_provenance
from resnet_cli.training.runs import read_finished
from resnet_cli.weights.cards import bundled_names, bundled_run, read_card
from resnet_cli.weights.load import load_network

TOP = Path(__file__).parents[2]
PROVENANCE = sorted((TOP / "results").rglob("*.provenance.json"))
TAKEN_OVER = TOP.parent / "shared" / "runs" / "preact110-projection-cifar10"


@pytest.mark.parametrize(
    ("model", "stage_change"),
    [
        ({}, "zero_padding"),
        ({"branch": "one_layer", "placement": "relu_only_preactivation"}, "zero_padding"),
        ({"placement": "original"}, "zero_padding"),
        ({"branch": "bottleneck"}, "projection"),
        ({"stem": "imagenet"}, "projection"),
        ({"family": "vgg"}, "projection"),
    ],
)
def test_identities_are_zero_padded_in_all_cifar_networks_but_bottlenecks(
    model: dict[str, Any], stage_change: str
) -> None:
    assert explicit_model(model)["stage_change"] == stage_change


@pytest.mark.parametrize(
    ("model", "stage_change", "stride_in"),
    [
        ({"placement": "original"}, "zero_padding", "1x1"),
        ({"placement": "original", "branch": "one_layer"}, "zero_padding", "1x1"),
        ({"placement": "original", "branch": "bottleneck"}, "projection", "1x1"),
        ({"placement": "full_preactivation"}, "projection", "1x1"),
        ({}, "projection", "1x1"),
        ({"placement": "original", "stem": "imagenet"}, "projection", "3x3"),
    ],
)
def test_the_first_edition_keeps_its_meaning(
    model: dict[str, Any], stage_change: str, stride_in: str
) -> None:
    found = explicit_model(model, edition=1)
    assert (found["stage_change"], found["stride_in"]) == (stage_change, stride_in)
    stated = {"stage_change": "projection", "stride_in": "3x3"}
    assert explicit_model(model | stated, edition=1) == model | stated


def test_a_case_does_not_inherit_what_auto_means_for_another_model() -> None:
    base = {"depth": 110, "placement": "original"}
    cases = [
        {"name": "same"},
        {"name": "deep", "model": {"depth": 164, "branch": "bottleneck"}},
        {"name": "stated", "model": {"stage_change": "projection"}},
        {"name": "auto", "model": {"branch": "bottleneck", "stage_change": "auto"}},
    ]
    same, deep, stated, auto = explicit_cases(base, cases, edition=1)
    assert same.get("model", {}) == {}
    assert deep["model"]["stage_change"] == "projection"
    assert stated["model"] == {"stage_change": "projection"}
    assert auto["model"]["stage_change"] == "projection"


def test_what_a_yaml_leaves_out_is_written_out_and_hashed() -> None:
    experiment = load_experiment("he2016/table2", "paper")
    runs = {case.name: run for case, run in experiment.runs()}
    found = {run.model.stage_change for run in runs.values() if run.model.branch == "bottleneck"}
    assert found == {"projection"}
    assert "auto" not in json.dumps([run.model_dump(mode="json")["model"] for run in runs.values()])
    assert all(run.model_dump(mode="json")["edition"] == 2 for run in runs.values())
    again = Experiment.model_validate(experiment.model_dump(mode="json"))
    assert [run.hash for _, run in again.runs()] == [run.hash for _, run in experiment.runs()]


@pytest.mark.parametrize("path", PROVENANCE, ids=lambda p: p.relative_to(TOP).as_posix())
def test_committed_provenance_keeps_its_hash_and_says_what_it_meant(path: Path) -> None:
    stored = json.loads(path.read_text())
    if not stored.get("config"):
        return
    assert config_hash(stored["config"]) == stored["config_hash"]
    config = read_provenance(path.with_name(path.name.replace(".provenance.json", ".csv")))[
        "config"
    ]
    assert config["edition"] == 2
    if config.get("model"):
        assert ModelConfig.model_validate(config["model"]).stage_change != "auto"


@pytest.mark.parametrize("name", bundled_names())
def test_cards_of_bundled_weights_say_what_they_meant(name: str) -> None:
    run = bundled_run(name)
    loaded = load_network(name)
    assert loaded.run == run
    first_edition = "edition" not in read_card(name)["run"]
    if run.model.family == "resnet" and first_edition:  # these all had projections
        assert run.model.stage_change == "projection"


@pytest.mark.skipif(not TAKEN_OVER.is_dir(), reason="needs a run of the first edition")
def test_a_run_folder_of_the_first_edition_loads_and_is_not_taken_for_one_of_this() -> None:
    finished = read_finished(TAKEN_OVER)
    assert finished is not None
    assert finished.run.model.stage_change == "projection"
    assert finished.parameters == 1_730_522
    stored = json.loads((TAKEN_OVER / "run.json").read_text())
    assert stored["hash"] == config_hash(stored["run"]) != finished.run.hash
    assert load_network(str(TAKEN_OVER)).run == finished.run


@pytest.mark.parametrize("edition", [{}, {"edition": 2}])
def test_a_training_stored_before_its_last_batch_counted_dropped_it(
    edition: dict[str, int],
) -> None:
    stored: dict[str, Any] = {"model": {"depth": 8}, "data": {}, "train": {"epochs": 1}, "seed": 0}
    train = RunConfig.model_validate(to_current_edition(stored | edition)).train
    assert (train.last_batch, train.inactive_units) == ("drop", "freeze")
    now = RunConfig.model_validate(stored).train
    assert (now.last_batch, now.inactive_units) == ("train", "decay")
    again = RunConfig.model_validate(
        to_current_edition(stored | edition | {"train": now.model_dump()})
    )
    assert again.train == now


def test_the_first_editions_name_of_a_section_is_read() -> None:
    stored = {"figure": "section4.3"}
    assert to_current_edition(stored)["figure"] == "section5"
    assert to_current_edition(stored | {"edition": 2})["figure"] == "section5"


def test_a_newer_edition_is_refused() -> None:
    run = load_experiment("quickstart", "smoke").runs()[0][1]
    stored = run.model_dump(mode="json")
    assert RunConfig.model_validate(to_current_edition(stored)) == run
    with pytest.raises(ValueError, match="edition 3"):
        to_current_edition(stored | {"edition": 3})
