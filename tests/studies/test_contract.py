"""What holds for every study: skipped when done, resumed within a table, drawn, offered."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from resnet_cli.cli import app
from resnet_cli.config.registry import STUDIES, registered
from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig, config_hash
from resnet_cli.results.columns import all_tables
from resnet_cli.results.layout import PROVENANCE_SUFFIX
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.interrupt import Interrupted
from resnet_cli.studies.base import Study, options_of
from resnet_cli.studies.progress import Pieces
from resnet_cli.studies.runner import Written, run_study
from resnet_cli.studies.subject import Subject, untrained_subject
from resnet_cli.training.context import Context

SETTINGS: dict[str, dict[str, Any]] = {
    "delete": {"per_class": True, "recalibrate": 40},
    "reorder": {"swaps": (1, 2), "samples": 2, "recalibrate": 40},
    "greedy": {"max_units": 2, "samples": 2, "recalibrate": 40},
    "additivity": {"k": (2,), "samples": 3, "recalibrate": 40},
    "recalibration": {"counts": (10, 20), "subsets": 2, "count": 20},
    "influence": {"lengths": (1, 2)},
    "paths": {"samples": 2, "batch_size": 8, "cumulative": True, "stages": True, "unit": 1},
    "signal": {"batch_size": 8},
    "iterative": {"images": 25},
    "effects": {"images": 25},
    "path_survival": {"deleted": (1, 2)},
}
"""Quick settings of each study; a new study needs a line."""
Run = Callable[..., Written]


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A network of five units whose trained weights stand for a training."""
    data = DataConfig(dataset="digits", test_images=30, train_images=40)
    run = RunConfig(
        model=ModelConfig(depth=12, units=(1, 3, 1), widths=(4, 4, 8)),
        data=data,
        train=TrainConfig(epochs=1),
        seed=0,
    )
    found = untrained_subject(Context(torch.device("cpu")), run)
    return replace(found, loaded=replace(found.loaded, is_trained=True))


