"""What holds for every agent with ``w2_weights``; each test is a defect of the source systems."""

import io

import gymnasium as gym
import numpy as np
import pytest
import torch

import gcrl_gym
from gcrl_gym.agents import agent_names, get_agent
from gcrl_gym.agents.chained import ChainAgent
from gcrl_gym.agents.check import same_weights
from gcrl_gym.datasets import GoalSampler, OfflineDataset, TransitionSampler
from gcrl_gym.errors import UserError
from tests.agents.reference import SMALL, goal_data, plain_dataset

AGENTS = [name for name in agent_names() if issubclass(get_agent(name), ChainAgent)]
DETERMINISTIC = {"td3_bc", "rebrac"}
EIGHT = {"iql", "td3_bc", "cql", "awac", "sac_n", "edac", "rebrac", "fql"}
each_agent = pytest.mark.parametrize("name", AGENTS)


def make(name, data=None, env=None, **keywords):
    small = dict(SMALL)
    if "num_critics" in get_agent(name).signature():
        small["num_critics"] = 3
    data = data_for(name) if data is None else data
    return get_agent(name)(env, data, **({"seed": 0} | small | keywords))


def data_for(name):
    """Noise; its observations are goals too where an agent needs some."""
    data = plain_dataset()
    if not get_agent(name).needs_goals:
        return data
    rows = {"observations": data.observations[:50], "actions": data.actions[:50]}
    ends = np.arange(50) == 49
    return OfflineDataset.from_arrays(
        **rows, truncated=ends, goal_is_observation=True, action_space=data.action_space
    )


def zeros(name):
    """One observation of that data."""
    one = np.zeros(3, np.float32)
    return {"observation": one, "desired_goal": one} if get_agent(name).needs_goals else one


def test_the_eight_are_here():
    assert set(AGENTS) >= EIGHT


@each_agent
def test_every_parameter_of_every_actor_moves_in_one_actor_step(name):
    """TD3+BC's actor 0 of the source never learned, and no error said so."""
    agent = make(name, w2_weights=(0.5, 0.5))
    before = [{n: p.clone() for n, p in a.named_parameters()} for a in agent.chain.actors]
    agent.learn(getattr(agent, "policy_freq", 1))
    assert len(agent.chain.actors) == 3
    for i, (actor, old) in enumerate(zip(agent.chain.actors, before)):
        for key, parameter in actor.named_parameters():
            assert not parameter.equal(old[key]), f"{key} of actor {i}"


@each_agent
def test_energies_have_a_gradient_and_metrics_are_per_actor(name):
    agent = make(name, w2_weights=(0.0, 0.0))  # without distance only the energy is left
    metrics = {}
    for _ in range(2):
        metrics |= agent.update(agent.draw_batch())
        agent._n_updates += 1
    for i in (1, 2):
        for kind in ("energy", "w2", "lambda", "gradient_norm"):
            assert metrics[f"actor_{i}/{kind}"].shape == ()
        assert float(metrics[f"actor_{i}/gradient_norm"]) > 0


@each_agent
def test_critics_do_not_learn_from_the_chain(name):
    plain = make(name).learn(4)
    heavy = make(name, w2_weights=(1e4,)).learn(4)
    for network in plain.policy.networks:
        assert same_weights(plain, heavy, f"networks.{network}."), network


@each_agent
def test_sampled_actions_differ_where_the_policy_has_noise(name):
    agent = make(name, w2_weights=(0.5,)).learn(2)
    one = zeros(name)
    for actor in range(2):
        first, second = (agent.predict(one, actor=actor)[0] for _ in range(2))
        assert np.array_equal(first, second) == (name in DETERMINISTIC)
        assert agent.is_deterministic(actor) == (name in DETERMINISTIC)


@each_agent
def test_stochastic_and_deterministic_evaluation_differ(name):
    """The source's "stochastic" evaluation took the mean action."""
    env, data = goal_data()
    agent = make(name, data, env, w2_weights=(0.5,), normalize=True).learn(4)
    result = gcrl_gym.evaluate(agent, env, tasks=[1], episodes_per_task=3)
    for actor in range(2):
        rows = {row["mode"]: row for row in result.per_actor if row["actor"] == actor}
        same = (
            rows["deterministic"]["mean_final_distance"] == rows["sampled"]["mean_final_distance"]
        )
        assert same == (name in DETERMINISTIC)


