"""Input made up by the thousand: no traceback, one line for each refusal.

`FUZZ_CASES=5000 pytest tests/test_fuzz.py` makes up more than the usual 200 in all. The same
number makes up the same inputs; one that fails is made as small as can be and printed.
"""

import contextlib
import copy
import csv
import hashlib
import io
import json
import math
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cli.cli import app, run_command
from resnet_cli.config.editions import to_current_edition
from resnet_cli.config.experiments import experiments_folder, load_experiment, parse_setting
from resnet_cli.config.fields import parse_range
from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.datasets.catalogue import load_split
from resnet_cli.datasets.normalisation import parse_normalization
from resnet_cli.models.factory import build
from resnet_cli.results.provenance import collect
from resnet_cli.run.rerun import read_spec
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import RunError, UserError
from resnet_cli.runtime.interrupt import parse_duration
from resnet_cli.training.context import Context
from resnet_cli.training.runs import find_finished
from resnet_cli.weights.load import load_network, weights_bytes

FUZZ = settings.get_profile("fuzz")
FEW = DataConfig(train_images=8)
"""Digits whose statistics a normalisation may ask for."""


def cases(share: float) -> settings:
    """A test's share of FUZZ_CASES; the shares sum to one."""
    return settings(FUZZ, max_examples=max(1, math.ceil(share * FUZZ.max_examples)))


ODD = [
    *("", " ", "~", "null", "true", "no", "0", "-1", "1.5", "-0.0", "1e308", "1e309", "-1e-320"),
    *(".nan", ".inf", "-.inf", "nan", "NaN", "inf", "0x1F", "0o17", "1_000", "12:30:45", "١٢"),
    *("9" * 30, "9" * 400, "9" * 5000, "2001-01-01", "2001-99-99", "2001-01-01 10:00:00 +99:99"),
    *("[]", "{}", "[1, 2]", "{a: 1}", "[[]]", "[[[[1]]]]", "- 1", "? a", ": :", "{? [a] : b}"),
    *("&a b", "*a", "<<: {a: 1}", "!!python/object/apply:os.getcwd []", "!!binary aGk=", "!x y"),
    *("!!set {a, b}", "!!omap [a: 1]", "!!timestamp x", "!!int x", "!!float", "!!null x", "%"),
    *(
        "'",
        '"',
        "|",
        ">",
        "#",
        "@",
        "`",
        "---",
        "...",
        "\t",
        "\\",
        "/",
        "..",
        "../x",
        "/etc",
        "~/x",
    ),
    *("[" * 2000, "{a: " * 2000, "- " * 2000, "x" * 5000, "a." * 2000 + "a", "{" * 90 + "}" * 90),
    *("é", "日本語", "\U0001f600", "\u202e", "\ufeff", "\u2028", "\x85", "\x00", "\x1b[31m", "\r"),
    *("smoke", "mini", "paper", "main", "digits", "cifar10", "imagefolder", "vgg", "delete"),
    *("1-3", "3-1", "0-999999", "0-999999,0-999999", "1,2", "1--2", "-", ",", "1-", "½"),
]
"""Scalars and scraps that have broken parsers."""
odd = st.sampled_from(ODD) | st.text(max_size=12) | st.integers().map(str) | st.floats().map(repr)


@cache
def valid_experiments() -> tuple[str, ...]:
    """The text of every experiment that travels with the program."""
    return tuple(p.read_text("utf-8") for p in sorted(experiments_folder().rglob("*.yaml")))


VALUE = re.compile(r"(?<=[:\[,] )[^\s,{}\[\]#]+|(?<=- )[^\s,{}\[\]#:]+")
KEY = re.compile(r"[a-z_]+(?=:)")


