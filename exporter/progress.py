"""How long work reports where it is: functions that a caller gives, which are called after each part."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # done, of how many
StepProgress = Callable[[str, int, int], None]  # step, done, of how many
