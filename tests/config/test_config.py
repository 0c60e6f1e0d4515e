"""Experiments as YAML: reading, resolving, refusing with words, and hashing."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from resnet_cli.config.experiments import (
    experiments_folder,
    find_experiment,
    load_experiment,
    parse_setting,
)
from resnet_cli.config.fields import parse_range
from resnet_cli.config.schema import Experiment, ModelConfig, RunConfig, config_hash
from resnet_cli.config.yaml_reader import parse_yaml
from resnet_cli.runtime.errors import UserError

BASE = """\
title: a test
model: {depth: 20}
train: {iterations: 100, warmup_iterations: 7}
"""

Load = Callable[..., Experiment]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a file and load it, with what `load_experiment` takes."""

    def write_and_load(text: str, name: str = "trial.yaml", **options: Any) -> Experiment:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return load_experiment(str(tmp_path / name), **options)

    return write_and_load


@pytest.mark.parametrize(
    "key",
    ["train.iterations", "train.batch_size", "train.lr", "model.gate_bias", "data.pad", "seeds"],
)
@pytest.mark.parametrize("zeros", [400, 5000])
def test_a_number_beyond_any_use_is_refused(load: Load, key: str, zeros: int) -> None:
    number = "1" + zeros * "0"
    with pytest.raises(UserError, match=key.rpartition(".")[2].removesuffix("s")):
        load(BASE, settings=[f"{key}={f'[{number}]' if key == 'seeds' else number}"])


# --- ranges and settings -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, (3,)),
        (0, (0,)),
        ("3", (3,)),
        ("1-4", (1, 2, 3, 4)),
        (" 1 - 3 ", (1, 2, 3)),
        ("5-5", (5,)),
        ("9,1,5", (1, 5, 9)),
        ("1-3,2-4,7", (1, 2, 3, 4, 7)),
        ([4, 0, 4], (0, 4)),
        ((2, "5-6"), (2, 5, 6)),
    ],
)
def test_parse_range(value: object, expected: tuple[int, ...]) -> None:
    assert parse_range(value) == expected


@pytest.mark.parametrize(
    "value", ["", "a", "1-", "-3", -3, "1..3", "1,,2", "1-2-3", 1.5, None, True, {}, "1234567"]
)
def test_parse_range_refuses_other_values(value: object) -> None:
    with pytest.raises(ValueError, match=r"is not a range; write 3, 1-20 or 1,5,9"):
        parse_range(value)


def test_parse_range_refuses_a_backward_range() -> None:
    with pytest.raises(ValueError, match=r"'20-1' is backwards; write 1-20"):
        parse_range("20-1")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.lr=0.2", {"train": {"lr": 0.2}}),
        ("train.lr=1e-4", {"train": {"lr": 1e-4}}),
        ("seeds=[0, 1]", {"seeds": [0, 1]}),
        ("study.k=1-20", {"study": {"k": "1-20"}}),
        ("data.normalize=1,2,3/4,5,6", {"data": {"normalize": "1,2,3/4,5,6"}}),
        ("note=a=b", {"note": "a=b"}),
        ("model.units=null", {"model": {"units": None}}),
        ("study.batch_size=", {"study": {"batch_size": None}}),
        ("study.exact=false", {"study": {"exact": False}}),
    ],
)
def test_parse_setting(setting: str, expected: dict[str, Any]) -> None:
    assert parse_setting(setting) == expected


@pytest.mark.parametrize("setting", ["train.lr", "=3", "train..lr=3", ".lr=3", ""])
def test_parse_setting_shows_how_to_write_one(setting: str) -> None:
    with pytest.raises(UserError, match=r"write key.path=value, for example train.epochs=2"):
        parse_setting(setting)


def test_parse_setting_refuses_a_value_that_is_not_yaml() -> None:
    with pytest.raises(UserError, match=r"--set 'train.lr=\[', line 1, column 2: expected"):
        parse_setting("train.lr=[")


# --- resolution ----------------------------------------------------------------------------------


def test_a_plain_file(load: Load) -> None:
    experiment = load(BASE)
    assert experiment.name == "trial"
    assert experiment.profile == "mini"
    assert experiment.model == ModelConfig(depth=20)
    assert experiment.train.iterations == 100
    assert [case.name for case in experiment.cases] == ["main"]
    ((case, run),) = experiment.runs()
    assert case.name == "main"
    assert run.seed == 0


