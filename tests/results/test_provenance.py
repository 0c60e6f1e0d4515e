"""Provenance: its keys, the command as typed, and what makes a tree dirty."""

import json
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from resnet_cli import __version__
from resnet_cli.config.schema import config_hash
from resnet_cli.results import provenance
from resnet_cli.results.provenance import (
    Checkpoint,
    Provenance,
    collect,
    source_state,
    typed_command,
)
from resnet_cli.results.tables import read_provenance
from resnet_cli.runtime.errors import UserError

KEYS = [
    "config",
    "config_hash",
    "profile",
    "command",
    "commit",
    "dirty",
    "versions",
    "platform",
    "data",
    "checkpoint",
    "seeds",
    "started",
    "duration_seconds",
    "trainings",
]
RESULTS = Path(__file__).parents[2] / "results"
README = RESULTS / "README.md"
COMMITTED = sorted(RESULTS.rglob("*.provenance.json"))


def test_keys_and_values() -> None:
    config = {"train": {"lr": 0.1, "epochs": 2}}
    started = datetime(2026, 3, 1, 13, 30, 5, 999, tzinfo=timezone(timedelta(hours=1)))
    found = collect(
        config,
        seeds=[0, 1],
        started=started,
        profile="mini",
        data={"digits": "a" * 64},
        checkpoint=Checkpoint(source="runs/x/best.pt", sha256="b" * 64),
        command=["/somewhere/bin/resnet-cli", "train", "quickstart", "--set", "data.normalize=a b"],
        duration_seconds=12.34567,
    ).model_dump(mode="json")
    assert list(found) == [*KEYS, "table"]
    assert found["config"] == config
    assert found["config_hash"] == config_hash(config)
    assert found["profile"] == "mini"
    assert found["command"] == "resnet-cli train quickstart --set 'data.normalize=a b'"
    assert list(found["versions"]) == [
        "resnet-cli",
        "python",
        "torch",
        "torchvision",
        "numpy",
        "pandas",
    ]
    assert found["versions"]["resnet-cli"] == __version__
    assert found["data"] == {"digits": "a" * 64}
    assert found["checkpoint"] == {"source": "runs/x/best.pt", "sha256": "b" * 64}
    assert found["seeds"] == [0, 1]
    assert found["started"] == "2026-03-01T12:30:05Z"
    assert found["duration_seconds"] == 12.346
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_platform() -> None:
    found = collect({}, seeds=[0], started=datetime.now(UTC)).platform
    assert found.device == "cpu"
    assert found.device_name == found.cpu != ""
    assert found.threads >= 1
    assert found.processes == 1
    assert found.deterministic is False


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: str(path.relative_to(RESULTS)))
def test_committed_files_load_and_are_written_as_they_are(path: Path) -> None:
    """Those of the first edition; the first of them do not record `deterministic`."""
    found = Provenance.read(path).to_json()
    content = json.loads(path.read_text())
    content["platform"].setdefault("deterministic", False)
    assert json.loads(found) == content
    assert list(json.loads(found)) == list(content)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.provenance.json"
    path.write_text(collect({"a": 1}, seeds=[0], started=datetime.now(UTC)).to_json())
    assert Provenance.read(path).config == {"a": 1}
    path.write_text(path.read_text().replace('"a": 1', '"a": 2'))
    with pytest.raises(UserError, match="does not match its hash"):
        Provenance.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"config": []},
        {"config": {"edition": 2, "fail_above": "x"}},
        {"seeds": "0"},
        {"seeds": [[0]]},
        {"checkpoint": "x"},
        {"data": []},
        {"command": 1},
        {"platform": 1},
        {"table": []},
    ],
    ids=str,
)
def test_other_types_are_one_line_wherever_a_table_is_read(
    tmp_path: Path, change: dict[str, object]
) -> None:
    content = json.loads(COMMITTED[0].read_text()) | change
    (tmp_path / "table.provenance.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"table\.provenance\.json"):
        read_provenance(tmp_path / "table.csv")


def test_a_pipe_is_not_provenance(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "table.provenance.json")
    with pytest.raises(UserError, match="not a regular file"):
        read_provenance(tmp_path / "table.csv")


def test_readme_defines_every_key() -> None:
    section = README.read_text(encoding="utf-8").split("## Provenance")[1].split("\n## ")[0]
    defined = re.findall(r"^\| (\w+) \|", section, flags=re.M)
    assert defined == ["key", *KEYS, "table"]


def test_no_path_of_the_machine_leaks() -> None:
    command = ["/somewhere/bin/resnet-cli", "eval"]
    text = collect({}, seeds=[0], started=datetime.now(UTC), command=command).to_json()
    for secret in (str(Path.home()) + os.sep, str(Path(provenance.__file__).parents[2]), "/bin/"):
        assert secret not in text


def test_it_is_frozen_and_optional_parts_are_null() -> None:
    found = collect({}, seeds=[3], started=datetime.now(UTC))
    assert found.profile is None
    assert found.checkpoint is None
    assert found.data == {}
    assert 0 <= found.duration_seconds < 60
    with pytest.raises(ValidationError, match="frozen"):
        found.profile = "cpu"  # type: ignore[misc]


def test_a_start_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="started has no time zone"):
        collect({}, seeds=[0], started=datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "typed"),
    [
        (["/a/b/resnet-cli", "list"], "resnet-cli list"),
        ([r"C:\a\resnet-cli.exe", "list"], "resnet-cli list"),
        (["/a/resnet_cli/__main__.py", "run", "veit2016/*"], "resnet-cli run 'veit2016/*'"),
        (
            ["resnet-cli", "eval", "--checkpoint", "my net.pt"],
            "resnet-cli eval --checkpoint 'my net.pt'",
        ),
        (["/a/b/study.py", "x"], "study.py x"),
        ([], "resnet-cli"),
    ],
)
def test_the_command_as_typed(arguments: list[str], typed: str) -> None:
    assert typed_command(arguments) == typed


