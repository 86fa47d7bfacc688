"""``elude serve BUNDLE``: the web front end from the command line."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _fronts import MODEL, Web
from _serving import images
from typer.testing import CliRunner

from elude.cli import app
from elude.handlers.errors import EludeError
from elude.handlers.torchserve.client import Client

pytestmark = pytest.mark.server


def test_it_prints_what_a_caller_needs_and_stops_when_told(archive: Path) -> None:
    command = [sys.executable, "-m", "elude", "serve", str(archive.parent / "b"), "--port", "0", "--model", MODEL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        url, model, token = re.findall(r"ELUDE_\w+=(\S+)", process.stdout.readline())
        assert len(Client(url, token, model=model).predict(images(1)[0])) == 5
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, -signal.SIGTERM)


def test_an_archive_is_served_by_either_front_end(archive: Path) -> None:
    command = [sys.executable, "-m", "elude", "serve", str(archive), "--port", "0", "--front", "web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        url, model, token = re.findall(r"ELUDE_\w+=(\S+)", process.stdout.readline())
        assert model == MODEL
        assert len(Client(url, token, model=model, version="1.0").predict(images(1)[0])) == 5
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, -signal.SIGTERM)


def test_an_answer_does_not_wait_for_its_headers_to_be_acknowledged(web: Web) -> None:
    connection, seconds = http.client.HTTPConnection("127.0.0.1", web.inference_port), []
    for _ in range(40):
        begin = time.perf_counter()
        connection.request("GET", "/v2/health/live")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - begin)
    connection.close()
    assert min(seconds[20:]) < 0.02  # an acknowledgement is put off by 40 ms, once a connection is not new any more


def test_what_cannot_be_served_is_said_in_a_sentence(archive: Path, tmp_path: Path) -> None:
    bundle = archive.parent / "b"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for arguments, words in (
            ([bundle, "--port", taken.getsockname()[1]], "Cannot listen"),
            ([bundle, "--front", "torchserve"], "archives, not bundles"),
            ([bundle, bundle], "twice"),
            ([bundle, "--front", "apache"], "no front end"),
            ([bundle, "--store", "nowhere"], "--store is for archives"),
            ([f"a={tmp_path}", "--label", "a/x=2.0"], "manifest.json"),
            ([tmp_path], "manifest.json"),
            ([tmp_path / "none"], "no bundle"),
            ([f"memory://{tmp_path}", MODEL], "ends with this command"),
        ):
            error = CliRunner().invoke(app, ["serve", *map(str, arguments)]).exception
            assert isinstance(error, EludeError)
            assert error.exit_code == 2
            assert words in str(error)
