"""Reward conventions of published results, applied to a loaded dataset and never stored.

====================  =========================  ==================================================
name                  rewards become             used by
====================  =========================  ==================================================
``none``              r                          most methods
``minus_one``         r - 1                      antmaze: IQL, TD3+BC, AWAC; -1 until the goal
``times_10_minus_5``  10 r - 5                   antmaze: CQL
``times_100``         100 r                      antmaze: ReBRAC, diffusion policies
``return_range``      1000 r / (max R - min R)   locomotion: IQL; R are returns of whole episodes
====================  =========================  ==================================================
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gcrl_gym.datasets.offline_dataset import OfflineDataset
from gcrl_gym.errors import UserError, nearest

RewardTransform = Literal["none", "minus_one", "times_10_minus_5", "times_100", "return_range"]

_RANGE = 1000.0


def transform_rewards(dataset: OfflineDataset, name: RewardTransform) -> OfflineDataset:
    """Return the dataset with transformed rewards; the original stays as it is.

    The last row of an episode holds no transition, so its reward stays 0. Returns are sums over
    every recorded transition of an episode, so a step that D4RL's ``qlearning_dataset`` drops at a
    time limit does not shorten them. Where all returns are equal there is no range to scale to,
    and ``return_range`` leaves the rewards as they are.

    Args:
        dataset: any dataset.
        name: the convention.

    Raises:
        UserError: an unknown name.
    """
    if name not in get_args(RewardTransform):
        options = get_args(RewardTransform)
        raise UserError(
            f"Unknown reward transform {name!r}; choose one of {', '.join(options)}."
            f"{nearest(name, options)}"
        )
    if name == "none":
        return dataset
    columns = replace(dataset.columns, rows=np.array(dataset.columns.rows))
    metadata = {**dataset.metadata, "reward_transform": name}
    spread = 0.0
    if name == "return_range":
        returns = episode_returns(dataset)
        spread = metadata["return_spread"] = float(returns.max() - returns.min())
    rewards, steps = columns["rewards"], dataset.step_rows
    rewards[steps] = convert(rewards[steps], name, spread)
    return OfflineDataset(
        columns,
        goal_is_observation=dataset.goal_is_observation,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        metadata=metadata,
    )


def convert(rewards: Any, name: RewardTransform, spread: float = 0.0) -> Any:
    """Return float32 rewards, one or many, in a convention.

    Args:
        rewards: as an environment gives them.
        name: the convention.
        spread: of the returns in the offline data, for ``return_range``; online experience is
            scaled by the same number.
    """
    if name == "minus_one":
        return rewards - 1
    if name == "times_10_minus_5":
        return 10 * rewards - 5
    if name == "times_100":
        return rewards * 100
    return rewards * (_RANGE / spread) if name == "return_range" and spread > 0 else rewards


def episode_returns(dataset: OfflineDataset) -> npt.NDArray[np.float64]:
    """Return the sum of the rewards of each episode, ``(episodes,)``."""
    ends = dataset.columns.episode_ends
    starts = ends - dataset.columns.lengths
    returns: npt.NDArray[np.float64] = np.add.reduceat(dataset.rewards.astype(np.float64), starts)
    return returns
