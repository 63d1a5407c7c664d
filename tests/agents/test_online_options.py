"""Online training: what it refuses, its callbacks, logs, learning rates, chains and hooks."""

import csv

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor

from gcrl_gym.agents import AWAC, GCBC, GCIQL, IQL, POGO, TD3BC
from gcrl_gym.agents.check import same_weights
from gcrl_gym.callbacks import GoalEvalCallback
from gcrl_gym.datasets.samplers import GoalSampler, TransitionSampler
from gcrl_gym.errors import UserError
from tests.agents.online import SMALL, Walk, marked_data, nav2d, nav2d_env, spy, walker
from tests.contract.test_agents import Drift, env_and_data

# What it refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [GCBC, AWAC])
def test_agents_that_learn_offline_only(kind):
    with pytest.raises(UserError, match=f"{kind.__name__} does not learn online.*TD3BC"):
        nav2d(kind).finetune(10)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"total_timesteps": 0}, "total_timesteps is 0"),
        ({"total_timesteps": 1.5}, "total_timesteps is 1.5"),
        ({"total_timesteps": float("nan")}, "total_timesteps is nan"),
        ({"mix": 1.1}, "mix is 1.1"),
        ({"mix": -0.1}, "mix is -0.1"),
        ({"mix": True}, "mix is True"),
        ({"mix": float("nan")}, "mix is nan"),
        ({"mix": "symetric"}, "Did you mean 'symmetric'"),
        ({"learning_starts": -1}, "learning_starts is -1"),
        ({"updates_per_step": 0}, "updates_per_step is 0"),
        ({"updates_per_step": 0.1}, "updates_per_step is 0.1"),
        ({"buffer_size": 0}, "buffer_size is 0"),
        ({"log_interval": 0}, "log_interval is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"exploration_noise": -0.1}, "exploration_noise is -0.1"),
        ({"exploration_noise": float("inf")}, "exploration_noise is inf"),
        ({"actor": 1}, "actor is 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"env": "gcrl/Nav3D-v0"}, "Unknown environment"),
        ({"env": 3}, "env is 3"),
    ],
)
def test_mistakes_cost_nothing(keywords, words):
    agent = nav2d()
    with pytest.raises(UserError, match=words):
        agent.finetune(**({"total_timesteps": 10} | keywords))
    assert agent.online is None
    assert not any(name.startswith("online") for name in agent.generators.numpy_states())


def test_environments_that_do_not_fit():
    class Wide(Drift):
        observation_space = spaces.Box(-1, 1, (4,), np.float32)

    class Strong(Drift):
        action_space = spaces.Box(-2, 2, (2,), np.float32)

    for env, words in ((Wide(), r"observations.*\(3,\).*\(4,\)"), (Strong(), "actions")):
        with pytest.raises(UserError, match=words):
            walker().finetune(5, env)
    with pytest.raises(UserError, match=r"learns to reach goals.*GoalDict"):
        nav2d().finetune(5, Drift())
    with pytest.raises(UserError, match="without goals"):
        walker().finetune(5, nav2d_env())
    pictures = gym.make("gcrl/Nav2D-v0", image_observation=True)
    with pytest.raises(UserError, match="observations"):
        nav2d().finetune(5, pictures)
    with pytest.raises(UserError, match="one gymnasium environment"):
        nav2d().finetune(5, _vector())


def _vector():
    from gcrl_gym.wrappers import SB3VecEnv

    return SB3VecEnv("gcrl/Nav2D-v0", 4)


def test_nothing_to_act_in_and_nothing_to_mix_with():
    with pytest.raises(UserError, match="needs an environment"):
        TD3BC(None, marked_data(), **SMALL).finetune(5)
    with pytest.raises(UserError, match=r'no offline data to mix with.*mix="online"'):
        walker(dataset=None).finetune(5)
    with pytest.raises(UserError, match="returns of the offline data"):
        walker(dataset=None, reward_transform="return_range").finetune(5, mix="online")


def test_an_agent_made_without_an_environment_takes_any_that_fits():
    """Its spaces, taken from the data, have no bounds."""
    _, data = env_and_data("gcrl/Nav2D-v0")
    agent = TD3BC(None, data, seed=0, sampler=GoalSampler(reward="index"), **SMALL)
    agent.finetune(30, nav2d_env(), learning_starts=10)
    assert agent._n_updates > 0
    assert agent.get_env() is not None


def test_noise_needs_continuous_actions():
    env, data = env_and_data("gcrl/Nav2DDiscrete-v0")
    with pytest.raises(UserError, match="continuous"):
        GCIQL(env, data, **SMALL).finetune(5, exploration_noise=0.1)


# Callbacks and logs ----------------------------------------------------------------------------