@st.composite
def experiment_texts(draw: st.DrawFn) -> bytes:
    """A valid experiment after a few mutations."""
    text = draw(st.sampled_from(valid_experiments()))
    for _ in range(draw(st.integers(0, 4))):
        lines = text.splitlines(keepends=True) or ["\n"]
        line = draw(st.integers(0, len(lines) - 1))
        place = draw(st.integers(0, len(text)))
        kind = draw(st.integers(0, 9))
        if kind == 0:
            del lines[line]
            text = "".join(lines)
        elif kind == 1:
            lines.insert(draw(st.integers(0, len(lines))), lines[line])
            text = "".join(lines)
        elif kind == 2:
            lines[line] = "  " * draw(st.integers(0, 3)) + lines[line].lstrip()
            text = "".join(lines)
        elif kind == 3:
            text = text[:place] + text[place + draw(st.integers(1, 20)) :]
        elif kind == 4:
            text = text[:place] + draw(odd) + text[place:]
        elif kind == 5:
            lines.append(f"{draw(odd)}: {draw(odd)}\n")
            text = "".join(lines)
        else:
            found = list((KEY if kind == 6 else VALUE).finditer(text))
            if found:
                match = draw(st.sampled_from(found))
                text = text[: match.start()] + draw(odd) + text[match.end() :]
    content = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(content)))
        content = content[:place] + draw(st.binary(min_size=1, max_size=3)) + content[place:]
    return content


KEYS = [
    *("model", "data", "train", "study", "cases", "seeds", "profiles", "extends", "name", "title"),
    *("model.depth", "model.units", "model.widths", "model.branch", "model.shortcut_scale"),
    *("data.dataset", "data.normalize", "data.pad", "train.lr", "train.epochs", "train.milestones"),
    *("study.kind", "study.k", "study.samples", "fail_above", "figure", "paper", "note", "profile"),
    *("train.lr.x", "model.depht", ".", "..", "model.", "", "cases.0", "seeds.0.1", "é.ü", "a.b"),
]
set_texts = st.builds(
    lambda key, equals, value: key + equals + value,
    st.sampled_from(KEYS) | odd,
    st.sampled_from(["=", "=", "=", "=", "", "==", ": "]),
    odd,
)


@cache
def weights_files() -> dict[str, bytes]:
    """A small network as our own weights and as others save theirs."""
    run = RunConfig(
        model=ModelConfig(depth=8, widths=(1, 1, 1), placement="original"),
        data=DataConfig(train_images=64, test_images=20),
        train=TrainConfig(iterations=1, batch_size=16),
        seed=0,
    )
    network = build(run.model, 10, 0).eval()
    normalization = parse_normalization("imagenet", lambda: pytest.fail("no statistics are needed"))
    stream = io.BytesIO()
    torch.save({"state_dict": network.state_dict()}, stream)
    ours = weights_bytes(network, run, tuple("0123456789"), normalization, {"test_error": 90.0})
    return {"weights.safetensors": ours, "others.pt": stream.getvalue()}


@st.composite
def damaged_weights(draw: st.DrawFn) -> tuple[str, bytes]:
    """A name and the content of a weights file after a few mutations, mostly near its start."""
    name = draw(st.sampled_from(sorted(weights_files())))
    content = weights_files()[name]
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(len(content), 4000)) | st.integers(0, len(content)))
        removed = draw(st.sampled_from([0, 0, 1, 1, 2, 8, 1000]))
        added = draw(st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"[" * 999, b"9" * 30]))
        content = content[:place] + added + content[place + removed :]
    return name, content


# --- provenance ----------------------------------------------------------------------------------

STUDIES: list[dict[str, Any]] = [
    {"kind": "delete", "k": [1], "samples": 2, "images": 20},
    {"kind": "paths", "k": [1, 2], "samples": 2, "unit": 3},
    {"kind": "greedy", "max_units": 2, "choose_on": "train", "choose_images": 8},
    {"kind": "signal"},
]
RUN: dict[str, Any] = {
    "model": {"depth": 8, "widths": [1, 1, 1]},
    "data": {"train_images": 64, "test_images": 20},
    "train": {"iterations": 1, "batch_size": 16},
}
CASES = [{"name": "one", "title": "One"}, {"name": "two", "train": {"lr": 0.05}}]