LAYERED = """\
title: of the file
extends: base
train: {lr: 0.3, momentum: 0.3}
profiles:
  smoke: {train: {momentum: 0.4, weight_decay: 0.4, gamma: 0.4}}
  paper: {}
cases:
  - {name: plain}
  - {name: other, train: {gamma: 0.6}}
"""
UNDER_IT = """\
title: of the base
note: kept
model: {depth: 20, placement: original}
train: {iterations: 100, lr: 0.1, momentum: 0.1, weight_decay: 0.1, gamma: 0.1, warmup_lr: 0.1}
profiles:
  smoke: {train: {warmup_iterations: 1}}
"""


def test_later_layers_win(load: Load, tmp_path: Path) -> None:
    """extends -> file -> profile -> --set -> case; mappings merge key by key."""
    (tmp_path / "base.yaml").write_text(UNDER_IT)
    experiment = load(LAYERED, profile="smoke", settings=["train.gamma=0.5", "train.nesterov=true"])
    assert experiment.title == "of the file"
    assert experiment.note == "kept"
    assert experiment.model == ModelConfig(depth=20, placement="original")
    train = experiment.train
    assert train.warmup_lr == 0.1  # base
    assert train.lr == 0.3  # file over base
    assert train.momentum == 0.4  # profile over file
    assert train.weight_decay == 0.4  # profile over base
    assert train.warmup_iterations == 1  # the base's profile
    assert train.gamma == 0.5  # --set over profile
    plain, other = (run for _, run in experiment.runs())
    assert plain.train == train
    assert other.train.gamma == 0.6  # case over --set
    assert other.train.nesterov
    assert other.model == plain.model
    assert load(LAYERED, profile="paper").train.momentum == 0.3


def test_extends_goes_through_several_files(load: Load, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BASE)
    (tmp_path / "b.yaml").write_text("extends: a.yaml\ntrain: {lr: 0.5}\n")
    experiment = load("extends: b\ntitle: third\n")
    assert (experiment.title, experiment.train.lr, experiment.model.depth) == ("third", 0.5, 20)


