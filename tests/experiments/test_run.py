"""Runs: what a folder holds, and that being killed changes nothing."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import pytest

import gcrl_gym
from gcrl_gym.agents import load
from gcrl_gym.callbacks import read_rows
from gcrl_gym.checkpoint import read_archive
from gcrl_gym.errors import UserError
from gcrl_gym.evaluation import evaluate
from gcrl_gym.experiments.run import block, results_table, train
from gcrl_gym.experiments.spec import RunSpec

SMALL = {"hidden_sizes": (16, 16), "batch_size": 32}


def spec_for(dataset_id, **keywords):
    options = {"steps": 200, "eval_episodes": 1, "video_episodes": 1, "agent_kwargs": SMALL}
    return RunSpec(agent="gcbc", dataset=dataset_id, **(options | keywords))


def command(spec, runs_dir):
    flags = ["--hidden-sizes", "16", "16", "--batch-size", "32", "--steps", str(spec.steps)]
    flags += ["--eval-episodes", "1", "--video-episodes", str(spec.video_episodes), "--quiet"]
    flags += ["--checkpoint-freq", str(spec.checkpoint_freq), "--runs-dir", str(runs_dir)]
    start = [sys.executable, "-m", "gcrl_gym.cli", "train", "gcbc", "--dataset", spec.dataset]
    return start + flags


def start(spec, runs_dir):
    root = str(Path(gcrl_gym.__file__).parents[1])
    return subprocess.Popen(
        command(spec, runs_dir),
        env=os.environ | {"PYTHONPATH": root},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_folder_holds_everything(dataset_id, tmp_path):
    result = train(spec_for(dataset_id), tmp_path, progress_bar=False)
    folder = result.folder
    assert folder.relative_to(tmp_path).parts[:3] == ("test", "walks-v0", "gcbc")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        ".lock", "spec.json", "metrics.csv", "evaluations.csv", "results.json",
        "checkpoints/step_000000180.zip", "checkpoints/step_000000200.zip",
        "final_model.zip", "best_model.zip", "learning_curve.png", "videos/rollout.mp4",
    }  # fmt: skip
    stored = json.loads((folder / "spec.json").read_text())
    assert RunSpec.from_dict(stored["spec"]) == spec_for(dataset_id)
    assert stored["hyperparameters"]["batch_size"] == 32
    assert stored["hyperparameters"]["learning_rate"] == 3e-4
    assert stored["not_default"] == {"hidden_sizes": "given", "batch_size": "given"}
    assert {"torch", "numpy", "gcrl_gym"} <= set(stored["versions"])
    results = json.loads((folder / "results.json").read_text())
    assert results == result.results
    assert results["protocol"]["tasks"] == [1, 2, 3, 4, 5]
    assert results["protocol"]["episodes_per_task"] == 1
    last = results["last"]
    assert last["step"] == 200
    assert [entry["mode"] for entry in last["per_actor"]] == ["deterministic", "sampled"]
    rows = read_rows(folder / "evaluations.csv")
    assert results["best"]["success_rate"] == max(
        row["success_rate"] for row in rows if row["task"] == "all" and row["actor"] == 0
        and row["mode"] == "deterministic"
    )  # fmt: skip
    assert results["wall_time_s"] > 0
    assert (folder / "final_model.zip").stat().st_size < 100_000
    assert load(folder / "final_model.zip").num_timesteps == 200
    assert load(folder / "best_model.zip").num_timesteps == results["best"]["step"]
    assert results_table(results).row_count == 2
    again = train(spec_for(dataset_id), tmp_path)
    assert again.already_finished
    assert again.results == results


def test_killed_runs_end_like_undisturbed_ones(dataset_id, tmp_path):
    spec = spec_for(dataset_id, steps=3000, checkpoint_freq=60, video_episodes=0)
    calm = train(spec, tmp_path / "calm", progress_bar=False)
    folder = spec.folder(tmp_path / "killed")
    for step in (600, 1500):  # killed twice
        process = start(spec, tmp_path / "killed")
        wait_for((folder / "checkpoints" / f"step_{step + 60:09d}.zip").exists, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / "results.json").exists()
    # A checkpoint cut in half by the crash is skipped.
    newest = max((folder / "checkpoints").glob("step_*.zip"))
    newest.write_bytes(newest.read_bytes()[:-100])
    process = start(spec, tmp_path / "killed")
    assert process.wait(120) == 0, process.stderr.read()
    assert "damaged checkpoint" in process.stderr.read()
    weights, calm_weights = (
        read_archive(path / "final_model.zip")[1] for path in (folder, calm.folder)
    )
    assert weights.keys() == calm_weights.keys()
    assert all((weights[name] == calm_weights[name]).all() for name in weights)
    assert (folder / "evaluations.csv").read_text() == (calm.folder / "evaluations.csv").read_text()
    ours, theirs = (read_metrics(path) for path in (folder, calm.folder))
    assert ours == theirs
    results = json.loads((folder / "results.json").read_text())
    for key in ("protocol", "last", "best"):
        assert results[key] == calm.results[key]
    best = (read_archive(path / "best_model.zip")[1] for path in (folder, calm.folder))
    one, other = best
    assert all((one[name] == other[name]).all() for name in one)


def read_metrics(folder):
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    timed = ("wall_s", "time/updates_per_second")
    return [{key: row[key] for key in sorted(row) if key not in timed} for row in rows]


def test_ctrl_c_saves_and_says_where(dataset_id, tmp_path):
    spec = spec_for(dataset_id, steps=200_000, checkpoint_freq=100_000, video_episodes=0)
    process = start(spec, tmp_path)
    folder = spec.folder(tmp_path)
    wait_for(lambda: len(read_rows(folder / "metrics.csv")) > 0, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    message = process.stderr.read()
    (saved,) = (folder / "checkpoints").glob("step_*.zip")
    assert str(saved) in message
    assert message.count("\n") == 1
    assert load(saved).num_timesteps == int(saved.stem.removeprefix("step_"))


def test_finishing_is_repeated_when_it_was_cut_off(dataset_id, tmp_path):
    spec = spec_for(dataset_id, video_episodes=0)
    first = train(spec, tmp_path, progress_bar=False)
    table = (first.folder / "evaluations.csv").read_text()
    (first.folder / "results.json").unlink()
    second = train(spec, tmp_path, progress_bar=False)
    assert not second.already_finished
    assert (first.folder / "evaluations.csv").read_text() == table
    assert second.results["last"] == first.results["last"]
    assert second.results["best"] == first.results["best"]


def test_another_run_in_the_folder_is_refused(dataset_id, tmp_path):
    train(spec_for(dataset_id, steps=20, video_episodes=0), tmp_path, progress_bar=False)
    with pytest.raises(UserError, match="steps = 20, not 30"):
        train(spec_for(dataset_id, steps=30, video_episodes=0), tmp_path)


def test_two_processes_cannot_share_a_folder(dataset_id, tmp_path):
    spec = spec_for(dataset_id, steps=200_000, checkpoint_freq=100_000, video_episodes=0)
    process = start(spec, tmp_path)
    try:
        wait_for((spec.folder(tmp_path) / "metrics.csv").exists, process)
        with pytest.raises(UserError, match="Another process"):
            train(spec, tmp_path)
    finally:
        process.kill()
        process.communicate()


def test_mistakes_leave_nothing_behind(dataset_id, tmp_path):
    with pytest.raises(UserError, match="test/walks-v0"):
        train(spec_for("test/walk-v0"), tmp_path / "a")
    with pytest.raises(UserError, match="Unknown environment"):
        train(spec_for(dataset_id, env="gcrl/Nav3D-v0"), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write the run folder"):
        train(spec_for(dataset_id), tmp_path / "file" / "runs")
    folder = spec_for(dataset_id).folder(tmp_path / "b")
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text("{")
    with pytest.raises(UserError, match=r"spec\.json is damaged"):
        train(spec_for(dataset_id), tmp_path / "b")


def test_environment_override_and_verbose_agents(dataset_id, tmp_path, capsys):
    spec = spec_for(dataset_id, steps=20, env="gcrl/Nav2D-v0", agent_kwargs=SMALL | {"verbose": 1})
    result = train(spec, tmp_path, progress_bar=False)
    assert "actor_loss" in capsys.readouterr().out
    assert result.results["last"]["step"] == 20


def test_stand_in_data_is_marked(dataset_id, minari_root, tmp_path, monkeypatch):
    """Scores from a file that is not the official one never go without saying so."""
    import minari

    own = shutil.copytree(minari_root, tmp_path / "minari")  # the other tests share the original
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(own))
    marks = {"official": False, "source_file": "a.hdf5", "evaluation": "in another version"}
    minari.load_dataset(dataset_id).storage.update_metadata(marks)
    result = train(spec_for(dataset_id, video_episodes=0, steps=20), tmp_path, progress_bar=False)
    stored = json.loads((result.folder / "results.json").read_text())["dataset"]
    assert stored == {"dataset_id": dataset_id, "source": "generated"} | marks
    caption = str(results_table(result.results).caption)
    assert "STAND-IN DATA" in caption
    assert "in another version" in caption
    # The agent says so wherever it is evaluated later.
    agent = load(result.folder / "final_model.zip")
    later = evaluate(agent, gym.make("gcrl/Nav2D-v0"), episodes_per_task=1, actors="last")
    assert later.to_dict()["dataset"] == stored
    assert "STAND-IN DATA" in str(later)


def test_block_nests_rows():
    rows = [
        {"step": 5, "actor": a, "mode": "deterministic", "task": t, "success_rate": a / 2,
         "mean_return": 0.0, "normalized_score": None}
        for a in (0, 1) for t in ("all", 1, 2)
    ]  # fmt: skip
    found = block(rows, 5)
    assert found["success_rate"] == 0.5
    assert [row["task"] for row in found["per_task"]] == [1, 2]
    assert [entry["actor"] for entry in found["per_actor"]] == [0, 1]
