"""The report is complete and self-contained, and works in a browser."""

import base64
import html
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resnet_cli.claims.compare import compare
from resnet_cli.claims.papers import published
from resnet_cli.claims.verdict import JUDGED
from resnet_cli.claims.words import evidence
from resnet_cli.cli import run_command
from resnet_cli.config.experiments import load_experiment
from resnet_cli.config.schema import PROFILES, config_hash
from resnet_cli.report.article import ABOUT
from resnet_cli.report.content import Part, content
from resnet_cli.report.explorer import explorer_data
from resnet_cli.report.labels import checkpoint_label, repeat_command, training_label
from resnet_cli.report.page import embedded, write_report
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.runtime.errors import UserError

RESULTS = Path(__file__).parents[2] / "results"
MAX_WORDS = 3000
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(RESULTS, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def parts() -> list[Part]:
    return content(RESULTS)


# --- what it says --------------------------------------------------------------------------------


def test_verdicts_and_counts_are_those_of_compare(parts: list[Part], page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for part in parts:
        for count in part.counts:
            comparison = compare(part.paper.key, count.profile, RESULTS)
            assert count.verdicts == comparison.to_dict()["counts"]
            if count.profile in PROFILES:
                shown = [
                    judgement
                    for row in (*part.claims, *part.checks)
                    for judgement in row.judgements
                    if judgement.profile == count.profile
                ]
                assert Counter(j.verdict for j in shown) == Counter(
                    j.verdict for j in comparison.judgements
                )
        for row in part.claims:
            assert html.escape(row.claim.text, quote=False) in html.unescape(text)
            for judgement in row.judgements:
                for line in (*evidence(judgement), *judgement.commands):
                    assert line in html.unescape(text)


def test_each_figure_of_the_article_has_its_findings(parts: list[Part]) -> None:
    for part, paper in zip(parts, ABOUT, strict=True):
        assert 3 <= len(part.figures) <= len(paper.stories)
        for figure in part.figures:
            assert figure.plot.path.is_file()
            assert figure.measurement.profile in PROFILES
            assert all(j.profile == figure.measurement.profile for j in figure.findings)
            assert all(j.verdict in JUDGED for j in figure.findings)
            assert (
                figure.published
                == load_experiment(f"{paper.key}/{figure.story.experiment}").published
            )


def test_the_sources_of_the_stories_have_claims() -> None:
    from resnet_cli.claims.judge import CLAIMS

    for paper in ABOUT:
        sources = {claim.source for claim in CLAIMS[paper.key]}
        assert {source for story in paper.stories for source in story.sources} <= sources


def test_the_first_screen_has_each_paper_in_short(page: Path, parts: list[Part]) -> None:
    cards = html.unescape(page.read_text(encoding="utf-8").partition('id="explorer"')[0])
    for part in parts:
        assert part.paper.says in cards
        assert 2 <= len(part.headlines) <= 3
        for row in part.headlines:
            assert row.claim.short in cards


def visible(text: str) -> str:
    """The text of a page without what is collapsed, hidden or drawn."""
    text = re.sub(r"<(script|style|noscript)\b.*?</\1>", " ", text, flags=re.DOTALL)
    kept, depth = [], 0
    for piece in re.split(r"(<details\b[^>]*>|</details>|<summary>|</summary>)", text):
        if piece.startswith("<details"):
            depth += 1
        elif piece == "</details>" or piece == "<summary>":
            depth -= 1
        elif piece == "</summary>":
            depth += 1
        elif depth <= 0:
            kept.append(piece)
    return re.sub(r"<[^>]+>", " ", " ".join(kept))


def test_the_page_is_an_article_and_no_book(page: Path) -> None:
    words = html.unescape(visible(page.read_text(encoding="utf-8"))).split()
    assert 800 < len(words) <= MAX_WORDS


def test_each_published_error_is_there(parts: list[Part]) -> None:
    part = next(part for part in parts if part.paper.key == "he2016")
    shown = Counter(error for table in part.errors for _, error, _ in table.rows if error)
    table = published("he2016")
    table = table[table["metric"] != "top5_error"]
    assert shown["fail"] == (table["status"] == "fail").sum()
    for value in table["value"].dropna():
        assert shown[f"{value:.2f}"] >= 1


def test_measured_errors_name_another_network_than_the_papers(parts: list[Part]) -> None:
    part = next(part for part in parts if part.paper.key == "he2016")
    table = next(table for table in part.errors if table.title.startswith("Table 1"))
    measured = read_table(RESULTS / "he2016/mini/table1/table.csv").set_index("case")
    at = list(table.columns).index("mini")
    row = next(row for row in table.rows if row[0] == "original unit")
    error = measured.loc[["original"], "test_error"].median()
    assert row[2][at].startswith(f"{error:.2f}")
    assert "ResNet" not in row[2][at]


def test_every_experiment_measured_is_there_with_its_command(parts: list[Part]) -> None:
    for part in parts:
        found = {(m.profile, m.experiment): m for m in part.measurements}
        for folder in (RESULTS / part.paper.key).glob("*/*"):
            name = f"{part.paper.key}/{folder.name}"
            measurement = found[folder.parent.name, folder.name]
            assert len(measurement.tables) == len(list(folder.rglob("*.csv")))
            assert measurement.plots
            provenances = [read_provenance(table) for table in measurement.tables]
            told = max(provenances, key=lambda provenance: provenance["started"])["command"]
            words = measurement.command.split()
            if measurement.profile in PROFILES:
                assert words[:5] == ["resnet-cli", "run", name, "--profile", measurement.profile]
                chosen = {w for w in words if "seeds=" in w}  # some of the seeds only
                assert bool(chosen) == ("--set" in words) == ("--set" in told)
                others = {"--pretrained", "--data-dir", "DATA", "--set"}
                assert set(words[5:]) <= others | chosen
                assert ("--pretrained" in words) == ("--pretrained" in told)
            else:
                folders = [w for w in words if "/" in w and not re.fullmatch(r"[\d.,]+/[\d.,]+", w)]
                assert folders == []  # the values of --normalize have a slash of their own
                assert measurement.command.startswith(f"resnet-cli {told.split()[1]} ")


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        ("resnet-cli run he2016/table1 he2016/fig3 --budget 60s --shard 1/2 --data-dir /x", ""),
        ("resnet-cli reproduce he2016 --profile cpu --pretrained", " --pretrained"),
        ("resnet-cli run x --set train.lr=0.2 --seed=3", " --set train.lr=0.2 --seed 3"),
        ("python script.py", ""),
        ("resnet-cli run x --set 'train.lr=0.2", ""),  # a stray quote
    ],
)
def test_the_command_that_gives_it_again(typed: str, again: str) -> None:
    told = {"command": typed, "seeds": [0], "config": {"data": {"dataset": "cifar10"}}}
    assert repeat_command("he2016/table1", "cpu", told) == (
        f"resnet-cli run he2016/table1 --profile cpu{again} --data-dir DATA"
    )


