"""Image files: which of a folder's files are images, and how they are decoded."""

import os
from pathlib import Path

import numpy as np
import pytest
from dataset_files import class_folders, encode, noise, write_image
from PIL import Image

from resnet_cli.datasets.images import class_names, image_files, open_rgb, pixels_of
from resnet_cli.runtime.errors import UserError


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder of class folders."""
    (tmp_path / "top").mkdir()
    return tmp_path / "top"


def files_of(root: Path) -> list[str]:
    """The image files of the classes in a folder, from there on, sorted."""
    files, _ = image_files(root, root, class_names(root))
    return sorted(str(Path(file).relative_to(root)) for file in files)


def test_hidden_files_and_folders_are_left_out_everywhere(top: Path) -> None:
    """Jupyter's copies, macOS's companions of files, and what file managers leave behind."""
    class_folders(top, ["cat", "dog"], size=14)
    plain = files_of(top)
    cat = top / "cat"
    (cat / "._0.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    (cat / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (cat / "Thumbs.db").write_bytes(b"x")
    (cat / "desktop.ini").write_text("[x]")
    write_image(cat / ".ipynb_checkpoints" / "0-checkpoint.png", noise(14, 14))
    write_image(top / "__MACOSX" / "cat" / "0.png", noise(14, 14))
    (top / ".ipynb_checkpoints").mkdir()
    assert class_names(top) == ["cat", "dog"]
    assert files_of(top) == plain


def test_files_that_could_be_images_are_not_left_out_silently(top: Path) -> None:
    class_folders(top, ["cat"])
    np.save(top / "cat" / "2.npy", noise(14, 14))
    with pytest.raises(UserError, match=r"cat: 1 files of other kinds, such as 2\.npy"):
        files_of(top)


@pytest.mark.parametrize("place", ["\udcff", "cat/\udcff.png"])
def test_names_that_are_not_text_are_refused(top: Path, place: str) -> None:
    class_folders(top, ["cat"])
    if place.endswith(".png"):
        (top / place).write_bytes(encode(noise(14, 14)))
    else:
        (top / place).mkdir()
    with pytest.raises(UserError, match=r"udcff.*: its name is not UTF-8; rename it") as error:
        files_of(top)
    str(error.value).encode()


@pytest.mark.parametrize(("levels", "readable"), [(1400, True), (2100, False)])
def test_class_folders_may_be_deep(top: Path, levels: int, readable: bool) -> None:
    """Deeper than Python's recursion limit, and than a path can be long."""
    class_folders(top, ["cat"], size=14)
    before, made = os.getcwd(), 0
    os.chdir(top / "cat")
    try:
        for _ in range(levels):
            os.mkdir("d")
            os.chdir("d")
            made += 1
        Path("x.png").write_bytes(encode(noise(14, 14)))
        if readable:
            assert len(files_of(top)) == 3
        else:
            with pytest.raises(UserError, match=r"…: cannot be read: File name too long"):
                files_of(top)
    finally:  # a recursive removal would fail
        Path("x.png").unlink(missing_ok=True)
        for _ in range(made):
            os.chdir("..")
            os.rmdir("d")
        os.chdir(before)


@pytest.mark.parametrize("name", ["x.tif", "x.PPM", "x.bmp", "x.gif", "x.PNG", "x.TIFF"])
def test_every_kind_of_image_is_read(top: Path, name: str) -> None:
    file = top / "a" / name
    file.parent.mkdir()
    suffix = file.suffix[1:].upper()
    form = "TIFF" if suffix.startswith("TIF") else suffix
    Image.fromarray(np.full((14, 14, 3), 60, np.uint8)).save(file, form)
    assert files_of(top) == [f"a/{name}"]
    assert (pixels_of(open_rgb(file, name)) == 60).all()


@pytest.mark.parametrize("form", ["png", "tif"])
def test_grey_images_of_16_bits_are_scaled(top: Path, form: str) -> None:
    grey = (257 * np.arange(196, dtype=np.uint16)).reshape(14, 14)
    file = top / f"x.{form}"
    Image.fromarray(grey).save(file)
    expected = np.repeat((grey // 257).astype(np.uint8)[..., None], 3, 2)
    assert np.array_equal(pixels_of(open_rgb(file, "x")), expected)


def test_pixels_of_unknown_range_are_refused(top: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(top / "x.tif")
    with pytest.raises(UserError, match=r"x\.tif: has 32-bit pixels"):
        open_rgb(top / "x.tif", "x.tif")
