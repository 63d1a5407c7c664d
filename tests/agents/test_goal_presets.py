"""Presets of OGBench's agents against the published table, over all sets it was published for."""

import warnings

import pytest

from gcrl_gym.agents import agent_names, get_agent
from gcrl_gym.agents.presets import load_preset, presets_of
from gcrl_gym.datasets import ogbench_catalog
from tests.agents.reference import goal_data, picture_data

AGENTS = [a for a in ("gcbc", "gcivl", "gciql", "qrl", "crl", "hiql") if a in agent_names()]
VARIANTS = ("singletask", "oraclerep", "-val-", "-100m-")
PUBLISHED = [
    name
    for name in ogbench_catalog.dataset_ids()
    if not any(variant in name for variant in VARIANTS)
]

# Columns: pointmaze, antmaze, antmaze explore, humanoidmaze, antsoccer, play, noisy, powderworld.
ALPHAS = {
    "gcivl": (10, 10, 10, 10, 10, 10, 10, 3),
    "gciql": (0.003, 0.3, 0.01, 0.1, 0.1, 1.0, 0.03, 3),
    "qrl": (0.0003, 0.003, 0.001, 0.001, 0.003, 0.3, 0.03, 3),
    "crl": (0.03, 0.1, 0.003, 0.1, 0.3, 3.0, 0.1, 3),
    "hiql": (3, 3, 10, 3, 3, 3, 3, 3),
}
STEPS = (25, 25, 25, 100, 25, 10, 10, 10)


def column(name):
    """Which column of the table a set belongs to."""
    if "powderworld" in name:
        return 7
    if "antmaze" in name:
        return 2 if "explore" in name else 1
    words = ("pointmaze", None, None, "humanoidmaze", "antsoccer", "play", "noisy")
    return next(i for i, word in enumerate(words) if word and word in name)


def published(agent, name):
    """What OGBench runs an agent with on a set."""
    pictures = "visual" in name or "powderworld" in name
    manipulation = any(word in name for word in ("cube", "scene", "puzzle"))
    values = {
        "hidden_sizes": (512, 512, 512),
        "batch_size": 256 if pictures else 1024,
        "p_aug": 0.5 if manipulation and "visual" in name else 0.0,
    }
    if agent in ("gcivl", "gciql", "crl", "hiql"):
        values["discount"] = 0.995 if "giant" in name or "humanoid" in name else 0.99
    if agent == "hiql":
        alpha = ALPHAS[agent][column(name)]
        return values | {
            "low_alpha": alpha, "high_alpha": alpha, "subgoal_steps": STEPS[column(name)]
        }  # fmt: skip
    if agent in ALPHAS:
        values["alpha"] = ALPHAS[agent][column(name)]
    return values


def arguments(agent, name):
    """What the preset "auto" makes of it; nothing published would be a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_preset(agent, "auto", name)
    return {k: p.default for k, p in get_agent(agent).signature().items()} | found


def test_there_are_eighty_five_sets():
    assert len(PUBLISHED) == 85


@pytest.mark.parametrize("agent", AGENTS)
def test_every_set_has_its_published_values(agent):
    for name in PUBLISHED:
        found, expected = arguments(agent, name), published(agent, name)
        assert {key: found[key] for key in expected} == expected, name
        assert found.get("actor_loss", "auto") == "auto"  # AWR where actions are discrete


@pytest.mark.parametrize("agent", AGENTS)
def test_patterns_hold_only_what_differs(agent):
    """From the constructor's defaults, or from a pattern before them."""
    defaults = {k: p.default for k, p in get_agent(agent).signature().items()}
    changed = set()
    for pattern, values in presets_of(agent).items():
        for key, value in values.items():
            value = tuple(value) if isinstance(value, list) else value
            assert value != defaults[key] or key in changed, (pattern, key)
            changed.add(key)


@pytest.mark.parametrize("agent", AGENTS)
def test_variants_of_a_set_have_its_values(agent):
    whole = load_preset(agent, "auto", "ogbench/humanoidmaze-giant-navigate-v0")
    for variant in ("navigate-oraclerep", "navigate-singletask-task2", "navigate-100m"):
        assert load_preset(agent, "auto", f"ogbench/humanoidmaze-giant-{variant}-v0") == whole


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("agent", AGENTS)
def test_published_values_build_an_agent(agent, discrete):
    names = {
        column(name): name for name in PUBLISHED if ("powderworld" in name) == discrete
    }.values()
    for name in names:
        env, data = (None, picture_data(discrete=True)) if discrete else goal_data()
        values = load_preset(agent, "auto", name) | {"hidden_sizes": (8, 8), "batch_size": 16}
        built = get_agent(agent)(env, data, device="cpu", **values).learn(1)
        if agent in ("gciql", "qrl", "crl"):
            assert built.kind_of_loss == ("awr" if discrete else "ddpgbc")
