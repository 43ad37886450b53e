"""Exports give other programs the checkpoint's logits; a wrong export is never left behind."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import command_line
import jax
import numpy as np
import pytest
from command_line import run
from etils import epath
from tiny import typed

import cifar_jax
from cifar_jax import export
from cifar_jax.config import migration
from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained
from cifar_jax.export import stablehlo_format
from cifar_jax.runtime import checkpoint, weights, workdir_schema
from cifar_jax.runtime import workdir as files
from cifar_jax.training import experiment
from configs import base

pytestmark = pytest.mark.slow

FILES = [format for format in export.FORMATS if format != "safetensors"]


def tiny():
    return command_line.tiny_config()


def cnn():
    """A network with enough channels to use the CPU form of the convolution."""
    config = tiny()
    config.model.blocks = (
        base.conv_block(80, pool=4, batch_norm=True, dropout=0.1),
        base.conv_block(80, pool=4),
    )
    config.data.standardize = True
    return config


def speedrun():
    config = tiny()
    config.model = base.model("speedrun", widths=(4, 8), residual=True, whitening=True)
    return config


def bfloat16():
    config = speedrun()
    config.dtype = "bfloat16"
    return config


def needs(format: str) -> None:
    if format.startswith("onnx"):
        for package in ("jax2onnx", "onnx", "onnxruntime"):
            pytest.importorskip(package, reason="requirements-onnx.txt is not installed")


@pytest.fixture(scope="module", params=[cnn, speedrun, bfloat16])
def workdir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> epath.Path:
    """A workdir as after a run, but with random weights and batch statistics."""
    config = typed(request.param())
    exp = experiment.build(config)
    state = exp.initial_state()
    rng = np.random.default_rng(0)

    def perturbed(leaf: np.ndarray):
        return leaf + abs(rng.normal(0, 0.1, leaf.shape)).astype(leaf.dtype)

    state = state.replace(
        params=jax.tree.map(perturbed, state.params),
        batch_stats=jax.tree.map(perturbed, state.batch_stats),
        ema_params=None if state.ema_params is None else jax.tree.map(perturbed, state.ema_params),
    )
    directory = epath.Path(tmp_path_factory.mktemp("networks"))
    files.write_json(directory / files.CONFIG, migration.to_json(config))
    files.write_json(directory / files.DATA, exp.describe_data())
    row = dict.fromkeys(workdir_schema.FIGURES, 0.5) | {"epoch": 1, "step": 1}
    (directory / files.METRICS).write_text(json.dumps(row) + "\n")
    with checkpoint.Checkpoints(directory / files.CHECKPOINTS) as checkpoints:
        checkpoints.save(1, exp.put(state), validation_accuracy=0.5)
    return directory


def some_images(size: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (size, 32, 32, 3), np.uint8)


def session_of(path: epath.Path):
    import onnxruntime

    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def assert_close(
    found: np.ndarray, network: trained.Trained, images: np.ndarray, relative: float
) -> None:
    wanted = network.logits(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=relative * abs(wanted).max())


def test_stablehlo_of_every_network_takes_any_batch_on_every_platform(workdir: epath.Path):
    export.run(workdir, "stablehlo")
    data = (workdir / "export" / "model.stablehlo").read_bytes()
    exported = jax.export.deserialize(bytearray(data))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert str(exported.in_avals[0]) == "uint8[batch,32,32,3]"
    network = cifar_jax.load(str(workdir))
    images = some_images(5)
    relative = 1e-4 if network.config.dtype == "float32" else 0.05
    assert_close(np.asarray(exported.call(images)), network, images, relative)


def test_onnx_of_every_network_takes_any_batch(workdir: epath.Path):
    needs("onnx")
    export.run(workdir, "onnx", str(workdir / "mine.onnx"))
    session = session_of(workdir / "mine.onnx")
    (image_input,) = session.get_inputs()
    assert (image_input.type, image_input.shape[1:]) == ("tensor(uint8)", [32, 32, 3])
    network = cifar_jax.load(str(workdir))
    images = some_images(5)
    relative = 1e-4 if network.config.dtype == "float32" else 0.05
    assert_close(session.run(["logits"], {"images": images})[0], network, images, relative)
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["class_names"]) == list(network.class_names)
    mean = network.statistics[0]
    np.testing.assert_allclose(json.loads(notes["mean"]) or [], [] if mean is None else mean)


def opset_and_ir_version(data: bytes) -> tuple[int, int]:
    """The versions that decide which runtimes accept a file, which may use standard ops only."""
    import onnx

    model = onnx.load_model_from_string(data)
    ((domain, opset),) = [(entry.domain, entry.version) for entry in model.opset_import]
    assert domain == "" and not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(notes["onnxruntime"]) == ">=1.17" and "class_names" in notes
    return opset, model.ir_version


def test_onnx_has_the_lowest_version_that_supports_its_operations(workdir: epath.Path):
    """ONNX Runtime 1.17 runs opset 20 and IR version 9 (see docs/log.md)."""
    needs("onnx-int8")
    from cifar_jax.export import onnx_format, onnx_int8_format

    network = onnx_format.in_float32(cifar_jax.load(str(workdir)))
    model = onnx_format.to_model(network)
    small = onnx_int8_format.quantize(model, some_images(64))
    for data in (model.SerializeToString(), small):
        assert opset_and_ir_version(data) == (13, 7)


# docs/usage.md says that a StableHLO file needs jax and flatbuffers; here with their dependencies.
NEEDED = ("jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum", "flatbuffers")


def test_stablehlo_needs_exactly_the_packages_that_the_docs_name(
    finished: epath.Path, tmp_path: pathlib.Path
):
    """The calling process can import only these packages, and fails without one of them."""
    export.run(finished, "stablehlo", str(tmp_path / "model.stablehlo"))
    images = some_images(3)
    np.savez(tmp_path / "images.npz", **{"3": images})  # pyright: ignore[reportArgumentType]
    (tmp_path / "packages").mkdir()
    for name in NEEDED:
        package = pathlib.Path(importlib.util.find_spec(name).origin).parent  # pyright: ignore[reportArgumentType, reportOptionalMemberAccess]
        for found in (
            package,
            *package.parent.glob(f"{name}.libs"),
            *package.parent.glob(f"{name}-*"),
        ):
            (tmp_path / "packages" / found.name).symlink_to(found)

    def call():
        return subprocess.run(
            [sys.executable, "-S", "-c", stablehlo_format.CALLER],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "packages"), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )

    done = call()
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "logits.npz") as logits:
        assert_close(logits["3"], cifar_jax.load(str(finished)), images, 1e-4)
    (tmp_path / "packages" / "flatbuffers").unlink()
    assert "Please install 'flatbuffers'" in call().stderr


def test_safetensors_load_like_a_workdir(finished: epath.Path, tmp_path: pathlib.Path):
    published = epath.Path(tmp_path) / "published"
    assert "bit for bit" in export.run(finished, "safetensors", str(published))
    original, exported = cifar_jax.load(str(finished)), cifar_jax.load(str(published))
    images = some_images(3)
    np.testing.assert_array_equal(exported.logits(images), original.logits(images))
    assert (exported.epoch, exported.class_names) == (original.epoch, original.class_names)
    # An exported network can itself be exported, and be replaced by a newer export.
    export.run(published, "stablehlo", str(tmp_path / "model.stablehlo"))
    export.run(finished, "safetensors", str(published))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.stablehlo", "published"]


def test_safetensors_of_another_network_are_refused(finished: epath.Path, tmp_path: pathlib.Path):
    export.run(finished, "safetensors", str(tmp_path / "published"))
    config = json.loads((tmp_path / "published" / "config.json").read_text())
    config["model"]["dense"] = [17]
    (tmp_path / "published" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is not of the network in config.json"):
        cifar_jax.load(str(tmp_path / "published"))
    path = tmp_path / "published" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        cifar_jax.load(str(tmp_path / "published"))


def test_a_directory_with_other_files_is_left_alone(finished: epath.Path, tmp_path: pathlib.Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other files: choose another --output"):
        export.run(finished, "safetensors", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_int8_writes_its_measured_accuracy_beside_the_model(
    finished: epath.Path, tmp_path: pathlib.Path
):
    needs("onnx-int8")
    line = export.run(finished, "onnx-int8", str(tmp_path / "small.onnx"))
    figures = json.loads((tmp_path / "small.json").read_text())
    assert f"test accuracy {figures['test_accuracy']:.4f}" in line
    result = json.loads((finished / "result.json").read_text())
    assert figures["checkpoint_test_accuracy"] == pytest.approx(result["test_accuracy"])
    images, labels = experiment.build(typed(tiny())).test
    session = session_of(tmp_path / "small.onnx")
    logits = session.run(["logits"], {"images": images})[0]
    assert np.mean(logits.argmax(1) == labels) == pytest.approx(figures["test_accuracy"])
    assert {node.op_type for node in _graph(tmp_path / "small.onnx").node} >= {"QuantizeLinear"}


def _graph(path: pathlib.Path | epath.Path):
    import onnx

    return onnx.load(path).graph


def contents(directory: pathlib.Path | epath.Path) -> dict[str, bytes | str]:
    """Path -> content of each file below `directory`; for a link, its target."""
    return {
        str(path.relative_to(directory)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(pathlib.Path(directory).rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("format", export.FORMATS)
def test_a_users_file_is_replaced_only_with_force(
    finished: epath.Path, tmp_path: pathlib.Path, format: str
):
    """Also if it is a link, a broken link or a directory."""
    needs(format)
    run = epath.Path(tmp_path / "run")
    shutil.copytree(finished, run)
    default = run / "export" / export.FORMATS[format]
    (tmp_path / "thesis").write_text("years of work")
    for path in (default, tmp_path / "mine.onnx", tmp_path / "link", tmp_path / "broken"):
        path.parent.mkdir(exist_ok=True)
        output = None if path == default else str(path)
        if path.name in ("link", "broken"):
            path.symlink_to("thesis" if path.name == "link" else "nowhere")
        else:
            path.write_text("years of work")
        before = contents(tmp_path)
        with pytest.raises(
            UserError, match="is not a directory|exists: choose another --output, or"
        ):
            export.run(run, format, output)
        assert contents(tmp_path) == before
        if format != "safetensors" and path.name == "link":
            export.run(run, format, output, force=True)
            assert not path.is_symlink() and path.stat().st_size > 1000
            assert (tmp_path / "thesis").read_text() == "years of work"
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "config.json").write_text("years of work")
    for force in [False] if format == "safetensors" else [False, True]:
        with pytest.raises(UserError, match="is a directory|exists"):
            export.run(run, format, str(tmp_path / "papers"), force=force)
    assert contents(tmp_path / "papers") == {"config.json": b"years of work"}


def test_the_int8_figures_never_replace_a_users_file(finished: epath.Path, tmp_path: pathlib.Path):
    needs("onnx-int8")
    (tmp_path / "small.json").write_text("years of work")
    with pytest.raises(
        UserError, match=r"small.json exists: choose another --output, or pass --fo"
    ):
        export.run(finished, "onnx-int8", str(tmp_path / "small.onnx"))
    with pytest.raises(UserError, match=r"accuracy figures: choose an --output that ends in"):
        export.run(finished, "onnx-int8", str(tmp_path / "other.json"))
    assert contents(tmp_path) == {"small.json": b"years of work"}


@pytest.mark.parametrize("format", export.FORMATS)
def test_an_earlier_export_is_replaced_unless_the_user_changed_it(
    finished: epath.Path, tmp_path: pathlib.Path, format: str
):
    needs(format)
    run = epath.Path(tmp_path / "run")
    shutil.copytree(finished, run)
    for other in (format, "safetensors", format):
        export.run(run, other)
    path = run / "export" / export.FORMATS[format]
    if format == "safetensors":
        path = path / "notes.txt"
        path.write_text("mine")
    else:
        path.write_bytes(path.read_bytes() + b"tuned")
    before = contents(run / "export")
    with pytest.raises(UserError, match="holds other files|exists: choose another --output"):
        export.run(run, format)
    assert contents(run / "export") == before


@pytest.mark.parametrize("format", FILES)
def test_an_export_with_wrong_logits_is_not_written(
    finished: epath.Path, tmp_path: pathlib.Path, format: str, monkeypatch: pytest.MonkeyPatch
):
    needs(format)
    apply = trained.Trained.apply

    def tampered(self: trained.Trained, variables: Any, images: jax.Array):
        # Exports are written from host arrays.
        on_host = isinstance(jax.tree.leaves(variables)[0], np.ndarray)
        return apply(self, variables, images) * (-1 if on_host else 1)

    monkeypatch.setattr(trained.Trained, "apply", tampered)
    with pytest.raises(UserError, match="nothing was written"):
        export.run(finished, format, str(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_safetensors_that_load_back_differently_are_not_written(
    finished: epath.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    def tampered(variables: Any):
        return to_bytes(jax.tree.map(lambda leaf: leaf + 1e-6, variables))

    to_bytes = weights.to_bytes
    monkeypatch.setattr(weights, "to_bytes", tampered)
    with pytest.raises(UserError, match="nothing was written"):
        export.run(finished, "safetensors", str(tmp_path / "published"))
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_bad_paths_and_missing_packages_are_named(
    finished: epath.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(UserError, match="--format=tflite is not an export format: use stablehlo"):
        export.run(finished, "tflite")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to .*choose another --output"):
        export.run(finished, "stablehlo", str(tmp_path / "file" / "model"))
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    monkeypatch.delitem(sys.modules, "cifar_jax.export.onnx_format", raising=False)
    with pytest.raises(UserError, match="needs jax2onnx: pip install -r requirements-onnx.txt"):
        export.run(finished, "onnx")


def test_the_command_line_exports(finished: epath.Path, tmp_path: pathlib.Path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    status, output = run("--mode=export", f"--workdir={workdir}", "--format=safetensors")
    path = workdir / "export" / "safetensors"
    assert status == 0 and output.startswith(f"{path}: ")
    assert cifar_jax.load(str(path)).workdir == path
