"""``check_goal_env`` on native vector environments and on the radius of success."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from gcrl_gym.envs import check_goal_env
from gcrl_gym.envs.nav2d import Nav2D
from gcrl_gym.envs.nav2d_vector import Nav2DVector
from gcrl_gym.errors import UserError
from gcrl_gym.wrappers import FixedTask

KEYWORDS = {"maze": "open", "goal": "near", "goal_tolerance": 2.0, "reward": "dense"}


class Undeclared(Nav2DVector):
    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.metadata = {}


class TooMany(Nav2DVector):
    def __init__(self, num_envs, **keywords):
        super().__init__(num_envs=num_envs + 1, **keywords)


class OtherSpace(Nav2DVector):
    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.single_action_space = gym.spaces.Box(-2, 2, (2,))


class OneSeed(Nav2DVector):
    def _seed(self, copies, seed):
        super()._seed(copies, [seed] * self.num_envs if isinstance(seed, int) else seed)


class OneStepLate(Nav2DVector):
    def __init__(self, max_episode_steps, **keywords):
        super().__init__(max_episode_steps=max_episode_steps + 1, **keywords)


class Rounded(Nav2DVector):
    """Differs in the last bit only."""

    def _judge(self):
        rewards, terminated, infos = super()._judge()
        return rewards.astype(np.float32).astype(np.float64), terminated, infos


class PoorInfo(Nav2DVector):
    def _judge(self):
        rewards, terminated, infos = super()._judge()
        del infos["distance_to_goal"]
        return rewards, terminated, infos


class SlowReset(Nav2DVector):
    """Begins anew one number later than a single environment."""

    def _start(self, copies, options):
        if self._steps.any():
            self._uniforms.take(self.generators, copies)
        super()._start(copies, options)


def make(vector):
    spec = EnvSpec(
        "test/Nav2D-v0", Nav2D, max_episode_steps=50, vector_entry_point=vector, kwargs=KEYWORDS
    )
    return gym.make(spec)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (Undeclared, "metadata['autoreset_mode'] of the vector environment is no AutoresetMode"),
        (TooMany, "asked for 3 copies, the vector environment has 4"),
        (OtherSpace, "single_action_space is not the space"),
        (OneSeed, "observation/achieved_goal of a copy differs"),
        (OneStepLate, "truncated of a copy differs from the single environment's in step"),
        (Rounded, "rewards of a copy differs from the single environment's in step 0"),
        (PoorInfo, "infos of a copy differs from the single environment's at reset"),
        (SlowReset, "observation/achieved_goal of a copy differs"),
    ],
)
def test_names_the_defect(vector, message):
    with pytest.raises(UserError) as caught:
        check_goal_env(make(vector))
    assert str(caught.value).startswith(f"check_goal_env, vector: {message}")


class InMode(Nav2DVector):
    mode = "next_step"

    def __init__(self, **keywords):
        super().__init__(autoreset_mode=self.mode, **keywords)


@pytest.mark.parametrize("mode", [mode.name.lower() for mode in AutoresetMode])
def test_every_mode_is_checked_as_declared(mode, monkeypatch):
    monkeypatch.setattr(InMode, "mode", mode)
    check_goal_env(make(InMode))

    class Broken(SlowReset, InMode):
        pass

    with pytest.raises(UserError, match="vector: "):
        check_goal_env(make(Broken))


def test_is_not_asked_of_wrapped_environments():
    check_goal_env(FixedTask(make(Rounded), 1))


class OtherInfo(Nav2D):
    """Tells success, and compute_terminated ends, within another radius than is_success."""

    def _observe(self):
        observation, info = super()._observe()
        success = info["distance_to_goal"] <= 1.5
        return observation, {**info, "success": float(success), "is_success": success}


class OtherTolerance(Nav2D):
    def _observe(self):
        observation, info = super()._observe()
        return observation, {**info, "distance_to_goal": info["distance_to_goal"] + 0.3}


class EndsElsewhere(Nav2D):
    """Rewards and ends of hindsight goals have radii of their own."""

    def compute_terminated(self, achieved_goal, desired_goal, info=None):
        return np.asarray(self.goal_distance(achieved_goal, desired_goal) <= 0.01)


class NeverAchieved(Nav2D):
    def compute_reward(self, achieved_goal, desired_goal, info=None):
        distance = self.goal_distance(achieved_goal, desired_goal)
        return np.where(distance > 0, super().compute_reward(achieved_goal, desired_goal), -99)[()]


class OtherSignature(Nav2D):
    def compute_reward(self):
        return 0.0


@pytest.mark.parametrize(
    ("defect", "reward", "message"),
    [
        (OtherInfo, "sparse", "radius: info says False, is_success True"),
        (OtherTolerance, "sparse", "radius: distance"),
        (EndsElsewhere, "sparse", "radius: compute_reward and compute_terminated differ"),
        (NeverAchieved, "dense", "radius: a state does not achieve its own goal"),
        (OtherSignature, "sparse", "compute_reward: must take (achieved_goal, desired_goal, info)"),
    ],
)
def test_radius(defect, reward, message):
    near = {"goal_tolerance": 2.0, "goal": "near"} if defect in (OtherInfo, OtherTolerance) else {}
    env = defect("open", reward=reward, **near)
    with pytest.raises(UserError) as caught:
        check_goal_env(gym.wrappers.TimeLimit(env, 60))
    assert str(caught.value).startswith(f"check_goal_env, {message}")