def test_callbacks_of_sb3(tmp_path):
    """The environment of the agent may be evaluated on: it is a copy that is trained in."""
    agent = nav2d()
    evaluation = EvalCallback(agent.get_env(), eval_freq=10, n_eval_episodes=1, verbose=0)
    evaluation.log_path = str(tmp_path / "evaluations")
    callbacks = [evaluation, CheckpointCallback(25, str(tmp_path))]
    agent.finetune(50, callback=callbacks, learning_starts=20)
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [10, 20, 30, 40, 50]
    assert same_weights(agent, TD3BC.load(tmp_path / "rl_model_50_steps.zip"))
    alone = nav2d().finetune(50, learning_starts=20)
    assert same_weights(agent, alone)


def test_our_evaluation_on_the_way_changes_nothing(tmp_path):
    agent, alone = nav2d(POGO), nav2d(POGO)
    callback = GoalEvalCallback(nav2d_env(), 10, 1, csv_path=tmp_path / "evaluations.csv")
    agent.finetune(30, callback=callback, learning_starts=20)
    assert same_weights(agent, alone.finetune(30, learning_starts=20))
    assert callback.last_result is not None


def test_samples_drawn_on_the_way_change_nothing():
    agent, alone = nav2d(POGO), nav2d(POGO)
    observation, _ = nav2d_env().reset(seed=0)

    def sample(*_):
        agent.predict(observation, deterministic=False)
        return True

    agent.finetune(30, callback=sample, learning_starts=20)
    assert same_weights(agent, alone.finetune(30, learning_starts=20))


class Watch(BaseCallback):
    def __init__(self):
        super().__init__()
        self.starts, self.ends, self.steps = 0, 0, []

    def _on_rollout_start(self):
        self.starts += 1

    def _on_rollout_end(self):
        self.ends += 1

    def _on_step(self):
        self.steps.append({k: self.locals[k] for k in ("dones", "rewards", "infos")})
        return True


def test_callbacks_see_each_step():
    env, watch = Walk(steps=10), Watch()
    walker(env=env).finetune(35, callback=watch, learning_starts=100)
    assert (watch.starts, watch.ends) == (4, 3)
    assert [bool(step["dones"][0]) for step in watch.steps] == [any(e) for e in env.ends]
    assert all(step["infos"][0]["is_success"] is False for step in watch.steps)


def test_stop_after_some_episodes():
    agent = walker(env=Walk(steps=10))
    agent.finetune(100, callback=StopTrainingOnMaxEpisodes(3), learning_starts=200)
    assert agent.num_timesteps == 30
    agent.finetune(10, callback=lambda *_: False)
    assert agent.num_timesteps == 31


def test_the_log(tmp_path):
    env = Walk(steps=10, far=0.8)
    agent = walker(env=env, seed=3)
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.finetune(200, mix=0.25, learning_starts=40, log_interval=50)
    rows = list(csv.DictReader((tmp_path / "progress.csv").read_text().splitlines()))
    assert [int(row["time/env_steps"]) for row in rows] == [50, 100, 150, 200]
    last = rows[-1]
    ended = [position for position, ends in enumerate(env.ends) if any(ends)]
    lengths = np.diff([-1, *ended])
    assert float(last["rollout/ep_len_mean"]) == pytest.approx(lengths.mean())
    assert float(last["rollout/success_rate"]) == np.mean([env.ends[i][0] for i in ended])
    assert 0 < float(last["rollout/success_rate"]) < 1
    assert int(last["time/episodes"]) == len(ended)
    assert int(last["rollout/buffer_size"]) == lengths.sum()
    assert float(last["train/offline_share"]) == 0.25
    assert np.isfinite(float(last["train/critic_loss"]))
    assert int(last["time/gradient_steps"]) == agent._n_updates
    data = agent.online.buffer.dataset()
    returns = [
        data.rewards[end - n : end].sum() for end, n in zip(data.columns.episode_ends, lengths)
    ]
    assert float(last["rollout/ep_rew_mean"]) == pytest.approx(np.mean(returns), rel=1e-5)


def test_progress_bar(capsys):
    nav2d().learn(5).finetune(10, progress_bar=True)
    assert "15/15" in capsys.readouterr().err


# Learning rates --------------------------------------------------------------------------------


def rates_during(agent, steps, **keywords):
    """Learning rate of each optimiser at every update, by name."""
    found, update = [], agent.online_update

    def watched(batch):
        found.append({n: o.param_groups[0]["lr"] for n, o in agent.optimizers.items()})
        return update(batch)

    agent.online_update = watched
    agent.finetune(steps, learning_starts=0, **keywords)
    return found


