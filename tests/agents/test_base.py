"""What every agent gets from OfflineAgent: Stable-Baselines3's tools, archives, clear errors."""

import csv
import io
import json
import pickle
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule

import gcrl_gym.agents
from gcrl_gym.agents import GCBC, POGO, get_agent
from gcrl_gym.agents.check import same_weights
from gcrl_gym.agents.numerics import fast_matmul_precision
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.samplers import GoalSampler, TransitionSampler
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


@pytest.mark.parametrize("rate", ["cos_1e-3", "fast", 0.0, -1e-3, float("nan")])
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


def test_reward_transform_reaches_the_batches():
    env, _ = env_and_data("plain")
    plain = data()
    agent = GCBC(env, plain, sampler=TransitionSampler(), reward_transform="minus_one", **SMALL)
    assert (agent.draw_batch().rewards == -1).all()
    assert (plain.rewards == 0).all()
    again = io.BytesIO()
    agent.save(again)
    again.seek(0)
    assert GCBC.load(again).reward_transform == "minus_one"
    with pytest.raises(UserError, match=r"reward_transform is 'minus_ones'.*Did you mean"):
        GCBC(env, plain, reward_transform="minus_ones", **SMALL)


# Archives ------------------------------------------------------------------------------------


def test_load_restores_statistics_and_options(tmp_path):
    agent = nav2d(POGO, w2_weights=(0.2, 0.3), sampler=GoalSampler(value=(0.1, 0.6, 0.3))).learn(2)
    agent.save(tmp_path / "agent")
    loaded = POGO.load(tmp_path / "agent")
    assert loaded.w2_weights == (0.2, 0.3)
    assert loaded.sampler == GoalSampler(value=(0.1, 0.6, 0.3))
    assert loaded.num_timesteps == 2
    assert loaded.dataset is None
    for name in ("observation_mean", "observation_std", "goal_mean", "goal_std"):
        assert getattr(loaded.policy, name).equal(getattr(agent.policy, name))
    assert not torch.allclose(loaded.policy.observation_mean, torch.zeros(2))
    with pytest.raises(UserError, match="no dataset"):
        loaded.learn(1)
    assert type(gcrl_gym.agents.load(tmp_path / "agent.zip")) is POGO


def test_loading_new_data_keeps_the_statistics(tmp_path):
    """A reloaded policy must see inputs as it did in training."""
    agent = nav2d(POGO).learn(2)
    agent.save(tmp_path / "agent")
    env, _ = env_and_data("gcrl/Nav2D-v0")
    shifted = env_and_data("gcrl/Nav2D-v0")[1].observations.copy() + 1
    episode = {
        "observations": {k: shifted[:21] for k in ("observation", "achieved_goal", "desired_goal")},
        "actions": np.zeros((20, 2), np.float32),
        "rewards": np.zeros(20),
        "terminations": np.zeros(20, bool),
        "truncations": np.arange(20) == 19,
    }
    loaded = POGO.load(tmp_path / "agent", env=env, dataset=OfflineDataset.from_episodes([episode]))
    assert loaded.policy.observation_mean.equal(agent.policy.observation_mean)


@pytest.fixture
def archive(tmp_path):
    nav2d().save(tmp_path / "agent.zip")
    return tmp_path / "agent.zip"


def members(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path, contents, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in contents.items():
            file.writestr(name, data)


def test_missing_archive(tmp_path):
    with pytest.raises(UserError, match="No agent archive"):
        GCBC.load(tmp_path / "nothing.zip")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_archive(archive, kept):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UserError, match="not a readable agent archive"):
        GCBC.load(archive)


def test_archive_of_another_agent(archive):
    with pytest.raises(UserError, match="holds the agent 'gcbc', not 'pogo'"):
        POGO.load(archive)


def test_hostile_members_are_refused(archive):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code in the archive was run",))

    contents = members(archive)
    write(archive, contents | {"data.pkl": pickle.dumps(Bomb())})
    with pytest.raises(UserError, match="not an agent archive"):
        GCBC.load(archive)
    write(
        archive, {"agent.json": contents["agent.json"], "tensors.safetensors": pickle.dumps(Bomb())}
    )
    with pytest.raises(UserError, match="not a readable agent archive"):
        GCBC.load(archive)
    write(archive, contents, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="compressed"):
        GCBC.load(archive)
    write(archive, contents | {"../evil.txt": b"x"})
    with pytest.raises(UserError, match="not an agent archive"):
        GCBC.load(archive)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 999}, "upgrade"),
        ({"hyperparameters": {"sampler": {"sampler": "__import__"}}}, "unknown sampler"),
        ({"hyperparameters": {"unheard_of": 1}}, "unheard_of"),
        ({"counters": {}}, "not a complete"),
        ({"learning_rates": {}}, "not a complete"),
    ],
)
def test_header_that_does_not_fit(archive, change, words):
    contents = members(archive)
    header = json.loads(contents["agent.json"]) | change
    write(archive, contents | {"agent.json": json.dumps(header)})
    with pytest.raises(UserError, match=words):
        GCBC.load(archive)


def test_a_missing_tensor_is_an_error(archive):
    from safetensors.torch import load, save

    contents = members(archive)
    tensors = load(contents["tensors.safetensors"])
    tensors.pop("policy/networks.actor.log_std")
    write(archive, contents | {"tensors.safetensors": save(tensors)})
    with pytest.raises(UserError, match="log_std"):
        GCBC.load(archive)


def test_load_rejects_a_misspelt_keyword(archive):
    with pytest.raises(UserError, match="batch_size"):
        GCBC.load(archive, batchsize=7)
    assert GCBC.load(archive, batch_size=7).batch_size == 7


