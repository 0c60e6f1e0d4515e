"""The YAML files under experiments/: all resolve, he2016's are the paper's, and smoke runs."""

import re
from pathlib import Path

import pytest

from resnet_cli.claims.papers import published
from resnet_cli.config.experiments import (
    experiment_names,
    experiment_profiles,
    experiments_folder,
    load_experiment,
)
from resnet_cli.config.schema import PROFILES, Experiment, RunConfig
from resnet_cli.run.experiment import paper_experiments
from resnet_cli.runtime.errors import UserError

NAMES = experiment_names()
HE2016 = [name for name in NAMES if name.startswith("he2016/")]
CIFAR = [name for name in HE2016 if name not in ("he2016/table5", "he2016/imagenet101")]
OFFERED = [(name, profile) for name in NAMES for profile in experiment_profiles(name)]


def offered(names: list[str], *profiles: str) -> list[tuple[str, str]]:
    return [(name, p) for name, p in OFFERED if name in names and p in (profiles or PROFILES)]


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "profile"), OFFERED)
def test_every_experiment_resolves_at_every_profile_it_offers(name: str, profile: str) -> None:
    experiment = load_experiment(name, profile)
    assert experiment.name == name
    assert experiment.runs()
    assert experiment.paper == (name.partition("/")[0] if "/" in name else None)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_opens_as_a_document(name: str) -> None:
    text = (experiments_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    head = re.match(r"(?:#.*\n)+", text)
    assert head is not None, "opens with a comment"
    for part in ("Paper", "Command"):
        assert f"\n# {part}: " in f"\n{head[0]}"
    for profile in experiment_profiles(name):
        assert load_experiment(name, profile).time, f"states how long {profile} takes"
    assert load_experiment(name).question is not None
    assert max(map(len, text.splitlines())) <= 110


def test_a_profile_that_is_not_offered_is_refused() -> None:
    assert experiment_profiles("he2016/table5") == ("paper",)
    with pytest.raises(UserError, match=r"table5.yaml: has no profile 'mini' \(it has paper\)"):
        load_experiment("he2016/table5", "mini")


def test_experiment_profiles_of_a_file_without_profiles(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text("title: plain\nmodel: {depth: 20}\ntrain: {epochs: 1}\n")
    assert experiment_profiles(str(path)) == PROFILES
    path.write_text("title: odd\nprofiles: [mini]\n")
    with pytest.raises(
        UserError, match=r"plain.yaml: profiles: must be a mapping of smoke, mini, cpu"
    ):
        experiment_profiles(str(path))


# --- paper 1 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "profile"), offered(HE2016))
def test_rows_of_tables_are_rows_of_the_paper(name: str, profile: str) -> None:
    experiment = load_experiment(name, profile)
    if experiment.study is not None:
        assert experiment.figure is None, "signals are measured for all rows of a table"
        return
    assert experiment.figure is not None
    if experiment.figure.startswith("fig"):
        return
    table = published("he2016")
    known = list(dict.fromkeys(table.loc[table["source"] == experiment.figure, "case"]))
    cases = [case.name for case in experiment.cases]
    assert set(cases) <= set(known)


@pytest.mark.parametrize(
    ("names", "source"),
    [
        (["table1"], "table1"),
        (["table2"], "table2"),
        (["table3-cifar10", "table3-cifar100"], "table3"),
        (["table4-cifar10", "table4-cifar100"], "table4"),
        (["table5"], "table5"),
        (["imagenet101"], "text"),
    ],
)
def test_paper_has_every_row_that_is_the_papers_own(names: list[str], source: str) -> None:
    cases = [case.name for n in names for case in load_experiment(f"he2016/{n}", "paper").cases]
    table = published("he2016")
    own = table[(table["source"] == source) & ~table["remark"].str.contains("reference")]
    assert set(own["case"]) <= set(cases)
    assert len(cases) == len(set(cases))


@pytest.mark.parametrize("name", CIFAR)
def test_the_protocol_of_the_paper(name: str) -> None:
    """He et al. 2016, section 3 and appendix; only one row has another, see below."""
    experiment = load_experiment(name, "paper")
    assert experiment.seeds == (0, 1, 2, 3, 4)
    dataset = "cifar100" if "cifar100" in name else "cifar10"
    for case, run in experiment.runs():
        if case.name == "preact-1001-batch64-cifar10":
            continue
        train = run.train
        assert (train.iterations, train.epochs) == (64000, None)
        assert (train.batch_size, train.batch_norm_group) == (128, 64)
        assert (train.lr, train.momentum, train.weight_decay) == (0.1, 0.9, 1e-4)
        assert (train.schedule, train.gamma) == ("milestones", 0.1)
        assert (train.warmup_iterations, train.warmup_lr) == (400, 0.01)
        assert train.milestones == (32000, 48000)
        assert not train.nesterov
        assert train.stochastic_depth is None
        assert train.active_units is None
        data = run.data
        assert (data.dataset, data.normalize, data.pad, data.flip) == (dataset, "pixel", 4, True)
        assert data.train_images is None
        assert data.test_images is None
        assert run.model.widths is None


def test_the_row_of_batch_64_is_the_released_code() -> None:
    """fb.resnet.torch: -batchSize 64 -nGPU 2 -nEpochs 200, 0.1 divided at epochs 81 and 122."""
    experiment = load_experiment("he2016/table4-cifar10", "paper")
    run = run_of(experiment, "preact-1001-batch64-cifar10")
    per_epoch = -(-50000 // 64)
    assert (run.train.epochs, run.train.iterations) == (200, None)
    assert (run.train.batch_size, run.train.batch_norm_group) == (64, 32)
    assert run.train.milestones == (80 * per_epoch, 121 * per_epoch)
    assert (run.train.warmup_iterations, run.train.nesterov) == (0, True)
    assert run.data.normalize == "channel"
    assert run.model == run_of(experiment, "preact-1001-cifar10").model


@pytest.mark.parametrize("name", ["he2016/table5", "he2016/imagenet101", "veit2016/fig4"])
def test_the_protocol_on_imagenet(name: str) -> None:
    for case, run in load_experiment(name, "paper").runs():
        per_epoch = -(-1_281_167 // 256)
        assert (run.train.epochs, run.train.batch_size, run.train.batch_norm_group) == (90, 256, 32)
        assert run.train.milestones == (30 * per_epoch, 60 * per_epoch)
        assert (run.train.warmup_iterations, run.train.lr) == (0, 0.1)
        assert (run.data.dataset, run.data.image_size) == ("imagefolder", 224)
        assert run.model.stem == "imagenet"
        if name == "veit2016/fig4":
            assert (run.model.depth, run.data.augment) == (200, "scale_colour")
            continue
        assert run.data.test_size == int(case.name.removesuffix("-aspect").rpartition("-")[2])
        assert run.data.augment == (
            "scale_aspect_colour" if "aspect" in case.name else "scale_colour"
        )
        assert str(run.model.depth) == case.name.split("-")[1]


def run_of(experiment: Experiment, case: str) -> RunConfig:
    """The training of a case at its first seed."""
    (found,) = [c for c in experiment.cases if c.name == case]
    return experiment.run_config(found, experiment.seeds[0])


@pytest.mark.parametrize(
    ("case", "shortcut", "scales", "bias"),
    [
        ("original", "identity", (1.0, 1.0), None),
        ("scaling-0-1", "scaling", (0.0, 1.0), None),
        ("scaling-0.5-1", "scaling", (0.5, 1.0), None),
        ("scaling-0.5-0.5", "scaling", (0.5, 0.5), None),
        ("exclusive-gating-bias0", "exclusive_gating", (1.0, 1.0), 0.0),
        ("exclusive-gating-bias-1", "exclusive_gating", (1.0, 1.0), -1.0),
        ("exclusive-gating-bias-2", "exclusive_gating", (1.0, 1.0), -2.0),
        ("exclusive-gating-bias-3", "exclusive_gating", (1.0, 1.0), -3.0),
        ("exclusive-gating-bias-4", "exclusive_gating", (1.0, 1.0), -4.0),
        ("exclusive-gating-bias-5", "exclusive_gating", (1.0, 1.0), -5.0),
        ("exclusive-gating-bias-6", "exclusive_gating", (1.0, 1.0), -6.0),
        ("exclusive-gating-bias-7", "exclusive_gating", (1.0, 1.0), -7.0),
        ("shortcut-gating-bias0", "shortcut_only_gating", (1.0, 1.0), 0.0),
        ("shortcut-gating-bias-6", "shortcut_only_gating", (1.0, 1.0), -6.0),
        ("convolution", "convolution", (1.0, 1.0), None),
        ("dropout", "dropout", (1.0, 1.0), None),
    ],
)
def test_the_shortcuts_of_table1(
    case: str, shortcut: str, scales: tuple[float, float], bias: float | None
) -> None:
    for profile in PROFILES:
        model = run_of(load_experiment("he2016/table1", profile), case).model
        assert model.shortcut == shortcut
        assert (model.shortcut_scale, model.residual_scale) == scales
        assert bias is None or model.gate_bias == bias
        assert model.shortcut_dropout == 0.5
        assert model.placement == "original"
        assert model.branch == "basic"


@pytest.mark.parametrize(("name", "profile"), offered(CIFAR))
def test_a_row_is_what_its_name_says_at_every_profile(name: str, profile: str) -> None:
    """Placement and branch at each profile, depth too at mini and paper: from the name alone."""
    placements = {"preact": "full_preactivation", "full_preactivation": "full_preactivation"}
    experiment = load_experiment(name, profile)
    for case, run in experiment.runs():
        parts = case.name.split("-")
        if len(parts) == 1 or parts[1] not in ("110", "164", "1001"):
            continue  # a row of Table 1
        assert run.model.placement == placements.get(parts[0], parts[0])
        bottleneck = parts[1] in ("164", "1001")
        branch = "one_layer" if "one_layer" in parts else "bottleneck" if bottleneck else "basic"
        assert run.model.branch == branch
        if profile in ("mini", "paper"):
            assert run.model.depth == int(parts[1])
            units = sum(run.model.stage_units())
            assert units == {"1001": 333}.get(parts[1], 108 if branch == "one_layer" else 54)


@pytest.mark.parametrize("name", HE2016)
def test_profiles_keep_the_papers_rows_in_their_order(name: str) -> None:
    full = load_experiment(name, "paper")
    names = [case.name for case in full.cases]
    for profile in experiment_profiles(name):
        experiment = load_experiment(name, profile)
        kept = [case.name for case in experiment.cases]
        assert kept == [case for case in names if case in kept]
        assert experiment.note, "each profile says what it does otherwise than the paper"
        assert experiment.figure == full.figure
        assert untold(experiment.title) == untold(full.title)
        if profile == "smoke":
            assert kept == names


def untold(title: str) -> str:
    """A title without the depth it names."""
    return re.sub(r"ResNet-\d+", "ResNet", title)


@pytest.mark.parametrize(("name", "profile"), offered(HE2016))
def test_a_title_names_the_depth_that_is_trained(name: str, profile: str) -> None:
    experiment = load_experiment(name, profile)
    named = [int(depth) for depth in re.findall(r"ResNet-(\d+)", experiment.title)]
    if named and profile != "smoke":
        assert {run.model.depth for _, run in experiment.runs()} == set(named)


@pytest.mark.parametrize("name", [n for n in HE2016 if n.startswith("he2016/fig")])
def test_figures_share_the_trainings_of_tables(name: str) -> None:
    for profile in experiment_profiles(name):
        trained = {
            run.hash
            for table in ("table1", "table2", "table3-cifar10")
            for _, run in load_experiment(f"he2016/{table}", profile).runs()
        }
        assert {run.hash for _, run in load_experiment(name, profile).runs()} <= trained


def test_tables_share_trainings() -> None:
    """Equal rows of Tables 1 to 4 are one training each."""
    shared = [
        {"table1": "original", "table2": "original-110", "table3": "original-110"},
        {"table3": "original-110", "table4": "original-110"},
        {"table2": "full_preactivation-110", "table3": "preact-110"},
        {"table2": "original-164", "table3": "original-164"},
        {"table2": "full_preactivation-164", "table3": "preact-164", "table4": "preact-164"},
    ]
    for profile in PROFILES:
        for rows in shared:
            hashes = set()
            for table, case in rows.items():
                suffix = "-cifar10" if table in ("table3", "table4") else ""
                experiment = load_experiment(f"he2016/{table}{suffix}", profile)
                shorter = profile == "mini" and suffix  # a third of the epochs
                hashes.add((shorter, run_of(experiment, case + suffix).hash))
            assert len(hashes) == len({shorter for shorter, _ in hashes}), rows
    for profile in ("smoke", "cpu", "paper"):
        three, four = (load_experiment(f"he2016/table{n}-cifar100", profile) for n in (3, 4))
        assert [run.hash for _, run in three.runs()] == [run.hash for _, run in four.runs()]


def test_the_two_papers_share_a_training() -> None:
    mine = run_of(load_experiment("he2016/table2", "mini"), "full_preactivation-110")
    theirs = run_of(load_experiment("veit2016/fig3", "mini"), "preact110")
    assert mine.hash == theirs.hash


def test_the_trainings_of_mini() -> None:
    runs = {
        run.hash: run
        for name in HE2016
        if "mini" in experiment_profiles(name)
        for _, run in load_experiment(name, "mini").runs()
    }
    epochs = [run.train.epochs for run in runs.values()]
    assert sorted(epochs) == [15] * 8 + [45] * 3 * (16 + 9), "Tables 3 and 4 take 15"
    assert {run.data.dataset for run in runs.values()} == {"digits"}
    assert sum(run.model.depth == 1001 for run in runs.values()) == 2


def test_tables_come_before_figures() -> None:
    names = paper_experiments("he2016")
    assert sorted(names) == sorted(HE2016)
    kinds = [name.startswith("he2016/fig") for name in names]
    assert kinds == sorted(kinds)


def test_what_is_for_readers_determines_no_result(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text("title: plain\nmodel: {depth: 20}\ntrain: {epochs: 1}\n")
    plain = load_experiment(str(path))
    words = {"question": "Why?", "published": "6.61 %", "decides_below": "3"}
    told = load_experiment(str(path), settings=[f"{key}={value}" for key, value in words.items()])
    assert (told.question, told.published, told.decides_below) == ("Why?", "6.61 %", 3.0)
    assert told.hash == plain.hash
    assert told.model_dump() == plain.model_dump()
    assert told.runs() == plain.runs()