def test_a_schedule_that_has_ended_freezes_nothing():
    """IQL's actor falls along a cosine to 0 offline."""
    agent = nav2d(IQL, learning_rate=2e-3).learn(50)
    assert agent.optimizers["actor_0"].param_groups[0]["lr"] < 1e-5
    before = agent.policy.networks["actor_0"].state_dict()["log_std"].clone()
    for rates in rates_during(agent, 40):
        assert rates == {"value": 2e-3, "critic": 2e-3, "actor_0": 2e-3}
    moved = agent.policy.networks["actor_0"].state_dict()["log_std"] - before
    assert moved.abs().max() > 1e-2  # of about 26 steps of Adam
    agent.learn(10)  # and offline the schedule is what it was
    assert agent.optimizers["actor_0"].param_groups[0]["lr"] < 1e-3


def test_a_given_schedule_runs_over_the_call():
    agent = walker(env=Walk(steps=5), learning_rate="cos_1e-3").learn(3)
    rates = [r["critic"] for r in rates_during(agent, 20, learning_rate="lin_1e-2")]
    expected = [1e-2 * (1 - step / 20) for step in range(5, 21)]
    np.testing.assert_allclose(rates, expected, atol=1e-12)
    agent = walker(learning_rate=1e-3)
    rates = rates_during(agent, 30, learning_rate=5e-4)
    assert {rate for update in rates for rate in update.values()} == {5e-4}
    assert agent.optimizers["critic"].param_groups[0]["lr"] == 1e-3  # for what comes after


# Chains ----------------------------------------------------------------------------------------


def test_every_actor_of_a_chain_learns_and_one_acts():
    acted = {}
    for actor in (0, 1, -1):
        agent = nav2d(POGO, w2_weights=(0.1, 0.1)).learn(1)
        before = {n: v.clone() for n, v in agent.policy.networks.state_dict().items()}
        asked, predict = [], agent.predict

        def watched(*arguments, asked=asked, predict=predict, **keywords):
            asked.append(arguments[-1])
            return predict(*arguments, **keywords)

        agent.predict = watched
        agent.finetune(30, actor=actor, learning_starts=20)
        assert set(asked) == {actor}
        after = agent.policy.networks.state_dict()
        assert not any(after[n].equal(before[n]) for n in after if n.startswith("actor"))
        acted[actor] = agent.online.buffer.dataset().actions[:15]
    assert np.array_equal(acted[1], acted[-1])
    assert not np.array_equal(acted[0], acted[1])


# Hooks -----------------------------------------------------------------------------------------


class Own(TD3BC):
    """Acts by a counter that it remembers, has an epsilon, and learns from recorded goals."""

    name = "own"

    def explore(self, observation, memory, moment):
        count = np.zeros(1) if memory is None else memory[0] + 1
        assert moment.start == (memory is None)
        epsilon = moment.remaining
        self.epsilons = [*getattr(self, "epsilons", []), epsilon]
        return np.clip(count * 0.01 + np.zeros(2), -1, 1), (count,)

    def after_env_step(self, transition):
        assert set(transition.info) >= {"is_success"}
        return {"epsilon": self.epsilons[-1], "reward": transition.reward}

    def bind_sampler(self, dataset, online=False):
        self.bound_to = [*getattr(self, "bound_to", []), online]
        return TransitionSampler().bind(dataset) if online else super().bind_sampler(dataset)

    def online_update(self, batch):
        return self.update(batch) | {"own": torch.tensor(3.0)}


def test_hooks(tmp_path):
    agent = nav2d(Own, steps=10)
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    seen = spy(agent)
    agent.finetune(20, learning_starts=10, log_interval=10, mix="online")
    actions = agent.online.buffer.dataset().actions
    np.testing.assert_allclose(actions[:10, 0], np.arange(10) * 0.01, atol=1e-7)
    np.testing.assert_allclose(actions[11:21, 0], np.arange(10) * 0.01, atol=1e-7)
    np.testing.assert_allclose(agent.epsilons, 1 - np.arange(20) / 20)
    assert agent.bound_to == [False, True, True]
    rows = list(csv.DictReader((tmp_path / "progress.csv").read_text().splitlines()))
    assert float(rows[1]["rollout/epsilon"]) == pytest.approx(np.mean(agent.epsilons[10:]))
    assert float(rows[1]["train/own"]) == 3.0
    desired = agent.online.buffer.dataset().desired_goals
    goals = agent.policy.goal_mean + seen[0].goals * agent.policy.goal_std
    assert all(np.isclose(desired, goal, atol=1e-5).all(1).any() for goal in goals.numpy())


def test_training_options_of_ones_own():
    env = Walk(steps=5)
    walker(env=env).finetune(12, train_options=lambda _, rng: {"task_id": int(rng.integers(9))})
    assert len(env.options) == 3
    assert all(set(options) == {"task_id"} for options in env.options)
    assert len(set(env.seeds)) == 3


def test_an_environment_in_wrappers_is_trained_in():
    agent = nav2d()
    agent.finetune(20, Monitor(nav2d_env(7)), learning_starts=100)
    assert agent.online.buffer.dataset().columns.lengths.tolist() == [7, 7]
