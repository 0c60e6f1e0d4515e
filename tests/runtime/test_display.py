"""What people see: plain lines in a log, tables that fit, one JSON line for machines."""

import json

import pytest

from resnet_cli.runtime import display as display_module
from resnet_cli.runtime.display import Display

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the shell that runs the tests counts."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


# --- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "wrote results/[bold]x[/bold]/[1, 2].csv",
        "a :smile: in a path, C:\\folder\\",
        "x" * 500,
        "test error 91.00 % on 1,000 images",
        "× λ …",
    ],
)
def test_a_line_is_printed_as_it_is(text: str, capsys: Captured) -> None:
    Display().line(text)
    assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.parametrize(
    "setting", [{"COLUMNS": "80"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}], ids=str
)
def test_a_paragraph_is_broken_where_a_width_is_known(
    setting: dict[str, str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    words = " ".join(f"word{number}" for number in range(40)) + " results/[bold]/x.csv"
    Display().paragraph(words, indent=2)
    assert capsys.readouterr().out == f"  {words}\n"
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    Display().paragraph(words, indent=2, hang=6)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("  word0 ")
    assert all(line.startswith("      word") for line in rest[:-1])
    assert max(map(len, [first, *rest])) <= 80
    assert " ".join(line.strip() for line in [first, *rest]) == words


def test_verbosity(capsys: Captured) -> None:
    for verbosity in (-1, 0, 1):
        display = Display(verbosity=verbosity)
        for level in (-1, 0, 1):
            display.line(f"{level} at {verbosity}", level=level)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["-1 at -1", "-1 at 0", "0 at 0", "-1 at 1", "0 at 1", "1 at 1"]


# --- tables --------------------------------------------------------------------------------------


def test_a_table_shows_its_values(capsys: Captured) -> None:
    rows = [["main", 12, 91.0, None], ["[red]other[/red]", 3, 0.125, 5]]
    Display().table("A [title]", ["case", "units", "error", "paper"], rows)
    out = capsys.readouterr().out
    title, _, _, _, first, second, *_ = out.splitlines()
    assert title.strip() == "A [title]"
    assert [cell.strip() for cell in first.strip("│").split("│")] == ["main", "12", "91.00", "-"]
    assert [cell.strip() for cell in second.strip("│").split("│")] == [
        "[red]other[/red]",
        "3",
        "0.12",
        "5",
    ]
    assert "\x1b" not in out


def test_numbers_stand_right_and_text_left(capsys: Captured) -> None:
    Display().table("t", ["name", "number"], [["a", 1], ["bcdef", 12345]])
    first = capsys.readouterr().out.splitlines()[4]
    assert first == "│ a     │      1 │"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_table_fits_the_width(
    width: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    columns = ["case", "seed", "params", "status", "test_error", "best_error", "paper_error"]
    rows = [["a case with a long name " * 3, 0, 1_730_522, "ok", 6.37, 6.31, None]] * 2
    Display().table("A title that is a good deal longer than the table is wide" * 2, columns, rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width


def test_in_a_narrow_table_headers_and_text_break_and_numbers_do_not(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    numbers = [1_730_522, "10,328,602", "+44.04", "-6.21 to 21.02"]
    columns = ["case", "all the parameters", "published", "difference", "95 % interval"]
    Display().table("t", columns, [["a case with a long name", *numbers]])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 60
    cells = [cell.strip() for line in lines for cell in line.split("│")]
    assert set(map(str, numbers)) <= set(cells)
    assert "a case with a long name" not in cells
    assert any("┃ parameters ┃" in line for line in lines)


def test_words_are_whole_where_they_have_room(capsys: Captured) -> None:
    name, title = "resnet110-one_layer", "A title longer than its table is wide"
    text = "several words that can be put on lines of their own, as many as need be"
    Display().table(title, ["network", "text", "n"], [[name, text, 1_730_522]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == title
    assert max(map(len, lines)) == 80
    cells = [[cell.strip() for cell in line.split("│")] for line in lines if line[0] == "│"]
    assert [row[1] for row in cells] == [name, *[""] * (len(cells) - 1)]
    assert " ".join(row[2] for row in cells) == text


def test_a_title_is_as_wide_as_the_terminal(capsys: Captured) -> None:
    title = "preact56, digits: 134,217,728 paths"
    Display().table(title, ["k"], [[1]])
    assert capsys.readouterr().out.splitlines()[0] == title


def test_an_empty_table(capsys: Captured) -> None:
    Display().table("Nothing", ["a", "b"], [])
    assert "Nothing" in capsys.readouterr().out


# --- machines ------------------------------------------------------------------------------------


def test_with_json_stdout_has_the_summary_alone(capsys: Captured) -> None:
    display = Display(as_json=True)
    display.line("for people")
    display.table("a table", ["a", "b"], [[1, "a cell"]])
    with display.progress("work") as update:
        update(1, 1)
    display.summary({"b": 1.5, "a": "ü"})
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert json.loads(captured.out) == {"a": "ü", "b": 1.5}
    assert "for people" in captured.err
    assert "a table" in captured.err


def test_without_json_there_is_no_summary(capsys: Captured) -> None:
    Display().summary({"a": 1})
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


# --- progress ------------------------------------------------------------------------------------


def test_progress_in_a_log_is_a_line_now_and_then(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(display_module.time, "monotonic", lambda: now)
    with Display().progress("training") as update:
        for done in range(1, 11):
            now += 12.0
            update(done, 10, "error 5 %" if done == 3 else "")
    assert capsys.readouterr().out.splitlines() == [
        "training: 3/10, about 1 min 24 s left error 5 %",
        "training: 6/10, about 48 s left",
        "training: 9/10, about 12 s left",
    ]


def test_the_time_left_of_resumed_work_leaves_out_what_was_done_before(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(display_module.time, "monotonic", lambda: now)
    with Display().progress("training") as update:
        now = 40.0  # reading the data and the checkpoint
        for done in (51, 53, 56):
            update(done, 100)
            now += 20.0
    assert capsys.readouterr().out.splitlines() == [
        "training: 51/100",
        "training: 56/100, about 5 min 52 s left",
    ]


def test_short_work_shows_no_progress_in_a_log(capsys: Captured) -> None:
    with Display().progress("training") as update:
        for done in range(100):
            update(done, 100)
    assert capsys.readouterr().out == ""


def test_quiet_shows_no_progress(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display_module, "LOG_SECONDS", 0.0)
    with Display(verbosity=-1).progress("training") as update:
        update(1, 2)
    assert capsys.readouterr().out == ""


def test_progress_on_a_terminal_is_a_bar_that_goes_away(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    display = Display()
    assert display.console.is_terminal
    with display.progress("training [1]") as update:
        update(5, 10, "[half]")
        display.line("a line between")
    out = capsys.readouterr().out
    assert "training [1]" in out
    assert "50%" in out
    assert "a line between" in out
    assert out.rstrip("\r\n").endswith("\x1b[2K")  # the bar's line is wiped at the end


def test_control_characters_of_a_name_do_not_reach_the_terminal(capsys: Captured) -> None:
    hostile = "a\x1b[31m\u202eb"
    display = Display()
    display.line(hostile)
    display.table(hostile, ["class"], [[f"{hostile}\n"]])
    out = capsys.readouterr().out
    assert not {"\x1b", "\u202e"} & set(out)
    assert out.startswith("a\\x1b[31m\\u202eb\n")
    assert r"\u202eb\n" in out


@pytest.mark.parametrize("columns", ["0", "-5", "wide", "1e9", "9" * 30, "٣", "1"])
def test_an_odd_width_still_gives_whole_tables(
    columns: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    Display().table("Title", ["name", "error"], [["preact110", 6.25]])
    out = capsys.readouterr().out
    assert "preact110" in out
    assert "6.25" in out