@pytest.fixture(params=sorted(STUDIES))
def study(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr("resnet_cli.studies.walks.CHUNK_BYTES", 1 << 15)
    monkeypatch.setattr("resnet_cli.studies.paths.sampled.CHUNK", 4)
    found: Study = registered(STUDIES, "study", request.param)(**SETTINGS[request.param])
    return found


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time."""
    monkeypatch.setattr("resnet_cli.studies.runner.draw", lambda *arguments: [])


def measure(subject: Subject, study: Study, out: Path, **options: Any) -> Written:
    display = Display(as_json=True, verbosity=-1)
    return run_study(subject, study, seed=3, out=out, display=display, **options)


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.csv"))}


def test_tables_and_figures_are_written_once(
    subject: Subject, study: Study, tmp_path: Path
) -> None:
    first = measure(subject, study, tmp_path)
    assert set(tables(tmp_path)) == {f"{name}.csv" for name in study.names()}
    assert any(path.suffix == ".png" for path in first.files)
    assert not list(tmp_path.glob("*.partial*"))
    modified = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.csv")}
    again = measure(subject, study, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.csv")} == modified
    assert set(again.kept) == set(modified)
    measured_only = {"exact_check"}
    assert {k: v for k, v in first.facts.items() if k not in measured_only} == again.facts
    json.dumps(again.facts)


@pytest.mark.usefixtures("undrawn")
def test_another_setting_or_seed_is_measured_anew(
    subject: Subject, study: Study, tmp_path: Path
) -> None:
    measure(subject, study, tmp_path)
    display = Display(as_json=True, verbosity=-1)
    again = run_study(subject, study, seed=4, out=tmp_path, display=display)
    assert bool(again.kept) != study.needs_network  # arithmetic has no seed


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_study_resumes_within_its_table(
    subject: Subject, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    measure(subject, study, whole)
    interruptions = added = 0
    add = Pieces.add

    def counted(pieces: Pieces, piece: Any) -> None:
        nonlocal added
        added += 1
        add(pieces, piece)

    monkeypatch.setattr(Pieces, "add", counted)
    while True:
        before, calls = added, 0

        def stop() -> bool:
            nonlocal calls
            calls += 1
            # Two new pieces each time; studies of one piece are stopped at once.
            return added > before + 1 or (calls > 2 and added == 0)  # noqa: B023

        try:
            measure(subject, study, parts, should_stop=stop if interruptions < 4 else lambda: False)
            break
        except Interrupted:
            interruptions += 1
    assert tables(parts) == tables(whole)
    assert not list(parts.glob("*.partial*"))


def test_a_network_whose_outputs_overflow_is_refused(
    subject: Subject, study: Study, tmp_path: Path
) -> None:
    if study.split is None:
        return
    network = copy.deepcopy(subject.loaded.network)
    with torch.no_grad():
        for parameter in network.units[2].F.parameters():
            parameter.mul_(1e30)
    overflowing = replace(subject, loaded=replace(subject.loaded, network=network))
    with pytest.raises(UserError, match=r"the output of unit 2 is not finite"):
        measure(overflowing, study, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("undrawn")
def test_a_stop_request_is_seen_within_a_piece(
    subject: Subject, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnet_cli.studies.walks.CHUNK_BYTES", 1 << 30)  # one piece for all images
    seen = 0
    stop_at = math.inf

    def stop() -> bool:
        nonlocal seen
        seen += 1
        return seen >= stop_at

    measure(subject, study, tmp_path / "whole", should_stop=stop)
    assert seen > subject.num_units
    seen, stop_at = 0, seen // 2
    with pytest.raises(Interrupted):
        measure(subject, study, tmp_path / "stopped", should_stop=stop)
    assert seen == stop_at  # nothing else was begun


@pytest.mark.usefixtures("undrawn")
def test_the_first_editions_provenance_counts_as_done(
    subject: Subject, study: Study, tmp_path: Path
) -> None:
    measure(subject, study, tmp_path)
    for path in tmp_path.glob(f"*{PROVENANCE_SUFFIX}"):
        content = json.loads(path.read_text())
        content["config"]["only"] = None
        content["config"]["batch_statistics"] = False
        content["config"]["study"] = {
            key: value
            for key, value in content["config"]["study"].items()
            if key not in ("only", "batch_statistics")
        }
        del content["config"]["edition"]
        content["config_hash"] = config_hash(content["config"])
        path.write_text(json.dumps(content))
    assert len(measure(subject, study, tmp_path).kept) == len(study.names())


@pytest.mark.parametrize("kind", sorted(STUDIES))
def test_the_command_has_the_options(kind: str) -> None:
    study: type[Study] = registered(STUDIES, "study", kind)
    if study.command is None:
        assert not options_of(study)
        return
    page = CliRunner().invoke(app, [study.command, "--help"]).output
    for option in options_of(study).values():
        assert option.flag in page


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("study", ["delete", "reorder"], indirect=True)
def test_recalibration_leaves_the_table_that_is_there(
    subject: Subject, study: Study, tmp_path: Path
) -> None:
    plain = study.model_copy(update={"recalibrate": None})
    before = len(measure(subject, plain, tmp_path).files)
    added = measure(subject, study, tmp_path)
    assert [path.name for path in added.files] == [f"lesion_{study.kind}_recalibrated.csv"]
    assert len(added.kept) == before
    assert len(measure(subject, plain, tmp_path).kept) == before
    other = study.model_copy(update={"recalibrate": 20})
    assert [path.name for path in measure(subject, other, tmp_path).files] == [
        f"lesion_{study.kind}_recalibrated.csv"
    ]


def test_every_study_has_quick_settings_and_tables_of_its_own() -> None:
    assert set(SETTINGS) == set(STUDIES)
    names = {table.name for table in all_tables()}
    for kind in STUDIES:
        study = registered(STUDIES, "study", kind)
        assert {table.name for table in study.tables} <= names
        assert study.title
        assert study.model_fields["kind"].default == kind
