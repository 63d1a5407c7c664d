"""Callbacks on a real agent: evaluations, best model, metrics, checkpoints."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import StopTrainingOnRewardThreshold
from stable_baselines3.common.logger import Logger

from gcrl_gym.agents import GCBC
from gcrl_gym.callbacks import (
    CsvTable,
    GoalEvalCallback,
    MetricsWriter,
    ProgressCallback,
    RunCheckpoint,
    checkpoints,
    latest_checkpoint,
    read_rows,
)
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.errors import UserError


@pytest.fixture(scope="module")
def env():
    return gym.make("gcrl/Nav2D-v0", maze="open", max_episode_steps=40)


@pytest.fixture(scope="module")
def dataset():
    """Straight walks to the goal: behaviour cloning learns them in some hundred updates."""
    episodes = []
    endless = gym.make("gcrl/Nav2D-v0", maze="open", terminate_at_goal=False)
    for seed in range(40):
        observations, actions = [endless.reset(seed=seed)[0]], []
        for _ in range(15):
            way = observations[-1]["desired_goal"] - observations[-1]["observation"]
            actions.append(np.clip(way / 0.5, -1, 1).astype(np.float32))
            observations.append(endless.step(actions[-1])[0])
        ends = np.arange(15) == 14
        episodes.append(
            {
                "observations": {
                    k: np.stack([o[k] for o in observations]) for k in observations[0]
                },
                "actions": np.stack(actions),
                "rewards": np.zeros(15, np.float32),
                "terminations": np.zeros(15, bool),
                "truncations": ends,
            }
        )
    return OfflineDataset.from_episodes(episodes)


def make_agent(env, dataset, **keywords):
    options = {"hidden_sizes": (32, 32), "learning_rate": 3e-3, "batch_size": 64, "seed": 0}
    return GCBC(env, dataset, **(options | keywords))


def test_evaluations_are_kept_and_the_best_model_saved(env, dataset, tmp_path):
    callback = GoalEvalCallback(
        env,
        eval_freq=100,
        episodes_per_task=2,
        csv_path=tmp_path / "evaluations.csv",
        best_model_path=tmp_path / "best_model.zip",
        final_step=400,
    )
    agent = make_agent(env, dataset)
    agent.learn(400, callback)
    rows = read_rows(tmp_path / "evaluations.csv")
    assert {row["step"] for row in rows} == {100, 200, 300}  # the caller makes the final one
    assert {row["task"] for row in rows} == {"all", 1, 2, 3, 4, 5}
    assert {row["mode"] for row in rows} == {"deterministic"}
    result = callback.run(("deterministic", "sampled"))
    rows = read_rows(tmp_path / "evaluations.csv")
    last = {(r["mode"], r["task"]): r for r in rows if r["step"] == 400}
    assert last["deterministic", "all"]["mean_return"] == result.mean_return
    assert last["sampled", 5]["episodes"] == 2
    overall = [r for r in rows if r["task"] == "all" and r["mode"] == "deterministic"]
    scores = [row["success_rate"] for row in overall]
    assert max(scores) > 0.5
    assert (callback.best_score, callback.best_step) == (
        max(scores),
        overall[int(np.argmax(scores))]["step"],
    )
    assert GCBC.load(tmp_path / "best_model.zip").num_timesteps == callback.best_step
    resumed = GoalEvalCallback(env, 100, csv_path=tmp_path / "evaluations.csv", resume_step=200)
    assert {row["step"] for row in read_rows(tmp_path / "evaluations.csv")} == {100, 200}
    assert resumed.best_score == max(scores[:2])


def test_evaluation_does_not_change_training(env, dataset):
    plain, evaluated = (make_agent(env, dataset) for _ in range(2))
    plain.learn(60)
    evaluated.learn(60, GoalEvalCallback(env, 20, 1, modes=("deterministic", "sampled")))
    weights = evaluated.policy.state_dict()
    assert all((value == weights[key]).all() for key, value in plain.policy.state_dict().items())


def test_child_callbacks_of_stable_baselines_stop_training(env, dataset):
    stop = StopTrainingOnRewardThreshold(reward_threshold=-1.0, verbose=0)
    agent = make_agent(env, dataset)
    agent.learn(100, GoalEvalCallback(env, 20, 1, callback_after_eval=stop))
    assert agent.num_timesteps == 20


def test_metrics_are_appended_and_cut_back_on_resume(env, dataset, tmp_path):
    path = tmp_path / "metrics.csv"
    agent = make_agent(env, dataset)
    agent.set_logger(Logger(None, [MetricsWriter(path)]))
    agent.learn(40, GoalEvalCallback(env, 20, 1), log_interval=10)
    rows = read_rows(path)
    assert [row["step"] for row in rows] == [10, 20, 20, 30, 40, 40]
    assert all(np.isfinite(row["train/actor_loss"]) for row in rows if "eval" not in str(row))
    assert rows[0]["eval/mean_return"] is None  # this column came later
    assert rows[2]["eval/mean_return"] is not None
    walls = [row["wall_s"] for row in rows]
    assert walls == sorted(walls)
    resumed = MetricsWriter(path, resume_step=20)
    assert [row["step"] for row in read_rows(path)] == [10, 20, 20]
    assert resumed.seconds() >= walls[2]


def test_csv_table_survives_a_half_written_row(tmp_path):
    path = tmp_path / "table.csv"
    table = CsvTable(path)
    table.append([{"step": 1, "a": 0.1}, {"step": 2, "a": 1e-17}])
    table.append([{"step": 3, "a": 2, "b": "x,y"}])
    with open(path, "a") as file:
        file.write("4,5,x")  # killed here: the text may have been xyz
    assert read_rows(path) == [
        {"step": 1, "a": 0.1, "b": None},
        {"step": 2, "a": 1e-17, "b": None},
        {"step": 3, "a": 2, "b": "x,y"},
    ]
    CsvTable(path, keep_until=2).append([{"step": 3, "a": 7, "b": None}])
    assert [row["a"] for row in read_rows(path)] == [0.1, 1e-17, 7]
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match=r"other\.csv.*step"):
        CsvTable(tmp_path / "other.csv")


def test_checkpoints_keep_two_and_skip_damaged_ones(env, dataset, tmp_path):
    agent = make_agent(env, dataset)
    agent.learn(50, RunCheckpoint(tmp_path, freq=10))
    files = checkpoints(tmp_path)
    assert [file.name for file in files] == ["step_000000050.zip", "step_000000040.zip"]
    assert GCBC.load(latest_checkpoint(tmp_path)).num_timesteps == 50
    files[0].write_bytes(files[0].read_bytes()[:-200])
    with pytest.warns(UserWarning, match="step_000000050"):
        assert latest_checkpoint(tmp_path) == files[1]
    assert checkpoints(tmp_path) == files[1:]  # the damaged one no longer counts as one of two
    assert latest_checkpoint(tmp_path / "nothing") is None


def test_progress_bar_shows_the_last_success(env, dataset, capsys):
    evaluation = GoalEvalCallback(env, 20, 1)
    make_agent(env, dataset).learn(40, [evaluation, ProgressCallback(40, evaluation)])
    text = capsys.readouterr().err
    assert "40/40" in text
    assert f"last success {100 * evaluation.last_result.success_rate:.0f} %" in text
