"""Damaged files of a workdir: each mode refuses them in one line, or goes on without them.

A tiny finished run is damaged file by file and value by value. Nothing is compiled: network
and plots are replaced by fakes, but the code that reads and shows the files is real.
"""

import contextlib
import copy
import json
import logging
import math
import pathlib
import shutil
import struct
import zipfile
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tiny
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from cifar_jax import export, forms, models
from cifar_jax.config import migration
from cifar_jax.data import sources
from cifar_jax.errors import UserError
from cifar_jax.evaluation import suites as robustness
from cifar_jax.evaluation import trained
from cifar_jax.pages import svg
from cifar_jax.report import evidence, figures, page
from cifar_jax.runtime import checked, metrics_writer, workdir_schema
from cifar_jax.runtime import workdir as files
from cifar_jax.training import best, claim, steps
from cifar_jax.training import run as train
from cifar_jax.training import test as evaluate
from tools import results

pytestmark = pytest.mark.slow

NEEDED = {  # mode -> the files that it needs; all others are only informative
    "train": {files.CONFIG, files.RESULT},
    "resume": {files.CONFIG, files.DATA, files.METRICS},
    "evaluate": {files.CONFIG, files.DATA, files.METRICS},
    "suite": {files.CONFIG, files.DATA, files.METRICS},
    "load": {files.CONFIG, files.DATA, files.METRICS},
    "export": {files.CONFIG, files.DATA, files.METRICS},
    "report": {files.CONFIG, files.METRICS, files.RESULT, files.PREDICTIONS},
    "compare": {files.CONFIG, files.METRICS, files.RESULT, files.PREDICTIONS},
}
FILES = [
    files.CONFIG, files.DATA, files.ENVIRONMENT, files.METRICS, files.RESULT, files.PREDICTIONS,
    files.ROBUSTNESS, files.TENSORBOARD,
]  # fmt: skip
DIRECTORY = None
CONTENTS = {
    "empty": b"", "null": b"null", "list": b"[]", "text": b'"x"', "number": b"-1", "NaN": b"NaN",
    "object": b"{}", "infinity": b'{"epoch": 1e999}', "half": b'{"epoch": 1, "st',
    "deep": b"[" * 100_000, "less deep": b'{"a":' * 500 + b"1" + b"}" * 500,
    "bytes": b"\xff\xfe{\n",
    "twice": b'{"epoch": 1, "epoch": 1}', "digits": b"9" * 5000, "surrogate": b'{"a": "\\ud800"}',
    "NULs": b"\0" * 300, "directory": DIRECTORY,
}  # fmt: skip
SUITE = robustness.SUITES["corruptions"]._replace(
    cells=lambda task: iter([("row", "column", *LOGITS)]), number=1
)
LOGITS = np.zeros((8, 4), np.float32), np.arange(8) % 4


def small_config():
    return tiny.typed(tiny.config({"epochs": 3}))


@pytest.fixture(scope="module")
def fakes():
    """Replaces everything that compiles or draws."""

    def make_eval_step(*_):
        return lambda variables, images, batch: np.zeros((len(batch), 4), np.float32)

    with (
        mock.patch.object(sources, "load", lambda _: tiny.dataset()),
        mock.patch.object(steps, "make_eval_step", make_eval_step),
        mock.patch.object(svg, "draw", lambda figure, text: Markup(text)),
        mock.patch.dict(robustness.SUITES, {"corruptions": SUITE}),
        mock.patch.object(page.summary, "layers", lambda *_: []),
    ):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> epath.Path:
    """The workdir of a finished run, with all its files."""
    workdir = epath.Path(tmp_path_factory.mktemp("runs") / "tiny")
    with (
        mock.patch.object(sources, "load", lambda _: tiny.dataset()),
        mock.patch.dict(robustness.SUITES, {"corruptions": SUITE}),
    ):
        train.run(small_config(), workdir)
        robustness.run(workdir, "corruptions", 8)
    (workdir / files.REPORT).write_text("a page")
    return workdir


