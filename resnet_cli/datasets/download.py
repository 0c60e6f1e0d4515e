"""Fetching CIFAR-10 and CIFAR-100: resumable, checked, put in place whole or not at all.

First source: the parquet files of the Hugging Face mirror. Second source: torchvision's own
download, from the data set's home in Toronto, which has been slow since June 2026
(github.com/pytorch/vision/issues/9536).
"""

import contextlib
import hashlib
import http.client
import os
import re
import socket
import sys
import urllib.error
import urllib.request
import warnings
from email.message import Message
from pathlib import Path
from typing import IO, Literal, cast

from resnet_cli import __version__
from resnet_cli.datasets import data
from resnet_cli.datasets.data import CIFAR_TITLES, Progress, Split, SplitName, read_parquet
from resnet_cli.runtime.errors import RunError, UserError, unknown

MIRROR = "https://huggingface.co/datasets/uoft-cs"
FOLDERS = {"cifar10": "plain_text", "cifar100": "cifar100"}
"""The folder of the parquet files within each data set's repository."""
FILES: dict[SplitName, str] = {
    "train": "train-00000-of-00001.parquet",
    "test": "test-00000-of-00001.parquet",
}
TIMEOUT = 30.0
"""Seconds without an answer after which a connection is given up."""
ATTEMPTS = 5
"""How often a transfer that breaks off is taken up again."""
CHUNK = 1 << 20
MAX_FILE = 1 << 30
"""Larger files are refused; the largest genuine one has about 120 MB."""

CONTENT: dict[tuple[str, str], str] = {
    ("cifar10", "train"): "55c8a3bce23874fd5871719a30be30ce1b1f86e2f74afbc9cc19d1252b74adde",
    ("cifar10", "test"): "7d79e752791e1a3f8555c99847bcbd1210edb70997e4519cd59bb1741e4f6ee7",
}
"""`content_digest` of the complete splits, however they are ordered or encoded.

Made with that function from a complete copy in the mirror's layout, losslessly encoded, whose
training means (0.4914, 0.4822, 0.4465) and deviations (0.2470, 0.2435, 0.2616) are the published
ones. CIFAR-100 has none: its files are checked against the server's checksum and by their labels.
"""


class _MirrorError(Exception):
    """The first source does not deliver; one line says why."""


class _BrokenOffError(_MirrorError):
    """A transfer ended early; taking it up again may help."""


def content_digest(split: Split) -> str:
    """A digest of a set of images with labels that does not depend on their order.

    The sum, modulo 2^256, of SHA-256(pixels in the order H, W, C + one byte of label) over all
    images, as 64 hex digits.
    """
    total = 0
    pixels = split.images.permute(0, 2, 3, 1).contiguous().numpy()
    for image, label in zip(pixels, split.labels.tolist(), strict=True):
        digest = hashlib.sha256(image.data)
        digest.update(bytes([label]))
        total += int.from_bytes(digest.digest(), "big")
    return f"{total % (1 << 256):064x}"


def verify_content(split: Split) -> str:
    """Compare a complete split with the published pixels.

    Returns:
        words to put behind a count: that they agree, differ, or nothing if none are pinned.
    """
    published = CONTENT.get((split.dataset, split.split))
    if published is None or len(split) != data.CIFAR_COUNTS[split.split]:
        return ""
    if content_digest(split) == published:
        return " (pixels verified)"
    return " (pixels differ from the published set)"


def fetch(
    dataset: Literal["cifar10", "cifar100"],
    root: Path,
    *,
    mirror: str = MIRROR,
    progress: Progress | None = None,
) -> Path:
    """Fetch a data set into `root`, unless a sound copy is there.

    A file is streamed to `<name>.part`, which a later call takes up again; it gets its name only
    after its length, its SHA-256 (if the server tells it), its labels and its images were
    checked. A damaged file that has the name already is replaced.

    Args:
        dataset: which.
        root: the data folder; the files go to `root/<dataset>`.
        mirror: the address above the repositories `cifar10` and `cifar100`.
        progress: called with (file name, bytes so far, bytes in all or None).

    Returns:
        the folder with the files: parquet from the mirror, else torchvision's.

    Raises:
        UserError: the data set cannot be fetched, or the folder not be written.
        RunError: both sources failed, or the disk did; says what to put where by hand.
    """
    if dataset not in FOLDERS:
        raise unknown("data set to fetch", dataset, FOLDERS)
    if not mirror.startswith(("https://", "http://")):
        raise UserError(f"the mirror {mirror!r} must be an http or https address")
    folder = root / dataset
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made ({error.strerror}); choose another --data-dir"
        ) from None
    address = f"{mirror.rstrip('/')}/{dataset}/resolve/main/{FOLDERS[dataset]}"
    try:
        for split, name in FILES.items():
            _fetch_file(dataset, split, f"{address}/{name}", folder / name, progress)
        return folder
    except _MirrorError as error:
        first = error
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None
    try:
        return _from_torchvision(dataset, root)
    except Exception as second:  # whatever goes wrong in there, the user needs the same line
        base, url = _torchvision_source(dataset)
        raise RunError(
            f"{CIFAR_TITLES[dataset]} could not be fetched: {first}; {url}: {_one_line(second)}; "
            f"by hand: put {' and '.join(FILES.values())} from {address} into {folder}, "
            f"or unpack {url.rsplit('/', 1)[-1]} so that {root / base} exists"
        ) from None


