"""The variables of torchrun: what is not a number is refused in one line by every command."""

import pytest

from resnet_cli.cli import run_command
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError

ALONE = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


@pytest.mark.parametrize(
    "changed",
    [
        {"RANK": "a"},
        {"RANK": "-1"},
        {"RANK": "1"},
        {"WORLD_SIZE": "1.0"},
        {"WORLD_SIZE": "9" * 5000},
        {"LOCAL_RANK": "zero"},
        {"MASTER_PORT": "port"},
        {"MASTER_PORT": "99999"},
    ],
    ids=str,
)
def test_variables_that_are_no_numbers_are_one_line(
    changed: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (ALONE | changed).items():
        monkeypatch.setenv(name, value)
    (name,) = changed
    with pytest.raises(UserError, match=name):
        processes.rank()
    assert run_command(["list"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert name in lines[0]


def test_the_variables_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    assert processes.rank() == 0
    assert run_command(["list"]) == 0
