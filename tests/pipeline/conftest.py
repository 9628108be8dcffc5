from collections.abc import Iterator

import pytest

from tests.pipeline.forks import forking


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Where programs start in no time (tests.pipeline.forks)."""
    with forking() as address:
        yield address
