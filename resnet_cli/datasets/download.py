"""Downloading CIFAR: from the Hugging Face mirror, or else the original archive by torchvision.

A file is checked before it is put in place: its size and its SHA-256 as the server states them,
its labels, and for CIFAR-10 the published pixels. The archive's home in Toronto has been slow since
June 2026 (github.com/pytorch/vision/issues/9536), so it comes second.
"""

import contextlib
import hashlib
import io
import os
import re
import shutil
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resnet_cli.datasets.catalogue import Progress
from resnet_cli.datasets.cifar import MIRROR_FILES, Cifar
from resnet_cli.datasets.cifar_files import read_parquet
from resnet_cli.runtime.errors import RunError, UserError, one_line

TIMEOUT = 30.0
"""Seconds without an answer after which a connection is given up."""
MAX_FILE = 1 << 30
"""Larger files are refused; the largest genuine one has about 120 MB."""
INCOMPLETE = ".download"
"""The folder of unfinished downloads, below that of the data set."""


class _MirrorError(Exception):
    """The mirror does not deliver; one line says why."""


def download_cifar(dataset: Cifar, root: Path, progress: Progress | None = None) -> Path:
    """Download a data set into `root`, unless a sound copy is there; a damaged one is replaced.

    Args:
        dataset: which; its files go to `root/<name>`.
        root: the data folder.
        progress: called with (file name, bytes so far, bytes in all or None).

    Returns:
        the folder with the files: parquet from the mirror, else torchvision's.

    Raises:
        UserError: the folder cannot be made.
        RunError: both sources failed, or the disk did; says which files to put where by hand.
    """
    folder = root / dataset.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made ({error.strerror}); choose another --data-dir"
        ) from None

    try:
        for split, name in MIRROR_FILES.items():

            def check(file: Path, split: Any = split) -> None:
                images = read_parquet(dataset, split, [file])
                if dataset.digests.get(split) not in (None, images.content_digest):
                    raise UserError(f"{file}: its images are not those of {dataset.title}")

            _download(dataset.mirror, f"{dataset.mirror_folder}/{name}", folder, check, progress)
        return folder
    except _MirrorError as error:
        reason = error
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None
    try:
        return _from_torchvision(dataset, root)
    except Exception as error:  # of any type; the user needs the same line
        page = f"https://huggingface.co/datasets/{dataset.mirror}/tree/main/{dataset.mirror_folder}"
        url = _torchvision_source(dataset).url
        raise RunError(
            f"{dataset.title} could not be downloaded: {reason}; {url}: {one_line(error)}; "
            f"by hand: put {' and '.join(MIRROR_FILES.values())} from {page} into {folder}, "
            f"or unpack {url.rsplit('/', 1)[-1]} so that "
            f"{root / dataset.torchvision_folder} exists"
        ) from None


# --- the mirror ------------------------------------------------------------------------------


def _download(
    repository: str,
    file: str,
    folder: Path,
    check: Callable[[Path], None],
    progress: Progress | None,
) -> None:
    """Download one file of a data set on the Hugging Face Hub to `folder`, unless it is there.

    Args:
        file: its path in the repository.
        check: raises UserError if the content is not what it should be.

    Raises:
        _MirrorError: the file could not be downloaded, or is not what it should be.
        OSError: it could not be written.
    """
    target = folder / Path(file).name
    if target.exists() and _problem(check, target) is None:
        return
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    source = f"{repository}/{file}"
    try:
        url = hf_hub_url(repository, file, repo_type="dataset")
        stated = get_hf_file_metadata(url, token=False, timeout=TIMEOUT)
        if stated.size is not None and stated.size > MAX_FILE:
            raise _MirrorError(f"{source}: {stated.size:,} bytes are too many")
        incomplete = hf_hub_download(
            repository,
            file,
            repo_type="dataset",
            revision=stated.commit_hash,
            local_dir=folder / INCOMPLETE,
            token=False,
            tqdm_class=_progress_bar(target.name, progress),
        )
    except _MirrorError:
        raise
    except Exception as error:  # the library and the two below it raise errors of many types
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise _MirrorError(f"{source}: {one_line(error)}") from None
    downloaded = Path(incomplete)
    problem = _checksum_problem(downloaded, stated.etag) or _problem(check, downloaded)
    if problem is not None:
        shutil.rmtree(folder / INCOMPLETE)
        raise _MirrorError(f"{source}: {problem}")
    os.replace(downloaded, target)
    shutil.rmtree(folder / INCOMPLETE)


def _problem(check: Callable[[Path], None], file: Path) -> str | None:
    """What is wrong with a file's content, or None."""
    try:
        check(file)
    except UserError as error:
        return str(error)
    return None


def _checksum_problem(file: Path, etag: str | None) -> str | None:
    """What is wrong with a file's SHA-256, if the server states one; other tags are no checksum."""
    if re.fullmatch(r"[0-9a-f]{64}", etag or "") is None:
        return None
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    return None if found == etag else f"SHA-256 {found[:12]}… instead of {str(etag)[:12]}…"


def _progress_bar(name: str, progress: Progress | None) -> Any:
    """A class that stands in for tqdm's progress bar and reports to `progress`."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)  # Hugging Face's own
            super().__init__(*arguments, **options | {"disable": False, "file": io.StringIO()})

        def display(self, *arguments: Any, **options: Any) -> None:
            if progress is not None:
                progress(name, int(self.n), None if self.total is None else int(self.total))

    return Bar


# --- the original archive --------------------------------------------------------------------


def _torchvision_source(dataset: Cifar) -> Any:
    """torchvision's class for the data set."""
    from torchvision import datasets

    return getattr(datasets, dataset.torchvision_name)


def _from_torchvision(dataset: Cifar, root: Path) -> Path:
    """torchvision's own download, which checks the MD5 of all that it downloads and loads."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision sets none and would wait for ever
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _torchvision_source(dataset)(root, download=True)
    finally:
        socket.setdefaulttimeout(before)
    return root / dataset.torchvision_folder