@cache
def valid_provenances() -> tuple[str, ...]:
    """As JSON: of experiments with and without a study, of a run, of typed studies, of neither."""
    named = RUN | {"name": "veit2016/mine", "profile": "mini", "title": "T", "note": None}
    experiment = named | {"seeds": [0, 1], "cases": CASES}
    asked = {"only": None, "batch_statistics": False, "seed": 0}
    weights = {"run": "weights.safetensors"}
    digest = hashlib.sha256(weights_files()[weights["run"]]).hexdigest()
    typed = asked | {"model": RUN["model"], "data": RUN["data"], "engine": "plain"}
    prints = {
        f"digits/{split}": load_split(DataConfig(**RUN["data"]), split, None).fingerprint
        for split in ("train", "test")
    }
    found: list[tuple[dict[str, Any], dict[str, str], bool]] = [
        (experiment, prints, False),
        (RUN | {"seed": 0}, prints, False),
        ({"benchmarks": [], "threads": 1}, {}, False),
        *((experiment | asked | {"study": study}, {}, True) for study in STUDIES[:2]),
        *((typed | {"study": study}, {}, True) for study in STUDIES),
        (
            typed | {"study": STUDIES[0], "only": [1, 2]},
            {"digits/test": prints["digits/test"]},
            True,
        ),
    ]
    return tuple(
        json.dumps(
            collect({}, seeds=[0], started=datetime.now(UTC)).model_dump(mode="json")
            | {
                "config": config,
                "config_hash": "",
                "profile": "mini",
                "command": "resnet-cli run veit2016/mine",
                "data": data,
                "checkpoint": {"source": "run", "sha256": digest} if studied else None,
            }
        )
        for config, data, studied in found
    )


NESTED = "nested"
"""Stands for lists in lists, which Python's own writer of JSON could not write."""
ODD_JSON = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 1.5, 10**30, -(10**400), math.nan, math.inf, [], {}, [[]]),
        *([1, 1], ["x"], [None], {"a": 1}, "", ".", "..", "../../../x", "/x", "a//b", "a\0b"),
        *("\ud800", "\n", "a\\b", "x" * 5000, "run", "junk.py", "junk.pt", "taken", "plain"),
        *("imagefolder", "cifar10", "smoke", "delete", "preact56-digits", "0" * 64, NESTED),
    ]
).map(copy.deepcopy)  # what is put into itself has no end


def spots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container with a key or an index of it, the whole tree through."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from spots(value[key])


@st.composite
def provenance_texts(draw: st.DrawFn) -> bytes:
    """A valid provenance after a few mutations, mostly with the hash that belongs to it."""
    content = json.loads(draw(st.sampled_from(valid_provenances())))
    for _ in range(draw(st.integers(0, 3))):
        found = list(spots(content))
        holder, key = draw(st.sampled_from(found))
        kind = draw(st.integers(0, 7))
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw(odd)] = draw(ODD_JSON)
        elif kind == 2:
            other, at = draw(st.sampled_from(found))
            holder[key] = json.loads(json.dumps(other[at]))
        else:
            holder[key] = draw(ODD_JSON | odd)
        if not content:
            break
    nested = draw(st.sampled_from([10, 300, 500, 700, 800, 900, 950, 3000]))
    lists = "[" * nested + "]" * nested
    canonical = json.dumps(content.get("config"), sort_keys=True, separators=(",", ":"))
    canonical = canonical.replace(f'"{NESTED}"', lists)
    if draw(st.integers(0, 9)):
        content["config_hash"] = hashlib.sha256(canonical.encode()).hexdigest()
    text = json.dumps(content).replace(f'"{NESTED}"', lists).encode()
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.binary(max_size=3)) + text[place + 1 :]
    return text


# --- command lines -------------------------------------------------------------------------------

