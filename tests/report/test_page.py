"""The report: complete, self-contained, and working in a browser."""

import base64
import html
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image

from resnet_cli.claims.compare import compare
from resnet_cli.claims.judge import Claim, Verdict
from resnet_cli.claims.papers import case_title, published
from resnet_cli.cli import run_command
from resnet_cli.config.experiments import experiment_names
from resnet_cli.config.schema import PROFILES
from resnet_cli.datasets.catalogue import title_of
from resnet_cli.report.content import MARKS, Count, Finding, content, figure_of, header
from resnet_cli.report.page import embedded, write_report
from resnet_cli.report.unravelled import networks
from resnet_cli.report.wording import command_again, network_of, trained
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.runtime.errors import UserError

RESULTS = Path(__file__).parents[2] / "results"
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(RESULTS, tmp_path_factory.mktemp("report") / "report.html")


# --- what it says --------------------------------------------------------------------------------


def test_each_claim_of_each_profile_is_there_with_its_verdict() -> None:
    for part in content(RESULTS):
        judged = [one for section in part.sections for one in section.judged]
        for count in part.counts:
            claims = compare(part.paper.key, count.profile, RESULTS).claims
            findings = [f for one in judged for f in one.findings if f.profile == count.profile]
            measured = [c for c in claims if c.verdict != "not measured" and not c.by_formula]
            told = Counter((f.claim.source, f.claim.verdict) for f in findings if f.setting)
            wanted = Counter((claim.source, claim.verdict) for claim in measured)
            assert {k: n for k, n in told.items() if k[1] != "not measured"} == wanted
            for claim in measured:
                assert {claim.evidence, _unnamed(claim.evidence)} & {
                    finding.claim.evidence for finding in findings
                }
            assert sum(count.verdicts.values()) == len(claims) - part.formulas
        assert len(judged) == part.claims
        assert all(section.first + section.further for section in part.sections if section.judged)


def _unnamed(evidence: str) -> str:
    """As shown where digits were measured; the tables' own names have the paper's data."""
    return re.sub(r"(one_layer|110|164|1001)-cifar10\b", r"\1", evidence)


def test_a_claim_has_the_opinions_there_are_or_stands_alone() -> None:
    for part in content(RESULTS):
        for section in part.sections:
            for one in section.judged:
                judged = [f for f in one.findings if f.is_judged]
                assert judged or len(one.findings) == 1
                assert not judged or all(f.is_judged or f.units for f in one.findings)


def test_what_digits_measured_is_not_said_of_cifar() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "he2016")
    section = next(section for section in part.sections if section.key == "table3")
    assert "CIFAR" not in section.title
    errors = section.errors[0]
    assert errors.dataset == "CIFAR-10"
    assert "mini: digits, ResNet-110, 164 and 1001, 15 epochs" in errors.columns
    assert not any("cifar" in case for case, _, _ in errors.rows)
    for one in section.judged:
        for finding in one.findings:
            if finding.profile == "mini" and finding.is_judged:
                told = f"{finding.claim.evidence} {finding.claim.ours}"
                assert "cifar" not in told
                assert "CIFAR" not in one.text.removesuffix("(in the paper on CIFAR-10)")
    (measurement,) = [m for m in section.measurements if m.profile == "mini"]
    assert "CIFAR" not in measurement.title + "".join(plot.alt for plot in measurement.plots)


def test_the_first_screen_has_each_paper_in_short(page: Path) -> None:
    cards = page.read_text(encoding="utf-8").partition('id="unravelled"')[0]
    for part in content(RESULTS):
        assert html.escape(part.paper.says) in cards
        assert part.picture is not None
        short = [headline for headline in part.headlines if headline.short]
        assert len(short) == 3
        for headline in part.headlines:
            assert headline.published
            for finding in headline.findings:
                claims = compare(part.paper.key, finding.profile, RESULTS).claims
                (claim,) = [c for c in claims if c.headline and c.text[:40] == headline.text[:40]]
                assert finding.claim.verdict == claim.verdict
                assert finding.claim.ours == claim.ours
                assert html.escape(finding.claim.ours) in cards
        for count in part.main_counts:
            verdicts = Counter(
                claim.verdict
                for claim in compare(part.paper.key, count.profile, RESULTS).claims
                if not claim.by_formula
            )
            measured = verdicts.total() - verdicts["not measured"]
            told = f"{count.setting}: {verdicts['holds']} of {measured} hold"
            if verdicts["too close"]:
                told += f", {verdicts['too close']} too close to call"
            assert str(count) == told
            assert told in cards


