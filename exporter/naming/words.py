"""Vocabularies: one word or short phrase a line, ``#`` begins a comment.

The shipped one was written for this project.
"""

from __future__ import annotations

from pathlib import Path

from elude.handlers.errors import UsageError
from elude.handlers.files import read_plain

SHIPPED = Path(__file__).parent / "vocabulary.txt"


def read_words(path: str | Path | None = None) -> list[str]:
    """The words of a file, or of the shipped vocabulary, each once, in the file's order.

    Raises:
        UsageError: the file cannot be read or has fewer than two words.
    """
    source = SHIPPED if path is None else Path(path)
    try:
        lines = read_plain(source).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The vocabulary {source} cannot be read: {error}.", "Give a text file with one word a line."
        ) from error
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.startswith("#")))
    if len(words) < 2:
        raise UsageError(f"The vocabulary {source} has {len(words)} words.", "Give at least two, one a line.")
    return words
