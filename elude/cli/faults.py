"""What a command says when it fails: one sentence and the way out where the cause lies outside the program.

Errors of the project say so themselves. Of the others, only those are put in words that a machine, a disk or an
input brings about; the rest are defects of this program and keep their traceback.
"""

from __future__ import annotations

import errno

from elude.handlers.errors import EludeError

NOT_EVALUATED = 3  # exit code of a defect: 1 would say that a check failed, 2 that the arguments are wrong
DEFECT = "This is a defect of elude: please report it with the lines above."
_REMEDIES = {
    errno.ENOENT: "Check the path.",
    errno.ENOTDIR: "Check the path.",
    errno.EISDIR: "Name a file.",
    errno.EEXIST: "Name another place.",
    errno.EACCES: "Check who may read and write there.",
    errno.EPERM: "Check who may read and write there.",
    errno.EROFS: "Name a place that can be written to.",
    errno.ENOSPC: "Free space, or name another place; TMPDIR names the one for temporary files.",
    errno.EDQUOT: "Free space, or name another place; TMPDIR names the one for temporary files.",
    errno.ENAMETOOLONG: "Use a shorter name.",
    errno.EADDRINUSE: "Choose another port.",
}


def outside_cause(error: Exception) -> EludeError | None:
    """The same failure as an error of the project, if its cause lies outside the program; else None."""
    if isinstance(error, EludeError):
        return error
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        where = f"{error.filename}: " if error.filename not in (None, "") else ""
        return EludeError(f"{where}{what}.", _REMEDIES.get(error.errno or 0, ""))
    if isinstance(error, MemoryError):
        return EludeError("There is not enough memory.", "Use fewer or smaller images, or a smaller budget.")
    if isinstance(error, RecursionError):
        return EludeError("The input is nested too deeply.", "Check the files that were given.")
    return None


def one_line(error: EludeError) -> str:
    """Its message without line breaks, which the causes of other libraries may hold."""
    return visible(" ".join(str(error).split()))


def visible(text: str) -> str:
    """The text with its control characters written out: names in bundles, records and answers are a stranger's, and
    a terminal would obey them, and could show "passed" where "failed" stands.
    """
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text
    )
