"""Images that are small and cost a careless decoder seconds or gigabytes: each is refused or decoded cheaply."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _fronts import MODEL, Web, ask_raw, connect, memory, pids
from _hostile import KINDS, band_files, encoded, png, scans, tiffs
from _serving import Ask, images, make_bundle
from PIL import Image

from elude.handlers.errors import ImageError, UsageError
from elude.handlers.images.arrays import read_array
from elude.handlers.images.decode import Limits, decode, decode_all
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.settings import Settings
from elude.handlers.torchserve.server import Server, ServerSettings
from elude.model_store.archive import package

LIMITS = Settings().image_limits
PREPROCESS = Preprocess((3, 224, 224), "bicubic", 0.875, "center", (0.5,) * 3, (0.5,) * 3)
MOST_SECONDS, MOST_MEMORY = 1.0, 64  # of processor time, MiB


def decoded(data: bytes, limits: Limits = LIMITS) -> Image.Image:
    """As a server decodes it."""
    (image,) = decode_all([("image", data)], limits, PREPROCESS.check_size)
    return image()


def peak() -> float:
    """Largest resident memory of this process since the last call, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    value = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    Path("/proc/self/clear_refs").write_text("5")
    return value


@pytest.mark.slow
def test_no_image_takes_a_second_or_64_mebibytes() -> None:
    slowest, largest, count, refused = ("", 0.0), ("", 0.0), 0, 0
    PREPROCESS.pixels(decoded(encoded(Image.new("RGB", (900, 900)), "JPEG")))
    for kind in KINDS.values():
        for name, data in kind():
            peak()
            before, begin = memory_of_this(), time.thread_time()
            with contextlib.suppress(ImageError):
                count, refused = count + 1, refused + 1
                PREPROCESS.pixels(decoded(data))
                refused -= 1
            seconds, grown = time.thread_time() - begin, peak() - before
            assert seconds < MOST_SECONDS, (name, seconds)
            assert grown < MOST_MEMORY, (name, grown)
            slowest = max(slowest, (name, seconds), key=lambda pair: pair[1])
            largest = max(largest, (name, grown), key=lambda pair: pair[1])
    print(f"{count} images, {refused} refused; slowest {slowest}; largest {largest}")
    assert count >= 100
    assert 0 < refused < count


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_no_image_of_many_bands_takes_a_second_or_64_mebibytes(channels: int) -> None:
    for name, data in (*tiffs(), *band_files()):
        peak()
        before, begin = memory_of_this(), time.thread_time()
        with contextlib.suppress(ImageError):
            read_array(data, "image", channels, LIMITS)
        seconds, grown = time.thread_time() - begin, peak() - before
        assert seconds < MOST_SECONDS, (name, seconds)
        assert grown < MOST_MEMORY, (name, grown)


def memory_of_this() -> float:
    return memory(os.getpid())


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    begin = time.thread_time()
    with pytest.raises(ImageError, match="scans"):
        decoded(scans(300))
    assert time.thread_time() - begin < 0.2


def test_pixels_of_a_whole_request_are_counted_before_the_first_is_decoded() -> None:
    data = png(2500, 2500, 0)
    assert len(decode_all([("a", data)] * 4, LIMITS)) == 4
    with pytest.raises(ImageError, match="together"):
        decode_all([("a", data)] * 5, LIMITS)


def test_the_shape_is_checked_before_the_pixels() -> None:
    cut = png(1, 5_000_000, 0)[:-100]  # decoding it would find that it is cut
    with pytest.raises(ImageError, match="times longer"):
        decoded(cut)


def test_decoding_ends_when_its_time_is_over() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    with pytest.raises(ImageError, match="takes longer"):
        decoded(encoded(noise, "PNG"), Limits(max_seconds=0.001))