@pytest.fixture(scope="module")
def workdir(
    finished: epath.Path, fakes: None, tmp_path_factory: pytest.TempPathFactory
) -> epath.Path:
    """A copy of `finished` to damage; `intact` restores it."""
    return epath.Path(shutil.copytree(finished, tmp_path_factory.mktemp("copies") / "tiny"))


@contextlib.contextmanager
def intact(workdir: epath.Path, finished: epath.Path):
    """Restores the files of the workdir afterward, except checkpoints, which nothing changes."""
    try:
        yield
    finally:
        for path in workdir.iterdir():
            if path.name != files.CHECKPOINTS:
                path.rmtree() if path.is_dir() else path.unlink()
        for path in finished.iterdir():
            if path.is_file():
                (workdir / path.name).write_bytes(path.read_bytes())


def run(mode: str, workdir: epath.Path, finished: epath.Path) -> None:
    if mode == "resume":
        if not (workdir / files.RESULT).is_dir():
            (workdir / files.RESULT).unlink()
    {
        "train": lambda: train.run(small_config(), workdir),
        "resume": lambda: train.run(small_config(), workdir),
        "evaluate": lambda: evaluate.run(workdir),
        "suite": lambda: robustness.run(workdir, "corruptions", 8),
        "load": lambda: trained.load(workdir),
        "export": lambda: export.run(workdir, "safetensors"),
        "report": lambda: page.run(workdir),
        "compare": lambda: page.compare([finished, workdir], workdir),
    }[mode]()


def refused(mode: str, workdir: epath.Path, finished: epath.Path) -> str | None:
    """The one line with which a mode refuses the workdir; None if it goes on."""
    try:
        run(mode, workdir, finished)
    except UserError as error:
        assert "\n" not in str(error) and str(workdir) in str(error)
        return str(error)
    return None


def replace(path: epath.Path, content: bytes | None) -> None:
    if path.is_dir():
        path.rmtree()
    path.unlink(missing_ok=True)
    if content is DIRECTORY:
        path.mkdir()
        (path / "something").write_text("of the user's")
    else:
        path.write_bytes(content)


# ---------------------------------------------------------------------------- whole files
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mode", NEEDED)
def test_a_mode_refuses_damage_in_files_it_needs_and_ignores_it_in_others(
    mode: str, name: str, workdir: epath.Path, finished: epath.Path
):
    kinds = ["null", "deep", "bytes", "directory"]
    for kind in kinds if name != files.TENSORBOARD else ["null"]:
        with intact(workdir, finished):
            replace(workdir / name, CONTENTS[kind])
            line = refused(mode, workdir, finished)
            writes = {files.RESULT, files.PREDICTIONS} if mode in ("resume", "evaluate") else set()
            in_the_way = kind == "directory" and name in writes
            assert (line is not None) == (name in NEEDED[mode] or in_the_way), (kind, line)
            if line and name != files.METRICS:
                assert f"/{name} " in line


@pytest.mark.parametrize("name", FILES[:-1])
@pytest.mark.parametrize("kind", CONTENTS)
def test_no_content_of_a_file_breaks_its_reader(
    kind: str, name: str, workdir: epath.Path, finished: epath.Path
):
    with intact(workdir, finished):
        replace(workdir / name, CONTENTS[kind])
        for mode in ("load", "report"):
            line = refused(mode, workdir, finished)
            assert (line is not None) == (name in NEEDED[mode]), line


def test_a_byte_order_mark_does_no_harm(workdir: epath.Path, finished: epath.Path):
    with intact(workdir, finished):
        for name in (files.CONFIG, files.DATA, files.ENVIRONMENT, files.METRICS, files.RESULT):
            (workdir / name).write_bytes(b"\xef\xbb\xbf" + (finished / name).read_bytes())
        assert refused("report", workdir, finished) is None
        assert refused("load", workdir, finished) is None