def test_the_command_of_a_study_of_given_weights() -> None:
    command = "resnet-cli paths --exact --checkpoint ../w/a-b.th --data-dir ../d --out results/x"
    assert repeat_command("veit2016/fig6", "third-party", {"command": command}) == (
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
    assert training_label(told) == "CIFAR-10, VGG-15, ResNet-20 and 110, 1 and 14 epochs"
    assert training_label(told, ["b"]) == "CIFAR-10, ResNet-110, 1 epoch"
    assert training_label(told | {"seeds": []}) == ""
    weights = {"checkpoint": {"source": "../some/model.pt"}}
    assert checkpoint_label(told | weights) == "VGG-15 and ResNet-20 and 110, model.pt"


def test_a_formula_takes_no_data(tmp_path: Path) -> None:
    shutil.copytree(RESULTS / "veit2016/mini/fig7", tmp_path / "veit2016/mini/fig7")
    (part,) = content(tmp_path)
    (measurement,) = part.measurements
    assert measurement.command == "resnet-cli run veit2016/fig7 --profile mini"
    assert measurement.setting == "mini: a formula, no network"
    assert part.figures == []


def test_the_explorer_has_the_numbers_of_the_tables() -> None:
    found = {network["profile"]: network for network in explorer_data(RESULTS)}
    assert [network["name"] for network in found.values()] == [
        "ResNet-110, 32,000 iterations, CIFAR-10",
        "ResNet-110, 45 epochs, digits",
        "ResNet-20, ours, 50 epochs, CIFAR-10",
        "ResNet-20, published by akamaster, CIFAR-10",
    ]
    mini = found["mini"]
    lesions = read_table(RESULTS / "veit2016/mini/fig3/preact110-seed0/lesion_delete.csv")
    assert mini["errors"] == lesions["test_error"].tolist()
    assert mini["downsampling"] == [18, 36]
    assert mini["paths"][2] == "1,431"  # 54 * 53 / 2
    assert mini["paths"][10] == "2.39×10¹⁰"  # 54! / (10! 44!) = 23,930,713,170
    assert len(mini["share_exact"]) == 55
    assert sum(mini["share_exact"]) == pytest.approx(1)
    assert sum(mini["share_paths"]) == pytest.approx(1)


def test_the_explorer_joins_tables_of_the_same_weights_only(tmp_path: Path) -> None:
    home = tmp_path / "veit2016/resnet20"
    for figure in ("fig3", "fig6"):
        shutil.copytree(RESULTS / "veit2016/resnet20" / figure, home / figure)
    assert [network["profile"] for network in explorer_data(tmp_path)] == ["resnet20"]
    path = home / "fig3/lesion_delete.provenance.json"
    provenance = json.loads(path.read_text())
    provenance["checkpoint"]["sha256"] = "0" * 64
    path.write_text(json.dumps(provenance))
    assert explorer_data(tmp_path) == []


def test_the_explorer_leaves_out_networks_without_a_configuration(tmp_path: Path) -> None:
    home = tmp_path / "veit2016/resnet20"
    for figure in ("fig3", "fig6"):
        shutil.copytree(RESULTS / "veit2016/resnet20" / figure, home / figure)
    path = home / "fig6/path_spectrum.provenance.json"
    checkpoint = json.loads(path.read_text())["checkpoint"]
    for rest in ({}, {"config": {"study": {"kind": "paths"}}}):
        path.write_text(json.dumps(rest | {"checkpoint": checkpoint}))
        assert explorer_data(tmp_path) == []


# --- the file ------------------------------------------------------------------------------------


def test_the_page_needs_no_other_file_and_no_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"'](?!data:)", text)
    assert not re.findall(r"@import|url\(", text)
    pictures = re.findall(r"<img [^>]*>", text)
    assert len(pictures) >= 6
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
    told["config_hash"] = config_hash(told["config"])
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
    with pytest.raises(UserError, match="not a picture"):
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


