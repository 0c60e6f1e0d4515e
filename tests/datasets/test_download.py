"""Fetching from a server on the loopback address; no test reaches the network."""

import hashlib
import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets import data, download
from resnet_cli.datasets.data import Split, load_split
from resnet_cli.runtime.errors import RunError, UserError

TRAIN, TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"


def parquet_bytes(count: int, label: str = "label") -> bytes:
    """A file of random images, equally many of each of ten classes."""
    encoded = []
    for pixels in np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        encoded.append({"bytes": stream.getvalue(), "path": "x.png"})
    table = pa.table({"img": encoded, label: [i % 10 for i in range(count)]})
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


CONTENTS = {TRAIN: parquet_bytes(40), TEST: parquet_bytes(20)}


class Server:
    """What the loopback server serves, and in which ways it misbehaves."""

    def __init__(self) -> None:
        self.files = dict(CONTENTS)
        self.ranges = True
        """Whether Range is honoured."""
        self.cuts: list[int] = []
        """Bytes after which the next answers break off, one for each answer."""
        self.claim = 0
        """How many bytes more than there are Content-Length claims."""
        self.sha256: str | None = "right"
        """What X-Linked-Etag tells: the right checksum, none, or this text."""
        self.redirect = False
        """Answer with the checksum and a redirect, as Hugging Face does."""
        self.status: int | None = None
        """Refuse everything with this status."""
        self.log: list[tuple[str, str | None]] = []
        """(file name, Range) of each file request."""
        self.address = ""


