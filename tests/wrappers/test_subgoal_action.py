"""SubgoalAction: subgoals above, an inverse-dynamics model below."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RescaleAction
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

import gcrl_gym  # noqa: F401
from gcrl_gym.agents import GCBC
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import SubgoalAction


def towards(observation, subgoal):
    """Full speed in a straight line, no further than the subgoal."""
    return np.clip((subgoal - observation) / 0.5, -1, 1)


def make(model=towards, steps=4, env_id="gcrl/Nav2D-v0", maze="open", **keywords):
    return SubgoalAction(gym.make(env_id, maze=maze, reward="penalty"), model, steps, **keywords)


def test_walks_to_subgoals_and_adds_up_rewards():
    env = make()
    assert env.action_space == env.observation_space["desired_goal"]
    observation, info = env.reset(seed=0, options={"start": [1, 1], "goal": [9, 9]})
    assert info["subgoal_steps"] == 0
    observation, reward, terminated, truncated, info = env.step(np.array([2, 1], np.float32))
    assert observation["observation"] == pytest.approx([2, 1])
    assert observation["desired_goal"].tolist() == [9, 9]
    assert (reward, terminated, truncated, info["subgoal_steps"]) == (-4, False, False, 4)
    env.reset(options={"start": [8.8, 6], "goal": [8.8, 9]})
    total, taken = 0, 0
    while not terminated:
        _, reward, terminated, _, info = env.step(np.array([8.8, 99]))  # clipped to 10
        total, taken = total + reward, taken + info["subgoal_steps"]
    assert info["success"] == 1.0
    assert (taken, info["subgoal_steps"]) == (5, 1)  # 2.5 of the 3 units; it ended on the way
    assert total == 1 - taken


def test_ends_with_the_episode():
    env = make(steps=30)
    env.reset(options={"start": [1, 1], "goal": [9, 9]})
    steps = 0
    while True:
        _, _, terminated, truncated, info = env.step(np.array([1, 1]))
        steps += info["subgoal_steps"]
        if truncated or terminated:
            break
    assert (truncated, terminated, steps, info["subgoal_steps"]) == (True, False, 200, 20)


def test_an_agent_sees_the_subgoal_as_its_goal():
    seen = []

    class Agent:
        def predict(self, observation, deterministic):
            seen.append((observation, deterministic))
            return towards(observation["observation"], observation["desired_goal"]), None

    env = make(Agent(), deterministic=False)
    env.reset(options={"start": [1, 1], "goal": [9, 9]})
    observation, *_ = env.step(np.array([2, 1], np.float32))
    assert observation["observation"] == pytest.approx([2, 1])
    assert [(s["desired_goal"].tolist(), d) for s, d in seen] == [([2, 1], False)] * 4


@pytest.mark.parametrize("env_id", ["gcrl/Nav2D-v0", "gcrl/Nav2DDiscrete-v0"])
def test_our_agents_act_below(env_id):
    agent = GCBC(gym.make(env_id, maze="open"), hidden_sizes=(8,), seed=0, device="cpu")
    env = make(agent, env_id=env_id)
    check_env(env, skip_render_check=True)
    rebuilt = gym.make(env.spec)
    action = np.array([5, 5], np.float32)
    first = [e.reset(seed=1) and e.step(action)[0]["observation"] for e in (env, rebuilt)]
    assert np.array_equal(*first)


def test_rebuilds_from_json_with_an_import_path():
    env = make(f"{__name__}:towards", low=2, high=[8, 9])
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.action_space.low.tolist() == [2, 2]
    assert again.action_space.high.tolist() == [8, 9]
    assert again.get_wrapper_attr("num_tasks") == 5
    assert again.get_wrapper_attr("compute_reward")(np.zeros(2), np.zeros(2)) == 0
    for options in (None, {"task_id": 3}):
        one, two = (e.reset(seed=4, options=options)[0] for e in (env, again))
        assert all(np.array_equal(one[key], two[key]) for key in one)


def test_ppo_sets_goals():
    env = RescaleAction(make(steps=10), -1.0, 1.0)
    agent = PPO(
        "MultiInputPolicy", env, n_steps=64, batch_size=32, n_epochs=2, seed=0, device="cpu"
    )
    before = agent.policy.action_net.weight.clone()
    agent.learn(320)
    assert not agent.policy.action_net.weight.equal(before)
    _, lengths = evaluate_policy(agent, agent.env, 2, return_episode_rewards=True)
    assert all(length <= 20 for length in lengths)  # 200 steps, 10 at a time


def test_errors():
    with pytest.raises(UserError, match="needs Dict observations"):
        SubgoalAction(gym.make("Pendulum-v1"), towards)
    for model in (3, "no_such_module:act", "nothing"):
        with pytest.raises(UserError, match="inverse_dynamics"):
            make(model)
    with pytest.raises(UserError, match="steps must be a whole number"):
        make(steps=0)
    env = make()
    env.reset(seed=0)
    for action in (np.zeros(3), np.array([np.nan, 0])):
        with pytest.raises(UserError, match=r"subgoals of shape \(2,\)"):
            env.step(action)