def test_a_formula_is_told_once_and_not_counted() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "veit2016")
    section = next(section for section in part.sections if section.key == "fig7")
    ((finding,),) = [one.findings for one in section.judged]
    assert (finding.verdict, finding.setting) == ("holds by formula", "")


def test_a_count_in_words() -> None:
    verdicts = {"holds": 5, "does not hold": 3, "too close": 1, "not measured": 15}
    count = Count("cpu", "CIFAR-10, short schedule", verdicts)
    assert str(count) == "CIFAR-10, short schedule: 5 of 9 hold, 1 too close to call"
    assert str(Count("mini", "Digits", {"holds": 2})) == "Digits: 2 of 2 hold"


@pytest.mark.parametrize(
    ("claim", "told", "mark"),
    [
        ({"verdict": "holds"}, "holds", "✓"),
        ({"verdict": "does not hold"}, "does not hold", "✗"),
        ({"verdict": "too close"}, "too close to call", "≈"),
        ({"verdict": "not measured"}, "not measured", "–"),
        ({"verdict": "holds", "by_formula": True}, "holds by formula", "✓"),
    ],
)
def test_a_verdict_in_words(claim: dict[str, Any], told: str, mark: str) -> None:
    found = Finding("cpu", "", Claim("he2016", "table1", "a claim", evidence="", **claim))
    assert (found.verdict, found.mark) == (told, mark)
    assert found.is_judged == (mark != "–")


def test_every_verdict_has_a_mark() -> None:
    assert {*MARKS, "not measured"} == set(get_args(Verdict))


def test_a_claim_about_54_units_does_not_apply_to_nine() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "veit2016")
    judged = [one for section in part.sections for one in section.judged]
    (lengths,) = [one for one in judged if "5 to 17 of 54" in one.text]
    verdicts = {finding.profile: finding.verdict for finding in lengths.findings}
    assert verdicts["resnet20"] == verdicts["third-party"] == "does not apply (9 units)"
    assert "not measured" not in verdicts.values()
    assert {c.setting for c in part.counts if c not in part.main_counts} == {
        "ResNet-110, ours, 32,000 iterations",
        "ResNet-20, ours, 50 epochs",
        "ResNet-20, published by akamaster",
    }


@pytest.fixture
def partly_real(tmp_path: Path) -> Path:
    """Results of paper 2 at mini, and two experiments as if at cpu on CIFAR-10."""
    home = tmp_path / "results" / "veit2016"
    shutil.copytree(RESULTS / "veit2016/mini", home / "mini")
    for name in ("fig6", "effective_paths"):
        shutil.copytree(RESULTS / "veit2016/mini" / name, home / "cpu" / name)
    for path in (home / "cpu").rglob("*.provenance.json"):
        told = json.loads(path.read_text())
        told["config"]["data"]["dataset"] = "cifar10"
        path.write_text(json.dumps(told))
    table = home / "cpu/effective_paths/table.csv"
    table.write_text(table.read_text().replace(",digits,", ",cifar10,"))
    return home.parent


def test_each_profile_speaks_for_itself(partly_real: Path) -> None:
    (part,) = content(partly_real)
    assert [count.setting for count in part.main_counts] == ["CIFAR-10, short schedule", "Digits"]
    for headline in part.headlines:
        assert [finding.profile for finding in headline.findings] == ["cpu", "mini"]
    section = next(section for section in part.sections if section.key == "section4.3")
    assert section.errors[0].columns == [
        "cpu: CIFAR-10, ResNet-110, 45 epochs",
        "mini: digits, ResNet-110, 45 epochs",
    ]
    assert [m.profile for m in section.shown] == ["cpu"]
    assert [m.profile for m in section.folded] == ["mini"]
    (training,) = section.judged
    assert [finding.setting for finding in training.findings] == [
        "CIFAR-10, short schedule",
        "Digits",
    ]


