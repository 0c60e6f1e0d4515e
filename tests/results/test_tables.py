"""The CSV contracts, and files that are whole or not there."""

import errno
import json
import math
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cli.results.columns import all_tables, described, table_of
from resnet_cli.results.layout import provenance_path
from resnet_cli.results.provenance import Provenance, collect
from resnet_cli.results.tables import (
    atomic_write,
    column_names,
    is_pair,
    read_provenance,
    read_table,
    write_table,
    write_together,
)
from resnet_cli.runtime.errors import UserError

HEADERS = {
    "training": "experiment,case,seed,epoch,iteration,lr,train_loss,train_error,test_loss,"
    "test_error,images_per_second,seconds",
    "table": "experiment,case,dataset,seed,params,status,test_error,best_error,paper_error",
    "lesion_delete": "k,sample,blocks,test_error,baseline_error,images,seed,"
    "loss,kl_divergence,agreement",
    "lesion_reorder": "swaps,sample,order,kendall_tau,test_error,baseline_error,images,seed,"
    "loss,kl_divergence,agreement",
    "lesion_greedy": "k,unit,blocks,test_error,baseline_error,images,seed,"
    "loss,kl_divergence,agreement",
    "lesion_additivity": "k,sample,blocks,joint_damage,summed_damage,joint_loss_damage,"
    "summed_loss_damage,test_error,baseline_error,images,seed",
    "lesion_classes": "blocks,class,images,test_error,baseline_error,class_name,k,sample,seed",
    "path_lengths": "k,paths,fraction",
    "path_survival": "deleted,k,paths,remaining,fraction",
    "bench": "item,side,repeat,seconds,amount,work_unit",
    "bench_summary": "item,value,lowest,highest,measured_in,target,better,reached,gflops,"
    "share_of_peak,remark",
    "bench_gpu_checks": "item,precision,side,value,lowest,highest,measured_in,remark",
    "bench_gpu": "item,precision,side,value,lowest,highest,measured_in,remark",
    "bench_scaling": "study,depth,images,seconds,peak_memory_mb",
    "reliability": "fault,injected,resumed,rows_lost,files_differing",
    "signal": "state,unit,activation_norm,gradient_norm,shortcut_factor,shortcut_product,"
    "shortcut_gain,images,seed",
    "path_gradients": "k,sample,grad_norm,images,seed",
    "path_spectrum": "k,paths,mean_norm,std_norm,total,exact_norm,share_total,share_exact,"
    "cancellation",
    "path_spectrum_stages": "stage,k,paths,exact_norm,share_exact",
    "path_spectrum_unit": "unit,k,paths,exact_norm,share_exact",
}
HEADERS["table_top5"] = "experiment,case,seed,top5_error,paper_top5_error"
HEADERS |= {
    f"{stem}_recalibrated": f"{HEADERS[stem]},recalibration_images,subset"
    for stem in ("lesion_delete", "lesion_reorder", "lesion_greedy", "lesion_additivity")
}
HEADERS["recalibration"] = (
    "statistics,recalibration_images,subset,blocks,statistics_of,test_error,baseline_error,images,"
    "seed,loss,kl_divergence,agreement"
)
HEADERS["influence"] = (
    "n,unit,block_influence,angular_distance,test_error,baseline_error,images,seed,loss,"
    "kl_divergence,agreement"
)
HEADERS["iterative"] = (
    "unit,cosine,norm_ratio,test_error,baseline_error,images,seed,loss,kl_divergence,agreement"
)
HEADERS["effects"] = "deleted,unit,relative_change,images"
HEADERS["path_cumulative"] = "k,cosine,relative_norm,images"
README = Path(__file__).parents[2] / "results" / "README.md"


@pytest.fixture(scope="module")
def provenance() -> Provenance:
    return collect(
        {"train": {"lr": 0.1, "epochs": 1}}, seeds=[0], started=datetime.now(UTC), profile="smoke"
    )


def gradient_row(**changes: object) -> dict[str, object]:
    return {"k": 3, "sample": 0, "grad_norm": 0.1, "images": 128, "seed": 0} | changes