@pytest.mark.parametrize(
    ("extends", "words"),
    [
        ("nowhere", r"extends: there is no file .*nowhere\.yaml"),
        (
            "../base",
            r"must name a file in the same folder, or \.\./folder/name \(got '\.\./base'\)",
        ),
        ("/etc/base", r"folder/name \(got '/etc/base'\)"),
        ("[a, b]", r"folder/name \(got \['a', 'b'\]\)"),
        ("trial", r"trial\.yaml: extends itself through trial\.yaml"),
    ],
)
def test_extends_refused(load: Load, extends: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(BASE + f"extends: {extends}\n")


def test_extends_a_file_of_a_sibling_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one" / "base.yaml").write_text(BASE)
    (tmp_path / "two" / "own.yaml").write_text("extends: ../one/base\ntrain: {lr: 0.5}\n")
    experiment = load_experiment(str(tmp_path / "two" / "own.yaml"))
    assert (experiment.train.lr, experiment.model.depth) == (0.5, 20)


def test_extends_in_a_circle_is_refused(load: Load, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    with pytest.raises(UserError, match=r"a\.yaml: extends itself through .*a\.yaml, b\.yaml"):
        load(BASE + "extends: a\n")
    for folder, other in (("one", "two"), ("two", "one")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.yaml").write_text(f"extends: ../{other}/x\n")
    with pytest.raises(UserError, match=r"x\.yaml: extends itself through x\.yaml, x\.yaml"):
        load_experiment(str(tmp_path / "one" / "x.yaml"))


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        ("", "mini"),
        ("profiles: {paper: {}, smoke: {}}\n", "smoke"),
        ("profiles: {paper: {}, cpu: {}}\n", "cpu"),
        ("profiles: {paper: {}}\n", "paper"),
        ("profiles: {smoke: {}, mini: }\n", "mini"),
    ],
)
def test_profile_taken_when_none_is_named(load: Load, profiles: str, expected: str) -> None:
    assert load(BASE + profiles).profile == expected


def test_unknown_profile(load: Load) -> None:
    with pytest.raises(UserError, match=r"unknown profile 'papr'; did you mean 'paper'\? \(known"):
        load(BASE, profile="papr")
    with pytest.raises(UserError, match=r"trial\.yaml: unknown profile 'smok'; did you mean 'smo"):
        load(BASE + "profiles: {smok: {}}\n")


def test_missing_profile_lists_those_there_are(load: Load) -> None:
    with pytest.raises(UserError, match=r"has no profile 'paper' \(it has smoke, mini\)"):
        load(BASE + "profiles: {smoke: {}, mini: {}}\n", profile="paper")


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ("3", "profiles: must be a mapping of smoke, mini, cpu, paper"),
        ("{mini: 3}", r"profiles\.mini: must be a mapping of overrides"),
    ],
)
def test_profiles_must_be_mappings(load: Load, profiles: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(BASE + f"profiles: {profiles}\n")


def test_one_length_replaces_the_other_in_every_layer(load: Load) -> None:
    assert load(BASE, settings=["train.epochs=2"]).train.iterations is None
    assert load(BASE, settings=["train.epochs=2"]).train.epochs == 2
    profile = load(BASE + "profiles: {smoke: {train: {epochs: 3}}}\n", profile="smoke")
    assert (profile.train.epochs, profile.train.iterations) == (3, None)
    case = load(BASE + "cases: [{name: a, train: {epochs: 4}}]\n").runs()[0][1]
    assert (case.train.epochs, case.train.iterations) == (4, None)
    back = load(BASE, settings=["train.epochs=2", "train.iterations=5"])
    assert (back.train.epochs, back.train.iterations) == (None, 5)


def test_both_lengths_or_none_are_refused(load: Load) -> None:
    both = ["train={epochs: 1, iterations: 2}"]
    with pytest.raises(UserError, match=r"train: give exactly one of epochs and iterations"):
        load(BASE, settings=both)
    with pytest.raises(UserError, match=r"train: give exactly one of epochs and iterations"):
        load("title: t\nmodel: {depth: 20}\ntrain: {}\n")


def test_seed_option_replaces_the_seeds(load: Load) -> None:
    experiment = load(BASE + "seeds: [0, 1, 2]\n", seed=7)
    assert experiment.seeds == (7,)
    assert [run.seed for _, run in load(BASE + "seeds: [3, 1]\n").runs()] == [3, 1]


def test_runs_go_by_cases_then_seeds(load: Load) -> None:
    text = BASE + "seeds: [0, 1]\ncases: [{name: a}, {name: b, model: {depth: 26}}]\n"
    runs = load(text).runs()
    assert [(case.name, run.model.depth, run.seed) for case, run in runs] == [
        ("a", 20, 0),
        ("a", 20, 1),
        ("b", 26, 0),
        ("b", 26, 1),
    ]


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "settings", "source"),
    [
        ("", ["train.lr=abc"], "--set 'train.lr=abc': train.lr: "),
        ("", ["seeds=[1]", "model.depth=57"], "--set 'seeds=[1]', 'model.depth=57': model: "),
        ("data: {pad: x}\n", ["seeds=[1]"], "mine.yaml: data.pad: "),
        ("", ["name=x"], "--set 'name=x': name: must not be set"),
    ],
)
def test_blame_goes_where_it_belongs(
    text: str, settings: list[str], source: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(BASE + text)
    with pytest.raises(UserError) as caught:
        load_experiment(str(path), None, settings)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(source)


def test_a_setting_can_fix_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(BASE + "data: {pad: x}\n")
    assert load_experiment(str(path), None, ["data.pad=2"]).data.pad == 2


def test_what_else_is_wrong_is_named(load: Load) -> None:
    with pytest.raises(UserError, match=r"data\.pad: .*; also not valid: data\.flip$"):
        load(BASE + "data: {pad: x, flip: 3}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle: {}\n", r"modle: unknown key 'modle'; did you mean 'model'\?"),
        ("data: {datset: digits}\n", r"data\.datset: unknown key .* did you mean 'dataset'"),
        ("study: {kind: delete, sample: 3}\n", r"study: .*'sample'.* mean 'samples'"),
        ("study: {kind: paths, exakt: true}\n", r"study: .* mean 'exact'\? \(known: batch_size, "),
        ("study: {kind: delte}\n", r"study: .*'delte'; did you mean 'delete'"),
        ("study: {kind: reorder, swaps: 5-1}\n", r"swaps: '5-1' is backwards; write 1-5"),
        ("cases: [{name: a, modle: {}}]\n", r"cases\.0\.modle: .*did you mean 'model'"),
        ("cases: [{name: a, model: {dpth: 3}}]\n", r"case 'a': model\.dpth: .* mean 'depth'"),
        ("cases: [{name: a, model: {depth: 21}}]\n", r"case 'a': model: depth 21 does not fit"),
        ("cases: [{name: a}, {name: a}]\n", "cases: give one or more, with different names"),
        (r'note: "\ud800"', r"note: must not contain line breaks or control characters \(\\ud800"),
        (
            r'cases: [{name: a, title: "\udfff"}]',
            r"cases\.0\.title: must not contain line breaks or control",
        ),
        (
            'note: "a\\x1b[31mb"\n',
            r"note: must not contain line breaks or control characters \(\\x1b",
        ),
        ('note: "a\\nb"\n', r"note: must not contain line breaks or control characters \(\\n"),
        (
            'note: "a\\u202eb"\n',
            r"note: must not contain line breaks or control characters \(\\u202e",
        ),
        ("cases: []\n", "cases: give one or more, with different names"),
        ("cases: [{name: A b}]\n", r"cases\.0\.name: .*pattern"),
        ("seeds: []\n", "seeds: give one or more different numbers"),
        ("seeds: [1, 1]\n", "seeds: give one or more different numbers"),
        ("seeds: [-1]\n", "seeds: give one or more different numbers, none negative"),
        ("name: mine\n", "name: must not be set .*; remove it"),
        ("profile: mini\n", "profile: must not be set .*; remove it"),
        ("paper: he2015\n", r"paper: must be 'he2016' or 'veit2016' \(got 'he2015'\)"),
    ],
)
def test_what_does_not_fit_is_named(load: Load, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load(BASE + text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.depth=twenty", r"model\.depth: .*whole number.*\(got 'twenty'\)"),
        ("model.depth=20.5", r"model\.depth: .*whole number \(got 20\.5\)"),
        ("model=null", r"model: .*\(got None\)"),
        ("train=5", r"train: must be a mapping.*\(got 5\)"),
        ("train.lr=fast", r"train\.lr: must be a number.*\(got 'fast'\)"),
        ("train.lr=-1", r"train\.lr: must be greater than 0 \(got -1\)"),
        ("train.lr=.nan", r"train\.lr: must be a finite number"),
        ("train.momentum=1", r"train\.momentum: must be less than 1"),
        ("train.milestones=[30, 20]", "train: milestones must be in increasing order"),
        ("train.lrr=3", r"train\.lrr: unknown key 'lrr'; did you mean 'lr'"),
        ("train={iterations: 5, stochastic_depth: 0.5, active_units: 3}", "only one of"),
        ("model.shortcut=gate", r"model\.shortcut: must be 'identity', 'scaling'"),
        ("model.shortcut_scale=0.5", "shortcut_scale and residual_scale need shortcut: scaling"),
        ("model.widths=[16, 32]", "widths: 3 stages need 3 widths, not 2"),
        ("data.dataset=mnist", r"data\.dataset: unknown data set 'mnist' \(known: cifar10"),
        ("seeds=3", r"seeds: must be a list \(got 3\)"),
    ],
)
def test_wrong_values_are_named(load: Load, setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(BASE, settings=[setting])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"depth": 21}, r"depth must be 6n\+2, for example 20 or 26"),
        ({"depth": 7}, r"depth 7 .*basic units: depth must be 6n\+2, for example 8 \["),
        ({"depth": -4}, r"depth must be 6n\+2, for example 8 \["),
        ({"depth": 2}, r"depth must be 6n\+2, for example 8 \["),
        ({"depth": 19, "branch": "one_layer"}, r"must be 3n\+2, for example 17 or 20"),
        ({"depth": 165, "branch": "bottleneck"}, r"must be 9n\+2, for example 164 or 173"),
        (
            {"depth": 20, "stem": "imagenet"},
            "there is no ImageNet network .*; use basic with 18 or 34",
        ),
        ({"depth": 18, "stem": "imagenet", "branch": "bottleneck"}, "50, 101, 152 or 200"),
        ({"depth": 18, "stem": "imagenet", "branch": "one_layer"}, "there is no ImageNet network"),
        ({"depth": 16, "family": "vgg"}, "there is no VGG of depth 16; use 10, 12, 15, 18"),
        ({"depth": 20, "units": (1, 2)}, r"depth 20 does not fit units \[1, 2\] of basic units: "),
    ],
)
def test_depth_that_fits_no_family(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "units", "widths"),
    [
        ({"depth": 110}, (18, 18, 18), (16, 32, 64)),
        ({"depth": 110, "branch": "one_layer"}, (36, 36, 36), (16, 32, 64)),
        ({"depth": 164, "branch": "bottleneck"}, (18, 18, 18), (16, 32, 64)),
        ({"depth": 1001, "branch": "bottleneck"}, (111, 111, 111), (16, 32, 64)),
        ({"depth": 110, "branch": "bottleneck"}, (12, 12, 12), (16, 32, 64)),
        ({"depth": 1202}, (200, 200, 200), (16, 32, 64)),
        (
            {"depth": 200, "branch": "bottleneck", "stem": "imagenet"},
            (3, 24, 36, 3),
            (64, 128, 256, 512),
        ),
        ({"depth": 15, "family": "vgg"}, (2, 2, 3, 3, 3), (64, 128, 256, 512, 512)),
        ({"depth": 10, "units": (1, 2, 1)}, (1, 2, 1), (16, 32, 64)),
        ({"depth": 10, "units": (1, 3), "widths": (4, 9)}, (1, 3), (4, 9)),
    ],
)
def test_stage_units_and_widths(
    fields: dict[str, Any], units: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    config = ModelConfig(**fields)
    assert config.stage_units() == units
    assert config.stage_widths() == widths


# --- YAML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2.5e3", -2500.0),
        (".5e-3", 5e-4),
        ("+1.e+2", 100.0),
        ("0.1", 0.1),
        ("1e", "1e"),
        ("e4", "e4"),
        ("1-20", "1-20"),
        ("'1e-4'", "1e-4"),
    ],
)
def test_exponents_are_numbers(text: str, value: object) -> None:
    found = parse_yaml(f"a: {text}", "x.yaml")["a"]
    assert found == value
    assert type(found) is type(value)


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", r"x\.yaml, line 2, column 1: duplicate key 'a'"),
        ("a: {b: 1, b: 2}\n", r"line 1, column 11: duplicate key 'b'"),
        (BOMB, r"line 2, column 8: anchors and aliases are not allowed here"),
        ("a: &a [*a]\n", "anchors and aliases are not allowed here"),
        ("a: !!python/name:os.system\n", r"tags are not allowed here .*os\.s"),
        ("a: !mine 3\n", r"tags are not allowed here \(got '!mine'\)"),
        ("a: !!timestamp x\n", r"line 1, column 4: tags are not allowed here"),
        ("a: !!bool x\n", r"line 1, column 4: tags are not allowed here"),
        ("<<: {a: 1}\n", r"could not determine a constructor for the tag .*merge"),
        ("3: a\n", "the key 3 is not text"),
        ("true: a\n", "the key True is not text"),
        ("? [a]\n: b\n", r"the key \['a'\] is not text"),
        ("a: [1\n", r"x\.yaml, line 2, column 1: expected ',' or ']'"),
        ("a: b: c\n", r"line 1, column 5: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "found another document"),
        ("a: \x01\n", r"not valid YAML: .*special characters are not allowed"),
        ("a: 2001-99-99\n", r"not valid YAML: month must be in 1\.\.12"),
        ("a: " + "1" * 5000, "not valid YAML: Exceeds the limit"),
        ("[" * 5000, r"line 1, column 51: nested too deeply for an experiment"),
        ("a: " + "x" * 1_000_001, r"more than 1,000,000 characters"),
    ],
)
def test_yaml_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse_yaml(text, "x.yaml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("x.yaml")


def test_a_file_that_is_not_an_experiment_is_refused_by_its_name_and_size(tmp_path: Path) -> None:
    upper = tmp_path / "MINE.YML"
    upper.write_text("title: T\n")
    assert find_experiment(str(upper)) == upper
    text = tmp_path / "mine.txt"
    text.write_text("title: T\n")
    with pytest.raises(UserError, match=r"mine\.txt: not a YAML file"):
        find_experiment(str(text))
    with upper.open("wb") as file:
        file.truncate(4 << 30)  # sparse
    start = time.monotonic()
    with pytest.raises(UserError, match=r"4,294,967,296 bytes, too large for an experiment"):
        load_experiment(str(upper))
    assert time.monotonic() - start < 5


def test_a_long_setting_is_shown_in_part(load: Load) -> None:
    for setting in ("9" * 4000 + "=1", "a=" + "[" * 4000, "a" * 4000):
        with pytest.raises(UserError) as caught:
            load(BASE, settings=[setting])
        assert len(str(caught.value)) < 1000


def test_python_tags_run_nothing(load: Load, tmp_path: Path) -> None:
    victim = tmp_path / "created"
    text = f"title: !!python/object/apply:os.system ['mkdir {victim}']\n"
    with pytest.raises(UserError, match=r"trial\.yaml, line 1, column 8: tags are not"):
        load(text)
    with pytest.raises(UserError, match="tags are not allowed here"):
        load(BASE, settings=[f"note=!!python/object/apply:os.mkdir ['{victim}']"])
    assert not victim.exists()


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "just words\n", "3\n"])
def test_a_file_that_is_not_a_mapping(load: Load, text: str) -> None:
    with pytest.raises(UserError, match="must be a mapping of keys to values"):
        load(text)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "trial.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"trial\.yaml: cannot be read: .*decode"):
        load_experiment(str(path))


