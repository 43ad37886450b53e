"""Where caches go for a user without a home directory, as in a container run under a bare uid."""

import os
import pathlib
import pwd
import stat
import tempfile

import pytest

from cifar_jax import places
from cifar_jax.errors import UserError


@pytest.fixture
def homeless(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    def nobody(_):
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / f"cifar_jax-{os.getuid()}"


def test_a_user_without_a_home_gets_a_private_directory(homeless: pathlib.Path):
    assert places.user_cache() == homeless == places.user_cache()
    assert stat.S_IMODE(homeless.stat().st_mode) == 0o700
    assert not pathlib.Path("~").exists()


def test_xdg_cache_home_takes_precedence(homeless: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/named")
    assert places.user_cache() == pathlib.Path("/named/cifar_jax")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of a directory")
def test_a_directory_owned_by_someone_else_is_not_trusted(homeless: pathlib.Path):
    homeless.mkdir()
    os.chown(homeless, 12345, 12345)
    with pytest.raises(UserError, match="belongs to another user: set XDG_CACHE_HOME"):
        places.user_cache()
