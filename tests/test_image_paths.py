"""Which files an argument stands for: each once, in order, and without endless searches."""

import logging
import os
import pathlib
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from cifar_jax.data import image_paths
from cifar_jax.data.image_paths import find
from cifar_jax.errors import UserError


def touch(directory: pathlib.Path, *names: str):
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()


@pytest.fixture
def photos(tmp_path: pathlib.Path):
    """Images, files that are skipped, link loops, and links to files inside and outside."""
    directory = tmp_path / "photos"
    touch(directory, "1.png", "2.PNG", "é.webp", "deep/er/4.bmp", "z/a.png")
    touch(directory, ".hidden.png", "deep/notes.txt", "z/LICENSE", ".git/5.png", "empty/nothing")
    touch(tmp_path, "elsewhere/6.png")
    for name, target in (("loop", "."), ("deep/up", "../.."), ("out", "../elsewhere"),
                         ("broken.png", "nowhere.png"), ("z/self.png", "self.png")):  # fmt: skip
        (directory / name).symlink_to(target)
    (directory / "z/linked.png").symlink_to("../../elsewhere/6.png")
    os.mkfifo(directory / "pipe.png")
    return directory


NAMES = ["1.png", "2.PNG", "é.webp", "deep/er/4.bmp", "z/a.png", "z/linked.png"]
SKIPPED = {"hidden": 2, "links": 5, "pipes, sockets and devices": 1, "other suffixes": 3}


def relative(paths: list[str], directory: pathlib.Path | str):
    return [os.path.relpath(path, directory) for path in paths]


def note(caplog: pytest.LogCaptureFixture):
    """Parses the log line about skipped files: argument, total, and count by reason."""
    (record,) = caplog.records
    match = re.fullmatch(r"(.*): (\d+) skipped \((.*)\)", record.getMessage())
    assert match is not None
    argument, total, reasons = match.groups()
    counts = re.findall(r"(?:^|, )(.*?): (\d+)", reasons)
    return argument, int(total), {reason: int(count) for reason, count in counts}


def test_a_directory_gives_its_images_at_any_depth_and_counts_skipped_files(
    photos: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    assert relative(find(str(photos)), photos) == NAMES
    assert note(caplog) == (str(photos), sum(SKIPPED.values()), SKIPPED)


def test_a_directory_with_images_only_logs_nothing(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    touch(tmp_path, "a.png", "b/c.jpg")
    assert len(find(str(tmp_path))) == 2 and not caplog.records


def test_a_link_named_in_the_argument_is_followed(
    photos: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    assert relative(find(f"{photos}/out"), photos) == ["out/6.png"]
    assert relative(find(f"{photos}/out/"), photos) == ["out/6.png"]
    assert relative(find(f"{photos}/o*/"), photos) == ["out/6.png"]
    assert relative(find(f"{photos}/loop"), f"{photos}/loop") == NAMES


def test_a_file_stands_for_itself_whatever_its_name(tmp_path: pathlib.Path):
    for name in ("notes.txt", "a[1].png", "*.png", "**", "-"):
        (tmp_path / name).touch()
        assert find(str(tmp_path / name)) == [str(tmp_path / name)]
    assert find("-") == ["-"]


@pytest.mark.parametrize(("pattern", "expected"), [
    ("**/[4a].*", ["deep/er/4.bmp", "z/a.png"]),
    ("[dz]*/", ["deep/er/4.bmp", "z/a.png", "z/linked.png"]),
    ("**", NAMES),
    ("**/", NAMES),
    ("**/**/**", NAMES),
    ("**/*.bmp", ["deep/er/4.bmp"]),
    ("**/**/**/**/**/**/*.bmp", ["deep/er/4.bmp"]),
    ("**/er/**/*.bmp", ["deep/er/4.bmp"]),
    ("z/**/a.png", ["z/a.png"]),
    ("z/**", ["z/a.png", "z/linked.png"]),
    ("?/a.png", ["z/a.png"]),
    ("de**/*/4.bmp", ["deep/er/4.bmp"]),
])  # fmt: skip
def test_a_pattern_gives_each_matching_file_once(
    photos: pathlib.Path, pattern: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
):
    assert relative(find(f"{photos}/{pattern}"), photos) == expected
    monkeypatch.chdir(photos)
    assert relative(find(pattern), ".") == expected


@pytest.mark.parametrize("pattern", ["*", "**/*", "**/**/*"])
def test_a_pattern_does_not_follow_links(photos: pathlib.Path, pattern: str):
    """Otherwise each link, and each link behind it, would give all images again."""
    (photos / "pipe.png").unlink()
    for name in ("broken.png", "z/self.png", "deep/notes.txt", "z/LICENSE", "empty/nothing"):
        (photos / name).unlink()
    (photos / "empty").rmdir()
    found = relative(find(f"{photos}/{pattern}"), photos)
    assert sorted(found) == sorted(NAMES)


def test_links_do_not_multiply_the_search(tmp_path: pathlib.Path):
    """Ten directories that all link to each other have about 1e40 paths, but one image each."""
    for i in range(10):
        touch(tmp_path, f"{i}/{i}.png")
        for j in range(10):
            (tmp_path / f"{i}/to{j}").symlink_to(f"../{j}")
    assert len(find(f"{tmp_path}/**/*.png")) == len(find(str(tmp_path))) == 10


def test_patterns_work_in_directories_with_odd_names(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    touch(tmp_path, "a[1]*/x.png", "a1/x.png", "line\nend/x.png")
    monkeypatch.chdir(tmp_path)
    assert find("**/x.png") == ["a1/x.png", "a[1]*/x.png", "line\nend/x.png"]


@pytest.mark.parametrize(("argument", "reason"), [
    ("nowhere.png", "does not exist"), ("z/*.jpg", "no file matches"), ("empty", "holds no image"),
    ("1.png/2.png", "does not exist"), ("**/no", "no file matches"),
])  # fmt: skip
def test_an_argument_without_images_is_an_error_that_names_it(
    photos: pathlib.Path, argument: str, reason: str
):
    with pytest.raises(UserError, match=f"{re.escape(argument)}.* {reason}"):
        find(str(photos / argument))


def test_what_cannot_be_inspected_is_returned_so_that_reading_it_reports_why(
    photos: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    """Directories and files without permissions, a link to itself, and a very long name."""
    scandir, stat = os.scandir, os.stat

    def refused(function: Callable[..., Any]):
        def call(path: str = ".", **options: Any):
            if str(path).endswith(("/deep", "/z/a.png")):
                raise PermissionError(13, "Permission denied", path)
            return function(path, **options)

        return call

    monkeypatch.setattr(os, "scandir", refused(scandir))
    monkeypatch.setattr(image_paths.os, "stat", refused(stat))
    expected = [name for name in NAMES if "deep" not in name] + ["deep"]
    assert relative(find(str(photos)), photos) == expected
    assert find(str(photos / "z/a.png")) == [str(photos / "z/a.png")]
    assert find(str(photos / "z/self.png")) == [str(photos / "z/self.png")]
    assert find(str(photos / "broken.png")) == [str(photos / "broken.png")]
    assert find("x" * 300) == ["x" * 300]


def test_finding_does_not_open_pipes_sockets_or_devices(
    photos: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
        for name in (str(photos / "pipe.png"), "socket.png", "/dev/null"):
            assert find(name) == [name]
