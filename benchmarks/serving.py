"""Cost of serving: predict, inspect and steer against a minimal plain handler for the same ONNX file in the same
TorchServe.

    python -m benchmarks.serving --model embedded --workers 1 2 [--quick]

Both archives are registered in one server. Requests to them alternate one by one at concurrency 1,
and in short blocks at higher concurrency; each figure is a median over repetitions of paired
ratios, so that what else the machine does hits both alike.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import http.client
import io
import json
import shutil
import signal
import statistics
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import elude.exporter.models.torchvision_compat  # noqa: F401
from elude.exporter.graph import emit
from elude.exporter.models.layers import find_layers
from elude.exporter.models.load import EMBEDDED_FOLDER, load_model
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.bundle import Bundle, LayerInfo, write_bundle
from elude.handlers.settings import Settings
from elude.handlers.torchserve.archives import ArchiveInfo
from elude.handlers.torchserve.handler import CONTENTS, contents_bytes
from elude.handlers.torchserve.server import Server, ServerSettings
from elude.model_store.archive import package

OPERATIONS = ("plain", "predict", "inspect", "steer", "steer by new edits", "steer by a preset", "steer and compare")
PLAIN_HANDLER = """
import io, json
from pathlib import Path
import numpy as np
import onnxruntime as ort
from PIL import Image

class PlainHandler:
    def initialize(self, context):
        folder = Path(context.system_properties["model_dir"])
        self.p = json.loads((folder / "preprocess.json").read_text())
        self.labels = json.loads((folder / "labels.json").read_text())
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.mean, self.std = (np.array(self.p[k], np.float32) for k in ("mean", "std"))

    def pixels(self, data):
        side = self.p["input_size"][1]
        image = Image.open(io.BytesIO(data)).convert("RGB")
        scale = side / self.p["crop_pct"] / min(image.size)
        image = image.resize([round(n * scale) for n in image.size], Image.Resampling.BICUBIC)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        return ((np.asarray(image, np.float32) / 255 - self.mean) / self.std).transpose(2, 0, 1)

    def handle(self, data, context):
        batch = np.stack([self.pixels(bytes(row.get("data") or row.get("body"))) for row in data])
        logits = self.session.run(["logits"], {"pixel_values": batch})[0].astype(np.float64)
        found = np.exp(logits - logits.max(axis=1, keepdims=True))
        found /= found.sum(axis=1, keepdims=True)
        return [{self.labels[i]: float(row[i]) for i in np.argsort(-row)[:5]} for row in found]
"""


def make_bundle(name: str, path: Path, fill: Callable[[Path, LayerInfo], None] = lambda folder, layer: None) -> Bundle:
    """A bundle of the model with its last MLP layer split at random: what serving costs does not depend on how good
    a split is. ``fill`` adds files to its folder.
    """
    model = load_model(name, pretrained=name == "embedded")
    layers = find_layers(model.module, "last")
    layer, rng = layers[0], np.random.default_rng(0)
    parts = rng.integers(1, 8, layer.units)
    masks = rng.integers(1, 2 ** parts[:, None], (layer.units, layer.inputs)).astype(np.uint64)
    zeros = np.zeros((int(parts.sum()), layer.inputs), np.float32)
    split = LayerSplit(layer.name, parts, masks, np.full(layer.units, 0.5, np.float32), zeros)
    info = LayerInfo(layer.name, layer.kind, layer.units, layer.inputs, tuple(int(p) for p in parts), 0)
    labels = model.labels or [str(i) for i in range(getattr(model.module, "num_classes", 0))]
    with write_bundle(path, source=model.source, layers=[info], parameters=1, versions={}) as folder:
        size, target = model.preprocess.input_size, folder / "model.onnx"
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
        (folder / "labels.json").write_text(json.dumps(list(labels)))
        (folder / "presets.json").write_text(json.dumps({"eight": edits_of(layer.name)}))
        fill(folder, info)
    return Bundle.open(path)


def edits_of(layer: str, gain: float = 2) -> list[dict[str, object]]:
    """Eight edits, of the first sub-units of eight units."""
    return [{"id": f"{layer}/u{u}.s0", "action": "scale", "value": gain} for u in range(8)]


def plain_archive(bundle: Bundle, path: Path) -> Path:
    """An archive of the same graph with the handler that one would write by hand."""
    model = {"modelName": "plain", "modelVersion": "1.0", "handler": "plain_handler.py"}
    manifest = {"createdOn": "", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    files = {"MAR-INF/MANIFEST.json": json.dumps(manifest).encode(), "plain_handler.py": PLAIN_HANDLER.encode()}
    files |= {name: bundle.path(name).read_bytes() for name in ("model.onnx", "preprocess.json", "labels.json")}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | {CONTENTS: contents_bytes(hashes)}).items():  # the guard compares them
            archive.writestr(name, content)
    return path


class UncheckedServer(Server):
    """A server that takes an archive with a handler that is not ours, which ``Server`` refuses."""

    def _take_in(self, folder: Path) -> None:
        folder.mkdir()
        self.archives = [
            ArchiveInfo(Path(shutil.copy(archive.path, folder / f"{number}.mar")), archive.name, archive.version)
            for number, archive in enumerate(self._given)
        ]


def pictures(model: str) -> list[bytes]:
    """What is sent: the embedded model's own images, or smooth noise of 320×240 as JPEG."""
    if model == "embedded":
        with tarfile.open(EMBEDDED_FOLDER / "evaluation.tar") as tar:
            files = [member for member in tar.getmembers() if member.isfile()][:8]
            return [tar.extractfile(member).read() for member in files]  # type: ignore[union-attr]
    found, rng = [], np.random.default_rng(0)
    for _ in range(8):
        buffer = io.BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


