"""TFDS data sets are prepared without TensorFlow; each failure gives one clear line."""

import concurrent.futures
import contextlib
import functools
import hashlib
import http.server
import json
import pathlib
import socket
import sys
import tarfile
import threading
import time
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from fabricate import assert_same, download_of, every_host_answers
from PIL import Image
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.units import Size
from tensorflow_datasets.image_classification import cifar

from cifar_jax.data import archive, tfds_prepare, tfds_source
from cifar_jax.errors import UserError


@pytest.fixture(autouse=True)
def quiet_and_offline(monkeypatch: pytest.MonkeyPatch):
    """Turns progress bars off, and keeps proxies away from servers on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    tfds.disable_progress_bar()
    yield
    tfds.enable_progress_bar()


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch):
    """Replaces all downloads: set `downloads.result` to what they shall return."""

    class Downloads:
        result = None
        count = 0

        def __call__(self, manager: Any, urls: dict[str, str] | str):
            self.count += 1
            return self.result

    fake = Downloads()
    for method in ("download", "download_and_extract"):
        monkeypatch.setattr(tfds.download.DownloadManager, method, functools.partialmethod(fake))
    with every_host_answers():
        yield fake


def by_content(images: np.ndarray, labels: np.ndarray):
    order = sorted(range(len(images)), key=lambda i: images[i].tobytes())
    return images[order], labels[order]


def assert_same_set(
    found: dict[str, tuple[np.ndarray, ...]], expected: dict[str, tuple[np.ndarray, ...]]
):
    """Asserts that both hold the same images and labels in any order, since TFDS shuffles."""
    assert_same(
        {split: by_content(*arrays) for split, arrays in found.items()},
        {split: by_content(*arrays) for split, arrays in expected.items()},
    )


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn_cropped", "fashion_mnist"])
def test_a_download_is_prepared_as_the_standard_data_set(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, downloads: Any, name: str
):
    downloads.result, splits, names = download_of(name, tmp_path / "raw", monkeypatch)
    found, class_names, path = tfds_source.read(name, tmp_path / "tfds", prepare=True)
    assert_same_set(found, splits)
    assert class_names == names
    standard = tfds.builder(name, data_dir=tmp_path / "tfds")
    assert path == str(standard.data_path) and standard.is_prepared()
    assert path.endswith(f"{name}/{standard.version}")
    info = json.loads((standard.data_path / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record"
    assert info["moduleName"] == type(standard).__module__
    assert {record["label"] for record in standard.as_data_source("test")} <= set(range(10))

    downloads.result = None  # the second read downloads nothing
    assert_same(tfds_source.read(name, tmp_path / "tfds", prepare=True)[0], found)


def test_two_concurrent_preparations_share_one_download(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, downloads: Any
):
    downloads.result, splits, _ = download_of("cifar100", tmp_path / "raw", monkeypatch)
    read = functools.partial(tfds_source.read, "cifar100", tmp_path / "tfds", prepare=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(read), pool.submit(read)]:
            assert_same_set(future.result()[0], splits)
    assert downloads.count == 1


@contextlib.contextmanager
def serve(folder: pathlib.Path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None  # pyright: ignore[reportFunctionMemberAccess]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def point_cifar10_at(monkeypatch: pytest.MonkeyPatch, url: str, file: pathlib.Path | None = None):
    """Makes TFDS download cifar10 from `url` and expect the checksum of `file`."""
    info = checksums.UrlInfo(size=Size(1), checksum="ab" * 32, filename="x.tar.gz")
    infos = {url: checksums.compute_url_info(file) if file else info}
    original = cifar.Cifar10._cifar_info.fget
    patched = property(lambda self: original(self)._replace(url=url))
    monkeypatch.setattr(cifar.Cifar10, "_cifar_info", patched)
    monkeypatch.setattr(cifar.Cifar10, "url_infos", infos)


def write_archive_to_serve(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    _, splits, _ = download_of("cifar10", tmp_path / "raw", monkeypatch)
    file = tmp_path / "www" / "cifar-10-binary.tar.gz"
    file.parent.mkdir()
    with tarfile.open(file, "w:gz") as tar:
        tar.add(tmp_path / "raw" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    return splits, file


def test_a_real_download_needs_no_tensorflow(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    splits, file = write_archive_to_serve(tmp_path, monkeypatch)
    with serve(tmp_path / "www") as host:
        point_cifar10_at(monkeypatch, f"{host}/{file.name}", file)
        found, names, _ = tfds_source.read("cifar10", tmp_path / "tfds", prepare=True)
    assert_same_set(found, splits)
    assert names == archive.CLASS_NAMES
    assert "tensorflow" not in sys.modules


def test_a_download_with_the_wrong_checksum_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    _, file = write_archive_to_serve(tmp_path, monkeypatch)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    with serve(tmp_path / "www") as host:
        point_cifar10_at(monkeypatch, f"{host}/cifar-10-binary.tar.gz")
        with pytest.raises(
            UserError, match=f"expected SHA-256 {'ab' * 32}, found {found};"
        ) as error:
            tfds_source.read("cifar10", tmp_path / "tfds", prepare=True)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "tfds" / "cifar10" / "3.0.2").exists()


def test_a_damaged_download_is_refused_and_leaves_no_data_set(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    _, file = write_archive_to_serve(tmp_path, monkeypatch)
    file.write_bytes(file.read_bytes()[:10_000])
    with serve(tmp_path / "www") as host:
        point_cifar10_at(monkeypatch, f"{host}/{file.name}", file)
        with pytest.raises(UserError, match="cannot prepare cifar10.*extracting"):
            tfds_source.read("cifar10", tmp_path / "tfds", prepare=True)
    assert not list((tmp_path / "tfds" / "cifar10").iterdir())


def test_a_missing_file_on_the_host_is_a_user_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    with serve(tmp_path) as host:
        point_cifar10_at(monkeypatch, f"{host}/cifar-10-binary.tar.gz")
        with pytest.raises(UserError, match="HTTP code: 404"):
            tfds_source.read("cifar10", tmp_path / "tfds", prepare=True)


@pytest.mark.parametrize("host", ["refuses", "never answers", "has no address"])
def test_an_unreachable_host_is_reported_within_seconds(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, host: str
):
    monkeypatch.setattr(tfds_prepare, "PROBE_SECONDS", 0.3)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if host == "never answers":
            listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        if host == "has no address":
            address = "nowhere.invalid"
        point_cifar10_at(monkeypatch, f"http://{address}/x.tar.gz")
        start = time.monotonic()
        with pytest.raises(UserError) as error:
            tfds_source.read("cifar10", tmp_path / "tfds", prepare=True)
    assert time.monotonic() - start < 10
    message = str(error.value)
    assert f"{address} is unreachable" in message and "\n" not in message
    for alternative in ("config.data.dir", "config.data.archive", "config.data.download=True"):
        assert alternative in message


def test_a_full_disk_while_preparing_is_a_user_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, downloads: Any
):
    downloads.result, _, _ = download_of("cifar10", tmp_path / "raw", monkeypatch)

    def full(*args: np.ndarray, **kwargs: Any):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match="No space left on device.*TFDS_DATA_DIR"):
        tfds_source.read("cifar10", tmp_path / "tfds", prepare=True)
    assert not list((tmp_path / "tfds" / "cifar10").iterdir())


def test_a_data_set_that_needs_tensorflow_is_a_user_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, downloads: Any
):
    downloads.result, _, _ = download_of("cifar10", tmp_path / "raw", monkeypatch)
    monkeypatch.setattr(cifar, "_load_data", lambda *_: cifar.tf.image.decode_png(b""))
    with pytest.raises(UserError, match="cannot be prepared without TensorFlow.*tfds build"):
        tfds_source.read("cifar10", tmp_path / "tfds", prepare=True)


def test_a_directory_that_cannot_be_created_is_a_user_error(tmp_path: pathlib.Path, downloads: Any):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot prepare a data set in .*TFDS_DATA_DIR"):
        tfds_source.read("cifar10", tmp_path / "file" / "tfds", prepare=True)