def test_a_caveat_stands_once_in_a_paper(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for words in ("but 16x16 digits and 15 epochs (Table 1: 30)", "16x16 digits and 15 epochs (hi"):
        assert text.count(words) == 1


def test_a_single_seed_is_told_once_for_a_verdict() -> None:
    for part in content(RESULTS):
        for one in (one for section in part.sections for one in section.judged):
            for finding in one.findings:
                told = f"{finding.claim.seeds} {finding.claim.evidence} {finding.claim.caveat}"
                assert len(re.findall(r"\b(?:1|one|a single) (?:seed|training)\b", told)) <= 1


def test_trainings_are_shown_once() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "he2016")
    sections = {section.key: section for section in part.sections}
    (table,) = [m for m in sections["table1"].measurements if m.profile == "cpu"]
    (figure,) = [m for m in sections["fig3"].measurements if m.profile == "cpu"]
    assert table.main is not None
    assert table.main.path.stem == "table"
    assert [plot.path.stem for plot in figure.plots] == ["training"]
    assert figure.note == "Trainings of Table 1, as curves."


def test_each_published_error_is_there() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "he2016")
    shown = {
        (section.key, errors.dataset.partition(",")[0], case): error
        for section in part.sections
        for errors in section.errors
        for case, error, _ in errors.rows
    }
    for row in published("he2016").to_dict("records"):
        if row["metric"] == "top5_error":
            continue
        case = case_title(str(row["case"]).removesuffix(f"-{row['dataset']}"))
        error = shown[row["source"], title_of(row["dataset"]), case]
        if row["status"] == "fail":
            assert error == "fail"
        else:
            assert f"{row['value']:.2f}" in error
            assert ("about" in error) == (row["checked"] != "v")


def test_what_was_measured_stands_beside_it() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "he2016")
    section = next(section for section in part.sections if section.key == "table1")
    measured = read_table(RESULTS / "he2016/mini/table1/table.csv").set_index("case")
    titles = {case_title(case): case for case in measured.index}
    (table,) = section.errors
    assert table.dataset == "CIFAR-10, ResNet-110"
    assert table.columns == [
        "cpu: CIFAR-10, ResNet-38, 2 epochs",
        "mini: digits, ResNet-110, 30 epochs",
    ]
    assert set(titles) == {case for case, _, _ in table.rows}
    for case, _, errors in table.rows:
        assert f"{measured.loc[titles[case], 'test_error']:.2f}" in errors[1]
        assert "%" not in "".join(errors)


def test_a_heading_names_no_network_that_we_did_not_train() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "he2016")
    titles = {section.key: section.title for section in part.sections}
    assert titles["table1"] == "Table 1: Six kinds of shortcut"
    assert titles["fig6"] == "Figure 6: Training curves"
    section = next(section for section in part.sections if section.key == "table1")
    plot = section.shown[0].main
    assert plot is not None
    assert plot.alt.startswith(
        "Six kinds of shortcut, ResNet-38; cpu: CIFAR-10, ResNet-38, 2 epochs: "
    )


def test_every_experiment_measured_is_there_with_its_command() -> None:
    for part in content(RESULTS):
        found = {(m.profile, m.experiment): m for s in part.sections for m in s.measurements}
        for folder in (RESULTS / part.paper.key).glob("*/*"):
            name = f"{part.paper.key}/{folder.name}"
            measurement = found[folder.parent.name, name]
            assert len(measurement.tables) == len(list(folder.rglob("*.csv")))
            assert measurement.plots
            assert all(provenance is not None for _, provenance in measurement.tables)
            told = read_provenance(measurement.tables[0][0])["command"]
            words = measurement.command.split()
            if measurement.profile in PROFILES:
                assert words[:5] == ["resnet-cli", "run", name, "--profile", measurement.profile]
                assert set(words[5:]) <= {"--pretrained", "--data-dir", "DATA"}
                assert ("--pretrained" in words) == ("--pretrained" in told)
                if name != "veit2016/fig7":
                    assert ("DATA" in words) == ("--data-dir" in told)
            else:
                assert "/" not in measurement.command
                assert measurement.command.startswith(f"resnet-cli {told.split()[1]} ")


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        ("resnet-cli run he2016/table1 he2016/fig3 --budget 60s --shard 1/2 --data-dir /x", ""),
        ("resnet-cli reproduce he2016 --profile cpu --pretrained", " --pretrained"),
        ("resnet-cli run x --set train.lr=0.2 --seed=3", " --set train.lr=0.2 --seed 3"),
        ("python script.py", ""),
    ],
)
def test_the_command_that_gives_it_again(typed: str, again: str) -> None:
    told = {"command": typed, "seeds": [0], "config": {"data": {"dataset": "cifar10"}}}
    assert command_again("he2016/table1", "cpu", told) == (
        f"resnet-cli run he2016/table1 --profile cpu{again} --data-dir DATA"
    )