def test_the_command_of_this_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/x/resnet-cli", "models"])
    assert collect({}, seeds=[0], started=datetime.now(UTC)).command == "resnet-cli models"


def test_a_processor_without_cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **kwargs: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert provenance.cpu_model.__wrapped__() == "arm"


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package-here",))
    assert provenance.versions()["no-such-package-here"] == "unknown"


# --- clean and dirty ---------------------------------------------------------------------------


def git(top: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    settings = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", "-C", str(top), *settings, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    ).stdout


def put(top: Path, name: str, text: str) -> None:
    (top / name).parent.mkdir(parents=True, exist_ok=True)
    (top / name).write_text(text)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A committed source tree; returns the package's folder."""
    top = tmp_path / "tree"
    for name in ("resnet_cli/__init__.py", "README.md", "results/he2016/table.csv"):
        put(top, name, "first\n")
    put(top, ".gitignore", "/results/local/\n*.log\n")
    git(top, "init", "--quiet")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "--message", "first")
    return top / "resnet_cli"


def test_a_clean_tree(package: Path) -> None:
    assert source_state(package) == (git(package, "rev-parse", "HEAD").strip(), False)


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("resnet_cli/__init__.py", True),  # tracked, changed
        ("README.md", True),
        ("resnet_cli/new.py", True),  # untracked sources
        ("resnet_cli/papers/new.csv", True),
        ("experiments/he2016/new.yaml", True),
        ("name with space and é.py", True),
        ("results/he2016/table.csv", False),  # what the program itself writes
        ("results/he2016/new.csv", False),
        ("results/script.py", False),
        ("runs/x/config.yaml", False),
        ("notes.txt", False),  # untracked, no source
        ("elsewhere/table.csv", False),
        ("resnet_cli/x.log", False),  # ignored
    ],
)
def test_what_makes_a_tree_dirty(package: Path, name: str, dirty: bool) -> None:
    put(package.parent, name, "second\n")
    assert source_state(package)[1] is dirty


def test_a_staged_change_and_a_removed_file_are_dirty(package: Path) -> None:
    put(package.parent, "README.md", "second\n")
    git(package.parent, "add", ".")
    assert source_state(package)[1] is True
    git(package.parent, "reset", "--quiet", "--hard")
    assert source_state(package)[1] is False
    (package.parent / "README.md").unlink()
    assert source_state(package)[1] is True


def test_a_file_only_touched_is_clean(package: Path) -> None:
    os.utime(package / "__init__.py", (1, 1))
    assert source_state(package)[1] is False


def test_an_installed_package_inside_another_repository(package: Path) -> None:
    put(package.parent, "venv/lib/resnet_cli/__init__.py", "installed\n")
    assert source_state(package.parent / "venv" / "lib" / "resnet_cli") == (None, None)


def test_no_repository(tmp_path: Path) -> None:
    put(tmp_path, "resnet_cli/__init__.py", "")
    assert source_state(tmp_path / "resnet_cli") == (None, None)


def test_nothing_committed_yet(tmp_path: Path) -> None:
    put(tmp_path, "resnet_cli/__init__.py", "")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    assert source_state(tmp_path / "resnet_cli") == (None, None)


def test_git_is_missing(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert source_state(package) == (None, None)


def test_git_does_not_answer(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*args: object, **kwargs: object) -> None:
        raise subprocess.TimeoutExpired("git", 30)

    monkeypatch.setattr(subprocess, "run", hang)
    assert source_state(package) == (None, None)


def test_the_repository_a_hook_points_to_is_not_taken(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert source_state(package)[1] is False
