"""Prediction: every image of every argument gets its classes; failures are reported."""

import base64
import csv
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import unicodedata
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
import tiny
from command_line import HANGS, QUICK, ROOT
from etils import epath
from PIL import Image

import cifar_jax
from cifar_jax import predict
from cifar_jax.data import images, sources
from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory):
    """A directory of images and other files; the expected image names; their pixels."""
    directory = tmp_path_factory.mktemp("photos")
    pixels, _ = tiny.images_and_labels(5, seed=2)
    names = ["1.png", "2.PNG", "é.webp", "deep/er/4.bmp", "z/a.png"]
    for name, image in zip(names, pixels, strict=True):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
        Image.fromarray(image).save(path, **options)
    for name in (".hidden.png", "deep/notes.txt", ".git/5.png", "empty/nothing"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("not an image")
    os.mkfifo(directory / "pipe.png")  # opening it would block forever
    return directory, names, pixels


@pytest.fixture(scope="module")
def probabilities(compass: epath.Path, photos: tuple[pathlib.Path, list[str], np.ndarray]):
    return cifar_jax.load(str(compass)).predict(photos[2])


# ---------------------------------------------------------------------------- run
def test_csv_has_every_class_of_every_image(
    compass: epath.Path,
    photos: tuple[pathlib.Path, list[str], np.ndarray],
    probabilities: np.ndarray,
    capsys: pytest.CaptureFixture[str],
):
    directory, names, _ = photos
    assert predict.run(compass, [str(directory)], "csv", top_k=99) == (5, 0)
    output, errors = capsys.readouterr()
    assert errors == ""
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [os.path.relpath(row["image"], directory) for row in rows] == names
    class_names = cifar_jax.load(str(compass)).class_names
    for row, expected in zip(rows, probabilities, strict=True):
        figures = {row[f"class_{i}"]: float(row[f"probability_{i}"]) for i in range(1, 5)}
        np.testing.assert_allclose([figures[name] for name in class_names], expected, atol=2e-6)
        assert list(figures.values()) == sorted(figures.values(), reverse=True)
        assert len(row) == 1 + 2 * 4


def test_json_is_one_object_per_line(
    compass: epath.Path,
    photos: tuple[pathlib.Path, list[str], np.ndarray],
    probabilities: np.ndarray,
    capsys: pytest.CaptureFixture[str],
):
    directory, names, _ = photos
    assert predict.run(compass, [str(directory)], "json", top_k=2) == (5, 0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [os.path.relpath(line["image"], directory) for line in lines] == names
    class_names = np.array(cifar_jax.load(str(compass)).class_names)
    for line, expected in zip(lines, probabilities, strict=True):
        best = np.argsort(-expected)[:2]
        assert [entry["class"] for entry in line["predictions"]] == class_names[best].tolist()
        found = [entry["probability"] for entry in line["predictions"]]
        np.testing.assert_allclose(found, expected[best], atol=2e-6)


def test_the_table_is_aligned(
    compass: epath.Path,
    photos: tuple[pathlib.Path, list[str], np.ndarray],
    probabilities: np.ndarray,
    capsys: pytest.CaptureFixture[str],
):
    directory, names, _ = photos
    predict.run(compass, [str(directory)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1
    for line, name, expected in zip(lines, names, probabilities, strict=True):
        assert line.startswith(str(directory / name))
        assert re.findall(r"\d\.\d{4}", line) == [f"{p:.4f}" for p in -np.sort(-expected)[:3]]


def test_unreadable_images_are_reported_and_the_others_are_processed(
    compass: epath.Path,
    photos: tuple[pathlib.Path, list[str], np.ndarray],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
):
    directory, *_ = photos
    good = str(directory / "1.png")
    broken = tmp_path / "broken\n\udcff.png"  # a name with a line break and invalid UTF-8
    broken.write_bytes(pathlib.Path(good).read_bytes()[:-40])
    outcome = predict.run(
        compass, [good, "nowhere.png", str(tmp_path), str(ROOT / "LICENSE"), good]
    )
    assert outcome == (4, 3)
    output, errors = capsys.readouterr()
    assert [line.split()[0] for line in output.splitlines()] == [good, good]
    missing, damaged, not_an_image = errors.splitlines()
    assert missing.startswith("error: nowhere.png does not exist")
    assert damaged.startswith(rf"error: {tmp_path}/broken\n\udcff.png: damaged (")
    assert not_an_image == f"error: {ROOT}/LICENSE: not a PNG, JPEG, WebP, GIF or BMP image"


# File names may contain anything but a NUL and a slash.
ODD_NAMES = [
    *(
        "Screenshot 9.41\u202fAM.png",
        "\U0001f469\u200d\U0001f4bb.png",
        "no\u00a0break.png",
        "e\u0301.png",
    ),
    *("=1+1.png", "-.png", "@a,b;c.png", '"quoted".png', "'.png", "tab\there.png", " space .png"),
    *("line\nend.png", "return\rhere.png", "both\r\n.png", "\u2028.png", "\ufeffmark.png"),
    *(
        "\x1b[31mred.png",
        "\x1b]0;title\x07.png",
        "\x9b31m.png",
        "\x7f\x08.png",
        "\u202egnp.exe.png",
    ),
    *("\udcff\udcfe.png", "caf\udce9.png", "half \udce2\udc82.png", "back\\slash \\udcff.png"),
]


@pytest.fixture(scope="module")
def oddly_named(
    photos: tuple[pathlib.Path, list[str], np.ndarray], tmp_path_factory: pytest.TempPathFactory
):
    directory = tmp_path_factory.mktemp("odd")
    data = (photos[0] / "1.png").read_bytes()
    for name in ODD_NAMES:
        (directory / name).write_bytes(data)
    return directory


def strict_json(line: bytes | str):
    """Parses JSON strictly: no NaN, no half of a surrogate pair."""
    value = json.loads(line, parse_constant=pytest.fail)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def test_json_and_csv_preserve_every_byte_of_a_name(
    compass: epath.Path, oddly_named: pathlib.Path, capfdbinary: pytest.CaptureFixture[bytes]
):
    """Read back as docs/usage.md says, by parsers that accept only what the standards allow."""
    names = {os.fsencode(oddly_named / name) for name in ODD_NAMES}
    assert predict.run(compass, [str(oddly_named)], "json") == (len(names), 0)
    rows = list(map(strict_json, capfdbinary.readouterr().out.splitlines()))
    exact = [
        base64.b64decode(row["image_base64"]) if "image_base64" in row else row["image"].encode()
        for row in rows
    ]
    assert len(exact) == len(names) and set(exact) == names
    assert sum("image_base64" in row for row in rows) == 3

    assert predict.run(compass, [str(oddly_named)], "csv") == (len(names), 0)
    text = capfdbinary.readouterr().out.decode(errors="surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == len(names) and {os.fsencode(row["image"]) for row in rows} == names
    assert all(0 < float(row["probability_1"]) <= 1 for row in rows)


def test_the_table_and_errors_escape_control_characters(
    compass: epath.Path,
    oddly_named: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
):
    predict.run(compass, [str(oddly_named), *(str(tmp_path / name) for name in ODD_NAMES)])
    output, errors = capsys.readouterr()
    for text in (output, errors):
        assert len(text.split("\n")) == len(ODD_NAMES) + 1
        unsafe = [
            c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\n"
        ]
        assert not unsafe and "\u202e" not in text
        assert all(name in text for name in ODD_NAMES[:9])
    for shown in (r"\x1b[31mred.png", r"line\nend.png", r"caf\udce9.png", r"\u202egnp.exe.png"):
        assert shown in output and shown in errors


def test_class_names_are_exact_in_json_and_csv_and_printable_in_the_table(
    compass: epath.Path,
    photos: tuple[pathlib.Path, list[str], np.ndarray],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
):
    names = ["\x1b[31mred", 'new\nline, "quoted"', "caf\u00e9\u202f", "return\r"]
    shutil.copytree(compass, tmp_path / "run")
    data = json.loads((compass / "data.json").read_text())
    (tmp_path / "run/data.json").write_text(json.dumps({**data, "class_names": names}))
    arguments = epath.Path(tmp_path / "run"), [str(photos[0] / "1.png")]
    predict.run(*arguments, "json", 4)
    (row,) = capsys.readouterr().out.splitlines()
    assert {entry["class"] for entry in strict_json(row)["predictions"]} == set(names)
    predict.run(*arguments, "csv", 4)
    ((_, *cells),) = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))[1:]
    assert set(cells[::2]) == set(names)
    predict.run(*arguments, "table", 4)
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    assert r"\x1b[31mred" in output and "caf\u00e9\u202f" in output and "\x1b" not in output


def test_a_network_that_outputs_nan_is_refused(
    compass: epath.Path,
    photos: tuple[pathlib.Path, list[str], np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """NaN is neither valid JSON nor a probability."""
    load = trained.load

    def broken(path: epath.Path):
        network = load(path)
        nan = jax.tree.map(lambda leaf: leaf * np.nan, network.variables)
        return dataclasses.replace(network, variables=nan)

    monkeypatch.setattr(trained, "load", broken)
    for output_format in predict.FORMATS:
        with pytest.raises(UserError, match="outputs NaN or infinity"):
            predict.run(compass, [str(photos[0])], output_format)
    assert "NaN" not in capsys.readouterr().out


def test_pipes_sockets_and_devices_are_refused_without_blocking(
    compass: epath.Path,
    photos: tuple[pathlib.Path, list[str], np.ndarray],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
):
    names = [str(photos[0] / "pipe.png"), str(tmp_path / "socket"), "/dev/null", "/dev/zero"]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(names[1])
        assert predict.run(compass, [*names, str(photos[0] / "1.png")]) == (5, 4)
    output, errors = capsys.readouterr()
    assert output.count("\n") == 1
    for name, line in zip(names, errors.splitlines(), strict=True):
        assert line.startswith(f"error: {name}: a pipe, socket or device: pass its content")


def test_without_any_image_no_network_is_needed(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    assert predict.run(epath.Path(tmp_path), ["nowhere.png", "*.none"]) == (0, 2)
    output, errors = capsys.readouterr()
    assert output == "" and len(errors.splitlines()) == 2


@pytest.mark.parametrize(("arguments", "output_format", "reason"), [
    ([], "table", "no images: pass files"),
    (["LICENSE"], "onnx", "--format=onnx is not one of table, json, csv"),
    (["LICENSE"], "table", "no run in"),
])  # fmt: skip
def test_impossible_requests_are_refused(
    tmp_path: pathlib.Path, arguments: list[str], output_format: str, reason: str
):
    with pytest.raises(UserError, match=reason):
        predict.run(epath.Path(tmp_path), arguments, output_format)


def test_many_images_are_decoded_a_few_batches_ahead(
    compass: epath.Path,
    photos: tuple[pathlib.Path, list[str], np.ndarray],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """With batches of 8, at most two more batches are decoded while one is predicted."""
    directory, *_ = photos
    decoded, ahead = [], []
    decode, network = images.decode, trained.Trained.predict

    def counted_decode(*arguments: Any):
        decoded.append(1)
        return decode(*arguments)

    def counted_predict(self: trained.Trained, pixels: np.ndarray):
        ahead.append(len(decoded) - 8 * len(ahead))
        return network(self, pixels)

    monkeypatch.setattr(images, "decode", counted_decode)
    monkeypatch.setattr(trained.Trained, "predict", counted_predict)
    assert predict.run(compass, [str(directory / "1.png")] * 101) == (101, 0)
    assert len(ahead) == 13 and max(ahead) <= 3 * 8
    assert len(set(capsys.readouterr().out.splitlines())) == 1


def test_fit_decides_what_the_network_sees(
    compass: epath.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, :32] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    predict.run(compass, [str(tmp_path)], "csv", fit="crop")
    predict.run(compass, [str(tmp_path)], "csv", fit="whole")
    _, cropped, _, whole = capsys.readouterr().out.splitlines()
    assert cropped != whole


def test_a_network_of_one_channel(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    data = tiny.dataset()
    gray = {part: getattr(data, part)[..., :1] for part in ("train_images", "test_images")}
    data = sources.Dataset(**{**vars(data), **gray})
    run = epath.Path(tmp_path / "run")
    with mock.patch.object(sources, "load", return_value=data):
        tiny.train(tiny.config({"epochs": 1}), run)
    Image.fromarray(data.test_images[0, ..., 0]).convert("RGB").save(tmp_path / "color.png")
    assert predict.run(run, [str(tmp_path / "color.png")], "csv") == (1, 0)
    row = capsys.readouterr().out.splitlines()[-1].split(",")
    expected = cifar_jax.load(str(run)).predict(data.test_images[:1])[0]
    assert row[1] == tiny.CLASS_NAMES[expected.argmax()]
    assert float(row[2]) == pytest.approx(expected.max(), abs=2e-6)


# ---------------------------------------------------------------------------- as a user runs it
@pytest.mark.slow
def test_the_command_line_predicts(
    compass: epath.Path, photos: tuple[pathlib.Path, list[str], np.ndarray]
):
    directory, _, _ = photos
    first = (directory / "1.png").read_bytes()
    done = subprocess.run(
        [
            *(sys.executable, "main.py", "--mode=predict", f"--workdir={compass}", "-"),
            *(str(directory / "1.png"), "LICENSE", "--format=json", "--top_k=1"),
        ],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": QUICK},
        input=first,
        capture_output=True,
        timeout=HANGS,
    )
    assert done.returncode == 65, done.stderr
    piped, named = map(json.loads, done.stdout.splitlines())
    assert piped["image"] == "-" and piped["predictions"] == named["predictions"]
    expected = b"error: LICENSE: not a PNG, JPEG, WebP, GIF or BMP image\n"
    assert done.stderr == expected


@pytest.mark.slow
def test_it_ends_quietly_when_the_reader_closes_the_pipe(
    compass: epath.Path, photos: tuple[pathlib.Path, list[str], np.ndarray]
):
    with subprocess.Popen(
        [sys.executable, "main.py", "--mode=predict", f"--workdir={compass}", str(photos[0])],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": QUICK},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]
        assert b" skipped (" in process.stderr.readline() and process.stderr.read() == b""  # pyright: ignore[reportOptionalMemberAccess]
    assert process.returncode == 74


def test_the_documented_example_runs(
    compass: epath.Path,
    photos: tuple[pathlib.Path, list[str], np.ndarray],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/usage.md").read_text(), re.DOTALL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/final").symlink_to(compass)
    (tmp_path / "cat.png").write_bytes((photos[0] / "1.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "usage.md", "exec"), {})
    model = cifar_jax.load("runs/final")
    best = model.predict(photos[2][:1])[0]
    assert capsys.readouterr().out.split() == [
        model.class_names[best.argmax()],
        f"{best.max():.2f}",
    ]