def lesion_row(**changes: object) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(column_names("lesion_delete"), 1.5)
    return row | {"k": 1, "sample": 0, "blocks": "7", "images": 360, "seed": 0} | changes


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.tmp")]


# --- the contracts -----------------------------------------------------------------------------


@pytest.mark.parametrize("stem", HEADERS)
def test_header_is_pinned(stem: str) -> None:
    assert ",".join(column_names(stem)) == HEADERS[stem]


def test_no_table_is_forgotten() -> None:
    assert {table.name for table in all_tables()} == set(HEADERS)


@pytest.mark.parametrize("stem", HEADERS)
def test_readme_describes_the_columns(stem: str) -> None:
    assert described(table_of(stem)) in README.read_text(encoding="utf-8")


def test_an_unknown_table_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown table 'lesion'; did you mean 'lesion_\w+'"):
        column_names("lesion")


# --- writing -----------------------------------------------------------------------------------


def test_the_bytes_of_a_table(tmp_path: Path, provenance: Provenance) -> None:
    rows = [
        gradient_row(grad_norm=0.1),
        gradient_row(sample=numpy.int64(1), grad_norm=numpy.float64(1e-21)),
        gradient_row(sample=3, grad_norm=3),
    ]
    path = write_table(rows, "path_gradients", tmp_path / "new" / "folder", provenance)
    assert path == tmp_path / "new" / "folder" / "path_gradients.csv"
    assert path.read_bytes() == (
        b"k,sample,grad_norm,images,seed\n3,0,0.1,128,0\n3,1,1e-21,128,0\n3,3,3.0,128,0\n"
    )
    assert leftovers(tmp_path) == []


def test_the_order_of_a_rows_keys_does_not_matter(tmp_path: Path, provenance: Provenance) -> None:
    row = dict(reversed(gradient_row().items()))
    path = write_table([row], "path_gradients", tmp_path, provenance)
    assert path.read_text() == "k,sample,grad_norm,images,seed\n3,0,0.1,128,0\n"


@settings(deadline=None)
@given(st.lists(st.floats(), max_size=20))
def test_floats_read_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("floats")
    path = write_table([lesion_row(loss=value) for value in values], "lesion_delete", folder, PLAIN)
    numpy.testing.assert_array_equal(
        read_table(path)["loss"].to_numpy(), numpy.array(values, dtype=float)
    )


PLAIN = collect({}, seeds=[0], started=datetime.now(UTC))


def test_kinds_of_columns_when_read(tmp_path: Path) -> None:
    rows = [lesion_row(), lesion_row(blocks="4 17", loss=math.nan)]
    path = write_table(rows, "lesion_delete", tmp_path, PLAIN)
    table = read_table(path)
    assert list(table["blocks"]) == ["7", "4 17"]
    assert table["k"].dtype == "int64"
    assert table["test_error"].dtype == "float64"
    assert math.isnan(table["loss"].iloc[1])


def test_counts_of_paths_of_any_size(tmp_path: Path) -> None:
    counts = [math.comb(333, k) for k in (0, 1, 166)]
    rows = [{"k": k, "paths": n, "fraction": 0.0} for k, n in enumerate(counts)]
    assert list(read_table(write_table(rows, "path_lengths", tmp_path, PLAIN))["paths"]) == counts


def test_no_rows_are_a_header(tmp_path: Path) -> None:
    table = read_table(write_table([], "path_lengths", tmp_path, PLAIN))
    assert list(table.columns) == ["k", "paths", "fraction"]
    assert table.empty


@pytest.mark.parametrize("name", ["a,b", 'a "quoted" name', "±", "nan", "", "0012", "'a'", "'=a'"])
def test_text_reads_back_as_it_was(tmp_path: Path, name: str) -> None:
    assert list(read_table(written_with(name, tmp_path))["experiment"]) == [name]


