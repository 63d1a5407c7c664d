"""Every agent, on every registered environment and on plain data, keeps the contract.

A new agent file is covered without a new test.
"""

import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from gcrl_gym.agents import agent_names, check, get_agent
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.envs import specs


class Drift(gym.Env):
    """A goal-less task with an asymmetric action box."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(np.array([-0.2, -1.0]), np.array([0.4, 3.0]), dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps = self.np_random.normal(size=3).astype(np.float32), 0
        return self.state, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        self.state = self.state + np.float32(0.1) * np.append(action, action.sum())
        return (
            self.state.astype(np.float32),
            -float(np.abs(self.state).sum()),
            False,
            self.steps >= 20,
            {},
        )


def roll_out(env, episodes):
    """Record random actions as the episodes that OfflineDataset.from_episodes takes."""
    recorded = []
    env.action_space.seed(0)
    for index in range(episodes):
        observation, _ = env.reset(seed=index)
        observations, actions, rewards, done = [observation], [], [], (False, False)
        while not any(done):
            actions.append(env.action_space.sample())
            observation, reward, *done, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
        if isinstance(observation, dict):
            stacked = {key: np.stack([o[key] for o in observations]) for key in observation}
        else:
            stacked = np.stack(observations)
        ends = np.zeros((2, len(actions)), bool)
        ends[:, -1] = done
        recorded.append(
            {
                "observations": stacked,
                "actions": np.stack(actions),
                "rewards": np.array(rewards),
                "terminations": ends[0],
                "truncations": ends[1],
            }
        )
    return recorded


@functools.cache
def env_and_data(env_id):
    env = Drift() if env_id == "plain" else gym.make(env_id)
    data = OfflineDataset.from_episodes(
        roll_out(env, 6), observation_space=env.observation_space, action_space=env.action_space
    )
    return env, data


def cases():
    ids = ["plain", *(spec.id for spec in specs())]
    for name in agent_names():
        for env_id in ids:
            env, agent = Drift() if env_id == "plain" else gym.make(env_id), get_agent(name)
            aimless = env_id == "plain" and agent.needs_goals
            alien = agent.needs_state_goals and not aimless and not goals_are_states(env)
            if isinstance(env.action_space, agent.action_spaces) and not aimless and not alien:
                yield name, env_id


def goals_are_states(env):
    return env.observation_space["observation"] == env.observation_space["desired_goal"]


def factory(name, env_id):
    agent = get_agent(name)
    small = {"hidden_sizes": (16, 16), "batch_size": 32, "device": "cpu"}
    small |= {"num_critics": 3, "num_actions": 2, "warmup": 0}
    small = {key: value for key, value in small.items() if key in agent.signature()}

    def make(**keywords):
        env, data = env_and_data(env_id)
        return agent(env, data, **(small | keywords))

    return make


@pytest.mark.parametrize("check_function", check.CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize(("name", "env_id"), list(cases()))
def test_contract(name, env_id, check_function):
    if check_function is check.check_save_load and env_id != "plain" and name != "pogo":
        # A new process for each environment would take minutes: POGO goes through all, others one.
        check_function = functools.partial(check_function, new_process=False)
    check_function(factory(name, env_id))


@pytest.mark.parametrize("env_id", ["plain", *(spec.id for spec in specs())])
def test_every_environment_has_an_agent(env_id):
    assert any(case_env == env_id for _, case_env in cases())
