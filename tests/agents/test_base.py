"""What every agent gets from OfflineAgent: Stable-Baselines3's tools, archives, clear errors."""

import csv
import io

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule

from gcrl_gym.agents import CRL, GCBC, GCIQL, GCIVL, HIQL, POGO, QRL
from gcrl_gym.agents.check import same_weights
from gcrl_gym.agents.numerics import fast_matmul_precision
from gcrl_gym.agents.schedules import resolve_learning_rate
from gcrl_gym.errors import UserError
from tests.contract.test_agents import env_and_data

SMALL = {"hidden_sizes": (16, 16), "batch_size": 32, "device": "cpu"}


def nav2d(kind=GCBC, **keywords):
    env, data = env_and_data("gcrl/Nav2D-v0")
    return kind(env, data, **(SMALL | {"seed": 0} | keywords))


# Stable-Baselines3's tools run unchanged ------------------------------------------------------


def test_eval_and_checkpoint_callbacks(tmp_path):
    env, _ = env_and_data("plain")
    agent = GCBC(env, env_and_data("plain")[1], seed=0, **SMALL)
    evaluation = EvalCallback(
        env,
        eval_freq=5,
        n_eval_episodes=2,
        best_model_save_path=tmp_path,
        log_path=tmp_path,
        verbose=0,
    )
    assert agent.learn(10, callback=[evaluation, CheckpointCallback(5, str(tmp_path))]) is agent
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [5, 10]
    best = GCBC.load(tmp_path / "best_model.zip")
    assert best.num_timesteps in (5, 10)
    last = GCBC.load(tmp_path / "rl_model_10_steps.zip")
    assert same_weights(agent, last)


def test_stop_training_on_reward_threshold():
    env, data = env_and_data("plain")
    stop = StopTrainingOnRewardThreshold(reward_threshold=-1e9)
    callback = EvalCallback(
        env, eval_freq=4, n_eval_episodes=1, callback_on_new_best=stop, verbose=0
    )
    agent = GCBC(env, data, seed=0, **SMALL).learn(100, callback=callback)
    assert agent.num_timesteps == 4


def test_success_rate_reaches_the_log(tmp_path):
    agent = nav2d()
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    callback = EvalCallback(agent.get_env(), eval_freq=5, n_eval_episodes=1, verbose=0)
    agent.learn(5, callback=callback, log_interval=5)
    rows = list(csv.DictReader((tmp_path / "progress.csv").read_text().splitlines()))
    assert "eval/success_rate" in rows[0]


def test_evaluate_policy():
    env, data = env_and_data("plain")
    mean, _ = evaluate_policy(GCBC(env, data, seed=0, **SMALL), env, n_eval_episodes=2, warn=False)
    assert np.isfinite(mean)


def test_csv_and_tensorboard_logs(tmp_path):
    agent = nav2d(POGO)
    agent.set_logger(configure(str(tmp_path), ["csv", "tensorboard"]))
    agent.learn(6, log_interval=3)
    rows = list(csv.DictReader((tmp_path / "progress.csv").read_text().splitlines()))
    assert len(rows) == 2
    assert float(rows[1]["time/gradient_steps"]) == 6
    assert np.isfinite(float(rows[0]["train/critic_loss"]))
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_tensorboard_log_argument(tmp_path):
    nav2d(tensorboard_log=str(tmp_path)).learn(3, log_interval=1)
    assert list((tmp_path / "gcbc_1").glob("events.out.tfevents.*"))


def test_linear_schedule_is_followed_and_stored():
    agent = nav2d(learning_rate=LinearSchedule(1e-3, 0.0, 1.0))
    agent.learn(10)
    rate = agent.actor_optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(1e-4, rel=1e-6)  # of the last of ten updates
    buffer = io.BytesIO()
    agent.save(buffer)
    buffer.seek(0)
    loaded = GCBC.load(buffer)
    assert loaded.learning_rate(0.5) == pytest.approx(5e-4)
    assert loaded.actor_optimizer.param_groups[0]["lr"] == rate


