"""`--model`, and what labelled images tell of a network of others that its shapes do not."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from resnet_cli.cli import run_command
from resnet_cli.run.rerun import read_spec, rerun_study
from resnet_cli.run.trainings import Session
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.interrupt import Stopper
from resnet_cli.studies import alternatives
from resnet_cli.studies.subject import find_subject
from resnet_cli.training.context import Context
from resnet_cli.weights.load import load_network

Captured = pytest.CaptureFixture[str]


def bearpaw_state() -> dict[str, Tensor]:
    """The bundled pre-activation network in the names of code whose shortcuts start before the
    first activation; its own do so after it in the first unit of each stage."""
    network = load_network("preact56-digits").network

    def kind(parent: nn.Module, of: type) -> list[nn.Module]:
        return [module for module in parent.modules() if isinstance(module, of)]

    named = {"conv1": kind(network.stem, nn.Conv2d)[0], "bn": kind(network.head, nn.BatchNorm2d)[0]}
    named["fc"] = kind(network.head, nn.Linear)[0]
    for unit in network.unit_list:
        name = f"layer{unit.place.stage}.{unit.place.number - 1}"
        norms = kind(unit.pre, nn.BatchNorm2d) + kind(unit.F, nn.BatchNorm2d)  # type: ignore[arg-type]
        for number, norm in enumerate(norms, 1):
            named[f"{name}.bn{number}"] = norm
        for number, conv in enumerate(kind(unit.F, nn.Conv2d), 1):
            named[f"{name}.conv{number}"] = conv
        for conv in kind(unit.h, nn.Conv2d):  # type: ignore[arg-type]
            named[f"{name}.downsample.0"] = conv
    return {f"{name}.{leaf}": t for name, m in named.items() for leaf, t in m.state_dict().items()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("others") / "their.pt"
    torch.save(bearpaw_state(), path)
    return path


def call(*arguments: str) -> int:
    return run_command([*arguments, "--dataset", "digits"])


def test_eval_takes_what_is_clearly_right(
    checkpoint: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alternatives, "IMAGES", 100)
    assert call("eval", "--checkpoint", str(checkpoint), "--json") == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert found["assumptions"]["shared_activation"] == "stages"
    said = " ".join(output.err.split())
    assert "tried shared_activation=stages" in said
    assert "state --model shared_activation=stages" in said
    own = run_command(["eval", "--checkpoint", "preact56-digits", "--json"])
    assert own == 0
    assert found["test_error"] == json.loads(capsys.readouterr().out)["test_error"]


def test_what_is_stated_is_not_tried(checkpoint: Path, tmp_path: Path) -> None:
    subject = find_subject(
        Context(torch.device("cpu"), tmp_path),
        str(checkpoint),
        "digits",
        overrides={"shared_activation": "none", "activation": "relu", "last_activation": "same"},
    )
    same, trials = alternatives.try_alternatives(subject)
    assert same is subject
    assert trials == []


def test_a_study_records_what_was_stated_and_repeats_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    lesion = ["lesion", "--only", "1", "--images", "50", "--checkpoint", str(checkpoint)]
    stated = ["--model", "shared_activation=stages"]
    assert call(*lesion, *stated, "--out", "stated", "-q") == 0
    assert call(*lesion, "--out", "stated", "-q") == 0  # another network: measured anew
    assert "there already" not in capsys.readouterr().out
    assert call(*lesion, *stated, "--out", "again") == 0
    path = Path("again/lesion_delete.provenance.json")
    config = json.loads(path.read_text())["config"]
    assert config["overrides"] == {"shared_activation": "stages"}
    assert config["assumptions"]["shared_activation"] == "stages"
    assert config["assumptions"]["strides"] == "1,2,2"
    session = Session(Context(torch.device("cpu"), tmp_path), Display(verbosity=-1), Stopper(None))
    rerun_study(read_spec(path), session, Path("repeated"))
    tables = [Path(folder, "lesion_delete.csv").read_text() for folder in ("again", "repeated")]
    assert tables[0] == tables[1]
    assert Path("stated/lesion_delete.csv").read_text() != tables[0]
    assert "not stated in the file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ("stride_in", "write KEY=VALUE"),
        ("stride_im=1x1", "did you mean 'stride_in'"),
        ("activation=rulu", "did you mean 'relu'"),
        ("stride_in=1x1", "--model stride_in"),
    ],
)
def test_a_wrong_statement_is_one_line(
    stated: str, words: str, checkpoint: Path, capsys: Captured
) -> None:
    assert call("eval", "--checkpoint", str(checkpoint), "--model", stated) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_own_weights_take_no_statement(capsys: Captured) -> None:
    code = run_command(["eval", "--checkpoint", "preact56-digits", "--model", "activation=relu"])
    assert code == 2
    assert "preact56-digits already describes its network" in capsys.readouterr().err
