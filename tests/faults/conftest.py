from collections.abc import Iterator

import pytest
from warm import Warm


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """`main.py` at a tenth of the price."""
    with Warm() as process:
        yield process
