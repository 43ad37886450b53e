"""Exports: other programs get the checkpoint's logits of them, and a false one is never left."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import command_line
import jax
import numpy as np
import pytest
from command_line import run
from etils import epath

import cifar_jax
from cifar_jax import export
from cifar_jax.config import tree as config_tree
from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained
from cifar_jax.export import stablehlo_format
from cifar_jax.runtime import checkpoint, weights, workdir_schema
from cifar_jax.runtime import workdir as files
from cifar_jax.training import experiment
from cifar_jax.training import run as train
from configs import base

FILES = [format for format in export.FORMATS if format != "safetensors"]


def tiny():
    return command_line.tiny_config()


def cnn():
    """Of enough channels for the form of the convolution that CPUs have for themselves."""
    config = tiny()
    config.model.blocks = (
        base.conv_block(80, pool=4, batch_norm=True, dropout=0.1),
        base.conv_block(80, pool=4),
    )
    config.data.standardize = True
    return config


def speedrun():
    config = tiny()
    config.model.name = "speedrun"
    config.model.widths = (4, 8)
    config.model.residual = True
    config.model.whitening.enabled = True
    return config


def bfloat16():
    config = speedrun()
    config.dtype = "bfloat16"
    return config


def needs(format: str) -> None:
    if format.startswith("onnx"):
        for package in ("jax2onnx", "onnx", "onnxruntime"):
            pytest.importorskip(package, reason="requirements-onnx.txt is not installed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> epath.Path:
    """A short run, trained: its test accuracy means something."""
    directory = epath.Path(tmp_path_factory.mktemp("export")) / "run"
    config = tiny()
    config.data.standardize = True
    train.run(config, directory)
    return directory


@pytest.fixture(scope="module", params=[cnn, speedrun, bfloat16])
def workdir(request, tmp_path_factory) -> epath.Path:
    """What a run leaves, but for the training: weights and running statistics are random."""
    config = request.param()
    exp = experiment.build(config)
    state = exp.initial_state()
    rng = np.random.default_rng(0)

    def moved(leaf):
        return leaf + abs(rng.normal(0, 0.1, leaf.shape)).astype(leaf.dtype)

    state = state.replace(
        params=jax.tree.map(moved, state.params),
        batch_stats=jax.tree.map(moved, state.batch_stats),
        ema_params=None if state.ema_params is None else jax.tree.map(moved, state.ema_params),
    )
    directory = epath.Path(tmp_path_factory.mktemp("networks"))
    files.write_json(directory / files.CONFIG, config_tree.plain(config))
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


def close(found: np.ndarray, network: trained.Trained, images: np.ndarray, relative: float) -> None:
    wanted = network.logits(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=relative * abs(wanted).max())


def test_stablehlo_of_every_network_takes_any_batch_on_every_platform(workdir):
    export.run(workdir, "stablehlo")
    data = (workdir / "export" / "model.stablehlo").read_bytes()
    exported = jax.export.deserialize(bytearray(data))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert str(exported.in_avals[0]) == "uint8[batch,32,32,3]"
    network = cifar_jax.load(str(workdir))
    images = some_images(5)
    relative = 1e-4 if network.config.dtype == "float32" else 0.05
    close(np.asarray(exported.call(images)), network, images, relative)


def test_onnx_of_every_network_takes_any_batch(workdir):
    needs("onnx")
    export.run(workdir, "onnx", str(workdir / "mine.onnx"))
    session = session_of(workdir / "mine.onnx")
    (image_input,) = session.get_inputs()
    assert (image_input.type, image_input.shape[1:]) == ("tensor(uint8)", [32, 32, 3])
    network = cifar_jax.load(str(workdir))
    images = some_images(5)
    relative = 1e-4 if network.config.dtype == "float32" else 0.05
    close(session.run(["logits"], {"images": images})[0], network, images, relative)
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["class_names"]) == list(network.class_names)
    mean = network.statistics[0]
    np.testing.assert_allclose(json.loads(notes["mean"]) or [], [] if mean is None else mean)


def oldest_runtime(data: bytes) -> tuple[int, int]:
    """Opset and IR version, by which a runtime says no to a file; and nothing of its own kinds."""
    import onnx

    model = onnx.load_model_from_string(data)
    ((domain, opset),) = [(entry.domain, entry.version) for entry in model.opset_import]
    assert domain == "" and not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(notes["onnxruntime"]) == ">=1.17" and "class_names" in notes
    return opset, model.ir_version


def test_onnx_asks_for_the_oldest_runtime_that_knows_its_operations(workdir):
    """ONNX Runtime 1.17 knows opset 20 and IR version 9 (tried: docs/log.md); GELU is of 20."""
    needs("onnx-int8")
    from cifar_jax.export import onnx_format, onnx_int8_format

    network = onnx_format.in_float32(cifar_jax.load(str(workdir)))
    gelu = network.config.model.name == "speedrun"
    model = onnx_format.to_model(network)
    small = onnx_int8_format.quantize(model, some_images(64))
    for data in (model.SerializeToString(), small):
        assert oldest_runtime(data) == ((20, 9) if gelu else (13, 7))


# What docs/usage.md says that a StableHLO file needs: jax, flatbuffers, and what these need.
NEEDED = ("jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum", "flatbuffers")


def test_stablehlo_needs_what_the_readme_says_and_no_more(finished, tmp_path):
    """Called by a process that finds these packages alone; one of them is missed."""
    export.run(finished, "stablehlo", str(tmp_path / "model.stablehlo"))
    images = some_images(3)
    np.savez(tmp_path / "images.npz", **{"3": images})
    (tmp_path / "packages").mkdir()
    for name in NEEDED:
        package = pathlib.Path(importlib.util.find_spec(name).origin).parent
        for found in (
            package,
            *package.parent.glob(f"{name}.libs"),
            *package.parent.glob(f"{name}-*"),
        ):
            (tmp_path / "packages" / found.name).symlink_to(found)

    def call():
        return subprocess.run(
            [sys.executable, "-S", "-c", stablehlo_format._CALLER],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "packages"), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )

    done = call()
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "logits.npz") as logits:
        close(logits["3"], cifar_jax.load(str(finished)), images, 1e-4)
    (tmp_path / "packages" / "flatbuffers").unlink()
    assert "Please install 'flatbuffers'" in call().stderr


def test_safetensors_load_like_a_workdir(finished, tmp_path):
    published = epath.Path(tmp_path) / "published"
    assert "bit by bit" in export.run(finished, "safetensors", str(published))
    ours, theirs = cifar_jax.load(str(finished)), cifar_jax.load(str(published))
    images = some_images(3)
    np.testing.assert_array_equal(theirs.logits(images), ours.logits(images))
    assert (theirs.epoch, theirs.class_names) == (ours.epoch, ours.class_names)
    # A published network is exported like any other, and may be replaced by a newer one.
    export.run(published, "stablehlo", str(tmp_path / "model.stablehlo"))
    export.run(finished, "safetensors", str(published))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.stablehlo", "published"]


def test_safetensors_of_another_network_are_refused(finished, tmp_path):
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


def test_a_directory_of_other_files_is_left_alone(finished, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other files: choose another --output"):
        export.run(finished, "safetensors", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_int8_keeps_its_measured_accuracy_beside_it(finished, tmp_path):
    needs("onnx-int8")
    line = export.run(finished, "onnx-int8", str(tmp_path / "small.onnx"))
    figures = json.loads((tmp_path / "small.json").read_text())
    assert f"test accuracy {figures['test_accuracy']:.4f}" in line
    result = json.loads((finished / "result.json").read_text())
    assert figures["checkpoint_test_accuracy"] == pytest.approx(result["test_accuracy"])
    images, labels = experiment.build(tiny()).test
    session = session_of(tmp_path / "small.onnx")
    logits = session.run(["logits"], {"images": images})[0]
    assert np.mean(logits.argmax(1) == labels) == pytest.approx(figures["test_accuracy"])
    assert {node.op_type for node in _graph(tmp_path / "small.onnx").node} >= {"QuantizeLinear"}


def _graph(path):
    import onnx

    return onnx.load(path).graph


def contents(directory) -> dict[str, bytes | str]:
    """All files below with what they hold; of a link where it leads."""
    return {
        str(path.relative_to(directory)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(pathlib.Path(directory).rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("format", export.FORMATS)
def test_what_a_user_has_is_replaced_by_force_alone(finished, tmp_path, format):
    """Whatever it is: a file, a link, one that leads nowhere, a directory, the figures."""
    needs(format)
    run = epath.Path(tmp_path / "run")
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("export"))
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
        with pytest.raises(UserError, match="is no directory|exists: choose another --output, or"):
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


def test_the_figures_of_int8_replace_no_file_of_the_user(finished, tmp_path):
    needs("onnx-int8")
    (tmp_path / "small.json").write_text("years of work")
    with pytest.raises(
        UserError, match=r"small.json exists: choose another --output, or pass --fo"
    ):
        export.run(finished, "onnx-int8", str(tmp_path / "small.onnx"))
    with pytest.raises(UserError, match=r"where the figures go: choose an --output that ends in"):
        export.run(finished, "onnx-int8", str(tmp_path / "other.json"))
    assert contents(tmp_path) == {"small.json": b"years of work"}


@pytest.mark.parametrize("format", export.FORMATS)
def test_its_own_export_is_replaced_until_the_user_changes_it(finished, tmp_path, format):
    needs(format)
    run = epath.Path(tmp_path / "run")
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("export"))
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
def test_an_export_of_other_logits_leaves_nothing(finished, tmp_path, format, monkeypatch):
    needs(format)
    apply = trained.Trained.apply

    def tampered(self, variables, images):
        # Arrays on the host are those that are written into an export.
        on_host = isinstance(jax.tree.leaves(variables)[0], np.ndarray)
        return apply(self, variables, images) * (-1 if on_host else 1)

    monkeypatch.setattr(trained.Trained, "apply", tampered)
    with pytest.raises(UserError, match="nothing written"):
        export.run(finished, format, str(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_load_back_as_others_leave_nothing(finished, tmp_path, monkeypatch):
    def tampered(variables):
        return to_bytes(jax.tree.map(lambda leaf: leaf + 1e-6, variables))

    to_bytes = weights.to_bytes
    monkeypatch.setattr(weights, "to_bytes", tampered)
    with pytest.raises(UserError, match="nothing written"):
        export.run(finished, "safetensors", str(tmp_path / "published"))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_or_is_missing_is_named(finished, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--format=tflite is no format of an export: use stablehlo"):
        export.run(finished, "tflite")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to .*choose another --output"):
        export.run(finished, "stablehlo", str(tmp_path / "file" / "model"))
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    monkeypatch.delitem(sys.modules, "cifar_jax.export.onnx_format", raising=False)
    with pytest.raises(UserError, match="needs jax2onnx: pip install -r requirements-onnx.txt"):
        export.run(finished, "onnx")


def test_the_command_line(finished):
    status, output = run("--mode=export", f"--workdir={finished}", "--format=safetensors")
    path = finished / "export" / "safetensors"
    assert status == 0 and output.startswith(f"{path}: ")
    assert cifar_jax.load(str(path)).workdir == path