@pytest.mark.parametrize("mode", ["resume", "suite"])
@pytest.mark.parametrize("kind", ["list", "directory"])
def test_a_damaged_informative_file_is_renamed_and_not_lost(
    mode: str,
    kind: str,
    workdir: epath.Path,
    finished: epath.Path,
    caplog: pytest.LogCaptureFixture,
):
    name = {"resume": files.ENVIRONMENT, "suite": files.ROBUSTNESS}[mode]
    with intact(workdir, finished), caplog.at_level(logging.WARNING):
        for n in (1, 2):
            replace(workdir / name, CONTENTS[kind])
            assert refused(mode, workdir, finished) is None
            aside = workdir / f"{name}.damaged-{n}"
            assert aside.is_dir() if kind == "directory" else aside.read_bytes() == b"[]"
            assert str(aside) in caplog.text
            content = json.loads((workdir / name).read_text())
            assert content.keys() & {"starts", "corruptions"}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_summary_of_seeds_is_made_anew(
    kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    """It holds nothing that the runs of the seeds do not."""
    config = tiny.typed(tiny.config({"seeds": 2}))
    workdir = epath.Path(tmp_path)
    with claim.claimed(workdir, config):
        pass
    replace(workdir / files.SEEDS, CONTENTS[kind])
    monkeypatch.setattr(sources, "load", mock.Mock(side_effect=UserError("it goes on")))
    with pytest.raises(UserError, match="it goes on"):
        train.run(config, workdir)
    assert (workdir / f"{files.SEEDS}.damaged-1").exists()


# ---------------------------------------------------------------------------- single values
# File, change to its content, expected text of the error; None: the change is ignored.
EDITS = [
    (files.DATA, lambda d: d.update(class_names=["a", "a", "b", "c"]), "no name twice"),
    (files.DATA, lambda d: d.update(class_names=[]), "class_names"),
    (
        files.DATA,
        lambda d: d.update(class_names=[1, 2, 3, 4]),
        r"class_names\[0\] must be a string",
    ),
    (files.DATA, lambda d: d.update(image_shape=[8, 8]), "image_shape"),
    (files.DATA, lambda d: d.update(image_shape=[8, 8, 4]), "1 or 3 channels"),
    (files.DATA, lambda d: d.update(image_shape=[0, 8, 3]), r"image_shape\[0\] must be an integer"),
    (
        files.DATA,
        lambda d: d.update(image_shape=[8.5, 8, 3]),
        r"image_shape\[0\] must be an integer",
    ),
    (files.DATA, lambda d: d.update(mean=[0.5] * 3), "both null or both lists"),
    (files.DATA, lambda d: d.update(mean=[0.5] * 3, std=[0.5, 0, 0.5]), "std must be"),
    (files.DATA, lambda d: d.update(mean=[0.5] * 3, std=[0.5, math.nan, 1]), "not JSON"),
    (files.DATA, lambda d: d.update(mean=[0.5] * 2, std=[0.5] * 2), "each of 3 channels"),
    (files.DATA, lambda d: d.pop("image_shape"), "image_shape is missing"),
    (files.DATA, lambda d: d.update(a_newer_key={"b": [1]}), None),
    (files.DATA, lambda d: d.pop("name"), None),
    (files.CONFIG, lambda c: c.update(epochs="3"), "config.epochs must be an integer"),
    (files.CONFIG, lambda c: c.update(epochs=True), "config.epochs must be an integer"),
    (files.CONFIG, lambda c: c.update(seed=10**400), "config.seed must be an integer"),
    (files.CONFIG, lambda c: c["optimizer"].update(b1=10**400), "config.optimizer.b1 must be"),
    (files.CONFIG, lambda c: c.update(items=3), "config.items is not a key"),
    (files.CONFIG, lambda c: c.update({"optimizer.name": "sgd"}), "config.optimizer.name is no"),
    (files.CONFIG, lambda c: c.update({"a\nb": "sgd"}), r"config.a\\nb is not a key"),
    (files.CONFIG, lambda c: c.update(model=None), "config.model must be a group of keys"),
    (files.CONFIG, lambda c: c.update(seed={"items": 1}), "config.seed must be an integer"),
    (files.CONFIG, lambda c: c["model"].update(dense=[{"keys": 1}]), "model.dense must be a tuple"),
    (files.CONFIG, lambda c: c["model"].update(blocks=[3]), r"blocks\[0\] must be a base."),
    (files.CONFIG, lambda c: c["model"].update(blocks=[{"keys": 3}]), r"\[0\].keys is not a key"),
    (files.CONFIG, lambda c: c.pop("optimizer"), "config.optimizer is missing"),
    (files.CONFIG, lambda c: c.pop("eval"), None),
    (files.CONFIG, lambda c: c.update(version=99), "version must be 2 or less"),
    (files.CONFIG, lambda c: c["model"].update(name="resnet"), "name must be one of 'cnn', 'effic"),
    (files.CONFIG, lambda c: c["model"].update(widths=[64]), "widths is not a key of the network"),
    (files.RESULT, lambda r: r.update(best_epoch=0), "best_epoch must be an integer"),
    (files.RESULT, lambda r: r.update(best_epoch=9), "best_epoch must be at most epochs"),
    (files.RESULT, lambda r: r.update(best_epoch=9, epochs=9), "no row for epoch 9"),
    (files.RESULT, lambda r: r["confusion_matrix"].pop(), "confusion_matrix must have one row"),
    (files.RESULT, lambda r: r["confusion_matrix"][1].pop(), "confusion_matrix must have one row"),
    (files.RESULT, lambda r: r["confusion_matrix"][1].append(-1), r"confusion_matrix\[1\]\[4\]"),
    (files.RESULT, lambda r: r["classification_report"].pop("north"), "'north' has none"),
    (files.RESULT, lambda r: r["class_counts"].pop("test"), "class_counts.test is missing"),
    (files.RESULT, lambda r: r["class_counts"]["train"].pop("east"), "the same classes"),
    (files.ENVIRONMENT, lambda e: e.update(starts=[]), None),
    (files.RESULT, lambda r: r.update(test_loss=math.inf), "not JSON"),
    (files.RESULT, lambda r: r.update(test_accuracy=1.5), "test_accuracy must be a number from 0"),
    (files.RESULT, lambda r: r.update(a_newer_key=[None]), None),
    (files.ENVIRONMENT, lambda e: e.update(starts=None), None),
    (files.ENVIRONMENT, lambda e: e["starts"].append({}), None),
    (files.ENVIRONMENT, lambda e: e.pop("python"), None),
    (files.ROBUSTNESS, lambda s: s["corruptions"].update(accuracy={}), None),
    (files.ROBUSTNESS, lambda s: s["corruptions"].update(images={}), None),
    (files.ROBUSTNESS, lambda s: s["corruptions"].update(mean_accuracy={}), None),
    (files.ROBUSTNESS, lambda s: s["corruptions"]["accuracy"].update(other={}), None),
]


@pytest.mark.parametrize(("name", "edit", "expected"), EDITS)
def test_a_wrong_value_is_reported_with_its_place(
    name: str,
    edit: Callable[..., Any],
    expected: str | None,
    workdir: epath.Path,
    finished: epath.Path,
):
    mode = "load" if name in (files.DATA, files.CONFIG) else "report"
    content = json.loads((finished / name).read_text())
    edit(content)
    with intact(workdir, finished):
        (workdir / name).write_text(json.dumps(content))
        if expected:
            with pytest.raises(UserError, match=expected):
                run(mode, workdir, finished)
        else:
            run(mode, workdir, finished)


def paths(value: Any, path: tuple[Any, ...] = ()):
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(item, (*path, key))


OTHERS = st.sampled_from(
    [None, True, 0, -1, 0.5, 1e308, 10**400, 2**70, "", "\0", "$", "x" * 999, [], [[]], {}, {"": 0}]
)
FEW = settings(max_examples=30, derandomize=True, deadline=None, database=None)
SHOWN_BY = {  # file -> the mode that uses most of it
    files.CONFIG: "load", files.DATA: "load", files.ENVIRONMENT: "report",
    files.METRICS: "report", files.RESULT: "report", files.ROBUSTNESS: "report",
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN_BY)
def test_no_value_breaks_its_reader(
    name: str, workdir: epath.Path, finished: epath.Path, monkeypatch: pytest.MonkeyPatch
):
    """Every value that the schema accepts can be used to build the network and the page."""
    lines = (finished / name).read_text().splitlines()
    whole = [*map(json.loads, lines)] if name == files.METRICS else json.loads("".join(lines))
    places = list(paths(whole))[1:]
    seen = set()
    # Skips orbax, which would slowly find out that shapes differ.
    monkeypatch.setattr(best, "restore", lambda _, like, *__: best.Best(1, like, None))
    if name == files.ENVIRONMENT:  # not shown in the figures, which are slow
        for figure in ("curves", "learning_rate", "class_distribution", "confusion", "reliability"):
            monkeypatch.setattr(figures, figure, lambda *_, **__: Markup())

    @FEW
    @given(place=st.sampled_from(places), other=OTHERS, drop=st.booleans())
    def check(place: Any, other: Any, drop: bool):
        value = copy.deepcopy(whole)
        inner = value
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = other
        if drop:
            del inner[place[-1]]
        text = "\n".join(map(json.dumps, value)) if name == files.METRICS else json.dumps(value)
        with intact(workdir, finished):
            (workdir / name).write_text(text)
            seen.add(refused(SHOWN_BY[name], workdir, finished) is None)

    check()
    assert seen == ({True, False} if name in NEEDED[SHOWN_BY[name]] else {True})


# ---------------------------------------------------------------------------- rows
def edited(
    rows: list[dict[str, Any]],
    *,
    steps_per_epoch: int | None = None,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
):
    """The epochs of the rows that are read back, and the log text."""
    (tmp_path / files.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with caplog.at_level(logging.WARNING):
        read = metrics_writer.read_rows(epath.Path(tmp_path), steps_per_epoch)
    return [row["epoch"] for row in read], caplog.text


@pytest.mark.parametrize(
    ("change", "epochs", "said"),
    [
        (lambda r: r, [1, 2, 3], ""),
        (lambda r: r[::-1], [1, 2, 3], ""),
        (lambda r: [*r, r[1]], [1, 2, 3], "epoch 2 is repeated and counts once"),
        (lambda r: [*r, r[1] | {"seconds": 99}], [1, 3], "2 rows of epoch 2 differ"),
        (lambda r: [r[0], r[2]], [1, 3], ""),
        (lambda r: [*r[:2], r[2] | {"step": 7}], [1, 2], "epoch 3 belongs to another run"),
        (lambda r: [r[0], r[1], None], [1, 2], "a damaged line is left out (line 3: the top level"),
        (lambda r: [r[0], r[1], r[2] | {"epoch": "3"}], [1, 2], "line 3: epoch must be an integer"),
        (lambda r: [r[0], {}, []], [1], "left out (line 2: epoch is missing, and 10 more), and 1"),
        (
            lambda r: [r[0], r[1] | dict.fromkeys(("validation_loss", "validation_accuracy",
                       "validation_objective")), r[2]],
            [1, 3],
            "epoch 2 belongs to another run",
        ),
        (lambda r: [r[0] | {"validation_loss": None}, *r[1:]], [2, 3], "all null or all numbers"),
    ],
)  # fmt: skip
def test_untrustworthy_rows_are_left_out(
    change: Callable[..., Any],
    epochs: list[int],
    said: str,
    finished: epath.Path,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
):
    rows = metrics_writer.read_rows(finished)
    per_epoch = rows[0]["step"]
    found, text = edited(change(rows), steps_per_epoch=per_epoch, tmp_path=tmp_path, caplog=caplog)
    assert found == epochs and said in text and bool(text) == bool(said)


def test_a_last_row_from_another_run_is_dropped(
    workdir: epath.Path, finished: epath.Path, monkeypatch: pytest.MonkeyPatch
):
    """As if a part of the file had been copied from another run."""
    rows = metrics_writer.read_rows(finished)
    foreign = rows[2] | {"step": rows[2]["step"] - 1}
    monkeypatch.undo()
    with intact(workdir, finished):
        text = "".join(json.dumps(row) + "\n" for row in [*rows[:2], rows[1], foreign])
        (workdir / files.METRICS).write_text(text)
        assert metrics_writer.whole_epochs(workdir, rows[0]["step"]) == 2
        with metrics_writer.MetricsWriter(workdir, rows[1]["step"], rows[0]["step"]) as writer:
            assert writer.rows == rows[:2]


# ---------------------------------------------------------------------------- arrays
@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"labels": None}, "labels is missing"),
        ({"logits": np.zeros(20, np.float32)}, "logits must be floats"),
        ({"logits": np.zeros((20, 4), complex)}, "logits must be floats"),
        ({"logits": np.full((20, 4), "a")}, "logits must be floats"),
        ({"logits": np.full((20, 4), np.nan)}, "logits must be finite"),
        ({"logits": np.zeros((0, 4))}, "logits must be floats"),
        ({"logits": np.zeros((19, 4))}, "there are logits of 19 images"),
        ({"logits": np.zeros((20, 5))}, "predictions.npz has 5 classes"),
        ({"labels": np.full(20, 4)}, "labels must be from 0 to 3"),
        ({"labels": np.full(20, -1)}, "labels must be from 0 to 3"),
        ({"labels": np.zeros(20)}, "labels must be integers"),
        ({"labels": np.array([{}] * 20)}, "Object arrays cannot be loaded"),
        ({"more": np.array([{}])}, None),  # from a newer version: ignored
    ],
)
def test_wrong_arrays_are_reported(
    arrays: dict[str, np.ndarray], expected: str | None, workdir: epath.Path, finished: epath.Path
):
    with np.load(finished / files.PREDICTIONS) as file:
        kept = {**file, **arrays}
    with intact(workdir, finished):
        np.savez(workdir / files.PREDICTIONS, **{k: v for k, v in kept.items() if v is not None})
        line = refused("report", workdir, finished)
        assert expected in line if expected else line is None  # pyright: ignore[reportOperatorIssue]


