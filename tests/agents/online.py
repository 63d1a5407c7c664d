"""What the tests of online training share: small agents, and an environment with a memory."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gcrl_gym.agents import TD3BC
from gcrl_gym.datasets import OfflineDataset
from tests.contract.test_agents import Drift, env_and_data

SMALL = {"hidden_sizes": (16, 16), "batch_size": 32, "device": "cpu"}
OFFLINE_MARK = 1000.0


def nav2d_env(steps=15, **keywords):
    return gym.make("gcrl/Nav2D-v0", max_episode_steps=steps, **keywords)


def nav2d(kind=TD3BC, steps=15, **keywords):
    """An agent on the maze, with short episodes and a little data."""
    _, data = env_and_data("gcrl/Nav2D-v0")
    return kind(nav2d_env(steps), data, **(SMALL | {"seed": 0} | keywords))


class Walk(Drift):
    """The goal-less task, which remembers what was done to it and ends when it is far away.

    It has no spec, so that it is not copied.
    """

    def __init__(self, steps=20, far=np.inf):
        self.limit, self.far = steps, far
        self.seeds, self.options, self.actions, self.ends = [], [], [], []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.options.append(options)
        return super().reset(seed=seed)

    def step(self, action):
        observation, reward, _, _, _ = super().step(action)
        self.actions.append(np.array(action))
        self.ends.append((bool(np.abs(observation).max() > self.far), self.steps >= self.limit))
        return observation, reward, *self.ends[-1], {"is_success": self.ends[-1][0]}


def marked_data(episodes=5, length=20):
    """Offline data of `Walk` that can be told from what is collected: its first column is huge."""
    rng = np.random.default_rng(0)
    count = episodes * length
    observations = rng.normal(size=(count, 3)).astype(np.float32)
    observations[:, 0] += OFFLINE_MARK
    low, high = Drift.action_space.low, Drift.action_space.high
    return OfflineDataset.from_arrays(
        observations,
        rng.uniform(low, high, (count, 2)).astype(np.float32),
        rng.normal(size=count),
        np.zeros(count),
        np.arange(count) % length == length - 1,
        action_space=Drift.action_space,
        observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float32),
    )


def walker(kind=TD3BC, env=None, **keywords):
    """An agent on `Walk`, with marked data unless other is given."""
    keywords.setdefault("dataset", marked_data())
    options = SMALL | {"seed": 0, "normalize": False} | keywords
    return kind(Walk() if env is None else env, **options)


def spy(agent):
    """Return the list that every batch of an online update will be appended to."""
    seen, update = [], agent.online_update

    def watched(batch):
        seen.append(batch)
        return update(batch)

    agent.online_update = watched
    return seen