def written_with(name: str, folder: Path) -> Path:
    """A table with this text in a cell."""
    row = {
        "experiment": name,
        "case": "main",
        "dataset": "digits",
        "seed": 0,
        "params": 1,
        "status": "ok",
        "test_error": 1.0,
        "best_error": 1.0,
        "paper_error": None,
    }
    return write_table([row], "table", folder, PLAIN)


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)"])
def test_a_spreadsheet_shows_text_as_text(tmp_path: Path, name: str) -> None:
    path = written_with(name, tmp_path)
    assert path.read_text().splitlines()[1].startswith(f"'{name},")
    assert list(read_table(path)["experiment"]) == [name]


def test_control_characters_are_spelled_out(tmp_path: Path) -> None:
    path = written_with("a\x1b[31m\nb\u202e", tmp_path)
    assert path.read_text().splitlines()[1].startswith(r"a\x1b[31m\nb\u202e,main")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"gradnorm": 1.0}, ValueError, r"row 0: missing: none; unexpected: gradnorm"),
        ({"k": 3.0}, TypeError, r"row 0, column k: expected an integer, not 3\.0"),
        ({"k": None}, TypeError, r"column k: expected an integer"),
        ({"k": True}, TypeError, r"column k: expected a number, not True"),
        (
            {"grad_norm": "1.0"},
            TypeError,
            r"column grad_norm: expected a number or None, not '1\.0'",
        ),
        ({"grad_norm": False}, TypeError, r"column grad_norm: expected a number"),
    ],
)
def test_a_row_that_breaks_the_contract(
    tmp_path: Path, change: dict[str, object], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        write_table([gradient_row(**change)], "path_gradients", tmp_path, PLAIN)
    assert list(tmp_path.iterdir()) == []


ROWS: dict[str, dict[str, object]] = {
    "path_gradients": gradient_row(),
    "lesion_delete": lesion_row(),
    "path_spectrum_stages": {"stage": 1, "k": 0, "paths": 1, "exact_norm": 0.5, "share_exact": 1.0},
}


@pytest.mark.parametrize(
    ("stem", "column", "allowed"),
    [
        ("path_gradients", "grad_norm", ()),
        ("lesion_delete", "baseline_error", ()),
        ("lesion_delete", "loss", ("nan", "inf", "-inf")),
        ("path_spectrum_stages", "share_exact", ("",)),
    ],
)
@pytest.mark.parametrize("value", ["", "nan", "inf", "-inf"])
def test_a_number_is_missing_or_not_finite_only_where_its_column_allows_it(
    stem: str, column: str, allowed: tuple[str, ...], value: str, tmp_path: Path
) -> None:
    row = ROWS[stem] | {column: float(value) if value else None}
    path = tmp_path / f"{stem}.csv"
    if value in allowed:
        write_table([row], stem, tmp_path, PLAIN)
        assert (
            path.read_text().splitlines()[1].split(",")[column_names(stem).index(column)] == value
        )
        assert not math.isfinite(read_table(path)[column].iloc[0])
        return
    with pytest.raises(UserError, match=rf"{stem}, row 0, column {column}: "):
        write_table([row], stem, tmp_path, PLAIN)
    assert not path.exists()
    write_table([ROWS[stem]], stem, tmp_path, PLAIN)
    cells = path.read_text().splitlines()[1].split(",")
    cells[column_names(stem).index(column)] = value
    path.write_text(f"{','.join(column_names(stem))}\n{','.join(cells)}\n")
    with pytest.raises(UserError, match=rf"{stem}\.csv: row 1, column '{column}': "):
        read_table(path)


def test_no_committed_table_lacks_a_number_that_its_column_requires() -> None:
    paths = list(README.parent.rglob("*.csv"))
    assert paths
    for path in paths:
        read_table(path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 1: missing: fraction, paths; unexpected: none"):
        write_table(
            [{"k": 0, "paths": 1, "fraction": 1.0}, {"k": 1}], "path_lengths", tmp_path, PLAIN
        )


def test_an_unknown_status(tmp_path: Path) -> None:
    row: dict[str, Any] = dict.fromkeys(column_names("table"), "x") | {"seed": 0, "params": 1}
    with pytest.raises(ValueError, match=r"column status: 'x' is not one of ok, fail, diverged"):
        write_table([row], "table", tmp_path, PLAIN)


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", r"is empty; expected the columns k,paths,fraction"),
        ("k,path,fraction\n", r"column 2 is 'path', expected 'paths'"),
        ("k,paths\n", r"column 3 is missing, expected 'fraction'"),
        ("k,paths,fraction,more\n", r"column 4 is 'more', expected no further column"),
        ("paths,k,fraction\n", r"column 1 is 'paths', expected 'k'"),
        ("k,paths,fraction\n0,1,1.0\n1,2\n", r"row 2 has 2 values, expected 3"),
        ("k,paths,fraction\n0,1,one\n", r"row 1, column 'fraction': 'one' is not a number"),
        ("k,paths,fraction\n0.5,1,1.0\n", r"row 1, column 'k': '0\.5' is not an integer"),
        ("k,paths,fraction\n,1,1.0\n", r"row 1, column 'k': '' is not an integer"),
        ("k,paths,fraction\n0,1,\n", r"row 1, column 'fraction': is empty"),
        ('k,paths,fraction\n0,"1,1.0\n', r"not a CSV file in UTF-8"),
    ],
)
def test_a_file_that_breaks_the_contract(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "path_lengths.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"path_lengths\.csv: {match}") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("blocks", ["x y", "1,2", "1  2", "-1", "1.0", "９", " ", "1" * 40])
def test_units_are_indices(blocks: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 0, column blocks: .*indices joined by spaces"):
        write_table([lesion_row(blocks=blocks)], "lesion_delete", tmp_path, PLAIN)
    path = write_table([lesion_row(blocks="7 12")], "lesion_delete", tmp_path, PLAIN)
    path.write_text(path.read_text().replace("7 12", f'"{blocks}"'))
    with pytest.raises(UserError, match=r"row 1, column 'blocks': .* does not list units"):
        read_table(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_regular_files_are_opened(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "path_lengths.csv")
    with pytest.raises(UserError, match="not a regular file"):
        read_table(tmp_path / "path_lengths.csv")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "path_lengths.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        read_table(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"path_lengths\.csv: cannot be read: No such file"):
        read_table(tmp_path / "path_lengths.csv")


def test_a_file_saved_by_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "path_lengths.csv"
    path.write_bytes(b"\xef\xbb\xbfk,paths,fraction\r\n0,1,0.5\r\n1,1,0.5\r\n")
    assert list(read_table(path)["fraction"]) == [0.5, 0.5]


def test_reading_what_was_written_and_writing_it_again_is_neutral(tmp_path: Path) -> None:
    rows = [gradient_row(sample=i, grad_norm=2.0**-i / 3) for i in range(9)]
    first = write_table(rows, "path_gradients", tmp_path / "a", PLAIN)
    again: list[Any] = read_table(first).to_dict("records")
    second = write_table(again, "path_gradients", tmp_path / "b", PLAIN)
    assert first.read_bytes() == second.read_bytes()


# --- the provenance beside ---------------------------------------------------------------------


def test_the_provenance_is_next_to_its_table(tmp_path: Path, provenance: Provenance) -> None:
    path = write_table([gradient_row()], "path_gradients", tmp_path, provenance)
    beside = json.loads((tmp_path / "path_gradients.provenance.json").read_text())
    assert provenance_path(path).name == "path_gradients.provenance.json"
    read = read_provenance(path)  # its configuration has no edition, so it is of the first
    kept = {"last_batch": "drop", "inactive_units": "freeze"}
    train = beside["config"]["train"] | kept
    assert read["config"] == beside["config"] | {"edition": 2, "train": train}
    assert read | {"config": None} == beside | {"config": None}
    assert beside["profile"] == "smoke"
    assert beside["table"]["rows"] == 1
    assert beside["table"]["file"] == "path_gradients.csv"
    assert is_pair(path)
    path.write_text(path.read_text().replace("0.1", "0.2"))
    assert not is_pair(path)
    with pytest.raises(UserError, match=r"path_gradients\.csv: was changed after it was measured"):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "cannot be read"),
        ("{", "is not valid JSON"),
        ("[]", "not a provenance file"),
        ("{" + " " * (16 << 20), "larger than"),
        ('{"config": {"edition": 3}}', "edition 3; this version reads 1 and 2"),
        ('{"config": {"model": {"depth": "deep"}}}', "config: model.depth: "),
        ('{"config": {"data": {"test_images": "all"}}}', "config: data.test_images: "),
        ('{"config": {"cases": [{"model": {}}]}}', "config: cases.0.name: "),
        ('{"config": {"cases": [{"name": "x", "model": {"depth": 9}}]}}', "config: case x: "),
    ],
)
def test_a_broken_provenance(tmp_path: Path, content: str | None, match: str) -> None:
    path = write_table([gradient_row()], "path_gradients", tmp_path, PLAIN)
    provenance_path(path).unlink()
    if content is not None:
        provenance_path(path).write_text(content)
    with pytest.raises(UserError, match=rf"path_gradients\.provenance\.json: {match}"):
        is_pair(path)


