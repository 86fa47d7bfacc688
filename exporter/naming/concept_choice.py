"""Which concepts of many are shown: the clearest, and beside them a fair random sample, so that nobody takes the best
for the usual.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence

from elude.handlers.bundle.catalogue_schema import ConceptRow, clearest_first

SHOWN = 6  # concepts of each kind
SEED = 0


def clearest(concepts: Iterable[ConceptRow], count: int = SHOWN) -> list[ConceptRow]:
    """The first named ones of ``clearest_first``; of namesakes, ``trouser`` and ``trouser 2``, one."""
    by_word: dict[str, ConceptRow] = {}
    for row in clearest_first(row for row in concepts if row.name is not None):
        by_word.setdefault(re.sub(r" \d+$", "", row.name or ""), row)
    return list(by_word.values())[:count]


def random_sample(concepts: Sequence[ConceptRow], count: int = SHOWN, seed: int = SEED) -> list[ConceptRow]:
    """Drawn from all with equal probability, whether they are among the clearest or not."""
    return random.Random(seed).sample(concepts, min(count, len(concepts)))