def test_load_with_an_env_of_other_spaces(archive):
    with pytest.raises(UserError, match="spaces"):
        GCBC.load(archive, env=env_and_data("plain")[0])


def test_a_failed_save_leaves_the_old_file(archive, monkeypatch):
    before = archive.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        nav2d(seed=9).save(archive)
    assert archive.read_bytes() == before
    assert [p.name for p in archive.parent.iterdir()] == ["agent.zip"]


def test_changed_numerics_are_said(archive):
    agent = nav2d(threads=1).learn(1)
    buffer = io.BytesIO()
    agent.save(buffer)
    buffer.seek(0)
    env, data = env_and_data("gcrl/Nav2D-v0")
    loaded = GCBC.load(buffer, env=env, dataset=data, threads=2)
    with pytest.warns(UserWarning, match="not bit-identical"):
        loaded.learn(1)


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
@pytest.mark.parametrize("kind", [GCBC, POGO])
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
    assert len(caught) == 1
    assert agent.num_timesteps == 2


# Wrong input ---------------------------------------------------------------------------------


def box(low, high, width):
    return spaces.Box(low, high, (width,), np.float32)


def data(width=3, actions=2, count=20, **columns):
    rng = np.random.default_rng(0)
    return OfflineDataset.from_arrays(
        rng.normal(size=(count, width)).astype(np.float32),
        rng.uniform(-0.2, 0.4, size=(count, actions)).astype(np.float32),
        np.zeros(count, np.float32),
        truncated=np.arange(count) == count - 1,
        **columns,
    )


def test_dataset_of_other_shapes():
    env, _ = env_and_data("plain")
    with pytest.raises(
        UserError, match=r"observations have shape \(5,\), the environment's \(3,\)"
    ):
        GCBC(env, data(width=5), **SMALL)
    with pytest.raises(UserError, match="actions have width 4, the environment's 2"):
        GCBC(env, data(actions=4), **SMALL)
    goals = np.zeros((20, 2), np.float32)
    with pytest.raises(UserError, match="goals of width 2"):
        GCBC(env, data(achieved_goals=goals, desired_goals=goals), **SMALL)
    with pytest.raises(UserError, match="goals of width 0"):
        GCBC(gym.make("gcrl/Nav2D-v0"), data(width=2), **SMALL)


def test_states_without_actions():
    env, _ = env_and_data("plain")
    states = data(metadata={"state_only": True, "dataset_id": "mine/states-v0"})
    with pytest.raises(UserError, match=r"GCBC learns from actions.*mine/states-v0.*states only"):
        GCBC(env, states, **SMALL)


def test_discrete_data_in_a_continuous_env():
    _, discrete = env_and_data("gcrl/Nav2DDiscrete-v0")
    with pytest.raises(UserError, match="Discrete"):
        GCBC(gym.make("gcrl/Nav2D-v0"), discrete, **SMALL)


def test_unknown_names():
    with pytest.raises(UserError, match="gcrl/Nav2D-v0"):
        GCBC("gcrl/Nav2-v0", **SMALL)
    with pytest.raises(UserError, match="Did you mean 'pogo'"):
        get_agent("pogoo")
    with pytest.raises(UserError, match="Cannot import"):
        get_agent("no_such_package.module:Agent")
    with pytest.raises(UserError, match="not a subclass"):
        get_agent("collections:OrderedDict")
    with pytest.raises(UserError, match="batch_size"):
        nav2d(batchsize=3)
    with pytest.raises(UserError, match="preset"):
        POGO.from_preset(None, preset="nothing")


def test_third_party_agents_are_reached_by_path():
    assert get_agent("gcrl_gym.agents.gcbc:GCBC") is GCBC


def test_no_env_and_no_dataset():
    with pytest.raises(UserError, match="needs an env, or a dataset"):
        GCBC(None)


def test_env_none_takes_the_spaces_of_the_data():
    agent = GCBC(None, data(observation_space=box(-9, 9, 3), action_space=box(-1, 1, 2)), **SMALL)
    agent.learn(2, progress_bar=True)
    assert agent.action_space.contains(agent.predict(np.zeros(3, np.float32))[0])


def test_unbounded_actions_are_refused():
    with pytest.raises(UserError, match="finite action bounds"):
        GCBC(None, data(), **SMALL)


@pytest.mark.parametrize("steps", [0, -5, 1.5])
def test_steps_that_are_no_count(steps):
    with pytest.raises(UserError, match="total_timesteps"):
        nav2d().learn(steps)


def test_observation_of_another_shape():
    agent = nav2d()
    with pytest.raises(UserError, match="observation has shape"):
        agent.predict({"observation": np.zeros(3), "desired_goal": np.zeros(2)})
    with pytest.raises(UserError, match="dict"):
        agent.predict(np.zeros(2))
    with pytest.raises(UserError, match="actors 0 to 0"):
        agent.predict(env_and_data("gcrl/Nav2D-v0")[0].reset()[0], actor=1)


def test_diverged_training_is_said_with_the_update():
    agent = nav2d(learning_rate=1e30)
    with pytest.raises(UserError, match=r"gcbc, update 20: \w+ became"):
        agent.learn(20, log_interval=20)


def test_transition_sampler_can_replace_the_goals():
    agent = nav2d(sampler=TransitionSampler())
    assert agent.draw_batch().goals.shape == (32, 2)


def test_asymmetric_box_is_never_left():
    env, plain = env_and_data("plain")
    agent = GCBC(env, plain, seed=0, **SMALL)
    for scale in (0.0, 1.0, 1e4):
        for action in agent.predict(scale * np.ones((50, 3), np.float32))[0]:
            assert env.action_space.contains(action)
