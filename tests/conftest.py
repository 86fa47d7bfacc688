"""Keeps every library to one thread: more threads than cores collapse."""

from __future__ import annotations

import os

# Read by torch, ONNX Runtime and BLAS when they are first loaded, which is after this file.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
