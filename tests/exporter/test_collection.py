"""A killed collection goes on and gives the same bytes; so do two runs, in memory or in a folder; memory stays
within its bound.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _images import noise, plain
from _models import Convolutions

from elude.exporter.export.work_folder import work_folder
from elude.exporter.images import ImageSource, open_images
from elude.exporter.models.layers import find_layers
from elude.exporter.probing.probe import Probe, collect, collected_bytes
from elude.handlers.errors import ImageError, UsageError

ROOT = Path(__file__).parents[2]
LAYERS = "stem,grouped,head"
# Run by a process of its own: collects, and says after each batch how far it is.
SCRIPT = f"""
import sys, time
sys.path.insert(0, "tests")
from pathlib import Path
from _models import Convolutions
from _images import plain
from elude.exporter.images import open_images
from elude.exporter.models.layers import find_layers
from elude.exporter.probing.probe import collect

def say(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[3]))

model = Convolutions().eval()
collect(model, find_layers(model, "{LAYERS}"), open_images(sys.argv[1]), plain(12), tokens_per_image=3, seed=5,
        batch_size=4,
        progress=say, folder=Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    return noise(tmp_path_factory.mktemp("noise"), 30, 12)


def gather(images: ImageSource, folder: Path | None = None, **settings: object) -> tuple[dict[str, Probe], list[int]]:
    model, seen = Convolutions().eval(), []
    defaults = {"tokens_per_image": 3, "seed": 5, "batch_size": 4} | settings
    found = collect(
        model,
        find_layers(model, LAYERS),
        images,
        plain(12),
        folder=folder,
        progress=lambda done, _: seen.append(done),
        **defaults,
    )
    return found, seen


def same(one: dict[str, Probe], other: dict[str, Probe]) -> bool:
    return all(
        getattr(one[name], part).tobytes() == getattr(other[name], part).tobytes()
        for name in one
        for part in ("q", "z", "image", "token", "pictures")
    ) and list(one) == list(other)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_a_killed_collection_goes_on_and_gives_the_same_bytes(images: ImageSource, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-c", SCRIPT, images.name)
    with subprocess.Popen(
        [*command, str(tmp_path / "killed"), "0.2"], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 12:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    left = files(tmp_path / "killed")
    again = subprocess.run(
        [*command, str(tmp_path / "killed"), "0"], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert [int(line) for line in again.stdout.split()] == [12, 16, 20, 24, 28, 30]
    subprocess.run(
        [*command, str(tmp_path / "whole"), "0"], stdout=subprocess.DEVNULL, check=True, cwd=ROOT, env=environment
    )
    assert files(tmp_path / "killed") == files(tmp_path / "whole") != left
    assert len(left) == 3 * 4 + 1


def test_in_memory_or_in_a_folder_and_twice_it_is_the_same(images: ImageSource, tmp_path: Path) -> None:
    memory, seen = gather(images)
    stored, _ = gather(images, tmp_path / "probe")
    finished, nothing = gather(images, tmp_path / "probe")
    assert same(memory, stored)
    assert same(memory, finished)
    assert (seen[-1], nothing) == (30, [30])


@pytest.mark.parametrize(
    "change", [{"seed": 6}, {"tokens_per_image": 2}, {"batch_size": 5}, {"images": 29}, {"touched": True}]
)
def test_another_collection_in_the_folder_is_not_gone_on_with(change: dict[str, int], tmp_path: Path) -> None:
    source = noise(tmp_path / "noise", 30, 12)
    (tmp_path / "noise" / "b" / "0029.png").rename(tmp_path / "last.png")
    gather(open_images(tmp_path / "noise"), tmp_path / "probe")
    if "touched" in change:
        os.utime(source.entries[0].path, ns=(1, 1))
    elif "images" in change:
        (tmp_path / "last.png").rename(tmp_path / "noise" / "b" / "0029.png")
    settings = {key: value for key, value in change.items() if key not in ("touched", "images")}
    found, seen = gather(open_images(tmp_path / "noise"), tmp_path / "probe", **settings)
    assert seen[0] <= 5  # from the start
    assert same(found, gather(open_images(tmp_path / "noise"), None, **settings)[0])


def test_a_failed_image_leaves_what_came_before_it(tmp_path: Path) -> None:
    source = noise(tmp_path / "noise", 12, 12, labels="a")
    good = source.entries[9].path.read_bytes()
    state = source.entries[9].path.stat()
    source.entries[9].path.write_bytes(b"x" * len(good))
    os.utime(source.entries[9].path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ImageError, match="0009"):
        gather(source, tmp_path / "probe")
    source.entries[9].path.write_bytes(good)
    os.utime(source.entries[9].path, ns=(state.st_atime_ns, state.st_mtime_ns))
    found, seen = gather(source, tmp_path / "probe")
    assert seen == [8, 12]
    assert same(found, gather(source)[0])


# The growth of the largest resident memory from before the collection, after a small one has loaded everything.
MEMORY = """
import sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from elude.exporter.images import ImageSource, open_images
from elude.exporter.models.layers import find_layers
from elude.exporter.probing.probe import collect, collected_bytes
from elude.handlers.images.preprocess import Preprocess

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2000, 500)
    def forward(self, x):
        return self.fc(x.flatten(1)[:, :2000].unsqueeze(1).expand(-1, 4, -1))

def peak(reset=False):
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

torch.set_num_threads(1)
model = Wide().eval()
layers = find_layers(model, "fc")
source, preprocess = open_images(sys.argv[1]), Preprocess((3, 32, 32), "nearest", 1.0, "center", (0.5,) * 3, (0.5,) * 3)
many = ImageSource(source.name, source.entries * 100)
collect(model, layers, source, preprocess, tokens_per_image=3, seed=0, batch_size=16)
before = peak(reset=True)
found = collect(model, layers, many, preprocess, tokens_per_image=3, seed=0, batch_size=16)
print(peak() - before, collected_bytes(layers[0], 4, len(many), 3))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the resident memory from /proc")
def test_memory_is_within_the_stated_bound(tmp_path: Path) -> None:
    noise(tmp_path, 40, 32)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    used, bound = (int(word) for word in subprocess.check_output(command, text=True, cwd=ROOT, env=environment).split())
    batch = 16 * (
        3 * 32 * 32 * (2 + 4 + 4) + 4 * 4 * (2 * 2000 + 2 * 500)
    )  # pixels of two batches; input and output, and their copies
    assert bound == 4000 * 3 * (2500 * 4 + 16) + 4000 * 2000 * 4
    assert 0.9 * bound < used < bound + batch + 8_000_000  # the rest is the allocator's


def test_the_bound_counts_every_array(images: ImageSource) -> None:
    found, _ = gather(images)
    model = Convolutions().eval()
    for layer, tokens in zip(find_layers(model, LAYERS), (36, 36, 1), strict=True):
        probe = found[layer.name]
        used = sum(array.nbytes for array in (probe.q, probe.z, probe.image, probe.token, probe.pictures))
        assert collected_bytes(layer, tokens, len(images), 3) == used


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with work_folder(tmp_path / "out") as folder:
        assert folder == tmp_path / "out.partial"
        with pytest.raises(UsageError, match="Another process is working on"), work_folder(tmp_path / "out"):
            pass
        assert folder.is_dir()
    assert not folder.exists()
    with pytest.raises(ImageError), work_folder(tmp_path / "out"):
        raise ImageError("x")
    assert not folder.exists()  # nothing was collected

    def fail(error: type[BaseException]) -> None:
        with work_folder(tmp_path / "out") as work:
            (work / "collected").touch()
            raise error("x")

    for error in (KeyboardInterrupt, ImageError):
        with pytest.raises(error):
            fail(error)
        assert (folder / "collected").is_file()
    with work_folder(tmp_path / "out"):
        pass
    assert not folder.exists()
    folder.write_text("mine")
    with pytest.raises(UsageError, match="in the way"), work_folder(tmp_path / "out"):
        pass


def test_arrays_of_a_folder_are_read_from_it(images: ImageSource, tmp_path: Path) -> None:
    """So that they need no memory of the process's own."""
    stored, _ = gather(images, tmp_path / "probe")
    assert all(isinstance(array, np.memmap) for probe in stored.values() for array in (probe.q, probe.z))
