"""Threads, processes and a Ray cluster give the same probes and the same splits, to the bit; what a job raises
arrives.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from _images import noise, plain
from _models import Convolutions, TinyBlocks
from numpy.typing import NDArray
from torch import nn

from elude.exporter import engines
from elude.exporter.models.layers import Layer, find_layers
from elude.exporter.probing.probe import Probe, collect
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.split_file import save_splits
from elude.exporter.splitting.split_layer import split_layer
from elude.exporter.splitting.split_unit import SplitSettings
from elude.handlers.errors import ImageError, UsageError

SETTINGS = SplitSettings(200, 8)


def double(shared: int, job: int) -> int:
    if job == 13:
        raise ImageError("job 13", "do without")
    return shared + 2 * job


def where(shared: tuple[int, list[NDArray[np.float32]]], row: int) -> list[tuple[bool, bool, list[float]]]:
    """Of each array whether it owns its memory, whether it can be written to, and one row."""
    return [(array.flags.owndata, array.flags.writeable, array[row].tolist()) for array in shared[1]]


class Parcel:
    """Counts how often it is packed."""

    packed = 0

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        Parcel.packed += 1
        return int, (100,)


def large_layer(folder: Path) -> tuple[nn.Module, Probe]:
    """A layer of which each unit has more instances than are clustered at once, mapped from files."""
    rng = np.random.default_rng(0)
    pictures, tokens, inputs, kinds = 2_500, 2, 80, 5
    torch.manual_seed(0)
    module = nn.Linear(inputs, 3)
    with torch.no_grad():
        module.weight.uniform_(0.5, 1)
    kind = np.arange(pictures) % kinds
    q = 0.3 * rng.random((pictures, tokens, inputs), np.float32)
    for number in range(kinds):
        q[np.ix_(kind == number, range(tokens), np.arange(inputs) % kinds == number)] += 1
    flat = q.reshape(-1, inputs, 1)
    with torch.no_grad():
        z = module(torch.from_numpy(flat[:, :, 0])).numpy()
    for name, array in (("q", flat), ("z", np.asfortranarray(z))):
        np.save(folder / f"{name}.npy", array)
    mapped = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("q", "z"))
    image = np.repeat(np.arange(pictures), tokens)
    return module, Probe("0", *mapped, image, np.tile(np.arange(tokens), pictures), q.mean(axis=1))


def split_bytes(layer: Layer, probe: Probe, path: Path, **options: int | str) -> bytes:
    """The split and its control as files hold them."""
    settings = SplitSettings(4_600, 60, "signed", "pictures")
    split, control = split_layer(layer, probe, settings, **options)
    assert split.sub_units > layer.units  # else nothing was compared
    save_splits([split], path)
    first = path.read_bytes()
    save_splits([control], path)
    return first + path.read_bytes()


def blocks() -> nn.Module:
    model = TinyBlocks(width=6, hidden=24).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def same(one: LayerSplit, other: LayerSplit) -> bool:
    return all(
        getattr(one, part).tobytes() == getattr(other, part).tobytes()
        for part in ("parts", "masks", "rho", "representatives")
    )


def test_answers_come_in_order_and_jobs_are_made_only_a_little_ahead() -> None:
    made: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(12):
            made.append(job)
            yield job

    answers = engines.run(double, 100, jobs(), workers=1)
    assert next(answers) == 100
    assert len(made) <= 3
    assert list(answers) == [100 + 2 * job for job in range(1, 12)]


@pytest.mark.slow
def test_what_jobs_share_is_packed_once_and_large_arrays_are_mapped_read_only(tmp_path: Path) -> None:
    Parcel.packed = 0
    in_memory = np.arange(600_000, dtype=np.float32).reshape(3, -1).T
    np.save(tmp_path / "mapped.npy", in_memory)
    mapped = np.load(tmp_path / "mapped.npy", mmap_mode="r")
    arrays = [in_memory, mapped, mapped[100:]]
    answers = list(engines.run(where, (Parcel(), arrays), range(8), workers=2))  # type: ignore[arg-type]
    for row, answer in enumerate(answers):
        assert answer == [(False, False, array[row].tolist()) for array in arrays]
    assert Parcel.packed == 1


def test_what_a_job_raises_arrives() -> None:
    with pytest.raises(ImageError, match="job 13 do without") as caught:
        list(engines.run(double, 0, [1, 13, 2], workers=1))
    assert caught.value.remedy == "do without"


def test_unknown_engines_are_refused() -> None:
    with pytest.raises(UsageError, match="no engine 'spark'"):
        engines.check("spark", 0)
    with pytest.raises(UsageError, match="workers is -1"):
        engines.check("local", -1)


def test_processes_split_as_threads_do(tmp_path: Path) -> None:
    model = blocks()
    (layer,) = find_layers(model, "blocks.1.mlp.fc2")
    probe = collect(
        model, [layer], noise(tmp_path, 80, 8), plain(8), tokens_per_image=4, seed=0, folder=tmp_path / "probe"
    )[layer.name]
    (threads, _), counted = split_layer(layer, probe, SETTINGS), []
    processes, _ = split_layer(layer, probe, SETTINGS, lambda done, total: counted.append((done, total)), workers=2)
    assert same(threads, processes)
    assert threads.sub_units > layer.units  # else nothing was compared
    assert counted == [(done, 6) for done in range(1, 7)]
    assert not same(threads, split_layer(layer, probe, SplitSettings(150, 8))[0])


@pytest.mark.slow
def test_processes_and_two_machines_of_a_ray_cluster_write_the_bytes_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the machines' processes
    module, probe = large_layer(tmp_path)
    (layer,) = find_layers(nn.Sequential(module), "0")
    threads = split_bytes(layer, probe, tmp_path / "split")
    assert split_bytes(layer, probe, tmp_path / "split", workers=2) == threads
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        assert split_bytes(layer, probe, tmp_path / "split", engine="ray") == threads
        assert len(ray.nodes()) == 2
        large = np.zeros((300, 1_000), np.float32)
        (answer,) = engines.run(where, (0, [large, probe.q]), [5], engine="ray")
        assert [kind[:2] for kind in answer] == [(False, False)] * 2  # both are the object store's
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_a_ray_cluster_of_two_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    tests = os.fspath(Path(__file__).parents[1])
    here = {
        "env_vars": {"PYTHONPATH": os.pathsep.join([tests, os.fspath(Path(__file__).parent)])}
    }  # where double and the models are
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
    try:
        assert list(engines.run(double, 1, range(5), engine="ray")) == [1, 3, 5, 7, 9]
        with pytest.raises(ImageError, match="job 13") as caught:
            list(engines.run(double, 0, [13], engine="ray"))
        assert caught.value.remedy == "do without"
        source = noise(tmp_path / "images", 70, 12)
        model = Convolutions().eval()
        layers = find_layers(model, "stem,grouped,head")
        seen: list[int] = []
        local, cluster = (
            collect(
                model, layers, source, plain(12), tokens_per_image=4, seed=3, batch_size=16, progress=report, **options
            )
            for report, options in (
                (None, {}),
                (lambda done, _: seen.append(done), {"engine": "ray", "folder": tmp_path / "probe"}),
            )
        )
        assert seen == [16, 32, 48, 64, 70]
        for name, probe in local.items():
            assert all(
                np.array_equal(getattr(probe, part), getattr(cluster[name], part))
                for part in ("q", "z", "image", "token")
            )
        (layer,) = find_layers(model, "pointwise")
        probe = collect(model, [layer], source, plain(12), tokens_per_image=8, seed=0)["pointwise"]
        one, _ = split_layer(layer, probe, SETTINGS)
        assert one.sub_units > layer.units  # else nothing is compared
        assert same(one, split_layer(layer, probe, SETTINGS, engine="ray")[0])
    finally:
        ray.shutdown()
