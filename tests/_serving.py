"""What serving's tests share: a bundle of the embedded model, a mix of requests with their single-request answers,
and an HTTP load.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import tarfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import elude.exporter.models.torchvision_compat  # noqa: F401
from elude.exporter.graph import emit
from elude.exporter.models.layers import find_layers
from elude.exporter.models.load import load_model
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.bundle import Bundle, LayerInfo, write_bundle
from elude.handlers.bundle.catalogue import (
    ConceptPortrait,
    ConceptRow,
    ImageRow,
    SubUnitRow,
    Top,
    UnitRow,
    write_catalogue,
)
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service

T = TypeVar("T")
ROOT = Path(__file__).parent.parent


def images(count: int) -> list[bytes]:
    """Encoded images of the embedded evaluation data, spread over its classes."""
    with tarfile.open(ROOT / "exporter/embedded/evaluation.tar") as tar:
        files = [member for member in tar.getmembers() if member.isfile()]
        return [tar.extractfile(member).read() for member in files[:: len(files) // count][:count]]  # type: ignore[union-attr]


def make_bundle(path: Path, concepts: Sequence[ConceptRow] = (), portraits: Sequence[ConceptPortrait] = ()) -> Bundle:
    """The embedded model with its last block's fc2 split at random, which serving cannot tell from a good split."""
    model = load_model("embedded")
    layers = find_layers(model.module, "last")
    layer, rng = layers[0], np.random.default_rng(0)
    parts = rng.integers(1, 4, layer.units)
    masks = rng.integers(1, 2 ** parts[:, None], (layer.units, layer.inputs)).astype(np.uint64)
    zeros = np.zeros((int(parts.sum()), layer.inputs), np.float32)
    split = LayerSplit(layer.name, parts, masks, np.full(layer.units, 0.5, np.float32), zeros)
    info = LayerInfo(layer.name, layer.kind, layer.units, layer.inputs, tuple(int(p) for p in parts), 0)
    tops = (Top(0, 1, 2.0),)
    rows = [
        SubUnitRow(
            i, layer.name, int(u), int(p), 0.5, 0.5, 0.1, 0.0, 2.0, None, 0.5, f"concept {i}", "test", None, tops
        )
        for i, (u, p) in enumerate(zip(split.parent, split.part, strict=True))
    ]
    with write_bundle(path, source=model.source, layers=[info], parameters=1, versions={}) as folder:
        size = model.preprocess.input_size
        target = folder / "model.onnx"
        emit(
            model.module,
            [split],
            target,
            layers=layers,
            input_size=size,
            source=model.source,
            preprocess=model.preprocess,
        )
        (folder / "preprocess.json").write_text(json.dumps(model.preprocess.to_json()))
        (folder / "labels.json").write_text(json.dumps(model.labels))
        (folder / "README.md").write_text("# A model for tests\n")
        edits = [{"id": f"{layer.name}/u{u}.s0", "action": "scale", "value": -3} for u in range(4)]
        (folder / "presets.json").write_text(json.dumps({"a": edits[:2], "b": edits[2:]}))
        units = [UnitRow(layer.name, u, int(parts[u]), None, tops) for u in range(layer.units)]
        pictures = [ImageRow(0, "a", None, images(1)[0])]
        write_catalogue(folder / "catalogue.sqlite", pictures, units, rows, concepts, portraits)
    return Bundle.open(path)


@dataclass(frozen=True)
class Ask:
    """One HTTP request, and the answer that the service gives when asked it alone."""

    path: str
    body: bytes
    kind: str
    status: int
    answer: bytes


