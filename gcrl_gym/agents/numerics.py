"""Speed settings of the process that training borrows and gives back: GEMM precision, threads.

``torch.set_float32_matmul_precision("medium")`` doubles float32 matrix products on AMD CPUs with
AVX-512, where it picks another float32 kernel. Elsewhere it may round to bfloat16. So the choice is
made from facts that cannot differ between two runs on one machine (vendor, instruction sets, error
against float64), never from a stopwatch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import torch

# Twice the error of a plain float32 product; a bfloat16 product misses it a thousandfold.
_MAX_RELATIVE_ERROR = 1e-5


def _cpu_flags() -> tuple[str, frozenset[str]]:
    """Return (vendor, instruction-set flags) of the CPU, empty where /proc does not tell."""
    vendor, flags = "", frozenset[str]()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "vendor_id":
                vendor = value.strip()
            elif key.strip() == "flags":
                return vendor, frozenset(value.split())
    return vendor, flags


def _error_against_float64(precision: str) -> float:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(256, 256, generator=generator)
    b = torch.randn(256, 256, generator=generator)
    exact = a.double() @ b.double()
    with matmul_precision(precision):
        product = a @ b
    return float((product.double() - exact).norm() / exact.norm())


@functools.cache
def fast_matmul_precision() -> str:
    """Return the precision setting that is fast here and still float32-exact.

    Returns:
        "medium" on AMD CPUs with AVX-512 and without AMX where the measured error against float64
        is that of float32, otherwise "highest" (torch's default).
    """
    vendor, flags = _cpu_flags()
    suits = vendor == "AuthenticAMD" and "avx512f" in flags and "amx_tile" not in flags
    if suits and _error_against_float64("medium") < _MAX_RELATIVE_ERROR:
        return "medium"
    return "highest"


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set torch's float32 matmul precision for the block and restore the previous one after."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Set torch's thread count for the block and restore the previous one after."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_threads(widest: int) -> int:
    """Return the thread count for a network whose widest layer has ``widest`` units.

    Two threads collapse when one neighbour keeps a core busy and gain little below 256 units, so
    small networks get one. ``OMP_NUM_THREADS`` is an explicit wish and wins.
    """
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    return 1 if widest <= 256 else torch.get_num_threads()


@dataclasses.dataclass(frozen=True)
class Numerics:
    """The speed settings of one training run; stored in archives, since they decide rounding.

    Attributes:
        matmul: torch's float32 matmul precision.
        threads: torch's thread count.
    """

    matmul: str
    threads: int

    @classmethod
    def choose(
        cls, device: torch.device, matmul: str, threads: int | None, widest: int
    ) -> Numerics:
        """Return the settings for an agent on ``device`` with layers up to ``widest`` units."""
        precision = torch.get_float32_matmul_precision()
        if matmul == "auto" and device.type == "cpu":
            precision = fast_matmul_precision()
        return cls(precision, threads or default_threads(widest))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the settings for the block and restore the previous ones after."""
        with matmul_precision(self.matmul), thread_count(self.threads):
            yield