@dataclass(frozen=True)
class Request:
    """One request as it goes out."""

    path: str
    body: bytes
    kind: str


def requests(operation: str, images: Sequence[bytes], bundle: Bundle) -> list[Request]:
    """One request for each image; of new edits that many that the server has forgotten each when it comes again."""
    if operation in ("plain", "predict"):
        model = "plain" if operation == "plain" else "elude"
        return [Request(f"/predictions/{model}", image, "application/octet-stream") for image in images]
    if operation == "inspect":
        return [Request("/explanations/elude", image, "application/octet-stream") for image in images]
    layer, new = bundle.manifest.layers[0].name, "new" in operation
    bodies = []
    for i in range(1000 if new else len(images)):
        by = {"preset": "eight"} if "preset" in operation else {"edits": edits_of(layer, 1 + i / 1000 if new else 2)}
        image = base64.b64encode(images[i % len(images)]).decode()
        bodies.append({"op": "steer", "image": image, "compare": "compare" in operation} | by)
    return [Request("/predictions/elude", json.dumps(body).encode(), "application/json") for body in bodies]


class Caller:
    """A kept-alive connection."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.inference_port, timeout=120)
        self._key = server.key("inference")

    def seconds(self, request: Request) -> float:
        """Ask and give the time it took; anything but 200 ends the benchmark."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": request.kind}
        begin = time.perf_counter()
        self._connection.request("POST", request.path, request.body, headers)
        response = self._connection.getresponse()
        body = response.read()
        took = time.perf_counter() - begin
        if response.status != 200:
            raise SystemExit(f"{request.path}: {response.status} {body[:300]!r}")
        return took


