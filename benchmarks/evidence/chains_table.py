"""docs/chains.md from the stored results of benchmarks/evidence/chains.py."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(store: Path, page: Path, sets: Mapping[str, int]) -> None:
    """Write the page (placeholder until the runs are in)."""
