"""Why TorchServe did not start, by its log.

A worker that fails tells the reason last, in a traceback of many lines, while TorchServe writes
lines of its own between them. So the reason is read only when both streams of that worker have
ended, which TorchServe logs after their last line.
"""

from __future__ import annotations

import re

_ENDED = re.compile(r"WorkerLifeCycle - Stopped Scanner - (\S+)-(stdout|stderr)\n")
_REFUSED = re.compile(r"ModelServer - Failed to load model: (.+)\n(.+)\n")  # the archive, and TorchServe's exception
_RAISED = re.compile(
    r"Traceback \(most recent call last\):\n(?:(?: .*)?\n)*(\S.*)"
)  # the exception that a traceback ends with
# What a worker says before it loads a model. TorchServe closes a worker's streams when its socket closes, and then
# what it said last, the traceback, may never be read; the worker is started again, and says it again.
_CUT_OFF = re.compile(r"model_name: .+, batchSize: \d+$")
_ATTEMPTS = 3  # that may be cut off before that is all there is to report
_ANSWERED = re.compile(r"RuntimeError: \d+ - ")  # what TorchServe's worker raises after it has logged the reason
_NAMES = r"(?:elude\.)?handlers\.errors\.\w+|BundleError|GateError|UsageError|RuntimeError"
_OURS = re.compile(rf"(?m)^(?:Failed to load model: )?(?:{_NAMES}): ")


def failure(log: str) -> str | None:
    """The reason for which the first worker ended or an archive was refused;

    None while there is none, or while it is being written.

    Args:
        log: what TorchServe has written so far, without colours.
    """
    refused = _REFUSED.search(log)
    if refused:
        return f"{refused[1]}: {refused[2]}"
    ended: set[tuple[str, str]] = set()
    attempts = 0
    for stream in _ENDED.finditer(log):
        both = {(stream[1], "stdout"), (stream[1], "stderr")}
        ended.add((stream[1], stream[2]))
        if both <= ended:
            words = _last_words(stream[1], log[: stream.end()])
            attempts += 1
            if attempts == _ATTEMPTS or not _CUT_OFF.search(words):
                return words
            ended -= both  # another worker's stream that has ended still counts
    return None


def last_lines(log: str, count: int = 3) -> str:
    """The end of the log, for when nothing in it is known to be the reason."""
    return "\n".join(log.splitlines()[-count:])


def _last_words(worker: str, log: str) -> str:
    said = [
        _said(worker, stream, log) for stream in ("stderr", "stdout")
    ]  # apart: each is in order, and stdout counts more
    raised = [error for words in said for error in _RAISED.findall(words) if not _ANSWERED.match(error)]
    words = raised[-1] if raised else last_lines("\n".join(said).strip())
    return _OURS.sub("", words, count=1) or f"worker {worker} ended without a word"


def _said(worker: str, stream: str, log: str) -> str:
    return "\n".join(re.findall(rf" {re.escape(worker)}-{stream} MODEL_LOG - (.*)\n", log))