PLAUSIBLE: dict[str, list[str]] = {
    "--profile": ["smoke", "mini", "paper"],
    "--set": ["train.lr=0.5", "model.depth=14", "train.epochs=1"],
    "--device": ["auto", "cpu", "cuda", "cuda:99", "meta"],
    "--budget": ["0s", "1h"],
    "--checkpoint": ["run", "junk.safetensors", "junk.pt", "junk.py", "taken", "preact56-digits"],
    "--dataset": ["digits", "cifar10", "imagefolder"],
    "--normalize": ["imagenet", "cifar", "none", "0.1,0.2,0.3/1,1,1", "0,0,0/0,0,0"],
    "--engine": ["fast", "plain"],
    "--estimator": ["batch", "image"],
    "--out": ["out", "taken", "taken/below"],
    "--results": ["results", "taken", "odd"],
    "--data-dir": ["data", "taken", "odd"],
    "--export": ["run", "taken"],
}
ARGUMENTS: dict[str, list[str]] = {
    "experiment": ["quickstart", "mine.yaml", "broken.yaml", "veit2016/fig5a"],
    "experiments": ["quickstart", "mine.yaml", "broken.yaml", "odd", "veit2016/*", "he2016"],
    "paper": ["he2016", "veit2016"],
    "dataset": ["digits", "cifar10"],
    "items": ["lesion_single", "scaling"],
}
NAMES = sorted(set(typer.main.get_command(app).commands) - {"models"})  # type: ignore[attr-defined]
"""Every command but `models`, which counts operations of all networks and takes nothing odd."""


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with some of its own options and arguments, plausible and odd."""
    name = draw(st.sampled_from(NAMES))
    command: Any = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    words: list[str] = []
    for parameter in command.params:
        if draw(st.integers(0, 3)) > 0 and parameter.name not in ("experiments", "checkpoint"):
            continue
        option = parameter.opts[0] if parameter.param_type_name == "option" else None
        known = (ARGUMENTS if option is None else PLAUSIBLE).get(option or parameter.name, ["3"])
        value = draw(st.sampled_from(known) | st.sampled_from(known) | odd)
        if option is None:
            words.append(value)
        elif getattr(parameter, "is_flag", False):
            words.append(option)
        elif draw(st.booleans()):
            words.append(f"{option}={value}")
        else:
            words += [option, value]
    if draw(st.integers(0, 9)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(odd))
    return [name, *words]


# --- tables, run files and environment variables ------------------------------------------------

MEASURED = (
    *("veit2016/mini/fig3/vgg15-seed0/lesion_delete", "veit2016/mini/fig6/main-seed0/path_lengths"),
    *("veit2016/mini/fig6/main-seed0/path_spectrum", "veit2016/mini/fig7/path_survival"),
    *(
        "veit2016/mini/greedy/lesion_greedy",
        "veit2016/mini/additivity/main-seed0/lesion_additivity",
    ),
    *(
        "he2016/mini/table1/table",
        "he2016/mini/fig6a/training",
        "he2016/mini/signal/original/signal",
    ),
)
"""Committed tables of several kinds, in `results/`."""
CELLS = st.sampled_from(
    [
        *("", " ", "x y", "1 2", "-1", "0", "1", "1.5", "nan", "inf", "-inf", "1e999", "9" * 30),
        *(
            "9" * 5000,
            "=1+1",
            "\x1b[31m",
            "ok",
            "fail",
            "diverged",
            "\u0661",
            "1_0",
            "0x1",
            "x" * 999,
        ),
    ]
)


@st.composite
def changed_tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A committed table after a few of its cells or lines were changed."""
    name = draw(st.sampled_from(MEASURED))
    path = Path(__file__).parents[1] / "results" / f"{name}.csv"
    rows = list(csv.reader(path.read_text("utf-8").splitlines()))
    for _ in range(draw(st.integers(1, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1) | st.integers(1, len(rows) - 1))]
        kind = draw(st.integers(0, 11))
        if kind == 0:
            rows.remove(row)
        elif kind == 1:
            rows.append(list(row))
        elif row:
            row[draw(st.integers(0, len(row) - 1))] = draw(CELLS | odd)
        if len(rows) < 2:
            break
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return name, text.getvalue().encode("utf-8", "surrogatepass")


@st.composite
def changed_json(draw: st.DrawFn, path: Path) -> bytes:
    """A JSON file after a few of its values were replaced."""
    content = json.loads(path.read_text("utf-8"))
    if draw(st.booleans()):  # otherwise most changes are refused for this hash alone
        content.pop("config_hash", None)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(spots(content))))
        if draw(st.integers(0, 4)) == 0:
            del holder[key]
        else:
            holder[key] = draw(ODD_JSON | odd)
        if not content:
            break
    return json.dumps(content).encode()


VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "COLUMNS", "LINES", "TERM"),
    *(
        "RESNET_CLI_DATA",
        "OMP_NUM_THREADS",
        "NO_COLOR",
        "FORCE_COLOR",
        "CUDA_VISIBLE_DEVICES",
        "HOME",
    ),
)
environments = st.dictionaries(
    st.sampled_from(VARIABLES),
    (odd | st.sampled_from(["0", "1", "2", "80", "localhost", "29500"])).filter(
        lambda text: "\0" not in text and not re.search("[\ud800-\udfff]", text)
    ),
    min_size=1,
    max_size=8,
)
"""Variables that the program or a library of its own reads."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder of odd files, in which all work stops where it would begin."""
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(experiments_folder() / "veit2016", folder, dirs_exist_ok=True)
    shutil.copytree(experiments_folder() / "he2016", folder, dirs_exist_ok=True)

    def work(*arguments: object, **options: object) -> None:
        raise RunError("here the work would begin")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("tiny.yaml").write_text(
            "title: T\nmodel: {depth: 8, widths: [1, 1, 1]}\n"
            "data: {train_images: 16, test_images: 8}\ntrain: {iterations: 1, batch_size: 8}\n"
        )
        assert run_command(["train", "tiny.yaml", "-q"]) == 0
        shutil.rmtree("results")
        Path("runs").rename("trained")
        for name in MEASURED:
            for path in (Path(__file__).parents[1] / "results").glob(f"{name}.*"):
                if path.suffix in (".csv", ".json"):
                    copy_of = "results" / path.relative_to(Path(__file__).parents[1] / "results")
                    copy_of.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, copy_of)
        patch.delenv("RESNET_CLI_DATA", raising=False)
        patch.setenv("COLUMNS", "80")
        for name in (
            "run.executors.run_experiment",
            "run.experiment.study_experiment",
            "run.rerun.study_experiment",
            "run.rerun.run_study",
            "studies.runner.run_study",
            "training.evaluation.evaluate",
            "bench.run.run_benchmarks",
            "datasets.download.download_cifar",
        ):
            patch.setattr(f"resnet_cli.{name}", work)
        launched = processes.start

        def start() -> None:
            if processes._launched()[1] > 1:
                raise RunError("here the work would begin")
            launched()

        patch.setattr(processes, "start", start)
        Path("run").mkdir()
        Path("run/weights.safetensors").write_bytes(weights_files()["weights.safetensors"])
        Path("junk.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
        Path("junk.pt").write_bytes(b"\x80\x04junk")
        Path("junk.py").write_text("def network(:\n")
        Path("taken").write_text("a file")
        Path("mine.yaml").write_text("title: T\nmodel: {depth: 8}\ntrain: {iterations: 1}\n")
        Path("broken.yaml").write_text("title: [T\n")
        Path("odd/he2016/mini/fig1").mkdir(parents=True)
        Path("odd/he2016/mini/fig1/table.csv").write_bytes(b"a,b\n\xff\0")
        Path("odd/train-0.parquet").write_bytes(b"PAR1")
        Path("odd/train/cat").mkdir(parents=True)
        Path("odd/train/cat/1.png").write_bytes(b"\x89PNG")
        yield folder


def one_line(error: UserError) -> None:
    message = str(error)
    assert message == message.strip() != ""
    assert len(message) < 1500


# --- the tests -----------------------------------------------------------------------------------


@cases(0.2)
@given(
    content=experiment_texts(),
    profile=st.sampled_from([None, None, "smoke", "mini", "cpu", "paper", "x"]),
)
def test_an_experiment_file_is_read_or_refused(
    folder: Path, content: bytes, profile: str | None
) -> None:
    Path("trial.yaml").write_bytes(content)
    try:
        experiment = load_experiment("trial.yaml", profile)
    except UserError as error:
        one_line(error)
        return
    assert len(experiment.hash) == 64
    assert experiment.runs()


@cases(0.1)
@given(
    name=st.sampled_from(["quickstart", "veit2016/fig5a", "he2016/table1", "mine.yaml"]),
    texts=st.lists(set_texts, min_size=1, max_size=3),
)
def test_settings_are_taken_or_refused(folder: Path, name: str, texts: list[str]) -> None:
    try:
        for text in texts:
            parse_setting(text)
        experiment = load_experiment(name, None, texts)
    except UserError as error:
        one_line(error)
        return
    assert len(experiment.hash) == 64
    assert experiment.runs()


@cases(0.2)
@given(words=command_lines())
def test_a_command_line_ends_in_an_exit_code(folder: Path, words: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(words)
    assert code in (0, 1, 2, 130)
    assert "Traceback" not in out.getvalue() + err.getvalue()
    lines = err.getvalue().split("\n")[:-1]
    said = [line for line in lines if line.startswith("resnet-cli: ")]
    assert len(said) == (1 if code else 0)
    if code == 2 and "--json" not in words:  # with it, what people read is on stderr
        assert lines == said
    assert not Path("out").exists()


@cases(0.1)
@given(content=provenance_texts())
def test_a_provenance_is_run_or_refused(folder: Path, content: bytes) -> None:
    path = Path("trial.provenance.json")
    path.write_bytes(content)
    codes = {1}
    try:
        read_spec(path)
    except UserError as error:
        one_line(error)
        codes = set()
    there = {*Path().rglob("*")}
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(["run", str(path)])
    assert code in codes | {2}  # what is read may name weights or data that are not there
    assert err.getvalue().count("\n") == 1
    assert ("here the work would begin" in err.getvalue()) == (code == 1)
    assert "Traceback" not in out.getvalue() + err.getvalue()
    assert {*Path().rglob("*")} == there


@cases(0.1)
@given(file=damaged_weights())
def test_damaged_weights_are_read_or_refused(folder: Path, file: tuple[str, bytes]) -> None:
    name, content = file
    path = Path(f"damaged-{name}")
    path.write_bytes(content)
    try:
        assert load_network(path).num_classes > 0
    except UserError as error:
        one_line(error)


@cases(0.1)
@given(text=odd | st.text(alphabet="0123456789-,./ smhe", max_size=12))
def test_small_values_are_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(number >= 0 for number in parse_range(text))
    with contextlib.suppress(UserError):
        assert parse_duration(text) >= 0
    with contextlib.suppress(UserError):
        normalization = parse_normalization(text, lambda: load_split(FEW, "train"))
        assert bool(normalization.std.isfinite().all())
        assert bool((normalization.std > 0).all())


def one_line_or_done(words: list[str], codes: tuple[int, ...] = (0, 2)) -> None:
    """Run a command: it ends with one of these codes, and one line if it fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(words)
    assert code in codes
    assert "Traceback" not in out.getvalue() + err.getvalue()
    said = [line for line in err.getvalue().split("\n") if line.startswith("resnet-cli: ")]
    assert len(said) == (1 if code else 0)


@contextlib.contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """Another content of a file for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


COMPARED = ["compare", "--results", "results", "--profile", "mini"]


@cases(0.12)
@given(table=changed_tables(), reports=st.sampled_from([False] * 7 + [True]))
def test_changed_tables_are_compared_or_refused(
    folder: Path, table: tuple[str, bytes], reports: bool
) -> None:
    """With provenance that records the hash of the changed table, so that its content counts."""
    name, content = table
    path = Path("results") / f"{name}.provenance.json"
    told = json.loads(path.read_text())
    told["table"]["sha256"] = hashlib.sha256(content).hexdigest()
    with (
        replaced(path.parent / f"{path.name.split('.')[0]}.csv", content),
        replaced(path, json.dumps(told).encode()),
    ):
        one_line_or_done([*COMPARED, name.split("/")[0]])
        if reports:
            one_line_or_done(["report", "--results", "results", "--out", "page.html"])


@cases(0.08)
@given(data=st.data(), name=st.sampled_from(MEASURED))
def test_a_changed_provenance_is_compared_or_refused(
    folder: Path, data: st.DataObject, name: str
) -> None:
    path = Path("results") / f"{name}.provenance.json"
    with replaced(path, data.draw(changed_json(path))):
        one_line_or_done([*COMPARED, name.split("/")[0]])


@cases(0.05)
@given(data=st.data())
def test_a_changed_run_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    (path,) = Path("trained").glob("*/run.json")
    run = RunConfig.model_validate(to_current_edition(json.loads(path.read_text())["run"]))
    with replaced(path, data.draw(changed_json(path))):
        one_line_or_done(["eval", "--checkpoint", str(path.parent)], (1, 2))
        with contextlib.suppress(UserError):
            find_finished(Context(torch.device("cpu"), runs=Path("trained")), run)


@cases(0.05)
@given(
    variables=environments,
    words=st.sampled_from(
        [["list"], ["models"], ["data"], ["show", "quickstart"], ["eval", "--checkpoint", "run"]]
    ),
)
def test_environment_variables_are_used_or_refused(
    folder: Path, variables: dict[str, str], words: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        one_line_or_done(words, (0, 1, 2))
