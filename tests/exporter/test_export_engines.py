"""Threads, processes and a Ray cluster give the same probes and the same splits, to the bit; what a job raises
arrives.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from _images import noise, plain
from _models import Convolutions, TinyBlocks
from torch import nn

from elude.exporter import engines
from elude.exporter.models.layers import find_layers
from elude.exporter.probing.probe import collect
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.split_layer import split_layer
from elude.exporter.splitting.split_unit import SplitSettings
from elude.handlers.errors import ImageError, UsageError

SETTINGS = SplitSettings(200, 8)


def double(shared: int, job: int) -> int:
    if job == 13:
        raise ImageError("job 13", "do without")
    return shared + 2 * job


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
    threads, counted = split_layer(layer, probe, SETTINGS), []
    processes = split_layer(layer, probe, SETTINGS, lambda done, total: counted.append((done, total)), workers=2)
    assert same(threads, processes)
    assert threads.sub_units > layer.units  # else nothing was compared
    assert counted == [(done, 6) for done in range(1, 7)]
    assert not same(threads, split_layer(layer, probe, SplitSettings(150, 8)))


@pytest.mark.slow
def test_a_ray_cluster_of_two_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    tests = os.fspath(Path(__file__).parents[1])
    here = {
        "env_vars": {"PYTHONPATH": os.pathsep.join([tests, os.fspath(Path(__file__).parent)])}
    }  # where double and the models are
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
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
        one = split_layer(layer, probe, SETTINGS)
        assert one.sub_units > layer.units  # else nothing is compared
        assert same(one, split_layer(layer, probe, SETTINGS, engine="ray"))
    finally:
        ray.shutdown()
