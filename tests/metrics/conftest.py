"""Makes the helpers beside the tests importable by a name of their own."""

import importlib.util
import sys
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location(
    "metrics_cells", Path(__file__).parent / "cells.py"
)
_CELLS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_CELLS)
sys.modules["metrics_cells"] = _CELLS
