"""``check_goal_env`` must name the property that a defective environment breaks."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils import RecordConstructorArgs

from gcrl_gym.envs import check_goal_env
from gcrl_gym.envs.nav2d import Nav2D
from gcrl_gym.errors import UserError


class Shared(Nav2D):
    """Hands out the array that it goes on writing to."""

    def _observe(self):
        observation, info = super()._observe()
        if not hasattr(self, "kept"):
            self.kept = observation["observation"]
        self.kept[:] = observation["observation"]
        return {**observation, "observation": self.kept}, info


class Outside(Nav2D):
    def _observe(self):
        observation, info = super()._observe()
        return {**observation, "observation": observation["observation"] + 10}, info


class Float64(Nav2D):
    def _observe(self):
        observation, info = super()._observe()
        return {**observation, "achieved_goal": observation["achieved_goal"].astype(float)}, info


class MovingGoal(Nav2D):
    def step(self, action):
        self._goal = (self._goal + np.float32(0.01)) % np.float32(10)
        return super().step(action)


class PoorInfo(Nav2D):
    def reset(self, **keywords):
        observation, info = super().reset(**keywords)
        return observation, {key: info[key] for key in ("success", "is_success")}


class NoSuccess(Nav2D):
    def _observe(self):
        observation, info = super()._observe()
        del info["is_success"]
        return observation, info


class TwoMinds(Nav2D):
    def _observe(self):
        observation, info = super()._observe()
        return observation, {**info, "is_success": not info["is_success"]}


class WrongReward(Nav2D):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward - 0.1, *rest


class WrongRadius(Nav2D):
    """Ends the episode within a smaller radius than the rewards speak of."""

    def step(self, action):
        observation, reward, terminated, *rest = super().step(action)
        self._running = True
        return observation, reward, terminated and rest[1]["distance_to_goal"] < 0.01, *rest


class NotVectorised(Nav2D):
    def compute_reward(self, achieved_goal, desired_goal, info=None):
        first = np.reshape(achieved_goal, (-1, 2))[0]
        return super().compute_reward(first, np.reshape(desired_goal, (-1, 2))[0], info)


class StartsInGoal(Nav2D):
    def choose_episode(self, options, draw):
        layout, start, goal = super().choose_episode(options, draw)
        return layout, goal.tolist() if options == {} else start, goal


class TaskInGoal(Nav2D):
    def choose_episode(self, options, draw):
        layout, start, goal = super().choose_episode(options, draw)
        return layout, goal.tolist() if "task_id" in options else start, goal


class LooseTask(Nav2D):
    resets = 0

    def choose_episode(self, options, draw):
        self.resets += 1
        layout, start, goal = super().choose_episode(options, draw)
        return (
            layout,
            [start[0] + 0.01 * (self.resets % 7) * ("task_id" in options), start[1]],
            goal,
        )


class Unseeded(Nav2D):
    def reset(self, *, seed=None, options=None):
        return super().reset(options=options)


class ProcessGenerator(Nav2D):
    def reset(self, *, seed=None, options=None):
        np.random.random()  # a draw that moves the position in the state, and only at times more
        return super().reset(seed=seed, options=options)


class GreyPicture(Nav2D):
    def render(self):
        return np.full((64, 64, 3), 128, np.uint8)


class StillPicture(Nav2D):
    def render(self):
        return np.arange(64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)


class FloatPicture(Nav2D):
    def render(self):
        return super().render() / 255


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        (Shared, "fresh arrays: a later step changed 'observation'"),
        (Outside, "spaces: observation"),
        (Float64, "spaces: observation"),
        (MovingGoal, "constant goal"),
        (PoorInfo, "info keys: ['distance_to_goal'] come and go"),
        (NoSuccess, "info keys: no success"),
        (TwoMinds, "info: success and is_success differ"),
        (WrongReward, "compute_reward: gives"),
        (WrongRadius, "compute_terminated: gives True"),
        (NotVectorised, "compute_reward: gives () for"),
        (StartsInGoal, "reset: an episode starts inside the goal"),
        (TaskInGoal, "tasks: task 1 starts inside its goal"),
        (LooseTask, "tasks: task 1 differs between two resets"),
        (Unseeded, "seeds: two episodes with the same seed differ"),
        (ProcessGenerator, "process generator"),
        (GreyPicture, "render: the picture has one colour only"),
        (StillPicture, "render: the picture does not change"),
        (FloatPicture, "render: render() must return"),
    ],
)
def test_names_the_defect(defect, message):
    # A large tolerance and dense rewards: random play reaches goals, so that rewards differ.
    env = defect("open", goal="near", goal_tolerance=2.0, reward="dense", render_mode="rgb_array")
    env = gym.wrappers.TimeLimit(env, 60)
    with pytest.raises(UserError) as caught:
        check_goal_env(env)
    assert str(caught.value).startswith(f"check_goal_env, {message}")


def test_flat_observations_are_refused():
    env = gym.wrappers.FlattenObservation(Nav2D())
    with pytest.raises(UserError, match="spaces: observation_space must be a Dict"):
        check_goal_env(env)


class Forgetful(gym.Wrapper, RecordConstructorArgs):
    """Changes the rewards, but forgets by how much when rebuilt from its spec."""

    def __init__(self, env, bonus=0.0):
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self.bonus = bonus

    def step(self, action):
        observation, reward, *rest = self.env.step(action)
        return observation, reward + self.bonus, *rest

    def compute_reward(self, *arguments):
        return self.env.get_wrapper_attr("compute_reward")(*arguments) + self.bonus


class Unrecorded(gym.Wrapper):
    pass


def test_the_spec_must_rebuild_the_same_environment():
    env = gym.make("gcrl/Nav2D-v0")
    check_goal_env(Forgetful(env, 0.0))
    with pytest.raises(UserError, match=r"spec: the environment rebuilt .* behaves differently"):
        check_goal_env(Forgetful(env, 1.0))
    with pytest.raises(UserError, match=r"spec: gym.make\(env.spec\) failed: .*RecordConstructor"):
        check_goal_env(Unrecorded(env))


def test_leaves_the_action_space_alone():
    env = gym.make("gcrl/Nav2D-v0")
    env.action_space.seed(1)
    expected = env.action_space.sample()
    env.action_space.seed(1)
    check_goal_env(env)
    assert np.array_equal(env.action_space.sample(), expected)
