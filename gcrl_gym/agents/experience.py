"""What online training has gathered: it lives in the agent and is saved with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gcrl_gym.agents.policy import split_space
from gcrl_gym.datasets.replay import ReplayBuffer

if TYPE_CHECKING:
    from gcrl_gym.agents.base import OfflineAgent

Memory = tuple[np.ndarray, ...] | None
"""What a policy with memory hands from one step to the next, as Stable-Baselines3's ``state``."""

WINDOW = 100  # episodes that logged means go over, as in Stable-Baselines3
_COUNTERS = ("env_steps", "began", "collected", "episodes", "updates")


@dataclass
class Experience:
    """State of online training beside networks and generators.

    Attributes:
        buffer: recorded episodes; None where they were not saved.
        env_steps: environment steps so far, over all calls of ``finetune``.
        began: of these, before ``num_timesteps`` was last set to 0.
        collected: of these, since the buffer was empty.
        episodes: episodes begun so far; the number of an episode decides its seed.
        updates: gradient updates so far.
        episode_return: rewards of the running episode so far, as the environment gave them.
        memory: the policy's, in the running episode.
        saved: whether ``save`` writes the buffer.
    """

    buffer: ReplayBuffer | None = None
    env_steps: int = 0
    began: int = 0
    collected: int = 0
    episodes: int = 0
    updates: int = 0
    episode_return: float = 0.0
    memory: Memory = None
    saved: bool = True

    def to_archive(
        self, agent: OfflineAgent, buffer: bool | None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return everything as JSON values and tensors.

        Args:
            agent: whose experience it is.
            buffer: with the recorded episodes; None as ``saved`` says.
        """
        header: dict[str, Any] = {name: getattr(self, name) for name in _COUNTERS}
        header["saved"] = self.saved
        infos = agent.ep_info_buffer or ()
        header["recent"] = [[info["r"], info["l"]] for info in infos]
        header["successes"] = [bool(success) for success in agent.ep_success_buffer or ()]
        if self.buffer is None or not (self.saved if buffer is None else buffer):
            return header, {}
        header["episode_return"] = self.episode_return
        header["buffer"], tensors = self.buffer.to_archive()
        memory = self.memory or ()
        header["memory"] = None if self.memory is None else len(memory)
        parts = {f"memory/{i}": np.ascontiguousarray(part) for i, part in enumerate(memory)}
        return header, tensors | {name: torch.from_numpy(part) for name, part in parts.items()}

    @classmethod
    def from_archive(
        cls, agent: OfflineAgent, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> Experience:
        """Make it of what ``to_archive`` returned, and fill the agent's means of episodes."""
        counters: dict[str, Any] = {name: int(header[name]) for name in _COUNTERS}
        experience = cls(**counters, saved=bool(header["saved"]))
        agent.ep_info_buffer = deque(
            ({"r": float(r), "l": int(length)} for r, length in header["recent"]), maxlen=WINDOW
        )
        agent.ep_success_buffer = deque(header["successes"], maxlen=WINDOW)
        if "buffer" not in header:
            return experience
        observation_space, _ = split_space(agent.observation_space)
        experience.buffer = ReplayBuffer.from_archive(
            header["buffer"], tensors, observation_space, agent.action_space
        )
        experience.episode_return = float(header["episode_return"])
        if header["memory"] is not None:
            parts = range(int(header["memory"]))
            experience.memory = tuple(tensors[f"memory/{i}"].numpy() for i in parts)
        return experience