def handler_for(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[-1]
            content = server.files.get(name)
            if server.status is not None or content is None:
                self.send_error(server.status or 404)
                return
            etag = (
                hashlib.sha256(content).hexdigest() if server.sha256 == "right" else server.sha256
            )
            if server.redirect and not self.path.startswith("/content/"):
                self.send_response(302)
                if etag is not None:
                    self.send_header("X-Linked-Etag", f'"{etag}"')
                self.send_header("Location", f"/content/{name}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            wanted = self.headers.get("Range")
            server.log.append((name, wanted))
            start = 0
            if wanted is not None and server.ranges:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            else:
                self.send_response(200)
            if etag is not None and not server.redirect:
                self.send_header("X-Linked-Etag", f'"{etag}"')
            body = content[start:]
            self.send_header("Content-Length", str(len(body) + server.claim))
            self.end_headers()
            self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(state))
    state.address = f"http://127.0.0.1:{http.server_address[1]}/datasets/uoft-cs"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits of 40 and 20 images whose pixels count as the published ones; no second source."""
    monkeypatch.setattr(data, "CIFAR_COUNTS", {"train": 40, "test": 20})
    monkeypatch.setattr(download, "CONTENT", {})
    monkeypatch.setattr(download, "CHUNK", 4096)

    def unreachable(dataset: str, root: Path) -> Path:
        raise OSError("no route to Toronto")

    monkeypatch.setattr(download, "_from_torchvision", unreachable)


def fetch(server: Server, root: Path, progress: data.Progress | None = None) -> Path:
    return download.fetch("cifar10", root, mirror=server.address, progress=progress)


def fetched(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# --- what succeeds ---------------------------------------------------------------------------


@pytest.mark.parametrize("redirect", [False, True])
@pytest.mark.parametrize("sha256", ["right", None, "0" * 40])  # 40 digits: no SHA-256, no matter
def test_a_whole_set_is_fetched(
    server: Server, tmp_path: Path, redirect: bool, sha256: str | None
) -> None:
    server.redirect, server.sha256 = redirect, sha256
    told: list[tuple[str, int, int | None]] = []
    root = tmp_path / "new" / "root"
    folder = fetch(server, root, lambda *step: told.append(step))
    assert folder == root / "cifar10"
    assert fetched(folder) == CONTENTS
    assert [name for name, _ in server.log] == [TRAIN, TEST]
    for name, content in CONTENTS.items():
        steps = [(done, total) for file, done, total in told if file == name]
        assert steps[-1] == (len(content), len(content))
        assert steps == sorted(steps)
    assert len(load_split(DataConfig(dataset="cifar10"), "test", root)) == 20


def test_addresses_are_those_of_the_mirror() -> None:
    assert download.MIRROR == "https://huggingface.co/datasets/uoft-cs"
    assert download.FOLDERS == {"cifar10": "plain_text", "cifar100": "cifar100"}


def test_what_is_there_and_sound_is_kept(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    server.log.clear()
    fetch(server, tmp_path)
    assert server.log == []
    (tmp_path / "cifar10" / TEST).write_bytes(CONTENTS[TEST][:1000])
    fetch(server, tmp_path)
    assert server.log == [(TEST, None)]
    assert fetched(tmp_path / "cifar10") == CONTENTS


def test_a_transfer_that_breaks_off_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.cuts = [10_000, 5_000]
    assert fetched(fetch(server, tmp_path)) == CONTENTS
    assert server.log == [
        (TRAIN, None),
        (TRAIN, "bytes=10000-"),
        (TRAIN, "bytes=15000-"),
        (TEST, None),
    ]


def test_an_interrupted_call_is_taken_up_by_the_next(server: Server, tmp_path: Path) -> None:
    def interrupt(name: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path, interrupt)
    (part,) = (tmp_path / "cifar10").iterdir()
    assert part.name == f"{TRAIN}.part"
    assert part.read_bytes() == CONTENTS[TRAIN][:4096]
    server.log.clear()
    assert fetched(fetch(server, tmp_path)) == CONTENTS
    assert server.log[0] == (TRAIN, "bytes=4096-")


def test_a_server_that_ignores_range_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts = [10_000]
    assert fetched(fetch(server, tmp_path)) == CONTENTS
    assert server.log[:2] == [(TRAIN, None), (TRAIN, "bytes=10000-")]


def test_a_part_that_is_complete_already_needs_no_more_bytes(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / f"{TRAIN}.part").write_bytes(CONTENTS[TRAIN])
    assert fetched(fetch(server, tmp_path)) == CONTENTS
    assert [name for name, _ in server.log] == [TRAIN, TEST]


def test_a_part_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / f"{TRAIN}.part").write_bytes(CONTENTS[TRAIN] + b"more")
    assert fetched(fetch(server, tmp_path)) == CONTENTS
    assert server.log[1] == (TRAIN, None)


def test_a_part_of_another_file_is_found_out_and_thrown_away(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / f"{TRAIN}.part").write_bytes(b"x" * 5000)
    with pytest.raises(RunError, match=r"checksum [0-9a-f]{12}… instead of"):
        fetch(server, tmp_path)
    assert fetched(fetch(server, tmp_path)) == CONTENTS


# --- what fails ------------------------------------------------------------------------------


def nothing_is_in_place(root: Path) -> bool:
    return [f.name for f in (root / "cifar10").iterdir() if f.suffix == ".parquet"] == []


def test_a_wrong_length_is_refused(server: Server, tmp_path: Path) -> None:
    server.ranges, server.claim = False, 100
    length = len(CONTENTS[TRAIN])
    with pytest.raises(RunError, match=rf"ended after {length:,} of {length + 100:,} bytes"):
        fetch(server, tmp_path)
    assert len(server.log) == download.ATTEMPTS
    assert nothing_is_in_place(tmp_path)


@pytest.mark.parametrize("redirect", [False, True])
def test_a_wrong_checksum_is_refused(server: Server, tmp_path: Path, redirect: bool) -> None:
    server.redirect, server.sha256 = redirect, "ab" * 32
    with pytest.raises(RunError, match=rf"{TRAIN}: checksum [0-9a-f]{{12}}… instead of abababab"):
        fetch(server, tmp_path)
    assert list((tmp_path / "cifar10").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>sign in</html>", "damaged, or no parquet file"),
        (CONTENTS[TEST], "20 images; the train split of CIFAR-10 has 40"),
        (parquet_bytes(40, label="coarse_label"), "has the columns img"),
    ],
)
def test_content_that_is_no_cifar_is_refused(
    server: Server, tmp_path: Path, content: bytes, message: str
) -> None:
    server.files[TRAIN] = content
    with pytest.raises(RunError, match=message):
        fetch(server, tmp_path)
    assert list((tmp_path / "cifar10").iterdir()) == []


def test_other_pixels_than_the_published_are_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "CONTENT", {("cifar10", "train"): "0" * 64})
    with pytest.raises(RunError, match="its images are not those of CIFAR-10"):
        fetch(server, tmp_path)
    assert nothing_is_in_place(tmp_path)


@pytest.mark.parametrize(("status", "words"), [(404, "Not Found"), (503, "Service Unavailable")])
def test_a_refusal_names_both_sources_and_what_to_do_by_hand(
    server: Server, tmp_path: Path, status: int, words: str
) -> None:
    server.status = status
    with pytest.raises(RunError, match=rf"HTTP {status} {words}") as error:
        fetch(server, tmp_path)
    message = str(error.value)
    folder = f"{server.address}/cifar10/resolve/main/plain_text"
    assert f"{folder}/{TRAIN}" in message
    assert "cs.toronto.edu/~kriz/cifar-10-python.tar.gz: no route to Toronto" in message
    assert f"by hand: put {TRAIN} and {TEST} from {folder} into {tmp_path / 'cifar10'}" in message
    assert str(tmp_path / "cifar-10-batches-py") in message
    assert "\n" not in message


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_refused_connection_leads_to_the_second_source(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(RunError, match=r"Connection refused; https.*no route to Toronto; by hand"):
        download.fetch("cifar100", tmp_path, mirror=nobody)
    monkeypatch.setattr(download, "_from_torchvision", lambda dataset, root: root / dataset / "tv")
    assert download.fetch("cifar100", tmp_path, mirror=nobody) == tmp_path / "cifar100" / "tv"


def test_the_second_source_is_torchvisions_own_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torchvision

    calls: list[tuple[Path, bool, float | None]] = []

    class Fake:
        base_folder = "cifar-10-batches-py"

        def __init__(self, root: Path, download: bool) -> None:
            print("progress")
            calls.append((root, download, socket.getdefaulttimeout()))

    monkeypatch.undo()  # the real second source, but a fake torchvision
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    assert download._from_torchvision("cifar10", tmp_path) == tmp_path / "cifar-10-batches-py"
    assert calls == [(tmp_path, True, download.TIMEOUT)]
    assert socket.getdefaulttimeout() is None
    assert capsys.readouterr().out == ""  # stdout belongs to the program's answer


def test_too_large_a_file_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_FILE", 10_000)
    with pytest.raises(RunError, match=r"bytes are too many for train-"):
        fetch(server, tmp_path)
    assert nothing_is_in_place(tmp_path)


def test_only_web_addresses_and_known_sets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mirror 'file:///etc' must be an http or https address"):
        download.fetch("cifar10", tmp_path, mirror="file:///etc")
    with pytest.raises(UserError, match=r"unknown data set to fetch 'digits' \(known: cifar10"):
        download.fetch("digits", tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_away_from_https_is_refused() -> None:
    import urllib.error
    import urllib.request
    from http.client import HTTPMessage

    request = urllib.request.Request("https://example.org/x")
    with pytest.raises(urllib.error.URLError, match="refused a redirect from https to http://"):
        download._Redirects().redirect_request(
            request, io.BytesIO(), 302, "", HTTPMessage(), "http://example.org/x"
        )


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be made \(.*\); choose another --data-dir"):
        fetch(server, tmp_path / "file")
    assert server.log == []


def test_a_part_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cifar10" / f"{TRAIN}.part").mkdir(parents=True)
    with pytest.raises(RunError, match=r"cifar10: cannot be written: Is a directory"):
        fetch(server, tmp_path)


# --- the digest ------------------------------------------------------------------------------


def test_content_digest_is_the_sum_of_the_images_hashes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    labels = [3, 1, 4, 1, 5, 9]
    total = sum(
        int(hashlib.sha256(image.tobytes() + bytes([label])).hexdigest(), 16)
        for image, label in zip(pixels, labels, strict=True)
    )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for order in (list(range(6)), [5, 2, 0, 1, 4, 3]):
        split = Split("fake", "train", images[order], torch.tensor(labels)[order], (), "")
        assert download.content_digest(split) == f"{total % 2**256:064x}"
    swapped = Split("fake", "train", images, torch.tensor([1, 3, 4, 1, 5, 9]), (), "")
    assert download.content_digest(swapped) != f"{total % 2**256:064x}"
