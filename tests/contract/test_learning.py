"""Every agent learns to reach goals in the open maze, with the actions it supports."""

import functools

import gymnasium as gym
import pytest

import gcrl_gym
from gcrl_gym.agents import agent_names, get_agent
from gcrl_gym.datasets import OfflineDataset
from gcrl_gym.datasets.nav2d_io import nav2d_episodes

# Where the published default does not suit 800 updates on narrow expert data.
FREE = {
    "num_critics": 2,
    "alpha_learning_rate": 3e-2,
    "tau": 0.02,
    "discount": 0.95,
    "normalize": True,
}
SUITED = {
    "sac_n": FREE,
    "edac": FREE | {"eta": 0.001},  # action values of sparse goals are below 1
    "rebrac": {"actor_bc": 0.1},
    "cql": {"policy_learning_rate": 3e-3, "cql_alpha": 50.0},
    "crl": {"alpha": 1.0},  # such data asks for more imitation
}
# Nothing holds these to the data's actions: they need data that shows what other actions do.
DATA = {"sac_n": "random", "edac": "random"}
ENVS = {"gcrl/Nav2D-v0": False, "gcrl/Nav2DDiscrete-v0": True}


@functools.cache
def env_and_data(env_id, kind):
    env = gym.make(env_id, maze="open")
    episodes = [vars(e) for e in nav2d_episodes(kind, "open", discrete=ENVS[env_id], episodes=400)]
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    return env, OfflineDataset.from_episodes(episodes, **spaces)


def cases():
    # Without actions there is nothing to learn to act from.
    for name in [name for name in agent_names() if get_agent(name).needs_actions]:
        for env_id in ENVS:
            if isinstance(gym.make(env_id).action_space, get_agent(name).action_spaces):
                yield name, env_id


# Online, from two episodes, where the published default is slow.
ONLINE = {"rebrac": {"actor_bc": 0.1}, "pogo": {"w2_weights": (0.1,)}}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in agent_names() if get_agent(name).finetunes])
def test_learns_online_what_the_data_do_not_show(name):
    """Two episodes do not teach a maze, however long they are learned from; 2000 steps in it do."""
    env = gym.make("gcrl/Nav2D-v0", maze="open", max_episode_steps=50)
    episodes = [vars(e) for e in nav2d_episodes("noisy", "open", episodes=2)]
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    data = OfflineDataset.from_episodes(episodes, **spaces)
    kind = get_agent(name)
    small = {"hidden_sizes": (64, 64), "batch_size": 256, "learning_rate": 1e-3}
    small |= {"discount": 0.95, "tau": 0.02, **ONLINE.get(name, {})}
    agent = kind(env, data, seed=0, **{k: v for k, v in small.items() if k in kind.signature()})
    options = {"episodes_per_task": 4, "modes": ("deterministic",), "actors": "last"}
    agent.learn(500)
    before = gcrl_gym.evaluate(agent, env, **options).success_rate
    assert before <= 0.5
    agent.finetune(2100, learning_starts=300)
    assert gcrl_gym.evaluate(agent, env, **options).success_rate >= max(0.6, before + 0.3)


@pytest.mark.parametrize(("name", "env_id"), list(cases()))
def test_learns_a_tiny_maze(name, env_id):
    env, data = env_and_data(env_id, DATA.get(name, "expert"))
    kind = get_agent(name)
    small = {
        "hidden_sizes": (64, 64),
        "batch_size": 256,
        "learning_rate": 1e-3,
        **SUITED.get(name, {}),
    }
    agent = kind(env, data, seed=0, **{k: v for k, v in small.items() if k in kind.signature()})
    before = gcrl_gym.evaluate(agent, env, episodes_per_task=2, modes=("deterministic",))
    agent.learn(800)
    after = gcrl_gym.evaluate(agent, env, episodes_per_task=2, modes=("deterministic",))
    assert before.success_rate <= 0.4
    assert after.success_rate >= 0.8, after.per_task
