from collections.abc import Iterator

import pytest
from warm import Warm


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Runs `main.py` in a tenth of the time of a new process."""
    with Warm() as process:
        yield process