def test_an_npz_truncated_or_flipped_anywhere_is_refused_or_intact(
    finished: epath.Path, tmp_path: pathlib.Path
):
    data = (finished / files.PREDICTIONS).read_bytes()
    path = epath.Path(tmp_path / files.PREDICTIONS)
    for at in range(0, len(data), 3):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]):
            path.write_bytes(damaged)
            with contextlib.suppress(UserError):
                found = checked.read_npz(path, workdir_schema.PREDICTIONS)
                assert len(found["logits"]) == 20


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-20, 4), }",
        "{'descr': 'O', 'fortran_order': False, 'shape': (20, 4), }",
        "{'descr': '<f4', 'fortran_order': False",
        "((((",
        "'",
    ],
)
def test_a_header_that_claims_too_much_is_refused(header: str, tmp_path: pathlib.Path):
    text = header.encode() + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(320)
    path = epath.Path(tmp_path / files.PREDICTIONS)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("logits.npy", member)
        file.writestr("labels.npy", member)
    with pytest.raises(UserError, match="predictions.npz is damaged .not an .npz"):
        checked.read_npz(path, workdir_schema.PREDICTIONS)


# ---------------------------------------------------------------------------- exports, checkpoints
@pytest.fixture(scope="module")
def exported(finished: epath.Path, tmp_path_factory: pytest.TempPathFactory) -> epath.Path:
    """The directory that `--format=safetensors` writes."""
    path = epath.Path(tmp_path_factory.mktemp("exports") / "safetensors")
    export.run(finished, "safetensors", str(path))
    return path


