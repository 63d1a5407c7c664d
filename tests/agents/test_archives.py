"""Archives of agents: what they restore, and what they refuse."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

import gcrl_gym.agents
from gcrl_gym.agents import GCBC, POGO
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.samplers import GoalSampler
from gcrl_gym.errors import UserError
from tests.agents.test_base import nav2d
from tests.contract.test_agents import env_and_data


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