def test_an_operator_narrows_the_formats() -> None:
    narrow = Settings.from_json({"formats": ["JPEG", "PNG"]}).image_limits
    picture = Image.new("RGB", (9, 9))
    assert decoded(encoded(picture, "PNG"), narrow).size == (9, 9)
    with pytest.raises(ImageError, match="JPEG, PNG"):
        decoded(encoded(picture, "GIF"), narrow)
    for wrong in ("JPEG", [], ["EPS"], [3], None):
        with pytest.raises(UsageError, match="formats"):
            Settings.from_json({"formats": wrong})


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (height // 100 + 2, width // 100 + 2, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def ordinary() -> Iterator[tuple[str, bytes]]:
    """Each format and mode that Pillow writes."""
    picture = smooth(330, 210)
    deep = Image.fromarray(np.asarray(picture)[..., 0].astype(np.uint16) * 257)
    for mode in ("RGB", "L", "P", "1", "CMYK", "RGBA", "LA", "I;16"):
        image = deep if mode == "I;16" else picture.convert(mode)
        for kind, options in WRITTEN:
            with contextlib.suppress(OSError, ValueError):  # Pillow does not write this mode in this format
                yield f"{kind} {mode} {sorted(options)}", encoded(image, kind, **options)


WRITTEN: list[tuple[str, dict[str, object]]] = [
    ("JPEG", {"exif": turned()}),
    ("JPEG", {"progressive": True, "subsampling": 0}),
    ("JPEG", {"comment": b"c" * 999, "icc_profile": b"i" * 99_999}),
    ("PNG", {"exif": turned()}),
    ("WEBP", {"exif": turned()}),
    ("WEBP", {"lossless": True}),
    ("GIF", {"comment": b"c" * 999}),
    ("BMP", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("PPM", {}),
]


def test_ordinary_images_keep_every_pixel() -> None:
    files = dict(ordinary())
    assert len(files) >= 60
    for name, data in files.items():
        np.testing.assert_array_equal(np.asarray(decoded(data)), np.asarray(decode(data)), name)


def test_a_large_photograph_is_decoded_at_half_its_size_and_looks_the_same() -> None:
    data = encoded(smooth(4800, 3600), "JPEG", quality=90)
    whole, half = decode(data), decoded(data)
    assert (whole.size, half.size) == ((4800, 3600), (2400, 1800))
    difference = np.abs(PREPROCESS.pixels(whole).astype(int) - PREPROCESS.pixels(half))
    assert difference.max() <= 2


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    return package(make_bundle(folder / "b"), folder, name=MODEL, version="1.0")


@pytest.fixture(scope="module", params=["torchserve", "web"])
def front(request: pytest.FixtureRequest, archive: Path) -> Iterator[Server | Web]:
    if request.param == "torchserve":
        with Server(archive, ServerSettings(workers=2)) as server:
            yield server
    else:
        web = Web(archive.parent / "b")
        yield web
        web.stop()


@pytest.mark.slow
@pytest.mark.server
def test_who_asks_beside_hostile_images_hardly_notices(front: Server | Web) -> None:
    usual = Normal(front)
    time.sleep(8)
    usual_p99 = usual.stop()
    hostile = [(name, data) for kind in KINDS.values() for name, data in kind()]
    before, resident = set(pids(front)), {pid: memory(pid) for pid in pids(front)}
    beside, slowest = Normal(front), ("", 0.0)
    for name, data in hostile:
        status, _, seconds = ask_raw(front, data, "image/png")
        assert status in (200, 400, 413), (name, status)
        slowest = max(slowest, (name, seconds), key=lambda pair: pair[1])
    p99 = beside.stop()
    grown = max(memory(pid) - resident[pid] for pid in before)
    print(
        f"{len(hostile)} images; slowest {slowest}; {grown:.0f} MiB; "
        f"p99 beside {p99 * 1000:.0f} ms, usual {usual_p99 * 1000:.0f} ms"
    )
    assert set(pids(front)) == before
    assert grown < MOST_MEMORY
    assert p99 < max(2 * usual_p99, 1)  # a second: the clients of this test share the server's cores


class Normal:
    """Asks for a prediction again and again from a thread of its own."""

    def __init__(self, front: Server | Web) -> None:
        self._front, self._end, self._seconds, self._failed = front, threading.Event(), [], 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, ask = connect(self._front), Ask("predictions", images(1)[0], "image/png", 200, b"")
        while not self._end.wait(0.005):
            begin = time.perf_counter()
            self._failed += connection.send(ask)[0] != 200
            self._seconds.append(time.perf_counter() - begin)

    def stop(self) -> float:
        """Its p99 in seconds; every request must have been answered."""
        self._end.set()
        self._thread.join()
        assert self._failed == 0
        return float(np.percentile(self._seconds, 99))
