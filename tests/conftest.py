"""Puts ``tests/`` on the path for ``_models.py``, and keeps every library to one thread: more threads than cores collapse."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent))

import torch  # noqa: E402 - after the variables it reads when loaded

torch.set_num_threads(1)