def test_the_command_of_a_study_of_given_weights() -> None:
    command = "resnet-cli paths --exact --checkpoint ../w/a-b.th --data-dir ../d --out results/x"
    assert command_again("veit2016/fig6", "third-party", {"command": command}) == (
        "resnet-cli paths --exact --checkpoint a-b.th --data-dir DATA"
    )


def test_what_was_trained_in_words() -> None:
    config: dict[str, Any] = {
        "data": {"dataset": "cifar10"},
        "model": {"family": "resnet", "depth": 110},
        "train": {"epochs": 14},
        "cases": [
            {"name": "a", "model": {"family": "vgg", "depth": 15}},
            {"name": "b", "model": {}, "train": {"epochs": 1}},
            {"name": "c", "model": {"depth": 20}},
        ],
    }
    told = {"config": config, "seeds": [0]}
    assert trained(told) == "CIFAR-10, VGG-15, ResNet-20 and 110, 1 and 14 epochs"
    assert trained(told, ["b"]) == "CIFAR-10, ResNet-110, 1 epoch"
    assert trained(told | {"seeds": []}) == ""
    weights = {"checkpoint": {"source": "../some/model.pt"}}
    assert network_of(told | weights) == "VGG-15 and ResNet-20 and 110, model.pt"


def test_a_formula_takes_no_data(tmp_path: Path) -> None:
    shutil.copytree(RESULTS / "veit2016/mini/fig7", tmp_path / "veit2016/mini/fig7")
    (part,) = content(tmp_path)
    (measurement,) = [m for section in part.sections for m in section.measurements]
    assert measurement.command == "resnet-cli run veit2016/fig7 --profile mini"
    assert measurement.setting == "mini: a formula, no network"


def test_what_is_not_measured_has_its_command() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "veit2016")
    section = next(section for section in part.sections if section.key == "fig4")
    assert section.commands == ["resnet-cli run veit2016/fig4 --profile paper --data-dir FOLDER"]


def test_plots_are_told_apart(page: Path) -> None:
    measurements = [m for p in content(RESULTS) for s in p.sections for m in s.measurements]
    assert len({plot.alt for m in measurements for plot in m.plots}) == sum(
        len(m.plots) for m in measurements
    )
    names = {name.split("/")[-1] for name in experiment_names()}
    for measurement in measurements:
        home = RESULTS / measurement.experiment.split("/")[0] / measurement.profile
        for plot in measurement.plots:
            *_, case = ["", *plot.path.relative_to(home).parts[1:-1]]
            assert plot.alt.endswith(f", of {case}") == bool(case)
            assert case or ", of " not in plot.alt.rpartition(": ")[2]
        assert measurement.main is None or measurement.main.path.parent.name in names
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', page.read_text(encoding="utf-8"))
    assert len(set(alts)) == len(alts)


def test_the_header_of_an_experiment() -> None:
    found = header("veit2016/fig6")
    assert found["question"] == "Which path lengths deliver the gradient?"
    assert found["published"].startswith("The norm falls exponentially with length")
    assert figure_of("veit2016/greedy") == "beyond"
    assert header("he2016/table3-cifar10")["published"].endswith(
        "4.92 (original / pre-activation)."
    )
    assert header("veit2016/fig6")["command"] == "resnet-cli run veit2016/fig6 --profile mini"


def test_no_header_lacks_what_the_page_needs() -> None:
    for name in experiment_names():
        if "/" in name:
            assert all(header(name).values()), name


def test_the_unravelled_view_has_the_tables_numbers() -> None:
    found = {network["profile"]: network for network in networks(RESULTS)}
    assert [network["name"] for network in found.values()] == [
        "ResNet-110, 14 epochs, CIFAR-10",
        "ResNet-110, 15 epochs, digits",
        "ResNet-20, ours, 50 epochs, CIFAR-10",
        "ResNet-20, published by akamaster, CIFAR-10",
    ]
    mini = found["mini"]
    lesions = read_table(RESULTS / "veit2016/mini/fig3/preact110/lesion_delete.csv")
    assert mini["errors"] == lesions["test_error"].tolist()
    assert mini["downsampling"] == [18, 36]
    assert mini["paths"][2] == "1,431"  # 54 * 53 / 2
    assert mini["paths"][10] == "2.39×10¹⁰"  # 54! / (10! 44!) = 23,930,713,170
    assert len(mini["share_exact"]) == 55
    assert sum(mini["share_exact"]) == pytest.approx(1)
    assert sum(mini["share_paths"]) == pytest.approx(1)


