"""The reason for which TorchServe did not start is told whole or not yet, however far its log has got.

The logs are TorchServe 0.12's.
"""

from __future__ import annotations

import pytest

from elude.handlers.torchserve.startup_log import failure, last_lines

WORKER = "W-9000-own_1.0"
DIED = ["Backend worker process died.", "Traceback (most recent call last):"]
FRAME = [
    '  File "elude/handlers/service.py", line 87, in open',
    "    admission = admit(bundle, requirements)",
    "                ^^^^^^^^^^^^^^^^^^^^^^^",
]
NOT_SIGNED = "elude.handlers.errors.GateError: /models/1/bundle is not signed. Admit the bundle with a trusted key."


def line(thread: str, source: str, words: str) -> str:
    return f"2026-11-26T18:04:09,803 [INFO ] {thread} {source} - {words}\n"


def says(*words: str, stream: str = "stdout", worker: str = WORKER) -> str:
    return "".join(line(f"{worker}-{stream}", "MODEL_LOG", each) for each in words)


def ends(*streams: str, worker: str = WORKER) -> str:
    source = "org.pytorch.serve.wlm.WorkerLifeCycle"
    return "".join(
        line(f"{worker}-{stream}", source, f"Stopped Scanner - {worker}-{stream}")
        for stream in streams or ("stderr", "stdout")
    )


def front(words: str) -> str:
    return line(WORKER, "org.pytorch.serve.wlm.WorkerThread", words)


INTERRUPTED = front("9000 Worker disconnected. WORKER_STARTED") + front("Load model failed: own, error: Worker died.")
REFUSED = (
    line("main", "org.pytorch.serve.ModelServer", "Failed to load model: own-1.0.mar")
    + "org.pytorch.serve.archive.model.InvalidModelException: Failed to parse signature.json.\n"
    + "\tat ArchiveUtils.readFile\n"
)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            says(*DIED, *FRAME) + INTERRUPTED + says(*FRAME, NOT_SIGNED) + ends(),
            "/models/1/bundle is not signed. Admit the bundle with a trusted key.",
        ),
        (says(*DIED, *FRAME) + ends("stderr") + says("KeyError: 'layer'") + ends("stdout"), "KeyError: 'layer'"),
        (
            says(
                *DIED,
                *FRAME,
                "OSError: no disk",
                "",
                "The above exception was the direct cause of the following exception:",
                "",
            )
            + says(*DIED[1:], *FRAME, "RuntimeError: damaged: model.onnx. Package it again.")
            + ends(),
            "damaged: model.onnx. Package it again.",
        ),
        (
            says(
                "Failed to load model own, exception damaged: a.onnx.",
                DIED[1],
                *FRAME,
                "RuntimeError: damaged: a.onnx.",
            )
            + says(*DIED, *FRAME, "RuntimeError: 500 - Unknown exception")
            + ends(),
            "damaged: a.onnx.",
        ),
        (
            says(*DIED, *FRAME, "onnxruntime.NoSuchFile: a.onnx", "  second line") + ends(),
            "onnxruntime.NoSuchFile: a.onnx",
        ),
        (
            says("Failed to load model: GateError: This archive was never admitted.", stream="stderr")
            + ends("stdout", "stderr"),
            "This archive was never admitted.",
        ),
        (says(*DIED[1:], *FRAME, "ImportError: no ts", stream="stderr") + ends(), "ImportError: no ts"),
        (ends(), f"worker {WORKER} ended without a word"),
        (
            REFUSED,
            "own-1.0.mar: org.pytorch.serve.archive.model.InvalidModelException: Failed to parse signature.json.",
        ),
    ],
    ids=[
        "interrupted",
        "one stream after the other",
        "chained",
        "answered",
        "no Error in its name",
        "guard",
        "on stderr",
        "silent",
        "archive",
    ],
)
def test_a_reason_is_told_whole_or_not_yet(log: str, reason: str) -> None:
    retried = (
        front("Retry worker: 9000 in 1 seconds.")
        + says("Torch worker started.", *DIED, *FRAME, "ValueError: another")
        + ends()
    )
    whole = front("Connecting to: /tmp/.ts.sock.9000") + log + retried
    told = [failure(whole[:end]) for end in range(len(whole) + 1)]
    assert set(told) == {None, reason}
    assert failure(log) == reason  # told without waiting for the retry


def test_a_worker_that_runs_is_no_failure_and_each_worker_has_its_own_words() -> None:
    other = "W-9001-other_1.0"
    assert failure(says("Torch worker started.") + front("State change WORKER_STARTED -> WORKER_MODEL_LOADED")) is None
    assert failure(ends("stdout") + ends("stderr", worker=other)) is None
    mixed = (
        says(*DIED, *FRAME, worker=other) + says(*DIED, *FRAME, NOT_SIGNED) + ends() + says("KeyError: 1", worker=other)
    )
    assert str(failure(mixed)).startswith("/models/1/bundle is not signed")


def test_the_end_of_a_log() -> None:
    assert last_lines("a\nb\nc\nd\n") == "b\nc\nd"
    assert last_lines("") == ""


def test_a_worker_whose_streams_were_closed_before_its_traceback_says_it_at_the_next_attempt() -> None:
    said = "".join(
        f"x W-9000-m_1.0-stdout MODEL_LOG - {line}\n"
        for line in ("Python runtime: 3.11.7", "Connection accepted: s.", "model_name: m, batchSize: 8")
    )
    ended = "".join(f"x WorkerLifeCycle - Stopped Scanner - W-9000-m_1.0-{stream}\n" for stream in ("stdout", "stderr"))
    traceback = "".join(
        f"x W-9000-m_1.0-stdout MODEL_LOG - {line}\n"
        for line in ("Traceback (most recent call last):", "  File", "GateError: b has no verdict.")
    )
    assert failure(said + ended) is None
    assert failure(said + ended + said + traceback + ended) == "b has no verdict."
    assert failure((said + ended) * 2) is None
    assert (failure((said + ended) * 3) or "").endswith("batchSize: 8")
