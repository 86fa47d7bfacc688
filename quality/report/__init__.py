"""The page a person opens first: is the rewrite lossless, how good is the model, may it be served, and what did the
split find?
"""

from __future__ import annotations

from elude.quality.report.page import render, write_report

__all__ = ["render", "write_report"]
