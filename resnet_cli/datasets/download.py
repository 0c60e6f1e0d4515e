"""Downloading CIFAR from the Hugging Face mirror or, if that fails, the original archive.

A file is checked before it is moved to its final location: its SHA-256 against the server's, its
labels and, for CIFAR-10, its pixels. The server of the original archive in Toronto has been slow
since June 2026 (github.com/pytorch/vision/issues/9536), so it is the second choice; torchvision
downloads it.
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

from resnet_cli.datasets.catalogue import DownloadProgress
from resnet_cli.datasets.cifar import MIRROR_FILES, Cifar
from resnet_cli.datasets.cifar_files import read_parquet
from resnet_cli.runtime.errors import RunError, UserError, one_line

TIMEOUT = 30.0
"""Seconds without a response after which a connection is closed."""
MAX_FILE = 1 << 30
"""Largest file in bytes; the largest genuine one has about 120 MB."""
INCOMPLETE = ".download"
"""The subfolder for unfinished downloads."""


class _MirrorError(Exception):
    """The mirror failed; the message is one line."""


def download_cifar(dataset: Cifar, root: Path, progress: DownloadProgress | None = None) -> Path:
    """Download a data set into `root`, unless an undamaged copy is there already.

    Args:
        dataset: its files are saved in `root/<name>`.
        root: the folder of data sets.
        progress: called with (file name, bytes so far, total bytes or None).

    Returns:
        the folder with the files: parquet files from the mirror, or torchvision's files.

    Raises:
        UserError: the folder cannot be created.
        RunError: both sources failed, or a file cannot be written; the message says how to install
            the files by hand.
    """
    folder = root / dataset.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created ({error.strerror}); choose another --data-dir"
        ) from None

    try:
        for split, name in MIRROR_FILES.items():

            def check(file: Path, split: Any = split) -> None:
                images = read_parquet(dataset, split, [file])
                if dataset.digests.get(split) not in (None, images.content_digest):
                    raise UserError(f"{file}: the images are not those of {dataset.title}")

            _download(dataset.mirror, f"{dataset.mirror_folder}/{name}", folder, check, progress)
        return folder
    except _MirrorError as error:
        reason = error
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None
    try:
        return _from_torchvision(dataset, root)
    except Exception as error:  # torchvision and the libraries below raise errors of many types
        page = f"https://huggingface.co/datasets/{dataset.mirror}/tree/main/{dataset.mirror_folder}"
        url = _torchvision_source(dataset).url
        raise RunError(
            f"{dataset.title} could not be downloaded: {reason}; {url}: {one_line(error)}; "
            f"download {' and '.join(MIRROR_FILES.values())} from {page} into {folder} yourself, "
            f"or unpack {url.rsplit('/', 1)[-1]} so that "
            f"{root / dataset.torchvision_folder} exists"
        ) from None


# --- the mirror ------------------------------------------------------------------------------


def _download(
    repository: str,
    file: str,
    folder: Path,
    check: Callable[[Path], None],
    progress: DownloadProgress | None,
) -> None:
    """Download one file from the Hugging Face Hub to `folder`, unless it is there already.

    Args:
        file: its path in the repository.
        check: raises UserError if the content is wrong.

    Raises:
        _MirrorError: the file could not be downloaded, or its content is wrong.
        OSError: the file could not be written.
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
            raise _MirrorError(f"{source}: {stated.size:,} bytes, more than {MAX_FILE:,}")
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
    except Exception as error:  # the library and its dependencies raise errors of many types
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk
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
    """What is wrong with a file's SHA-256, or None; an etag in any other format is ignored."""
    if re.fullmatch(r"[0-9a-f]{64}", etag or "") is None:
        return None
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    return None if found == etag else f"SHA-256 {found[:12]}… instead of {str(etag)[:12]}…"


def _progress_bar(name: str, progress: DownloadProgress | None) -> Any:
    """A replacement for tqdm's progress bar that reports to `progress`."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)  # an option of Hugging Face's subclass
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
    """Download with torchvision, which checks the MD5 of every file that it downloads and loads."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision sets none and would wait forever
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _torchvision_source(dataset)(root, download=True)
    finally:
        socket.setdefaulttimeout(before)
    return root / dataset.torchvision_folder