def bfloat16(data: bytes) -> bytes:
    """Parameters as rounded by another program to a dtype that NumPy lacks."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    start = 0
    for entry in header.values():
        length = (entry["data_offsets"][1] - entry["data_offsets"][0]) // 2
        entry |= {"dtype": "BF16", "data_offsets": [start, start := start + length]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(start)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:40],
        lambda data: DIRECTORY,
        lambda data: data[:-4] + struct.pack("<f", math.nan),
        bfloat16,
    ],
)
def test_damaged_exported_parameters_are_reported(
    damage: Callable[[bytes], Any], exported: epath.Path, tmp_path: pathlib.Path
):
    copied = epath.Path(shutil.copytree(exported, tmp_path / "copy"))
    assert trained.load(copied).epoch
    path = copied / files.WEIGHTS
    replace(path, damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"model.safetensors .*: export it again") as caught:
        trained.load(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [files.CONFIG, files.DATA, files.METRICS])
@pytest.mark.parametrize("kind", ["null", "directory"])
def test_the_other_exported_files_are_checked_too(
    name: str, kind: str, exported: epath.Path, tmp_path: pathlib.Path
):
    copied = epath.Path(shutil.copytree(exported, tmp_path / "copy"))
    replace(copied / name, CONTENTS[kind])
    with pytest.raises(UserError) as caught:
        trained.load(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["resume", "evaluate", "suite", "load", "export"])
def test_a_file_in_place_of_the_checkpoint_directory_is_reported(
    mode: str, finished: epath.Path, fakes: None, tmp_path: pathlib.Path
):
    copied = epath.Path(shutil.copytree(finished, tmp_path / "copy"))
    (copied / files.CHECKPOINTS).rmtree()
    (copied / files.CHECKPOINTS).write_text("a file")
    assert "is a file but should be a directory" in str(refused(mode, copied, finished))


def test_a_network_that_returns_nan_leaves_the_result_unchanged(
    workdir: epath.Path, finished: epath.Path, monkeypatch: pytest.MonkeyPatch
):
    def make_eval_step(*_):
        return lambda variables, images, batch: np.full((len(batch), 4), np.nan, np.float32)

    monkeypatch.setattr(steps, "make_eval_step", make_eval_step)
    with intact(workdir, finished):
        before = (workdir / files.RESULT).read_bytes()
        assert "not finite" in str(refused("evaluate", workdir, finished))
        assert (workdir / files.RESULT).read_bytes() == before


# ---------------------------------------------------------------------------- existing files
def test_the_files_under_results_match_the_schema():
    runs = sorted(epath.Path(results.ROOT / "results").glob("*/seed-*"))
    assert runs
    for run in runs:
        loaded = evidence.load(run)
        assert loaded.result and loaded.environment
        assert len(loaded.rows) == loaded.result["epochs"]
        assert bool(loaded.robustness) == (run / files.ROBUSTNESS).exists()


def test_a_config_of_the_project_is_of_its_own_form():
    saved = json.loads(json.dumps(migration.to_json(small_config())))
    assert migration.from_json(saved, models) == small_config()


@pytest.mark.parametrize(
    "schema", [s for s in vars(workdir_schema).values() if isinstance(s, forms.Schema)]
)
def test_every_schema_says_what_to_do(schema: forms.Schema):
    with pytest.raises(forms.Damaged):
        schema.check(3)
    assert schema.remedy
