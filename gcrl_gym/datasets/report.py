"""What a conversion did: sizes, repairs and losses, printed and kept in the dataset's metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer


@dataclass(frozen=True)
class ConversionReport:
    """Facts about a converted dataset.

    Args:
        source_file: name of the file it was made from.
        source_sha256: checksum of that file.
        official: whether that is the published file's checksum; None where none is published.
        episodes: number of episodes.
        transitions: number of transitions.
        lengths: transitions of the shortest, the median and the longest episode.
        reward_sum: sum of all rewards.
        largest_jump: largest Euclidean distance between two states one step apart, with the episode
            and step it starts at; None for images.
        repaired: one sentence for each kind of episode boundary that was mended.
        dropped: one sentence for each kind of row or key that was left out.
    """

    source_file: str
    source_sha256: str
    official: bool | None
    episodes: int
    transitions: int
    lengths: tuple[int, int, int]
    reward_sum: float
    largest_jump: tuple[float, int, int] | None
    repaired: tuple[str, ...]
    dropped: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a few lines for people."""
        kind = {True: "the official file", False: "NOT the official file", None: "no official sum"}
        low, middle, high = self.lengths
        lines = [
            f"{self.source_file}: sha256 {self.source_sha256[:12]}.. ({kind[self.official]})",
            f"{self.episodes} episodes, {self.transitions} transitions, lengths {low} to {high} "
            f"(median {middle}), reward sum {self.reward_sum:g}",
        ]
        if self.largest_jump is not None:
            size, episode, step = self.largest_jump
            lines.append(f"largest state jump {size:.3g}, at episode {episode}, step {step}")
        lines += [f"repaired: {text}" for text in self.repaired]
        lines += [f"dropped: {text}" for text in self.dropped]
        return "\n".join(lines)


@dataclass
class ReportBuilder:
    """Gathers a report while the episodes pass by on their way to `write_minari`.

    Args:
        source_file: see `ConversionReport`.
        source_sha256: see `ConversionReport`.
        official: see `ConversionReport`.
        repaired: sentences; append to it while converting.
        dropped: sentences; append to it while converting.
    """

    source_file: str
    source_sha256: str
    official: bool | None = None
    repaired: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lengths: list[int] = []
        self._reward_sum = 0.0
        self._jump: tuple[float, int, int] | None = None

    def watch(self, episodes: Iterable[EpisodeBuffer]) -> Iterator[EpisodeBuffer]:
        """Yield the episodes and note their lengths, rewards and largest jump."""
        for episode in episodes:
            self._note_jump(episode.observations)
            self._lengths.append(len(episode.rewards))
            self._reward_sum += float(np.sum(episode.rewards, dtype=np.float64))
            yield episode

    def finish(self) -> ConversionReport:
        """Return the report of all episodes seen."""
        lengths = np.array(self._lengths)
        return ConversionReport(
            self.source_file,
            self.source_sha256,
            self.official,
            episodes=len(lengths),
            transitions=int(lengths.sum()),
            lengths=(int(lengths.min()), int(np.median(lengths)), int(lengths.max())),
            reward_sum=self._reward_sum,
            largest_jump=self._jump,
            repaired=tuple(self.repaired),
            dropped=tuple(self.dropped),
        )

    def _note_jump(self, observations: Any) -> None:
        states = observations["observation"] if isinstance(observations, dict) else observations
        if states.dtype.kind != "f" or states.ndim != 2:
            return
        gaps = np.linalg.norm(np.diff(states.astype(np.float64), axis=0), axis=1)
        step = int(np.argmax(gaps))
        if self._jump is None or gaps[step] > self._jump[0]:
            self._jump = (float(gaps[step]), len(self._lengths), step)


def origin(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a dataset's metadata tells whether a score may stand beside published ones.

    ``return_spread`` is the scale of rewards where ``reward_transform="return_range"``.
    """
    keys = ["dataset_id", "source", "source_file", "source_sha256", "official", "evaluation"]
    keys.append("return_spread")
    return {key: metadata[key] for key in keys if key in metadata}