def block(callers: Sequence[Caller], asked: Sequence[Request], seconds: float) -> tuple[float, list[float]]:
    """All callers ask for that long: requests per second and latencies."""
    latencies: list[list[float]] = [[] for _ in callers]
    begin = time.perf_counter()

    def work(number: int) -> None:
        i = number * len(asked) // len(callers)
        while time.perf_counter() - begin < seconds:
            latencies[number].append(callers[number].seconds(asked[i % len(asked)]))
            i += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(callers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [value for one in latencies for value in one]
    return len(found) / (time.perf_counter() - begin), found


def workers_of(server: Server, model: str) -> list[int]:
    """Process ids of a model's workers."""
    status = json.loads(server._management().send(f"/models/{model}"))
    return [worker["pid"] for worker in status[0]["workers"]]


def processor_ms(processes: Sequence[int]) -> float:
    """Processor time that processes have used so far, in ms: says what a request costs whatever else the machine
    does.
    """
    nanoseconds = 0
    for process in processes:
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile
                nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e6


def memory(server: Server) -> dict[str, float]:
    """Proportional (shared pages split) MiB of one worker of each model."""
    found = {}
    for model in ("plain", "elude"):
        lines = Path(f"/proc/{workers_of(server, model)[0]}/smaps_rollup").read_text().splitlines()
        found[model] = int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
    return found


def measure(
    server: Server, bundle: Bundle, images: Sequence[bytes], concurrency: int, rounds: int, seconds: float
) -> list[str]:
    """Rows of the table for one server and concurrency."""
    asked = {operation: requests(operation, images, bundle) for operation in OPERATIONS}
    callers = [Caller(server) for _ in range(concurrency)]
    for operation in OPERATIONS:
        block(callers, asked[operation], 0.5)
    latency: dict[str, list[float]] = {operation: [] for operation in OPERATIONS}
    ratio: dict[str, list[float]] = {operation: [] for operation in OPERATIONS}
    rate: dict[str, list[float]] = {operation: [] for operation in OPERATIONS}
    used: dict[str, list[float]] = {operation: [] for operation in OPERATIONS}
    processes = {
        operation: workers_of(server, "plain" if operation == "plain" else "elude") for operation in OPERATIONS
    }
    for number in range(rounds):
        order = OPERATIONS if number % 2 == 0 else OPERATIONS[::-1]
        if concurrency == 1:
            for operation in order:
                before = processor_ms(processes[operation])
                for i in range(max(8, int(seconds * 10))):
                    callers[0].seconds(asked[operation][i % len(asked[operation])])
                used[operation].append((processor_ms(processes[operation]) - before) / max(8, int(seconds * 10)))
            for i in range(max(1, int(seconds * 10))):  # one by one
                took = {
                    operation: callers[0].seconds(asked[operation][i % len(asked[operation])]) for operation in order
                }
                for operation in OPERATIONS:
                    latency[operation].append(took[operation])
                    ratio[operation].append(took[operation] / took["plain"])
        else:
            round_rate = {}
            for operation in order:
                before = processor_ms(processes[operation])
                round_rate[operation], found = block(callers, asked[operation], seconds)
                used[operation].append((processor_ms(processes[operation]) - before) / len(found))
                latency[operation] += found
            for operation in OPERATIONS:
                rate[operation].append(round_rate[operation])
                ratio[operation].append(round_rate["plain"] / round_rate[operation])
    lines = []
    for operation in OPERATIONS:
        p50, p99 = (1000 * float(np.percentile(latency[operation], q)) for q in (50, 99))
        per_second = statistics.median(rate[operation]) if rate[operation] else 1000 / p50
        quartiles = np.percentile(ratio[operation], [25, 75])
        cost = f"{statistics.median(ratio[operation]):.3f} ({quartiles[0]:.2f}–{quartiles[1]:.2f})"
        cells = [server.settings.workers, concurrency, operation, f"{p50:.1f}", f"{p99:.1f}", f"{per_second:.0f}", cost]
        lines.append(f"| {' | '.join(map(str, cells))} | {statistics.median(used[operation]):.3f} |")
    return lines


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded", help="embedded, or a timm model with random weights")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a block")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a server never outlives the benchmark
    rounds, seconds = (2, 0.5) if given.quick else (given.rounds, given.seconds)
    images = pictures(given.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(given.model, folder / "bundle")
        archives = [
            package(bundle, folder, name="elude", version="1.0", settings=Settings()),
            plain_archive(bundle, folder / "plain.mar"),
        ]
        print(
            "| workers | callers | operation | p50 ms | p99 ms | requests/s | cost relative to plain "
            "(quartiles) | worker's processor ms |"
        )
        print("|---|---|---|---|---|---|---|---|")
        used = {}
        for workers in given.workers:
            with UncheckedServer(archives, ServerSettings(workers=workers, batch_size=8, batch_delay_ms=2)) as server:
                for concurrency in given.concurrency:
                    print("\n".join(measure(server, bundle, images, concurrency, rounds, seconds)), flush=True)
                used[workers] = memory(server)
        for workers, of in used.items():
            print(
                f"\nMemory of one worker of {workers}: plain {of['plain']:.0f} MiB, elude {of['elude']:.0f} "
                "MiB (proportional set size)."
            )


if __name__ == "__main__":
    main()