@each_agent
@pytest.mark.parametrize(
    "chain_policy", ["same", "deterministic", "gaussian", "tanh_gaussian", "transport_map"]
)
def test_actors_of_any_class_may_follow(name, chain_policy):
    agent = make(name, w2_weights=(0.5, 0.5), chain_policy=chain_policy, w2="exact").learn(4)
    kinds = [type(actor) for actor in agent.chain.actors]
    assert kinds[1] is kinds[2]
    assert (kinds[1] is kinds[0]) or chain_policy != "same"
    assert np.isfinite(agent.predict(zeros(name))[0]).all()


@each_agent
def test_a_chain_is_saved_and_goes_on(name):
    options = {"w2_weights": (0.5, 0.5), "w2_reference": "target", "chain_learning_rate": 1e-3}
    whole, half = make(name, **options), make(name, **options)
    whole.learn(6)
    half.learn(6, callback=lambda _locals, _globals: half.num_timesteps < 3)
    buffer = io.BytesIO()
    half.save(buffer)
    buffer.seek(0)
    resumed = type(half).load(buffer, dataset=half.dataset)
    resumed.learn(3, reset_num_timesteps=False)
    assert resumed.w2_weights == (0.5, 0.5)
    assert same_weights(whole, resumed)


@each_agent
def test_each_appended_actor_may_have_its_own_learning_rate(name):
    agent = make(name, w2_weights=(0.5, 0.5), chain_learning_rate=(1e-3, 2e-3)).learn(2)
    rates = [agent.optimizers[f"actor_{i}"].param_groups[0]["lr"] for i in (1, 2)]
    assert rates == [1e-3, 2e-3]


@each_agent
def test_lambda_makes_weights_independent_of_the_rewards_scale(name):
    agent = make(name, w2_weights=(0.5,), normalize_energy=True)
    metrics = {}
    for _ in range(2):
        metrics |= agent.update(agent.draw_batch())
        agent._n_updates += 1
    assert float(metrics["actor_1/lambda"]) != 1.0


@each_agent
@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"w2_weights": (0.5, -0.5)}, r"w2_weights\[1\] is -0.5"),
        ({"w2_weights": (float("inf"),)}, r"w2_weights\[0\] is inf"),
        ({"w2_weights": (0.5,), "chain_learning_rate": (1e-3, 1e-3)}, "one for each of the 1"),
        ({"w2_weights": (0.5,), "chain_learning_rate": -1.0}, "learning rates must be > 0"),
        ({"w2_weights": (0.5,), "w2": "exact", "K": 7}, "at most 6 samples"),
        ({"chain_policy": "gausian"}, "gaussian"),
        ({"w2_noise": "common"}, "shared"),
        ({"w2_reference": "slow"}, "target"),
        ({"K": 0}, "K is 0"),
    ],
)
def test_bad_options_are_named_before_anything_is_loaded(name, keywords, words):
    with pytest.raises(UserError, match=words):
        get_agent(name)(None, "no/such-dataset" if "w2_weights" in keywords else data_for(name),
                        **(SMALL | keywords))  # fmt: skip


@each_agent
def test_discrete_actions_are_refused(name):
    env = gym.make("gcrl/Nav2DDiscrete-v0")
    with pytest.raises(UserError, match=r"needs a Box action space|chain .* needs continuous"):
        get_agent(name)(env, w2_weights=(0.5,))


@pytest.mark.parametrize("name", [name for name in AGENTS if get_agent(name).needs_rewards])
def test_data_without_rewards_is_refused(name):
    data = plain_dataset()
    silent = OfflineDataset.from_arrays(
        data.observations[:50], data.actions[:50], truncated=np.arange(50) == 49,
        action_space=data.action_space,
    )  # fmt: skip
    with pytest.raises(UserError, match="learns from rewards, but every reward"):
        make(name, silent)


def test_rebrac_refuses_data_and_samplers_without_next_actions():
    with pytest.raises(UserError, match="next_actions=True"):
        make("rebrac", sampler=GoalSampler())
    single = OfflineDataset.from_arrays(
        np.random.default_rng(0).normal(size=(8, 3)), np.zeros((8, 2)), np.ones(8),
        truncated=np.ones(8, bool), next_observations=np.zeros((8, 3)),
        action_space=plain_dataset().action_space,
    )  # fmt: skip
    with pytest.raises(UserError, match="No transition has a next action"):
        make("rebrac", single).draw_batch()
    agent = make("rebrac", sampler=TransitionSampler(next_actions=True)).learn(2)
    assert torch.isfinite(agent.actor.mode(torch.zeros(1, 3))).all()
