"""RunSpec: everything that decides the result of one training run, as data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from gcrl_gym.errors import UserError, nearest


class Intervals:
    """When a run logs, evaluates and saves: what its spec leaves open follows from its length."""

    steps: int
    eval_freq: int | None
    checkpoint_freq: int | None

    @property
    def log_interval(self) -> int:
        """Steps between two rows of ``metrics.csv``."""
        return max(1, min(1000, self.steps // 50))

    @property
    def eval_interval(self) -> int:
        """Steps between evaluations."""
        return self.eval_freq or max(1, self.steps // 10)

    @property
    def checkpoint_interval(self) -> int:
        """Steps between checkpoints: a whole number of log intervals, where there is room."""
        freq = self.checkpoint_freq or min(10_000, self.steps // 10)
        return max(1, freq // self.log_interval * self.log_interval or freq)

    def check_numbers(self, *names: str) -> None:
        """Raise unless these are whole numbers of at least 1, of a seed 0, or left open.

        Raises:
            UserError: naming the first that is not.
        """
        for name in names:
            value = getattr(self, name)
            least = 0 if name in ("seed", "video_episodes") else 1
            if value is None and name.endswith("freq"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{name} is {value!r}; give a whole number of at least {least}.")


@dataclass(frozen=True)
class RunSpec(Intervals):
    """One training run.

    Attributes:
        agent: name of the agent, or ``"package.module:Class"``.
        dataset: dataset id or path of a Minari dataset.
        steps: gradient updates.
        seed: of the agent and of the evaluations.
        env: environment id to evaluate on; by default the dataset's own.
        preset: named hyperparameters of the agent; "auto" takes those published for the dataset.
        agent_kwargs: hyperparameters that differ from the preset; plain values only.
        eval_freq: updates between evaluations, by default a tenth of ``steps``.
        eval_episodes: episodes per task, actor and mode in every evaluation.
        checkpoint_freq: updates between checkpoints, by default a tenth of ``steps``, at most
            10,000; rounded down to whole log intervals, so that a resumed log has no gap.
        video_episodes: episodes filmed at the end, 0 for none.
        variant: name of the folder; by default made of what differs from the agent's defaults.
    """

    agent: str
    dataset: str
    steps: int
    seed: int = 0
    env: str | None = None
    preset: str = "default"
    agent_kwargs: dict[str, Any] = field(default_factory=dict)
    eval_freq: int | None = None
    eval_episodes: int = 20
    checkpoint_freq: int | None = None
    video_episodes: int = 5
    variant: str | None = None

    def __post_init__(self) -> None:
        """Make lists tuples, so that a spec read from JSON equals the one that was written."""
        plain = {key: _tuples(value) for key, value in self.agent_kwargs.items()}
        object.__setattr__(self, "agent_kwargs", plain)
        steps: Any = self.steps
        if isinstance(steps, float) and steps.is_integer():  # 1e6
            object.__setattr__(self, "steps", int(steps))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make a spec from ``to_dict``'s output.

        Raises:
            UserError: an unknown key (with the nearest one), or one that is missing.
        """
        known = {item.name: item for item in dataclasses.fields(cls)}
        for key in data:
            if key not in known:
                raise UserError(f"A run has no key {key!r}.{nearest(key, known)}")
        for key in ("agent", "dataset", "steps"):
            if key not in data:
                raise UserError(f"A run needs the key {key!r}.")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def validate(self) -> None:
        """Check everything that can be checked without data.

        Raises:
            UserError: unknown agent, preset or hyperparameter, or a number out of range.
        """
        from gcrl_gym.agents import get_agent
        from gcrl_gym.experiments.hyperparameters import check_hyperparameters

        self.check_numbers("steps", "seed", "eval_freq", "eval_episodes", "checkpoint_freq")
        kind = get_agent(self.agent)
        check_hyperparameters(kind, self._preset())
        check_hyperparameters(kind, self.agent_kwargs)

    def hyperparameters(self) -> dict[str, tuple[Any, str]]:
        """Return every hyperparameter as (value, where it comes from)."""
        from gcrl_gym.agents import get_agent
        from gcrl_gym.experiments.hyperparameters import hyperparameters

        known = hyperparameters(get_agent(self.agent))
        found = {name: (item.default, "default") for name, item in known.items()}
        found |= {name: (value, f"preset {self.preset}") for name, value in self._preset().items()}
        return found | {name: (value, "given") for name, value in self.agent_kwargs.items()}

    def keywords(self) -> dict[str, Any]:
        """Return the keyword arguments for the agent: those of the preset, then the given ones."""
        return self._preset() | self.agent_kwargs

    def _preset(self) -> dict[str, Any]:
        from gcrl_gym.agents import get_agent
        from gcrl_gym.agents.presets import load_preset

        return load_preset(get_agent(self.agent).name, self.preset, self.dataset)

    def folder(self, runs_dir: str | os.PathLike[str]) -> Path:
        """Return ``runs_dir/<dataset>/<agent>/<variant>/seed_<n>``."""
        dataset = self.dataset
        if os.path.isdir(dataset):
            dataset = Path(dataset).resolve().name
        parts = [safe(part) for part in dataset.split("/") if part]
        agent = safe(self.agent)
        return Path(runs_dir, *parts, agent, self._variant(), f"seed_{self.seed}")

    def _variant(self) -> str:
        if self.variant is not None:
            return safe(self.variant)
        parts = [] if self.preset == "default" and self.agent_kwargs else [self.preset]
        return variant_name(parts, self.agent_kwargs)


def variant_name(parts: list[str], differing: dict[str, Any]) -> str:
    """Return a folder name made of words and of what differs from the defaults."""
    parts = parts + [f"{key}={_short(value)}" for key, value in sorted(differing.items())]
    name = safe(",".join(parts))
    if len(name) > 80:  # some file systems stop at 255 bytes for a name
        name = f"{name[:70]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def _short(value: Any) -> str:
    return "-".join(map(_short, value)) if isinstance(value, tuple) else str(value)


def safe(name: str) -> str:
    """Return a name that any file system takes."""
    cleaned = re.sub(r"[^\w.,=+-]", "_", name)
    return cleaned if cleaned.strip(".") else "_"


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
