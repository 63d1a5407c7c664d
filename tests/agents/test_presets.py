"""Presets: every file is valid, "auto" goes by the dataset, and several merge."""

import warnings

import pytest

from gcrl_gym.agents import POGO, agent_names, get_agent
from gcrl_gym.agents.presets import load_preset, presets_of
from gcrl_gym.errors import UserError
from gcrl_gym.experiments.hyperparameters import check_hyperparameters
from gcrl_gym.experiments.spec import RunSpec
from tests.agents.reference import plain_dataset

CASES = [(agent, preset) for agent in agent_names() for preset in presets_of(agent)]
TASKS = ("halfcheetah", "hopper", "walker2d")
QUALITIES = ("medium", "medium-replay", "medium-expert")
LOCOMOTION = [f"d4rl/{task}-{quality}-v2" for task in TASKS for quality in QUALITIES]
MAZES = ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
ANTMAZE = [f"d4rl/antmaze-{maze}-v2" for maze in MAZES]
ON_D4RL = [a for a in agent_names() if any(p.startswith("d4rl/") for p in presets_of(a))]


@pytest.mark.parametrize(("agent", "preset"), CASES)
def test_every_preset_holds_known_arguments_that_differ_from_the_defaults(agent, preset):
    kind = get_agent(agent)
    values = presets_of(agent)[preset] or {}
    assert values or "/" in preset, "only a pattern may be empty: the defaults are published"
    check_hyperparameters(
        kind, {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    )


@pytest.mark.parametrize("dataset", LOCOMOTION + ANTMAZE)
@pytest.mark.parametrize("agent", ON_D4RL)
def test_published_values_build_an_agent(agent, dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing published is allowed here; see the cards
        values = load_preset(agent, "auto", dataset)
    small = {"hidden_sizes": (8, 8), "batch_size": 16, "device": "cpu"}
    if "num_critics" in values:
        small["num_critics"] = 3
    get_agent(agent)(None, plain_dataset(), **(values | small)).learn(2)


def test_auto_merges_all_patterns_in_the_order_of_the_file():
    expected = {
        "policy_freq": 2, "td_actor": "target", "normalize_q": False, "learning_rate": 1e-4,
        "w2_weights": (0.5 / 8, 0.5 / 2),
    }  # fmt: skip
    assert load_preset("pogo", "auto", "d4rl/antmaze-umaze-v2") == expected
    assert load_preset("pogo", "auto", "/data/d4rl/antmaze-umaze-v2") == expected
    assert "learning_rate" not in load_preset("pogo", "auto", "d4rl/hopper-medium-v2")


def test_presets_join_and_the_later_one_wins():
    joined = load_preset("pogo", "auto+quickstart", "d4rl/hopper-medium-v2")
    assert joined["w2_weights"] == (10.0, 10.0)
    assert joined["td_actor"] == "target"


def test_nothing_published_is_said():
    with pytest.warns(UserWarning, match="No hyperparameters of pogo are published for gcrl/x"):
        assert load_preset("pogo", "auto", "gcrl/x") == {}


def test_auto_needs_an_id():
    with pytest.raises(UserError, match="goes by the dataset id"):
        POGO.from_preset(None, plain_dataset())


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"no preset 'quikstart'.*quickstart"):
        load_preset("pogo", "quikstart")


def test_from_preset_reads_the_id_of_the_data():
    data = plain_dataset()
    data.metadata["dataset_id"] = "d4rl/hopper-medium-v2"
    agent = POGO.from_preset(None, data, w2="exact", hidden_sizes=(8, 8))
    assert agent.w2_weights == pytest.approx((0.1 / 3, 0.25))
    assert (agent.td_actor, agent.w2) == ("target", "exact")


def test_runs_and_flags_use_it(capsys):
    from gcrl_gym.cli import main

    spec = RunSpec("pogo", "d4rl/hopper-medium-v2", 10, preset="auto")
    assert spec.keywords()["w2_weights"] == pytest.approx((0.1 / 3, 0.25))
    flags = ["--dataset", "d4rl/hopper-medium-v2", "--steps", "10", "--dry-run", "--K", "3"]
    with pytest.raises(SystemExit) as ended:
        main(["train", "pogo", "--preset", "auto", *flags])
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert "td_actor = 'target'  (preset auto)" in shown
    assert "K = 3  (given)" in shown
