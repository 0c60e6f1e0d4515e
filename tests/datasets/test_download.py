"""Downloading CIFAR from a server on the loopback address; no test reaches the network."""

import dataclasses
import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from dataset_files import encode, pictures, write_parquet

from resnet_cli.cli import run_command
from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets import cifar, download
from resnet_cli.datasets.catalogue import load_split
from resnet_cli.datasets.cifar import MIRROR_FILES, Cifar
from resnet_cli.runtime.errors import RunError, UserError

TRAIN, TEST = MIRROR_FILES["train"], MIRROR_FILES["test"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def parquet_bytes(count: int, label: str = "label") -> bytes:
    stream = io.BytesIO()
    encoded: list[bytes | None] = [encode(image) for image in pictures(count, seed=count)]
    write_parquet(stream, encoded, [i % 10 for i in range(count)], label=label)
    return stream.getvalue()


CONTENTS = {TRAIN: parquet_bytes(40), TEST: parquet_bytes(20)}


class Hub:
    """What the server serves as the Hugging Face Hub would, and in which ways it misbehaves."""

    def __init__(self) -> None:
        self.files = dict(CONTENTS)
        self.sha256: str | None = None
        """Stated instead of the right checksum."""
        self.size: int | None = None
        """Stated instead of the right size."""
        self.status: int | None = None
        """Every request is refused with this status."""
        self.location: str | None = None
        """A redirect of every request."""
        self.cuts: list[int] = []
        """The number of bytes after which the next answers break off, one for each."""
        self.log: list[tuple[str, str | None]] = []
        """(file name, Range) of each download."""


def handler_for(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            name = self.path.rsplit("/", 1)[-1]
            content = hub.files.get(name)
            if hub.location is not None:
                self.send_response(302)
                self.send_header("Location", hub.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if hub.status is not None or content is None:
                self.send_response(hub.status or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            wanted = self.headers.get("Range")
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            body = content[start:]
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Etag", hub.sha256 or hashlib.sha256(content).hexdigest())
            self.send_header("X-Linked-Size", str(hub.size or len(content)))
            self.send_header("ETag", '"etag"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                hub.log.append((name, wanted))
                self.wfile.write(body[: hub.cuts.pop(0)] if hub.cuts else body)

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setenv("no_proxy", "*")
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(state))
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_archive(monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    """The original archive cannot be reached, and any pixels count as the published ones."""

    def unreachable(dataset: Cifar, root: Path) -> Path:
        raise OSError("no route to Toronto")

    monkeypatch.setattr(download, "_from_torchvision", unreachable)
    monkeypatch.setattr(cifar, "CIFAR10", dataclasses.replace(cifar.CIFAR10, digests={}))


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


# --- what succeeds ---------------------------------------------------------------------------


def test_a_whole_set_is_downloaded_with_progress(hub: Hub, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int | None]] = []
    root = tmp_path / "new" / "root"
    folder = cifar.CIFAR10.download(root, lambda *step: steps.append(step))
    assert folder == root / "cifar10"
    assert files_in(folder) == CONTENTS
    assert [name for name, _ in hub.log] == [TRAIN, TEST]
    for name, content in CONTENTS.items():
        of_file = [(done, total) for file, done, total in steps if file == name]
        assert of_file[-1] == (len(content), len(content))
        assert of_file == sorted(of_file)
    assert len(load_split(DataConfig(dataset="cifar10"), "test", root)) == 20
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


def test_what_is_there_and_sound_is_kept(hub: Hub, tmp_path: Path) -> None:
    cifar.CIFAR10.download(tmp_path)
    hub.log.clear()
    cifar.CIFAR10.download(tmp_path)
    assert hub.log == []
    (tmp_path / "cifar10" / TEST).write_bytes(CONTENTS[TEST][:1000])
    cifar.CIFAR10.download(tmp_path)
    assert hub.log == [(TEST, None)]
    assert files_in(tmp_path / "cifar10") == CONTENTS


def test_a_transfer_that_breaks_off_is_resumed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    hub.cuts = [10_000]
    assert files_in(cifar.CIFAR10.download(tmp_path)) == CONTENTS
    assert [name for name, _ in hub.log] == [TRAIN, TRAIN, TEST]
    assert hub.log[1][1] is not None


# --- what fails ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>sign in</html>", "damaged, or not a parquet file"),
        (CONTENTS[TEST], "20 images; the train split of CIFAR-10 has 40"),
        (parquet_bytes(40, label="coarse_label"), "has the columns img"),
    ],
)
def test_a_file_that_is_not_cifar_is_refused(
    hub: Hub, tmp_path: Path, content: bytes, message: str
) -> None:
    hub.files[TRAIN] = content
    with pytest.raises(RunError, match=message) as error:
        cifar.CIFAR10.download(tmp_path)
    assert "\n" not in str(error.value)
    assert list((tmp_path / "cifar10").iterdir()) == []


def test_a_wrong_checksum_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.sha256 = "ab" * 32
    with pytest.raises(RunError, match=rf"{TRAIN}: SHA-256 [0-9a-f]{{12}}… instead of abababab"):
        cifar.CIFAR10.download(tmp_path)
    assert list((tmp_path / "cifar10").iterdir()) == []


def test_other_pixels_than_the_published_are_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = dataclasses.replace(cifar.CIFAR10, digests={"train": "0" * 64})
    monkeypatch.setattr(cifar, "CIFAR10", pinned)
    with pytest.raises(RunError, match="the images are not those of CIFAR-10"):
        pinned.download(tmp_path)
    assert list((tmp_path / "cifar10").iterdir()) == []


def test_a_file_that_is_too_large_is_not_downloaded(hub: Hub, tmp_path: Path) -> None:
    hub.size = 2 << 30
    with pytest.raises(RunError, match=r"2,147,483,648 bytes"):
        cifar.CIFAR10.download(tmp_path)
    assert hub.log == []


@pytest.mark.parametrize(
    "location",
    ["http://[half", "ftp://example.org/x", "https://example.org:port/", "", "\\\\server"],
)
def test_a_malformed_redirect_is_one_line(hub: Hub, tmp_path: Path, location: str) -> None:
    hub.location = location
    with pytest.raises(RunError, match="CIFAR-10 could not be downloaded: ") as error:
        cifar.CIFAR10.download(tmp_path)
    assert "\n" not in str(error.value)


def test_a_refusal_names_both_sources_and_what_to_do_by_hand(hub: Hub, tmp_path: Path) -> None:
    hub.status = 404
    with pytest.raises(RunError, match="404") as error:
        cifar.CIFAR10.download(tmp_path)
    message = str(error.value)
    assert "cs.toronto.edu/~kriz/cifar-10-python.tar.gz: no route to Toronto" in message
    page = "https://huggingface.co/datasets/uoft-cs/cifar10/tree/main/plain_text"
    assert f"download {TRAIN} and {TEST} from {page} into {tmp_path / 'cifar10'}" in message
    assert "\n" not in message


def test_a_folder_that_cannot_be_made(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be created \(.*\); choose another --data-dir"):
        cifar.CIFAR10.download(tmp_path / "file")
    assert hub.log == []


@pytest.mark.parametrize("name", [TRAIN, f"{download.INCOMPLETE}/plain_text/{TRAIN}"])
def test_a_link_that_leads_elsewhere_is_not_written_through(
    hub: Hub, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    link = tmp_path / "cifar10" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    assert files_in(cifar.CIFAR10.download(tmp_path)) == CONTENTS
    assert outside.read_text() == "mine"
    assert not (tmp_path / "cifar10" / TRAIN).is_symlink()


def test_the_command_reports_a_failed_download_in_one_line(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.status = 404
    assert run_command(["data", "cifar10", "--download", "--data-dir", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "CIFAR-10 could not be downloaded" in err
    assert "Traceback" not in err
