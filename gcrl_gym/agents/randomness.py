"""Private random generators: one seed, a generator per purpose, the process-wide ones untouched."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


class Generators:
    """Generators by name, each seeded from one entropy and its own name.

    ``SeedSequence.spawn`` keys its children by number; here they are keyed by name, so that adding
    a generator (a longer chain of actors) never changes what another one draws.

    Args:
        seed: any integer >= 0, or None for fresh entropy.
        device: torch device that noise is drawn on.
    """

    def __init__(self, seed: int | None, device: torch.device) -> None:
        self.entropy = int(np.random.SeedSequence(seed).entropy)  # type: ignore[arg-type]
        self.device = device
        self._torch: dict[str, torch.Generator] = {}
        self._numpy: dict[str, np.random.Generator] = {}

    @property
    def batches(self) -> np.random.Generator:
        """The generator that ``learn`` draws batches from."""
        return self.numpy("batches")

    def sequence(self, name: str, *numbers: int) -> np.random.SeedSequence:
        """Return what seeds the generator of that name, or one of many, told by numbers."""
        key = (zlib.crc32(name.encode()), *numbers)
        return np.random.SeedSequence(self.entropy, spawn_key=key)

    def seed(self, name: str) -> int:
        """Return the seed that belongs to a name."""
        return int(self.sequence(name).generate_state(1, np.uint64)[0]) % 2**63

    def numpy(self, name: str) -> np.random.Generator:
        """Return the NumPy generator of that name."""
        if name not in self._numpy:
            self._numpy[name] = np.random.default_rng(self.sequence(name))
        return self._numpy[name]

    def torch(self, name: str) -> torch.Generator:
        """Return the torch generator of that name."""
        if name not in self._torch:
            self._torch[name] = torch.Generator(self.device).manual_seed(self.seed(name))
        return self._torch[name]

    def randn(self, name: str, *shape: int) -> Tensor:
        """Draw standard normal numbers from the generator of that name."""
        return torch.randn(shape, generator=self.torch(name), device=self.device)

    def make(self, name: str, make: Callable[[], T]) -> T:
        """Return ``make()``, run under torch's global generator seeded for that name, put back."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed(name))
            return make()

    @contextlib.contextmanager
    def seeded(self, name: str, seed: int) -> Iterator[None]:
        """Seed one torch generator for the block and put its state back after."""
        generator = self.torch(name)
        before = generator.get_state()
        generator.manual_seed(seed)
        try:
            yield
        finally:
            generator.set_state(before)

    @contextlib.contextmanager
    def standing_in(self, name: str, other: str) -> Iterator[None]:
        """Let the torch generator ``other`` be the one called ``name`` for the block."""
        before = self._torch.get(name)
        self._torch[name] = self.torch(other)
        try:
            yield
        finally:
            del self._torch[name]
            if before is not None:
                self._torch[name] = before

    def states(self) -> dict[str, Tensor]:
        """Return the state of every torch generator, by name."""
        return {name: generator.get_state() for name, generator in self._torch.items()}

    def numpy_states(self) -> dict[str, Any]:
        """Return the state of every NumPy generator, by name, as plain numbers."""
        return {name: generator.bit_generator.state for name, generator in self._numpy.items()}

    def restore(self, entropy: int, numpy: dict[str, Any], states: dict[str, Tensor]) -> None:
        """Continue where ``numpy_states`` and ``states`` were taken."""
        self.entropy = entropy
        self._torch.clear()
        self._numpy.clear()
        for name, plain in numpy.items():
            self.numpy(name).bit_generator.state = plain
        for name, state in states.items():
            self.torch(name).set_state(state)
