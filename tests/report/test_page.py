"""The report: complete, self-contained, and working in a browser."""

import base64
import html
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resnet_cli.cli import run_command
from resnet_cli.config import PROFILES, experiment_names
from resnet_cli.errors import UserError
from resnet_cli.papers import published
from resnet_cli.report.content import DATA, content, figure_of, header
from resnet_cli.report.page import embedded, write_report
from resnet_cli.report.unravelled import networks
from resnet_cli.results.claims import Claim
from resnet_cli.results.compare import compare, measured_profiles
from resnet_cli.results.tables import read_provenance, read_table

RESULTS = Path(__file__).parents[2] / "results"
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(RESULTS, tmp_path_factory.mktemp("report") / "report.html")


# --- what it says --------------------------------------------------------------------------------


def test_each_claim_of_each_profile_is_there_with_its_verdict() -> None:
    for part in content(RESULTS):
        for profile, _, counts in part.counts:
            claims = compare(part.paper.key, profile, RESULTS).claims
            shown = [
                claim
                for section in part.sections
                for judged in section.judged
                if judged.profile == profile
                for claim in judged.claims
            ]
            for claim in claims:
                if claim.verdict != "not measured":
                    text = claim.text.removesuffix(", CIFAR-10")  # two may have one evidence
                    told = {claim.evidence, _unnamed(claim.evidence)}
                    alike = [c for c in shown if c.evidence in told]
                    (found,) = [c for c in alike if c.text.startswith(text)]
                    assert (found.verdict, found.source) == (claim.verdict, claim.source)
            assert sum(counts.values()) == len(claims)
        once = {c.text for section in part.sections for j in section.judged for c in j.claims}
        assert len(once) == part.claims


def _unnamed(evidence: str) -> str:
    """As shown where digits were measured; the tables' own names have the paper's data."""
    return re.sub(r"(one_layer|110|164|1001)-cifar10\b", r"\1", evidence)


def test_a_list_of_claims_measures_one_of_them_or_stands_alone() -> None:
    for part in content(RESULTS):
        for section in part.sections:
            for judged in section.judged:
                measured = [c for c in judged.claims if c.verdict != "not measured"]
                assert bool(measured) == bool(judged.profile)
                assert measured or len(section.judged) == 1


def test_what_digits_measured_is_not_said_of_cifar() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "he2016")
    section = next(section for section in part.sections if section.key == "table3")
    assert "CIFAR" not in section.title
    errors = section.errors[0]
    assert errors.dataset == "CIFAR-10"
    assert "mini, digits" in errors.columns
    assert not any("cifar" in case for case, _, _ in errors.rows)
    for claim in next(j for j in section.judged if j.profile == "mini").claims:
        if claim.dataset:
            told = f"{claim.evidence} {claim.ours}"
            assert "cifar" not in told
            assert "CIFAR" not in claim.text.removesuffix("(in the paper on CIFAR-10)")
    (measurement,) = [m for m in section.measurements if m.setting == "mini, digits"]
    assert "CIFAR" not in measurement.title + "".join(plot.alt for plot in measurement.plots)
    assert "these are digits" in measurement.note


def test_the_first_screen_has_headlines_with_figures(page: Path) -> None:
    cards = page.read_text(encoding="utf-8").partition('id="unravelled"')[0]
    for part in content(RESULTS):
        assert 3 <= len(part.headlines) <= 4
        best: dict[str, tuple[str, Claim]] = {}
        for name in reversed(measured_profiles(part.paper.key, RESULTS)):
            for claim in compare(part.paper.key, name, RESULTS).claims:
                if claim.verdict != "not measured" or claim.text not in best:
                    best[claim.text] = name, claim
        for headline in part.headlines:
            shown = headline.claim
            (name, claim), *_ = [b for text, b in best.items() if shown.text.startswith(text[:40])]
            assert shown.verdict == claim.verdict
            assert headline.setting.startswith(f"{name}, {DATA[claim.dataset]}, ")
            assert "seed" in headline.setting
            assert shown.published
            for text in (shown.ours, headline.setting):
                assert html.escape(text) in cards
        verdicts = [claim.verdict for _, claim in best.values()]
        assert part.holding == verdicts.count("holds")
        assert part.measured == len(verdicts) - verdicts.count("not measured")
        assert f"<strong>{part.holding} of {part.measured}</strong> measured claims hold" in cards


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


def test_the_best_profile_speaks_for_each_claim(partly_real: Path) -> None:
    (part,) = content(partly_real)
    assert [h.setting for h in part.headlines] == [
        "mini, digits, 1 seed",
        "mini, digits, 1 seed",
        "cpu, CIFAR-10, 1 seed",
        "cpu, CIFAR-10, 3 seeds",
    ]
    assert [(setting, count) for setting, _, count in part.means] == [
        ("cpu, CIFAR-10, 1 seed or 3 seeds", 6),
        ("mini, digits, 1 seed or 3 seeds", 9),
    ]
    assert part.measured == 15  # no claim twice
    section = next(section for section in part.sections if section.key == "section4.3")
    assert section.errors[0].columns == ["cpu, CIFAR-10", "mini, digits"]
    assert [(j.setting, j.shown) for j in section.judged] == [
        ("cpu, CIFAR-10", True),
        ("mini, digits", False),
    ]


