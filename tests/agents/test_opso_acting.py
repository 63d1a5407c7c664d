"""OPSO's acting: what it remembers of an episode."""

import numpy as np
import pytest

from gcrl_gym.agents import OPSO
from gcrl_gym.errors import UserError
from tests.agents.reference import stir
from tests.agents.test_opso import TINY, states


def acting(history, encoder="gru", **keywords):
    options = TINY | {"encoder": encoder, "layers": 2, "history": history} | keywords
    agent = OPSO(None, states(), seed=0, **options)
    stir(agent, 0.3)
    return agent


def walk(agent, steps, rows=slice(0, 3)):
    """Actions of episodes in lock step, from their own states."""
    data, memory, actions = states().observations, None, []
    for step in range(steps):
        observations = np.stack([data[50 * k + step] for k in range(3)])[rows]
        found = {"observation": observations, "desired_goal": np.zeros_like(observations)}
        action, memory = agent.predict(found, memory, np.full(len(observations), step == 0))
        assert all(isinstance(part, np.ndarray) for part in memory)
        actions.append(action)
    return np.stack(actions)


@pytest.mark.parametrize("encoder", ["mamba", "gru", "transformer"])
def test_both_histories_are_the_same_within_the_context(encoder):
    window, state = (walk(acting(h, encoder), 7) for h in ("window", "state"))
    np.testing.assert_allclose(window[:3], state[:3], atol=2e-6)
    assert np.abs(window[4:] - state[4:]).max() > 1e-4


@pytest.mark.parametrize("history", ["window", "state"])
def test_rows_are_episodes_of_their_own(history):
    agent = acting(history)
    np.testing.assert_allclose(walk(agent, 5)[:, 1:2], walk(agent, 5, slice(1, 2)), atol=1e-6)


@pytest.mark.parametrize("history", ["window", "state"])
def test_acting_sees_true_histories(history):
    agent = acting(history)
    goal, found = np.zeros(3, np.float32), []
    for earlier in (-1.0, 2.0):
        one = {"observation": np.full(3, earlier, np.float32), "desired_goal": goal}
        _, memory = agent.predict(one)
        one = {"observation": np.ones(3, np.float32), "desired_goal": goal}
        found.append(agent.predict(one, memory, np.array([False]))[0])
        found.append(agent.predict(one, memory, np.array([True]))[0])
    fresh = agent.predict(one)[0]
    assert np.abs(found[0] - found[2]).max() > 1e-3
    assert np.array_equal(found[1], fresh)
    assert np.array_equal(found[3], fresh)


@pytest.mark.parametrize("history", ["window", "state"])
def test_beginning_episodes_forget(history):
    agent = acting(history)
    data, goals = states().observations, np.zeros((2, 3), np.float32)
    _, memory = agent.predict({"observation": data[:2], "desired_goal": goals})
    batch = {"observation": data[7:9], "desired_goal": goals}
    mixed, _ = agent.predict(batch, memory, np.array([False, True]))
    kept, fresh = agent.predict(batch, memory)[0], agent.predict(batch)[0]
    assert np.array_equal(mixed, np.stack([kept[0], fresh[1]]))
    assert not np.array_equal(kept[1], fresh[1])


def test_a_state_of_another_batch_is_refused():
    agent, goals = acting("window"), np.zeros((2, 3), np.float32)
    _, memory = agent.predict({"observation": goals, "desired_goal": goals})
    one = {"observation": goals[0], "desired_goal": goals[0]}
    for starts in (None, np.array([False])):
        with pytest.raises(UserError, match=r"predict\(state=.*or None at the start"):
            agent.predict(one, memory, starts)
    with pytest.raises(UserError, match="desired_goal has shape"):
        agent.predict({"observation": goals[0], "desired_goal": np.zeros(5)})
    assert agent.predict(one)[0].shape == (2,)
