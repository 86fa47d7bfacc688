"""One TorchServe and one second front end on the same bundle, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from _fronts import MODEL, Web
from _serving import make_bundle

from elude.handlers.service import Service
from elude.handlers.settings import Settings
from elude.handlers.torchserve.server import Server, ServerSettings
from elude.model_store.archive import package


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robust")
    return package(make_bundle(folder / "b"), folder, name=MODEL, version="1.0", settings=Settings(recheck_s=1))


@pytest.fixture(scope="session")
def local(archive: Path) -> Service:
    return Service.open(archive.parent / "b", model=MODEL)


@pytest.fixture(scope="session")
def server(archive: Path) -> Iterator[Server]:
    with Server(archive, ServerSettings(workers=2, batch_size=8, batch_delay_ms=5)) as running:
        yield running


@pytest.fixture(scope="session")
def web(archive: Path) -> Iterator[Web]:
    running = Web(archive.parent / "b")
    yield running
    running.stop()


@pytest.fixture(params=["server", "web"])
def front(request: pytest.FixtureRequest) -> Server | Web:
    """Each front end in turn: both must pass the same tests."""
    found: Server | Web = request.getfixturevalue(request.param)
    return found
