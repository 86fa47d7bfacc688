"""The worked case on photographs, word for word, on fewer of them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from _shell import ROOT, Shell

PHOTOS = Path(os.environ.get("ELUDE_PHOTOS", ROOT.parent / "shared" / "data" / "photos"))
PAGE = ROOT / "docs" / "photographs.md"
CLASSES = ("sunflower", "grand_piano", "stop_sign", "pizza", "accordion", "soccer_ball")


@pytest.mark.server
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs: set ELUDE_PHOTOS")
def test_the_page_runs_and_ablating_a_concept_takes_its_class_away() -> None:
    blocks = re.findall(r"(<!-- skip: next[^\n]*-->\n)?```(sh|python)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shell = Shell()
    try:
        _link_photographs(shell.folder / "photos")
        for skipped, language, block in blocks:
            if skipped:
                continue
            if language == "sh":
                shell.run(block)
            else:
                (shell.folder / ".page.py").write_text(block, encoding="utf-8")  # the model is not trained again
                shell.run("python .page.py")
        verdict = json.loads((shell.folder / "bundle" / "verdict.json").read_text())
        assert verdict["passed"]
        (shell.folder / ".ablate.py").write_text(ABLATE, encoding="utf-8")
        before, after, others_before, others_after = json.loads(shell.run("python .ablate.py").splitlines()[-1])
    finally:
        shell.close()
    assert before >= 0.8
    assert after <= before - 0.3
    assert others_before - others_after <= 0.1


ABLATE = """
import json
from pathlib import Path

import elude

bundle = elude.load("bundle")
files = sorted(Path("photos/held-out").glob("*/*"))
labels = [file.parent.name for file in files]
concept = "sunflower"
plain = [prediction.label for prediction in bundle.predict(files)]
ablated = [steering.after.label for steering in bundle.steer(files, {concept: 0}, compare=False)]


def accuracy(answers, inside):
    right = [answer == label for answer, label in zip(answers, labels) if (label == concept) == inside]
    return sum(right) / len(right)


print(json.dumps([accuracy(answers, inside) for inside in (True, False) for answers in (plain, ablated)]))
"""


def _link_photographs(folder: Path) -> None:
    """Of each class two photographs to learn from for each one held out."""
    for name in CLASSES:
        for number, file in enumerate(sorted((PHOTOS / "caltech101" / name).iterdir())):
            target = folder / ("held-out" if number % 3 == 2 else "train") / name
            target.mkdir(parents=True, exist_ok=True)
            (target / file.name).symlink_to(file)
