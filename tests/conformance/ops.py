"""Answers of the operators to stored outputs, one module per kind of operator.

An archive holds the arrays `<case>.in_*` and `<case>.out_*` and, in `meta`, the
parameters of every case.
"""

import importlib
from collections.abc import Iterator

from conformance.comparing import Answer, Archive

# Modules with `ANSWERS`: a function of the archive for each of their families.
ELSEWHERE = ("ops_moments", "ops_morphology", "ops_picture", "ops_regions")


def answers(stem: str, archive: Archive) -> Iterator[Answer]:
    """A check, or the reason why there is none, for every record of `archive`."""
    for module in ELSEWHERE:
        special = importlib.import_module(f"conformance.{module}").ANSWERS
        if stem in special:
            yield from special[stem](archive)