def test_verdicts_that_differ_are_told(partly_real: Path) -> None:
    table = partly_real / "veit2016/cpu/effective_paths/table.csv"
    lines = table.read_text().splitlines()
    errors = {"full": 6.5, "active-23": 6.0}
    for number, line in enumerate(lines[1:], 1):
        cells = line.split(",")
        cells[6] = cells[7] = str(errors.get(cells[1], 7.0))
        lines[number] = ",".join(cells)
    table.write_text("\n".join(lines) + "\n")
    (part,) = content(partly_real)
    headline = part.headlines[3]
    assert (headline.claim.verdict, headline.disagreeing) == ("holds", ["mini, digits"])


def test_a_caveat_stands_once_in_a_paper(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for words in ("but 16x16 digits and 15 epochs (Table 1: 30)", "16x16 digits and 15 epochs (hi"):
        assert text.count(words) == 1


def test_each_published_error_is_there() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "he2016")
    shown = {
        (section.key, errors.dataset, case): error
        for section in part.sections
        for errors in section.errors
        for case, error, _ in errors.rows
    }
    for row in published("he2016").to_dict("records"):
        if row["metric"] == "top5_error":
            continue
        case = str(row["case"]).removesuffix(f"-{row['dataset']}")
        error = shown[row["source"], DATA[row["dataset"]], case]
        if row["status"] == "fail":
            assert error == "fail"
        else:
            assert f"{row['value']:.2f} %" in error
            assert ("about" in error) == (row["checked"] != "v")


def test_what_was_measured_stands_beside_it() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "he2016")
    section = next(section for section in part.sections if section.key == "table1")
    measured = read_table(RESULTS / "he2016/mini/table1/table.csv").set_index("case")
    (table,) = section.errors
    column = table.columns.index("mini, digits")
    for case, _, errors in table.rows:
        assert f"{measured.loc[case, 'test_error']:.2f} %" in errors[column]


def test_every_experiment_measured_is_there_with_its_command() -> None:
    for part in content(RESULTS):
        found = {(m.profile, m.experiment): m for s in part.sections for m in s.measurements}
        for folder in (RESULTS / part.paper.key).glob("*/*"):
            measurement = found[folder.parent.name, f"{part.paper.key}/{folder.name}"]
            assert len(measurement.tables) == len(list(folder.rglob("*.csv")))
            assert measurement.plots
            assert all(provenance is not None for _, provenance in measurement.tables)
            told = read_provenance(measurement.tables[0][0])["command"]
            if told.startswith(("resnet-cli run ", "resnet-cli reproduce ")):
                assert measurement.command == told  # the one that was typed
            assert measurement.command.startswith("resnet-cli ")


def test_a_command_that_cannot_be_given_again_is_the_experiments(tmp_path: Path) -> None:
    shutil.copytree(RESULTS / "veit2016/mini/fig7", tmp_path / "veit2016/mini/fig7")
    provenance = tmp_path / "veit2016/mini/fig7/path_survival.provenance.json"
    told = json.loads(provenance.read_text())
    told["command"] = "python script.py"
    provenance.write_text(json.dumps(told))
    (part,) = content(tmp_path)
    (measurement,) = [m for section in part.sections for m in section.measurements]
    assert measurement.command == "resnet-cli run veit2016/fig7 --profile mini"
    assert measurement.setting == "mini"  # a formula takes no data


def test_what_is_not_measured_has_its_command() -> None:
    part = next(part for part in content(RESULTS) if part.paper.key == "veit2016")
    section = next(section for section in part.sections if section.key == "fig4")
    assert section.commands == ["resnet-cli run veit2016/fig4 --profile paper --data-dir FOLDER"]


def test_plots_are_told_apart(page: Path) -> None:
    measurements = [m for p in content(RESULTS) for s in p.sections for m in s.measurements]
    assert len({plot.alt for m in measurements for plot in m.plots}) == sum(
        len(m.plots) for m in measurements
    )
    for measurement in measurements:
        home = RESULTS / measurement.experiment.split("/")[0] / measurement.profile
        for plot in measurement.plots:
            *_, case = ["", *plot.path.relative_to(home).parts[1:-1]]
            assert plot.alt.endswith(f", of {case}") == bool(case)
            assert case or ", of " not in plot.alt.rpartition(": ")[2]
        assert measurement.folded or measurement.profile in PROFILES
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', page.read_text(encoding="utf-8"))
    assert len(set(alts)) == len(alts)


def test_the_header_of_an_experiment() -> None:
    found = header("veit2016/fig6")
    assert found["question"] == "Which path lengths deliver the gradient?"
    assert found["published"].startswith("the norm falls exponentially with length")
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
    found = {network["name"]: network for network in networks(RESULTS)}
    mini = found["preact110 on digits (mini)"]
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
    found = {n["name"]: text for n, text in zip(networks(RESULTS), captions, strict=True)}
    text = found["preact110 on digits (mini)"]  # there unit 0 costs most of all
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