# --- the second source -----------------------------------------------------------------------


def _torchvision_source(dataset: str) -> tuple[str, str]:
    """The folder torchvision makes, and the address it fetches from."""
    from torchvision.datasets import CIFAR10, CIFAR100

    source = {"cifar10": CIFAR10, "cifar100": CIFAR100}[dataset]
    return source.base_folder, source.url


def _from_torchvision(dataset: str, root: Path) -> Path:
    """torchvision's own download, which checks the MD5 of all it fetches and loads."""
    from torchvision.datasets import CIFAR10, CIFAR100

    source = {"cifar10": CIFAR10, "cifar100": CIFAR100}[dataset]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision sets none and would wait for ever
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source(root, download=True)
    finally:
        socket.setdefaulttimeout(before)
    return root / cast(str, source.base_folder)


# --- the first source ------------------------------------------------------------------------


def _fetch_file(
    dataset: str, split: SplitName, url: str, target: Path, progress: Progress | None
) -> None:
    """Fetch one parquet file, unless a sound one is there."""
    if target.exists() and _problem(dataset, split, target) is None:
        return
    part = target.with_name(target.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            announced = _transfer(url, part, progress)
            break
        except _BrokenOffError:
            if attempt == ATTEMPTS:
                raise
    found = _sha256(part)
    if announced is not None and found != announced:
        part.unlink()
        raise _MirrorError(f"{url}: checksum {found[:12]}… instead of {announced[:12]}…")
    problem = _problem(dataset, split, part)
    if problem is not None:
        part.unlink()
        raise _MirrorError(f"{url}: {problem}")
    os.replace(part, target)


def _transfer(url: str, part: Path, progress: Progress | None) -> str | None:
    """Bring `part` to its full length, from where it stands.

    Returns:
        the SHA-256 that the server announces, or None.

    Raises:
        _BrokenOffError: the transfer ended early, or `part` does not fit and was removed.
        _MirrorError: the server refuses or cannot be reached.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": f"resnet-cli/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:  # nothing is left to send, or `part` is too long
                if _content_range(error.headers)[1] == have:
                    return redirects.sha256 or _announced(error.headers)
                part.unlink()
                raise _BrokenOffError(f"{url}: HTTP 416 for a part of {have:,} bytes") from None
            raise _MirrorError(f"{url}: HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _MirrorError(f"{url}: {_one_line(reason)}") from None
    with response:
        total = _length(response.headers)
        if response.status == 206:
            start, total = _content_range(response.headers)
            if start != have:
                part.unlink()
                raise _BrokenOffError(f"{url}: the server resumed at {start}, not at {have}")
        else:
            have = 0  # the server ignores Range and sends all
        if total is not None and total > MAX_FILE:
            raise _MirrorError(f"{url}: {total:,} bytes are too many for {part.stem}")
        with part.open("ab" if have else "wb") as file:
            while chunk := _read(response, url):
                have += file.write(chunk)
                if have > MAX_FILE:
                    break
                if progress is not None:
                    progress(part.stem, have, total)
            file.flush()
            os.fsync(file.fileno())
    if have > MAX_FILE:
        part.unlink()
        raise _MirrorError(f"{url}: does not end after {have:,} bytes")
    if total is not None and have != total:
        raise _BrokenOffError(f"{url}: ended after {have:,} of {total:,} bytes")
    return redirects.sha256 or _announced(response.headers)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, never from https to http, and keeps the checksum told on the way.

    Hugging Face answers with the file's SHA-256 and a redirect to a content network, which
    knows nothing of it.
    """

    def __init__(self) -> None:
        self.sha256: str | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise urllib.error.URLError(f"refused a redirect from https to {newurl}")
        if self.sha256 is None:
            self.sha256 = _announced(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _announced(headers: Message) -> str | None:
    """The SHA-256 in X-Linked-Etag; other tags there are no checksum of the file."""
    match = re.fullmatch(r'(?:W/)?"?([0-9a-fA-F]{64})"?', headers.get("X-Linked-Etag", "").strip())
    return match[1].lower() if match else None


def _length(headers: Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,15}", text) else None


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """(first byte, bytes in all) from Content-Range, each None if it is not told."""
    match = re.fullmatch(
        r"bytes (?:(\d{1,15})-\d{1,15}|\*)/(\d{1,15}|\*)", headers.get("Content-Range", "").strip()
    )
    if match is None:
        return None, None
    start, total = match.groups()
    return (None if start is None else int(start)), (None if total == "*" else int(total))


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(f"{url}: broke off: {_one_line(error)}") from None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _problem(dataset: str, split: SplitName, file: Path) -> str | None:
    """What is wrong with a parquet file's content, or None."""
    try:
        images = read_parquet(dataset, split, [file])
    except UserError as error:
        return str(error)
    published = CONTENT.get((dataset, split))
    if published is not None and content_digest(images) != published:
        return f"its images are not those of {CIFAR_TITLES[dataset]}"
    return None


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
