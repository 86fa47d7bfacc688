"""A small prose linter: phrases that a native technical writer would not use, in texts, messages and docstrings.

``make lint`` runs it. A line that must contain such a phrase ends with ``prose: ok``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PHRASES = {
    r"\bat best one\b": "ideally",
    r"\bgoes on (when|where|with)\b|\bis gone on with\b": "resumes",
    r"\bso many\b": "that many",
    r"\bcannot be had\b|\bcould be had\b|\bcan be had\b": "cannot be downloaded / derived",
    r"\bheld against\b|\bhold [a-z ]{1,30} against\b": "compared with",
    r"\bhurts? its neighbou?rs\b": "affects other requests",
    r"\bunlike requests\b": "mixed requests",
    r"\bpresent day\b": "today (UTC)",
    r"\bother weights than\b": "different weights from",
    r"(?<!there )\bis no (bundle|number|archive|file|store|identifier)\b": "is not a …",
    r"\bsaw and gave\b": "inputs and outputs",
    r"\bthe way of a request\b": "life of a request",
    r"\b(ground floor|the rooms?|house)\b": "package, layer",
    r"\b(an?|one) (layer|pass|unit|image|file|operation) a (layer|pass|unit|image|file|line|folder|class)\b": "per",
    r"\bin words, for a person\b": "human-readable",
    r"\bOf everything random\b": "Random seed.",
}
PATTERNS = ("*.py", "*.md", "*.j2", "*.js", "*.toml", "*.yml")


def complaints(text: str) -> list[tuple[int, str, str]]:
    """(line number, the phrase, what to say instead) of each."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.endswith("prose: ok"):
            continue
        for pattern, instead in PHRASES.items():
            rows += [(number, match[0], instead) for match in re.finditer(pattern, line, re.IGNORECASE)]
    return rows


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "-z", "--", *PATTERNS], capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name and name != "tests/prose.py"]
    lines = [
        f"{name}:{number}: {phrase!r}: say: {instead}"
        for name in names
        if Path(name).is_file()
        for number, phrase, instead in complaints(Path(name).read_text(encoding="utf-8"))
    ]
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