def test_missing_file_and_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such experiment file: .*nowhere\.yaml \(names: "):
        find_experiment(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(UserError, match=r"unknown experiment 'no/such-thing'"):
        find_experiment("no/such-thing")
    with pytest.raises(UserError, match=r"unknown experiment '\.\./pyproject'"):
        find_experiment("../pyproject")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text(BASE)
    path.chmod(0)
    with pytest.raises(UserError, match=r"trial\.yaml: cannot be read: .*Permission denied"):
        load_experiment(str(path))


# --- hashes and names ----------------------------------------------------------------------------


def run_of(experiment: Experiment) -> RunConfig:
    return experiment.runs()[0][1]


def test_hash_is_stable_and_complete(load: Load) -> None:
    first = run_of(load(BASE))
    assert len(first.hash) == 64
    reordered = """\
train: {warmup_iterations: 7, iterations: 100}
model: {depth: 20}
title: other words
"""
    same = [
        load(BASE),
        load(reordered),  # neither the order of keys nor the title trains otherwise
        load(BASE, settings=["train.momentum=0.9", "model.stem=cifar", "data.pad=4"]),  # defaults
        load(BASE, settings=["model.stride_in=auto", "train.precision=auto"]),
        load(BASE + "seeds: [0, 5]\ncases: [{name: a}]\nprofiles: {paper: {}}\n"),
    ]
    assert {run_of(experiment).hash for experiment in same} == {first.hash}
    different = [
        load(BASE, settings=["train.momentum=0.8"]),
        load(BASE, settings=["train.nesterov=true"]),
        load(BASE, settings=["model.stride_in=3x3"]),
        load(BASE, settings=["data.flip=false"]),
        load(BASE, seed=1),
    ]
    assert len({first.hash, *(run_of(experiment).hash for experiment in different)}) == 6


def test_hash_of_an_experiment_covers_its_study(load: Load) -> None:
    text = BASE + "study: {kind: delete, k: 1-3}\n"
    first = load(text)
    assert first.hash == load(text).hash
    assert first.hash == load(text, settings=["study.k=[3, 2, 1]"]).hash
    assert first.hash != load(text, settings=["study.samples=21"]).hash
    assert first.hash != load(BASE).hash
    assert run_of(first).hash == run_of(load(BASE)).hash  # a study trains nothing otherwise


def test_config_hash_is_the_canonical_jsons() -> None:
    assert config_hash({"b": 1, "a": [1, None]}) == config_hash({"a": [1, None], "b": 1})
    assert config_hash({"a": 1}) != config_hash({"a": "1"})
    expected = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert config_hash({"a": 1}) == expected  # printf '{"a":1}' | sha256sum


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"depth": 110}, "preact110"),
        ({"depth": 110, "placement": "original"}, "resnet110"),
        ({"depth": 110, "placement": "original", "shortcut": "dropout"}, "resnet110-dropout"),
        ({"depth": 110, "branch": "one_layer"}, "preact110-one_layer"),
        ({"depth": 110, "placement": "bn_after_addition"}, "bn_after_addition-110"),
        ({"depth": 15, "family": "vgg"}, "vgg15"),
    ],
)
def test_labels(fields: dict[str, Any], label: str) -> None:
    config = ModelConfig(**fields)
    assert config.label == label