def mixed(service: Service, count: int, *, invalid: float = 0.05, seed: int = 0) -> list[Ask]:
    """Mixed requests in random order; exactly the fraction ``invalid`` of them is wrong, each in a way of its own."""
    rng = random.Random(seed)
    layer, pictures = service.session.layers[0], images(40)
    made: dict[tuple[str, bytes], Ask] = {}

    def ask(path: str, body: bytes, kind: str) -> Ask:
        if (path, body) not in made:
            reference = service.answer([Call(body, explain=path == "explanations")])[0]
            made[path, body] = Ask(path, body, kind, reference.status, reference.body)
        return made[path, body]

    def as_json(**body: Any) -> Ask:
        return ask("predictions", json.dumps(body).encode(), "application/json")

    def edits(number: int) -> list[dict[str, Any]]:
        units = rng.sample(range(layer.units), number)
        return [
            {"id": f"{layer.name}/u{u}.s0", "action": "scale", "value": rng.choice([-8, 0, 4]), "patches": 7 * (u % 2)}
            for u in units
        ]

    def good() -> Ask:
        image = rng.choice(pictures)
        text = base64.b64encode(image).decode()
        return rng.choices(
            [
                lambda: ask("predictions", image, "image/png"),
                lambda: as_json(op="predict", image=text, top_k=rng.randint(1, 10)),
                lambda: ask("explanations", image, "image/png"),
                lambda: as_json(op="inspect", image=text, heat_map=rng.choice(["grid", "png", "none"]), top_k=3),
                lambda: as_json(op="inspect", image=text, heat_map="none", by="effect", candidates=4),
                lambda: as_json(op="steer", image=text, edits=edits(8)),
                lambda: as_json(op="steer", image=text, preset=rng.choice("ab")),
                lambda: as_json(op="feature", id=f"{layer.name}/u{rng.randrange(layer.units)}.s0"),
                lambda: as_json(op="search", query=f"concept {rng.randrange(20)}"),
                lambda: as_json(op="search", image=text, limit=3),
                lambda: as_json(instances=[text, {"image": {"b64": text}, "top_k": 1}]),
            ],
            [40, 8, 10, 6, 2, 12, 6, 4, 6, 3, 3],
        )[0]()

    def bad(number: int) -> Ask:
        image = rng.choice(pictures)
        text = base64.b64encode(image).decode()
        return [
            lambda: ask("predictions", image[: 50 + number % 100], "image/png"),
            lambda: ask("predictions", b'{"op": ' + b" " * (number % 50), "application/json"),
            lambda: as_json(op=f"fly {number}"),
            lambda: as_json(op="predict", image=text, top_k=-number - 1),
            lambda: as_json(
                op="steer", image=text, edits=[{"id": f"{layer.name}/u0.s{1000 + number}", "action": "ablate"}]
            ),
            lambda: as_json(
                op="steer", image=text, edits=[{"id": f"{layer.name}/u0.s0", "action": "set", "value": float("nan")}]
            ),
            lambda: as_json(op="inspect", image=text, layer=f"layer {number}"),
            lambda: as_json(op="feature", id=f"x{number}"),
            lambda: as_json(op="steer", image=text, preset=f"none {number}"),
            lambda: as_json(instances=[text, f"%{number}"]),
        ][number % 10]()

    wrong = round(count * invalid)
    asked = [bad(i) for i in range(wrong)] + [good() for _ in range(count - wrong)]
    rng.shuffle(asked)
    return asked


class Connection:
    """One kept-alive connection to a server's inference address."""

    def __init__(self, port: int, token: str | None, model: str, timeout: float = 60) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._headers, self._model = ({"Authorization": f"Bearer {token}"} if token else {}), model

    def send(self, ask: Ask) -> tuple[int, bytes]:
        """Status and body."""
        self._connection.request(
            "POST", f"/{ask.path}/{self._model}", ask.body, self._headers | {"Content-Type": ask.kind}
        )
        response = self._connection.getresponse()
        return response.status, response.read()

    def close(self) -> None:
        """Close it."""
        self._connection.close()


def load(
    asks: Sequence[T], concurrency: int, connect: Callable[[], Callable[[T], Any]]
) -> tuple[list[Any], list[float]]:
    """Send all from ``concurrency`` threads, each over a connection of its own; answers and seconds in the order of
    ``asks``.
    """
    answers: list[Any] = [None] * len(asks)
    seconds = [0.0] * len(asks)

    def work(first: int) -> None:
        send = connect()
        for i in range(first, len(asks), concurrency):
            begin = time.perf_counter()
            answers[i] = send(asks[i])
            seconds[i] = time.perf_counter() - begin

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(work, range(concurrency)))
    return answers, seconds


def differs(got: Any, expected: Any, where: str = "") -> str:
    """Where two JSON values differ by more than rounding (the runtime orders sums by the size of the batch); empty
    if nowhere.
    """
    if isinstance(expected, dict) and isinstance(got, dict) and list(got) == list(expected):
        return next(
            (found for name in expected if (found := differs(got[name], expected[name], f"{where}.{name}"))), ""
        )
    if isinstance(expected, list) and isinstance(got, list) and len(got) == len(expected):
        return next(
            (found for i, value in enumerate(expected) if (found := differs(got[i], value, f"{where}[{i}]"))), ""
        )
    if isinstance(expected, float) and isinstance(got, float):
        return "" if abs(got - expected) <= 1e-4 + 1e-4 * abs(expected) else f"{where}: {got} instead of {expected}"
    if isinstance(expected, int) and isinstance(got, int) and ".heat_map.values" in where:
        return "" if abs(got - expected) <= 1 else f"{where}: {got} instead of {expected}"
    return "" if got == expected else f"{where}: {got!r} instead of {expected!r}"


def wrong(ask: Ask, status: int, body: bytes) -> str:
    """What is wrong with an answer, empty if nothing; the PNG of a heat map may differ as rounding moves it by a
    step.
    """
    if status != ask.status:
        return f"{status} instead of {ask.status}: {body[:200]!r}"
    if body == ask.answer:
        return ""
    if status != 200:
        return f"{body[:200]!r} instead of {ask.answer[:200]!r}"
    got, expected = json.loads(body), json.loads(ask.answer)
    for value in (got, expected):
        for row in value.get("sub_units", []):
            row.get("heat_map", {}).pop("png", None)
    return differs(got, expected)