AXE = os.environ.get("AXE_CORE")
"""The file axe.min.js of `npm install axe-core`."""


@in_a_browser
@pytest.mark.skipif(AXE is None, reason="AXE_CORE does not name axe.min.js")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, page: Path, width: int, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    opened(browser, page, width)
    browser.execute_script(Path(AXE or "").read_text(encoding="utf-8"))
    found = browser.execute_async_script(
        "const done = arguments[0];"
        "axe.run().then((result) => done(result.violations.map((violation) => violation.id)));"
    )
    assert found == []


@in_a_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_no_error_and_nothing_wider_than_the_window(browser: Any, page: Path, width: int) -> None:
    opened(browser, page, width)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@in_a_browser
def test_the_slider(browser: Any, page: Path) -> None:
    opened(browser, page)
    mini = next(n for n in explorer_data(RESULTS) if n["profile"] == "mini")
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
    first = explorer_data(RESULTS)[0]
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


def by_network(browser: Any, expression: str) -> list[Any]:
    """The value of an expression in JavaScript after choosing each network in turn."""
    found: list[Any] = browser.execute_script(
        "const c = document.getElementById('network');"
        "return [...c.options].map((option, index) => { c.value = index;"
        f"c.dispatchEvent(new Event('change')); return {expression}; }})"
    )
    return found


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
    axes = by_network(
        browser, "[...document.querySelectorAll('#lengths .tick')].map((t) => t.textContent)"
    )
    assert len(axes) == len(explorer_data(RESULTS))
    assert all(ticks == axes[0] for ticks in axes)
    most = max(
        share or 0
        for network in explorer_data(RESULTS)
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
        "card.querySelector('.glance').getBoundingClientRect().bottom)"
    )
    seen = bottoms if width > 600 else bottoms[:1]  # on a phone one paper
    assert all(bottom <= height for bottom in seen)


@in_a_browser
def test_what_is_folded_opens_by_key(browser: Any, page: Path) -> None:
    opened(browser, page)
    folded = "const d = document.querySelector('#he2016-claims details');"
    assert browser.execute_script(folded + "return d.open") is False
    browser.execute_script(folded + "d.querySelector('summary').focus()")
    browser.switch_to.active_element.send_keys("\ue007")
    assert browser.execute_script(folded + "return d.open") is True
    assert "original unit: " in browser.execute_script(folded + "return d.innerText")


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
    captions = by_network(browser, "document.getElementById('units-caption').textContent")
    found = {n["profile"]: text for n, text in zip(explorer_data(RESULTS), captions, strict=True)}
    text = found["mini"]  # there unit 0 costs most of all
    assert "Unit 0 stands out although it does not" in text


@in_a_browser
def test_sorting(browser: Any, page: Path) -> None:
    opened(browser, page)
    table = "const t = document.querySelector('#he2016 table.sortable');"
    browser.execute_script(table + "t.closest('details').open = true;")
    column = "return [...t.tBodies[0].rows].map((r) => r.cells[1].textContent.trim());"
    click = "t.querySelectorAll('th button')[1].click();"
    before = browser.execute_script(table + column)
    rising = browser.execute_script(table + click + column)
    falling = browser.execute_script(table + click + column)
    numbers = [float(text) for text in rising if text != "fail"]
    assert numbers == sorted(numbers)
    assert rising[len(numbers) :] == ["fail"] * (len(rising) - len(numbers))  # worse than any
    assert sorted(before) == sorted(rising)
    assert before != rising
    assert [text for text in falling if text != "fail"] == [f"{n:.2f}" for n in numbers[::-1]]


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