# --- whole files or none -----------------------------------------------------------------------


def fail_with(code: int) -> Any:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


MENDS = [
    (errno.ENOSPC, "the disk is full; free some space"),
    (errno.EDQUOT, "the disk quota is used up"),
    (errno.EROFS, "the file system is read-only; choose another folder with --out"),
    (errno.EACCES, "no permission to write there; choose another folder with --out"),
    (errno.EIO, "Input/output error; choose another folder with --out"),
]


@pytest.mark.parametrize(("code", "mend"), MENDS)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, mend: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("old")
    monkeypatch.setattr(os, step, fail_with(code))
    with pytest.raises(UserError, match=rf"x\.csv: cannot be written: {mend}") as caught:
        atomic_write(path, "new")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]


def test_a_full_disk_leaves_both_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table([gradient_row()], "path_gradients", tmp_path, PLAIN)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    sync, calls = os.fsync, []

    def full_at_the_second(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(UserError, match="the disk is full"):
        write_table([gradient_row(k=4)], "path_gradients", tmp_path, PLAIN)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert is_pair(path)


def test_a_pair_torn_between_its_two_files_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table([gradient_row()], "path_gradients", tmp_path, PLAIN)
    replace, calls = os.replace, []

    def dies_at_the_second(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        replace(*args)

    monkeypatch.setattr(os, "replace", dies_at_the_second)
    with pytest.raises(UserError, match="Input/output error"):
        write_table([gradient_row(k=4)], "path_gradients", tmp_path, PLAIN)
    assert not is_pair(path)
    assert leftovers(tmp_path) == []


def test_an_interrupt_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "x.csv", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UserError, match="a file where its folder should be; move it"):
        write_table([], "path_lengths", tmp_path / "results", PLAIN)
    with pytest.raises(UserError, match="a file where its folder should be; move it"):
        write_table([], "path_lengths", tmp_path / "results" / "deeper", PLAIN)
    assert (tmp_path / "results").read_text() == "a file"


def test_a_folder_where_the_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(UserError, match="a folder where the file should be; move it"):
        atomic_write(tmp_path / "x.csv", "new")
    assert leftovers(tmp_path) == []


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the name is too long"):
        atomic_write(tmp_path / ("x" * 300), "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="no permission to write there"):
            atomic_write(tmp_path / "x.csv", "new")
    finally:
        tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_refuses_new_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", fail_with(errno.EROFS))
    with pytest.raises(UserError, match=r"x\.csv: cannot be written: the file system is read-only"):
        atomic_write(tmp_path / "x.csv", "new")


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    atomic_write(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_text_and_bytes(tmp_path: Path) -> None:
    write_together({tmp_path / "a": "±\n", tmp_path / "b": b"\x00\xff"})
    assert (tmp_path / "a").read_bytes() == "±\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    contents = {letter * 200_000 for letter in "ab"}
    atomic_write(path, min(contents))
    stop = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for content in sorted(contents) * 15:
        atomic_write(path, content)
    stop.set()
    reader.join()
    assert seen <= contents


def test_frames_are_pandas(tmp_path: Path) -> None:
    path = write_table([gradient_row()], "path_gradients", tmp_path, PLAIN)
    assert isinstance(read_table(path), pandas.DataFrame)