def test_run_folder_names_network_data_seed_and_hash(load: Load) -> None:
    run = run_of(load(BASE, seed=3))
    assert run.folder == f"preact20-digits-seed3-{run.hash[:10]}"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.depth=true", r"model\.depth: must be a whole number \(got True\)"),
        ('model.depth="20"', r"model\.depth: must be a whole number \(got '20'\)"),
        ("data.flip=maybe", r"data\.flip: must be true or false"),
        ("data.pad=true", r"data\.pad: must be a whole number"),
        ("model.units=[]", r"model\.units: .*at least 1 item"),
        ("study={kind: delete, k: []}", "the range is empty; write 3, 1-20 or 1,5,9"),
        (
            "study={k: 3}",
            r"study: needs the key kind: additivity, delete",
        ),
        (
            "model={family: vgg, depth: 15, shortcut: dropout}",
            "shortcut is only for residual networks",
        ),
        ("model={depth: 14, units: [1, 2], stem: imagenet}", "model: "),
    ],
)
def test_types_are_strict_and_keys_fit_the_family(load: Load, setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load("title: t\nmodel: {depth: 20}\ntrain: {epochs: 1}\n", settings=[setting])


def test_an_experiment_by_relative_path_keeps_its_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(experiments_folder().parent)
    by_path = load_experiment("experiments/quickstart.yaml")
    assert by_path.name == "quickstart"
    assert by_path.hash == load_experiment("quickstart").hash


@pytest.mark.parametrize(
    "name",
    ["trial", "veit2016/fig5a", "a b", "a.b", "..a", "a..", "größe-表", "-x", "~", "😀"],
)
def test_names_that_stay_below_results(name: str) -> None:
    content = {"profile": "mini", "title": "T", "model": {"depth": 8}, "train": {"epochs": 1}}
    assert Experiment.model_validate(content | {"name": name}).name == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "must be a relative path"),
        (".", "must be a relative path"),
        ("..", "must be a relative path"),
        ("../../../escape", "must be a relative path"),
        ("veit2016/../../escape", "must be a relative path"),
        ("/escape", "must be a relative path"),
        ("veit2016//escape", "must be a relative path"),
        ("veit2016/./fig5a", "must be a relative path"),
        ("fig5a/", "must be a relative path"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x1bb", "control character"),
        ("a\x7fb", "control character"),
        ("a\x85b", "control character"),
        ("a\udc80b", "control character"),
        ("..\\escape", "must not contain a backslash"),
        (3, "valid string"),
    ],
)
def test_names_that_lead_elsewhere(name: object, words: str) -> None:
    content = {"profile": "mini", "title": "T", "model": {"depth": 8}, "train": {"epochs": 1}}
    with pytest.raises(ValidationError, match=words):
        Experiment.model_validate(content | {"name": name})


@pytest.mark.parametrize("profile", ["", "large", "../mini", "third-party", None])
def test_profiles_are_those_there_are(profile: object) -> None:
    content = {"name": "trial", "title": "T", "model": {"depth": 8}, "train": {"epochs": 1}}
    with pytest.raises(ValidationError, match="'smoke', 'mini', 'cpu' or 'paper'"):
        Experiment.model_validate(content | {"profile": profile})


@pytest.mark.skipif(os.name != "posix", reason="elsewhere no file has such a name")
def test_a_file_whose_name_no_folder_shall_have(load: Load) -> None:
    assert load(BASE, "größe 2.b.yaml").name == "größe 2.b"
    with pytest.raises(UserError, match=r"a\\b\.yaml: name: must not contain a backslash"):
        load(BASE, "a\\b.yaml")
