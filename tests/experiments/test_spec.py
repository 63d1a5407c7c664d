"""RunSpec: round trip, checks against the signature, folders."""

import json
from pathlib import Path

import pytest

from gcrl_gym.agents import agent_names, get_agent
from gcrl_gym.errors import UserError
from gcrl_gym.experiments.hyperparameters import hyperparameters
from gcrl_gym.experiments.spec import RunSpec


def spec(**keywords):
    return RunSpec(**({"agent": "pogo", "dataset": "gcrl/nav2d/play-v0", "steps": 1000} | keywords))


def test_json_round_trip():
    one = spec(steps=1e6, agent_kwargs={"w2_weights": [0.1, 0.2], "K": 3}, eval_freq=500)
    assert one.steps == 1_000_000
    assert one.agent_kwargs["w2_weights"] == (0.1, 0.2)
    again = RunSpec.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one
    again.validate()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"agent": "poggo"}, "'pogo'"),
        ({"agent_kwargs": {"w2_weight": (0.1,)}}, "w2_weights"),
        ({"agent_kwargs": {"learnig_rate": 1e-3}}, "learning_rate"),
        ({"agent_kwargs": {"w2": "sinkhor"}}, r"'sinkhorn' \| 'exact'.*Did you mean 'sinkhorn'"),
        ({"agent_kwargs": {"w2_weights": 0.1}}, "tuple"),
        ({"agent_kwargs": {"K": 2.5}}, "int"),
        ({"agent_kwargs": {"normalize": "False"}}, "bool"),
        ({"agent_kwargs": {"seed": 1}}, "seed"),
        ({"preset": "fast"}, "preset 'fast'"),
        ({"steps": 10.5}, "steps is 10.5"),
        ({"steps": 0}, "at least 1"),
        ({"seed": -1}, "at least 0"),
        ({"eval_freq": 0}, "eval_freq"),
    ],
)
def test_mistakes_are_found_before_anything_runs(keywords, message):
    with pytest.raises(UserError, match=message):
        spec(**keywords).validate()


def test_valid_values_pass():
    spec(agent_kwargs={"learning_rate": 1, "compile": True, "threads": None}).validate()
    spec(agent_kwargs={"compile": "auto", "w2_weights": [1, 0.5], "device": "cpu"}).validate()


def test_unknown_and_missing_keys():
    with pytest.raises(UserError, match=r"'stepz'.*'steps'"):
        RunSpec.from_dict({"agent": "pogo", "dataset": "x", "stepz": 3})
    with pytest.raises(UserError, match="needs the key 'steps'"):
        RunSpec.from_dict({"agent": "pogo", "dataset": "x"})


def test_folders_differ_where_runs_differ():
    folders = [
        spec().folder("runs"),
        spec(seed=1).folder("runs"),
        spec(agent_kwargs={"K": 3}).folder("runs"),
        spec(agent_kwargs={"K": 3, "blur": 0.1}).folder("runs"),
        spec(agent_kwargs={"w2_weights": tuple(0.001 * n for n in range(40))}).folder("runs"),
        spec(variant="mine").folder("runs"),
        spec(variant="../../x").folder("runs"),
    ]
    assert folders[0] == Path("runs/gcrl/nav2d/play-v0/pogo/default/seed_0")
    assert len(set(folders)) == len(folders)
    for folder in folders:
        assert folder.is_relative_to("runs")
        assert ".." not in folder.parts
        assert max(map(len, folder.parts)) <= 80


def test_intervals_fit_together():
    for steps in (1, 7, 50, 1234, 20_000, 1_000_000):
        one = spec(steps=steps)
        assert 1 <= one.log_interval <= max(1, steps)
        assert one.checkpoint_interval <= max(1, steps)
        if steps >= 1000:
            assert one.checkpoint_interval % one.log_interval == 0
    assert spec(steps=1_000_000).checkpoint_interval == 10_000
    assert spec(checkpoint_freq=33).checkpoint_interval == 20  # whole log intervals


@pytest.mark.parametrize("name", agent_names())
def test_every_hyperparameter_has_a_type_a_default_and_help(name):
    known = hyperparameters(get_agent(name))
    assert {"learning_rate", "batch_size", "compile", "device"} <= set(known)
    assert not {"seed", "env", "dataset"} & set(known)
    for item in known.values():
        assert item.help, item.name
        if item.name != "sampler":  # a Python object, not a flag
            assert item.plain_type is not None, item.name
