"""Which files an argument means: each once, in order, and never for ever."""

import logging
import os
import re
import socket

import pytest

from cifar_jax.data import image_paths
from cifar_jax.data.image_paths import find
from cifar_jax.errors import UserError


def touch(directory, *names):
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()


@pytest.fixture
def photos(tmp_path):
    """Images, what a directory skips, and links in circles, to what is there and to elsewhere."""
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


def relative(paths, directory):
    return [os.path.relpath(path, directory) for path in paths]


def note(caplog):
    """The line about what is skipped: its argument, total, and count by reason."""
    (record,) = caplog.records
    argument, total, reasons = re.fullmatch(
        r"(.*): (\d+) skipped \((.*)\)", record.getMessage()
    ).groups()
    counts = re.findall(r"(?:^|, )(.*?): (\d+)", reasons)
    return argument, int(total), {reason: int(count) for reason, count in counts}


def test_a_directory_is_its_images_at_any_depth_and_counts_what_it_skips(photos, caplog):
    caplog.set_level(logging.INFO)
    assert relative(find(str(photos)), photos) == NAMES
    assert note(caplog) == (str(photos), sum(SKIPPED.values()), SKIPPED)


def test_a_directory_of_images_alone_says_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    touch(tmp_path, "a.png", "b/c.jpg")
    assert len(find(str(tmp_path))) == 2 and not caplog.records


def test_a_link_that_is_named_is_followed(photos, monkeypatch):
    assert relative(find(f"{photos}/out"), photos) == ["out/6.png"]
    assert relative(find(f"{photos}/out/"), photos) == ["out/6.png"]
    assert relative(find(f"{photos}/o*/"), photos) == ["out/6.png"]
    assert relative(find(f"{photos}/loop"), f"{photos}/loop") == NAMES


def test_a_file_is_itself_whatever_its_name(tmp_path):
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
def test_a_pattern_is_what_matches_it_each_once(photos, pattern, expected, monkeypatch):
    assert relative(find(f"{photos}/{pattern}"), photos) == expected
    monkeypatch.chdir(photos)
    assert relative(find(pattern), ".") == expected


@pytest.mark.parametrize("pattern", ["*", "**/*", "**/**/*"])
def test_a_pattern_enters_no_link(photos, pattern):
    """Else all images come again by each link, and again by the links behind it."""
    (photos / "pipe.png").unlink()
    for name in ("broken.png", "z/self.png", "deep/notes.txt", "z/LICENSE", "empty/nothing"):
        (photos / name).unlink()
    (photos / "empty").rmdir()
    found = relative(find(f"{photos}/{pattern}"), photos)
    assert sorted(found) == sorted(NAMES)


def test_many_links_take_no_longer_than_a_few(tmp_path):
    """Ten directories that all link to each other: ten to the fortieth paths, one image each."""
    for i in range(10):
        touch(tmp_path, f"{i}/{i}.png")
        for j in range(10):
            (tmp_path / f"{i}/to{j}").symlink_to(f"../{j}")
    assert len(find(f"{tmp_path}/**/*.png")) == len(find(str(tmp_path))) == 10


def test_a_pattern_stays_a_pattern_in_directories_with_odd_names(tmp_path, monkeypatch):
    touch(tmp_path, "a[1]*/x.png", "a1/x.png", "line\nend/x.png")
    monkeypatch.chdir(tmp_path)
    assert find("**/x.png") == ["a1/x.png", "a[1]*/x.png", "line\nend/x.png"]


@pytest.mark.parametrize(("argument", "reason"), [
    ("nowhere.png", "does not exist"), ("z/*.jpg", "nor matches"), ("empty", "holds no image"),
    ("1.png/2.png", "does not exist"), ("**/no", "nor matches"),
])  # fmt: skip
def test_an_argument_without_images_is_named(photos, argument, reason):
    with pytest.raises(UserError, match=f"{re.escape(argument)}.* {reason}"):
        find(str(photos / argument))


def test_what_cannot_be_looked_at_is_tried_and_so_named(photos, monkeypatch):
    """A directory without permissions, what is in it, a link to itself, a name of many letters."""
    scandir, stat = os.scandir, os.stat

    def refused(function):
        def call(path=".", **options):
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


def test_what_is_no_file_is_tried_and_not_waited_for_in_finding_it(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
        for name in (str(photos / "pipe.png"), "socket.png", "/dev/null"):
            assert find(name) == [name]
