"""Fine-tuning runs: what a folder holds, and that being killed changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gcrl_gym
from gcrl_gym.agents import load
from gcrl_gym.callbacks import read_rows
from gcrl_gym.checkpoint import read_archive
from gcrl_gym.cli import main
from gcrl_gym.errors import UserError
from gcrl_gym.experiments.finetune import FinetuneSpec, finetune
from gcrl_gym.experiments.run import results_table, train
from gcrl_gym.experiments.spec import RunSpec
from tests.experiments.test_run import read_metrics, wait_for

SMALL = {"hidden_sizes": (16, 16), "batch_size": 32}
QUICK = {"eval_episodes": 1, "video_episodes": 0}
OPTIONS = {"learning_starts": 100}


@pytest.fixture(scope="module")
def trained(minari_root, tmp_path_factory):
    """A finished run of TD3+BC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(minari_root))
        spec = RunSpec("td3_bc", "test/walks-v0", 50, agent_kwargs=SMALL, **QUICK)
        return train(spec, tmp_path_factory.mktemp("runs"), progress_bar=False).folder


@pytest.fixture
def run(trained, dataset_id, tmp_path):
    """A copy of its folder, to fine-tune in."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def spec_for(run, **keywords):
    return FinetuneSpec(str(run), **({"steps": 300, "options": OPTIONS} | QUICK | keywords))


def test_a_run_folder_holds_everything(run):
    result = finetune(spec_for(run, video_episodes=1, mix=0.25), progress_bar=False)
    folder = result.folder
    assert folder == run / "finetune" / "learning_starts=100,mix=0.25" / "seed_0"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        ".lock", "spec.json", "metrics.csv", "evaluations.csv", "results.json",
        "checkpoints/step_000000270.zip", "checkpoints/step_000000300.zip",
        "final_model.zip", "best_model.zip", "learning_curve.png", "videos/rollout.mp4",
    }  # fmt: skip
    rows = [r for r in read_rows(folder / "evaluations.csv") if r["task"] == "all"]
    steps = sorted({row["step"] for row in rows})
    assert steps == list(range(0, 301, 30))
    # The evaluation before the first step is that of the model as it was.
    before, old = result.results["before"], json.loads((run / "results.json").read_text())["last"]
    assert before["step"] == 0
    for key in ("success_rate", "mean_return", "per_task"):
        assert before[key] == old[key]
    assert result.results["last"]["step"] == 300
    assert result.results["model"] == str(run)
    assert results_table(result.results).row_count == 2
    metrics = [r for r in read_rows(folder / "metrics.csv") if r.get("time/env_steps")]
    assert [row["step"] for row in metrics] == list(range(6, 301, 6))
    assert metrics[-1]["train/offline_share"] == pytest.approx(0.25, abs=0.01)
    checkpoint, final, best = (
        load(folder / name)
        for name in ("checkpoints/step_000000300.zip", "final_model.zip", "best_model.zip")
    )
    assert checkpoint.online.buffer.num_steps > 100
    assert final.online.buffer is None
    assert best.online is None or best.online.buffer is None
    assert final.num_timesteps == final.online.env_steps == 300
    assert final._n_updates > 50
    again = finetune(spec_for(run, video_episodes=1, mix=0.25))
    assert again.already_finished
    with pytest.raises(UserError, match="steps = 300, not 400"):
        finetune(spec_for(run, steps=400, mix=0.25))


def test_killed_runs_end_like_undisturbed_ones(run, tmp_path):
    calm = finetune(
        spec_for(run, steps=1200, checkpoint_freq=72), folder=tmp_path / "calm", progress_bar=False
    )
    flags = ["--steps", "1200", "--learning-starts", "100", "--eval-episodes", "1", "--quiet"]
    flags += ["--video-episodes", "0", "--checkpoint-freq", "72"]
    command = [sys.executable, "-m", "gcrl_gym.cli", "finetune", str(run), *flags]
    environment = os.environ | {"PYTHONPATH": str(Path(gcrl_gym.__file__).parents[1])}
    folder = run / "finetune" / "learning_starts=100" / "seed_0"

    def start():
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    for step in (216, 648):  # killed twice
        process = start()
        wait_for((folder / "checkpoints" / f"step_{step:09d}.zip").exists, process)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / "results.json").exists()
    process = start()
    assert process.wait(120) == 0, process.stderr.read()
    (header, weights), (calm_header, calm_weights) = (
        read_archive(path / "checkpoints" / "step_000001200.zip") for path in (folder, calm.folder)
    )
    assert header == calm_header
    assert weights.keys() == calm_weights.keys()
    assert all((weights[name] == calm_weights[name]).all() for name in weights)
    tables = [(path / "evaluations.csv").read_text() for path in (folder, calm.folder)]
    assert tables[0] == tables[1]
    assert read_metrics(folder) == read_metrics(calm.folder)
    results = json.loads((folder / "results.json").read_text())
    for key in ("protocol", "before", "last", "best"):
        assert results[key] == calm.results[key]


def test_an_archive_alone(run, tmp_path, monkeypatch):
    """Without a run folder the environment has to be named, and the data where it is mixed with."""
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model.zip"
    shutil.copy(run / "final_model.zip", model)
    with pytest.raises(UserError, match="--env"):
        finetune(spec_for(model))
    with pytest.raises(UserError, match="no offline data"):
        finetune(spec_for(model, env="gcrl/Nav2D-v0"))
    assert not (tmp_path / "runs").exists()
    result = finetune(spec_for(model, env="gcrl/Nav2D-v0", mix="online"), progress_bar=False)
    assert result.folder.relative_to("runs").parts[:2] == ("finetune", "model")
    assert result.results["before"]["step"] == 0


def test_mistakes_leave_nothing_behind(run):
    for keywords, words in [
        ({"mix": 2.0}, "mix is 2.0"),
        ({"mix": "symetric"}, "symmetric"),
        ({"steps": 0}, "steps is 0"),
        ({"options": {"learning_start": 5}}, "learning_starts"),
        ({"options": {"updates_per_step": 0}}, "updates_per_step"),
        ({"env": "CartPole-v1"}, "spaces"),
        ({"dataset": "test/walk-v0"}, "test/walks-v0"),
        ({"model": "nothing.zip", "env": "gcrl/Nav2D-v0"}, "No agent archive"),
    ]:
        spec = FinetuneSpec(**({"model": str(run), "steps": 300} | keywords))
        with pytest.raises(UserError, match=words):
            finetune(spec, folder=run / "other")
        assert not (run / "other").exists()


def test_the_command(run, capsys):
    flags = ["--steps", "150", "--mix", "online", "--learning-starts", "50"]
    flags += ["--eval-episodes", "1", "--video-episodes", "0"]
    with pytest.raises(SystemExit) as stop:
        main(["finetune", str(run), *flags, "--dry-run"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "mix: online" in text
    assert "dataset: test/walks-v0" in text
    assert not (run / "finetune").exists()
    with pytest.raises(SystemExit) as stop:
        main(["finetune", str(run), *flags])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "before: success" in text
    assert "after:  success" in text
    (folder,) = (run / "finetune").glob("*/seed_0")
    with pytest.raises(SystemExit) as stop:  # other commands find their way in such a folder
        main(["eval", str(folder), "--episodes", "1"])
    assert stop.value.code == 0
    for wrong, words in [(["--mix", "some"], "--mix"), (["--mix", "7"], "mix is 7.0")]:
        with pytest.raises(SystemExit) as stop:
            main(["finetune", str(run), "--steps", "10", *wrong])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