# --- the file ------------------------------------------------------------------------------------


def test_the_page_needs_no_other_file_and_no_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"'](?!data:)", text)
    assert not re.findall(r"@import|url\(", text)
    pictures = re.findall(r"<img [^>]*>", text)
    assert len(pictures) > 20
    for picture in pictures:
        assert re.search(r'src="data:image/png;base64,[^"]{100,}" alt="[^"]{20,}"', picture)


def test_each_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^"]+)"', text)
    names = set(re.findall(r'id="([^"]+)"', text))
    assert len(links) > 50
    for link in links:
        if link.startswith("#"):
            assert link[1:] in names
        else:
            assert (page.parent / link).is_file(), link


def test_a_title_cannot_become_a_tag(tmp_path: Path) -> None:
    shutil.copytree(RESULTS / "veit2016/mini/fig7", tmp_path / "veit2016/mini/fig7")
    provenance = tmp_path / "veit2016/mini/fig7/path_survival.provenance.json"
    told = json.loads(provenance.read_text())
    told["config"]["note"] = "<script>alert(1)</script>"
    provenance.write_text(json.dumps(told))
    text = write_report(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_the_command(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "page.html"
    assert run_command(["report", "--results", str(RESULTS), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"command": "report", "files": [str(out)]}


def test_without_results(tmp_path: Path, capsys: Captured) -> None:
    assert run_command(["report", "--results", str(tmp_path)]) == 2
    assert "no results in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_our_widest_plots_are_not_resampled() -> None:
    path = RESULTS / "he2016/mini/table1/training.png"
    content = base64.b64decode(embedded(path).partition(",")[2])
    with Image.open(path) as original, Image.open(io.BytesIO(content)) as shown:
        assert original.width == 1440
        assert shown.size == original.size


def test_each_table_has_its_provenance_beside_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tables = set(re.findall(r'href="([^"]+)\.csv"', text))
    assert tables
    assert tables == set(re.findall(r'href="([^"]+)\.provenance\.json"', text))


def test_without_javascript_a_line_says_so(page: Path) -> None:
    (told,) = re.findall(r"<noscript>(.*?)</noscript>", page.read_text(encoding="utf-8"))
    assert "needs JavaScript" in told


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="is no picture"):
        embedded(tmp_path / "x.png")


# --- in a browser --------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
in_a_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no chromium and chromedriver on the path"
)


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def opened(browser: Any, page: Path, width: int = 1200) -> Any:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    return browser


@in_a_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_no_error_and_nothing_wider_than_the_window(browser: Any, page: Path, width: int) -> None:
    opened(browser, page, width)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@in_a_browser
def test_the_slider(browser: Any, page: Path) -> None:
    opened(browser, page)
    mini = next(n for n in networks(RESULTS) if n["profile"] == "mini")
    browser.execute_script(
        "const c = document.getElementById('network');"
        "c.value = [...c.options].findIndex((o) => o.text === arguments[0]);"
        "c.dispatchEvent(new Event('change'));"
        "const s = document.getElementById('length'); s.value = 10;"
        "s.dispatchEvent(new Event('input'));",
        mini["name"],
    )
    told = browser.execute_script("return document.getElementById('length-text').textContent")
    assert told.startswith(f"Length 10 of 54: {mini['paths'][10]} paths")
    shown = float(re.search(r"They carry ([\d.]+) %", told)[1])  # type: ignore[index]
    assert shown == pytest.approx(100 * mini["share_exact"][10], rel=5e-3)
    upto = float(re.search(r"([\d.]+) % of the gradient exactly, [\d.]+ % sampled\.$", told)[1])  # type: ignore[index]
    assert upto == pytest.approx(100 * sum(mini["share_exact"][:11]), rel=5e-3)
    assert browser.execute_script("return document.querySelectorAll('.box.on').length") == 10


@in_a_browser
def test_a_unit_in_focus(browser: Any, page: Path) -> None:
    opened(browser, page)
    first = networks(RESULTS)[0]
    stops = "return document.querySelectorAll('.unit[tabindex=\"0\"]').length"
    assert browser.execute_script(stops) == 1
    browser.execute_script("document.querySelector('.unit[tabindex=\"0\"]').focus()")
    for keys, unit in (([RIGHT] * 18, 18), ([LEFT], 17), ([END, RIGHT], 53), ([HOME, LEFT], 0)):
        for key in keys:
            browser.switch_to.active_element.send_keys(key)
        told = reading(browser)
        assert told.startswith(f"Unit {unit} (stage ")
        assert ("downsampling" in told) == (unit in first["downsampling"])
        assert f"{first['errors'][unit]:.2f} %" in told
        assert browser.execute_script(stops) == 1


RIGHT, LEFT, HOME, END = "\ue014", "\ue012", "\ue011", "\ue010"


def reading(browser: Any) -> str:
    return str(browser.execute_script("return document.getElementById('unit-text').textContent"))


@in_a_browser
def test_the_arrow_keys_go_on_from_a_click(browser: Any, page: Path) -> None:
    opened(browser, page)
    place = browser.execute_script(
        "const u = document.getElementById('units');"
        "u.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const b = u.querySelectorAll('.unit')[30].querySelector('.hit').getBoundingClientRect();"
        "return [(b.left + b.right) / 2, b.top + 5]"
    )
    for kind in ("mousePressed", "mouseReleased"):
        event = {"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    assert reading(browser).startswith("Unit 30 (")
    browser.switch_to.active_element.send_keys(RIGHT)
    assert reading(browser).startswith("Unit 31 (")
    browser.switch_to.active_element.send_keys(LEFT, LEFT)
    assert reading(browser).startswith("Unit 29 (")


@in_a_browser
def test_the_tab_key_leads_from_the_slider_to_the_units(browser: Any, page: Path) -> None:
    opened(browser, page)
    browser.execute_script("document.getElementById('length').focus()")
    browser.switch_to.active_element.send_keys("\ue004", RIGHT)
    assert reading(browser).startswith("Unit 1 (")


@in_a_browser
def test_the_axes_stay_when_the_network_changes(browser: Any, page: Path) -> None:
    opened(browser, page)
    axes = browser.execute_script(
        "const c = document.getElementById('network');"
        "return [...c.options].map((option, index) => { c.value = index;"
        "c.dispatchEvent(new Event('change'));"
        "return [...document.querySelectorAll('#lengths .tick')].map((t) => t.textContent); })"
    )
    assert len(axes) == len(networks(RESULTS))
    assert all(ticks == axes[0] for ticks in axes)
    most = max(
        share or 0
        for network in networks(RESULTS)
        for key in ("share_paths", "share_sampled", "share_exact")
        for share in network[key]
    )
    ticks = [int(tick) for tick in axes[0]]
    assert ticks == list(range(0, ticks[-1] + 1, 10))
    assert ticks[-1] - 10 < 100 * most <= ticks[-1]
    titles = browser.execute_script(
        "return [...document.querySelectorAll('svg .title')].map((t) => t.textContent)"
    )
    assert titles[0] == "test error after deleting the unit, %"
    assert len(titles) == 4


@in_a_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_first_screen(browser: Any, page: Path, width: int, height: int) -> None:
    opened(browser, page, width)
    bottoms = browser.execute_script(
        "return [...document.querySelectorAll('.card')].map((card) =>"
        "['.score', '.glance', '.thumbnail img'].map((part) =>"
        "card.querySelector(part).getBoundingClientRect().bottom))"
    )
    seen = bottoms if width > 600 else [bottoms[0][:2]]  # on a phone one paper, its picture cut
    assert all(bottom <= height for card in seen for bottom in card)


@in_a_browser
def test_what_is_folded_opens_by_key(browser: Any, page: Path) -> None:
    opened(browser, page)
    folded = "const d = document.querySelector('#he2016-table1 details.claim');"
    assert browser.execute_script(folded + "return d.open") is False
    browser.execute_script(folded + "d.querySelector('summary').focus()")
    browser.switch_to.active_element.send_keys("\ue007")
    assert browser.execute_script(folded + "return d.open") is True
    assert "30.15 %" in browser.execute_script(folded + "return d.innerText")


@in_a_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_of_readable_length(browser: Any, page: Path, width: int) -> None:
    opened(browser, page, width)
    high = browser.execute_script("return document.documentElement.scrollHeight")
    assert high < (14000 if width > 600 else 20500)
    stuck = (
        "return [...document.querySelectorAll('body *')].filter((e) =>"
        "getComputedStyle(e).position === 'fixed').length"
    )
    assert browser.execute_script(stuck) == 0  # nothing covers text


@in_a_browser
def test_numbers_stay_in_one_line_on_a_phone(browser: Any, page: Path) -> None:
    opened(browser, page, 390)
    lines = browser.execute_script(
        "return [...document.querySelectorAll('table.sortable td')].filter((d) => d.offsetParent)"
        ".map((d) => { const r = document.createRange(); r.selectNodeContents(d);"
        "return new Set([...r.getClientRects()].map((b) => b.top)).size; })"
    )
    assert max(lines) == 1


@in_a_browser
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("kind", ["hover", "tap"])
def test_the_unit_below_a_pointer_or_a_finger(
    browser: Any, page: Path, width: int, kind: str
) -> None:
    opened(browser, page, width)
    box = browser.execute_script(
        "const u = document.getElementById('units');"
        "u.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const b = u.querySelectorAll('.unit')[36].querySelector('.hit').getBoundingClientRect();"
        "return [b.left, b.right, b.top, b.bottom]"
    )
    x, y = (box[0] + box[1]) / 2, box[2] + 5  # above a low bar
    if kind == "hover":
        event: dict[str, Any] = {"type": "mouseMoved", "x": x, "y": y}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    else:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        for name, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
            event = {"type": name, "touchPoints": points}
            browser.execute_cdp_cmd("Input.dispatchTouchEvent", event)
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert reading(browser).startswith("Unit 36 (")
    assert browser.execute_script("return document.querySelectorAll('.unit.at').length") == 1


@in_a_browser
def test_the_view_follows_the_windows_width(browser: Any, page: Path) -> None:
    opened(browser, page, 1200)
    browser.execute_script("document.querySelectorAll('.unit')[20].focus()")
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")
    drawn, shown = browser.execute_script(
        "const u = document.getElementById('units');"
        "return [u.viewBox.baseVal.width, u.getBoundingClientRect().width]"
    )
    assert drawn == pytest.approx(shown, abs=1)
    assert shown < 400
    assert reading(browser).startswith("Unit 20 (")


@in_a_browser
def test_a_unit_that_stands_out_is_named(browser: Any, page: Path) -> None:
    opened(browser, page)
    captions = browser.execute_script(
        "const c = document.getElementById('network');"
        "return [...c.options].map((option, index) => { c.value = index;"
        "c.dispatchEvent(new Event('change'));"
        "return document.getElementById('units-caption').textContent; })"
    )
    found = {n["profile"]: text for n, text in zip(networks(RESULTS), captions, strict=True)}
    text = found["mini"]  # there unit 0 costs most of all
    assert "Unit 0 stands out although it does not" in text


@in_a_browser
def test_sorting(browser: Any, page: Path) -> None:
    opened(browser, page)
    column = (
        "const t = document.querySelector('#he2016-table1 table.sortable');"
        "return [...t.tBodies[0].rows].map((r) => r.cells[2].textContent.trim())"
    )
    click = "document.querySelectorAll('#he2016-table1 table.sortable th button')[2].click();"
    before = browser.execute_script(column)
    rising = browser.execute_script(click + column)
    falling = browser.execute_script(click + column)
    values = [float(re.search(r"[\d.]+", text)[0]) for text in rising]  # type: ignore[index]
    assert values == sorted(values)
    assert sorted(before) == sorted(rising)
    assert before != rising
    assert [float(re.search(r"[\d.]+", text)[0]) for text in falling] == sorted(  # type: ignore[index]
        values, reverse=True
    )


@in_a_browser
def test_dark(browser: Any, page: Path) -> None:
    opened(browser, page)
    grounds = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        grounds.append(
            browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        )
    filters = browser.execute_script("return getComputedStyle(document.images[0]).filter")
    assert filters == "brightness(0.86)"
    light, dark = (sum(map(int, re.findall(r"\d+", ground)[:3])) for ground in grounds)
    assert light > 600 > 150 > dark
