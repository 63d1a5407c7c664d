"""Stable-Baselines3's SAC with hindsight replay learns Nav2D: the example, in small."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "sb3_her_nav2d.py"


@pytest.mark.slow
def test_sac_with_hindsight_replay_learns():
    module_spec = importlib.util.spec_from_file_location("sb3_her_nav2d", EXAMPLE)
    example = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(example)
    torch.set_num_threads(1)
    agent = example.make_agent("open", seed=0)
    before = example.success_on_random_goals(agent, "open", episodes=50)
    agent.learn(5_000)
    after = example.success_on_random_goals(agent, "open", episodes=50)
    assert before < 0.4
    assert after > before + 0.5