def test_linear_schedule_as_text():
    agent = nav2d(learning_rate="lin_1e-3")
    agent.learn(10)
    assert agent.actor_optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_cosine_schedule_is_torchs():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1e-2)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    schedule = resolve_learning_rate("cos_1e-2")
    for update in range(10):
        assert schedule(1 - update / 10) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_an_optimiser_may_have_a_rate_of_its_own():
    class Two(GCBC):
        name = "two"

        def build(self):
            super().build()
            self.actor_optimizer = self.add_optimizer("actor", self.actor, rate="cos_1e-2")
            self.other = self.add_optimizer("other", self.actor, rate=5e-3)
            self.common = self.add_optimizer("common", self.actor)

    agent = nav2d(Two, learning_rate=1e-4)
    rates = []
    agent.learn(
        4, callback=lambda *_: rates.append(agent.actor_optimizer.param_groups[0]["lr"]) or True
    )
    expected = [1e-2 * 0.5 * (1 + np.cos(np.pi * k / 4)) for k in range(4)]
    np.testing.assert_allclose(rates, expected)
    assert agent.other.param_groups[0]["lr"] == 5e-3
    assert agent.common.param_groups[0]["lr"] == 1e-4


@pytest.mark.parametrize("rate", ["sin_1e-3", "fast", 0.0, -1e-3, float("nan")])
def test_learning_rates_that_are_none(rate):
    with pytest.raises(UserError, match="learning_rate is"):
        nav2d(learning_rate=rate)


def test_a_schedule_that_is_code_must_be_given_again(tmp_path):
    agent = nav2d(learning_rate=lambda remaining: 1e-3 * remaining)
    agent.learn(2)
    agent.save(tmp_path / "agent")
    with pytest.raises(UserError, match="code and not stored"):
        GCBC.load(tmp_path / "agent.zip")
    assert GCBC.load(tmp_path / "agent.zip", learning_rate=1e-4).learning_rate == 1e-4


def test_progress_bar_and_float_steps(capsys):
    assert nav2d().learn(1e1, progress_bar=True).num_timesteps == 10
    assert "10/10" in capsys.readouterr().err


def test_a_callback_function_stops_training():
    seen = []
    agent = nav2d()
    agent.learn(10, callback=lambda local, _: seen.append(agent.num_timesteps) or len(seen) < 3)
    assert seen == [1, 2, 3]


def test_set_and_get_parameters(tmp_path):
    source, target = nav2d(POGO).learn(3), nav2d(POGO, seed=5)
    target.set_parameters(source.get_parameters())
    assert same_weights(source, target)
    source.learn(1, reset_num_timesteps=False).save(tmp_path / "agent.zip")
    target.set_parameters(tmp_path / "agent.zip")
    assert same_weights(source, target)
    with pytest.raises(UserError, match="expected"):
        target.set_parameters({"policy": source.policy.state_dict()})


def test_policy_predict_works_alone():
    agent = nav2d()
    observation, _ = env_and_data("gcrl/Nav2D-v0")[0].reset(seed=0)
    expected, _ = agent.predict(observation, deterministic=True)
    found, _ = agent.policy.predict(observation, deterministic=True)
    np.testing.assert_array_equal(found, expected)


# Speed settings ------------------------------------------------------------------------------


def test_process_settings_are_given_back():
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    seen = []

    def look(_local, _global):
        seen.append((torch.get_float32_matmul_precision(), torch.get_num_threads()))
        return True

    nav2d(threads=2).learn(1, callback=look)
    assert seen == [(fast_matmul_precision(), 2)]
    assert (torch.get_float32_matmul_precision(), torch.get_num_threads()) == before
    with pytest.raises(ZeroDivisionError):
        nav2d(threads=2).learn(1, callback=lambda *_: 1 / 0)
    assert (torch.get_float32_matmul_precision(), torch.get_num_threads()) == before


def test_matmul_highest_leaves_torch_alone():
    agent = nav2d(matmul="highest").learn(1)
    assert agent.numerics.matmul == torch.get_float32_matmul_precision()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [GCBC, POGO, GCIVL, GCIQL, QRL, CRL, HIQL])
def test_compiled_update_equals_eager(kind):
    eager, compiled = nav2d(kind).learn(4), nav2d(kind, compile=True).learn(4)
    for name, value in eager.policy.state_dict().items():
        found = compiled.policy.state_dict()[name]
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-5, msg=name)


def test_no_compiler_falls_back_with_one_warning(monkeypatch):
    def broken(*_args, **_keywords):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match="no working compiler") as caught:
        agent = nav2d(compile=True).learn(2)
    # Others may warn too: the first environment made in a process loads pygame.
    assert sum("no working compiler" in str(warning.message) for warning in caught) == 1
    assert agent.num_timesteps == 2
