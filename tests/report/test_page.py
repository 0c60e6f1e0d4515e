"""The report: complete, self-contained, and working in a browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resnet_cli.cli import run_command
from resnet_cli.errors import UserError
from resnet_cli.papers import published
from resnet_cli.report.content import content, figure_of, header
from resnet_cli.report.page import embedded, write_report
from resnet_cli.report.unravelled import networks
from resnet_cli.results.compare import compare
from resnet_cli.results.tables import read_table

RESULTS = Path(__file__).parents[2] / "results"
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(RESULTS, tmp_path_factory.mktemp("report") / "report.html")


# --- what it says --------------------------------------------------------------------------------


def test_each_claim_of_each_profile_is_there_with_its_verdict() -> None:
    for part in content(RESULTS):
        for profile, counts in part.counts:
            claims = compare(part.paper.key, profile, RESULTS).claims
            shown = [
                claim
                for section in part.sections
                for name, of_profile in section.claims
                if name == profile
                for claim in of_profile
            ]
            assert sorted((c.text, c.verdict, c.evidence) for c in shown) == sorted(
                (c.text, c.verdict, c.evidence) for c in claims
            )
            assert sum(counts.values()) == len(claims)


def test_each_published_error_is_there() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "he2016")
    shown = {(s.key, case): error for s in part.sections for case, error, _ in s.rows}
    for row in published("he2016").to_dict("records"):
        if row["metric"] == "top5_error":
            continue
        error = shown[row["source"], row["case"]]
        if row["status"] == "fail":
            assert error == "fail"
        else:
            assert f"{row['value']:.2f} %" in error
            assert ("about" in error) == (row["checked"] != "v")


def test_what_was_measured_stands_beside_it() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "he2016")
    section = next(section for section in part.sections if section.key == "table1")
    measured = read_table(RESULTS / "he2016/mini/table1/table.csv").set_index("case")
    column = section.columns.index("mini")
    for case, _, errors in section.rows:
        assert f"{measured.loc[case, 'test_error']:.2f} %" in errors[column]


def test_every_experiment_measured_is_there_with_its_command() -> None:
    for part in content(RESULTS):
        found = {(m.profile, m.experiment): m for s in part.sections for m in s.measurements}
        for folder in (RESULTS / part.paper.key).glob("*/*"):
            measurement = found[folder.parent.name, f"{part.paper.key}/{folder.name}"]
            assert len(measurement.tables) == len(list(folder.rglob("*.csv")))
            assert measurement.plots
            assert measurement.command.startswith("resnet-cli ")


def test_the_header_of_an_experiment() -> None:
    found = header("veit2016/fig6")
    assert found["question"] == "Which path lengths deliver the gradient?"
    assert found["published"].startswith("the norm falls exponentially with length")
    assert figure_of("veit2016/greedy") == "beyond"


def test_the_unravelled_view_has_the_tables_numbers() -> None:
    found = {network["name"]: network for network in networks(RESULTS)}
    mini = found["preact110 on digits (mini)"]
    lesions = read_table(RESULTS / "veit2016/mini/fig3/preact110/lesion_delete.csv")
    assert mini["errors"] == lesions["test_error"].tolist()
    assert mini["downsampling"] == [18, 36]
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
    mini = next(n for n in networks(RESULTS) if n["name"].endswith("(mini)"))
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
    told = browser.execute_script(
        "document.querySelectorAll('.unit')[18].focus();"
        "return document.getElementById('unit-text').textContent"
    )
    first = networks(RESULTS)[0]
    assert told.startswith("Unit 18 (stage 2, downsampling): without it the test error is ")
    assert f"{first['errors'][18]:.2f} %" in told


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
    light, dark = (sum(map(int, re.findall(r"\d+", ground)[:3])) for ground in grounds)
    assert light > 600 > 150 > dark
