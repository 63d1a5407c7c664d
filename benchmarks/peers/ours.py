"""Updates of one of our agents, through its own ``learn``: sampling, noise, logging and all.

    python benchmarks/peers/ours.py pogo '{"w2_weights": [0.1], "policy_freq": 2}'

With one weight POGO is the TD3-style update: one actor, Q over its mean, squared L2 to the data.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
import torch  # noqa: F401  (before one_thread, which sets its threads)
from gymnasium import spaces
from synthetic import transitions
from worker import serve

from gcrl_gym.agents import get_agent
from gcrl_gym.datasets import OfflineDataset


def main() -> None:
    """Serve updates of the agent named on the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("agent")
    parser.add_argument("keywords", type=json.loads)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--observation-dim", type=int, default=17)
    parser.add_argument("--action-dim", type=int, default=6)
    parser.add_argument("--goals", action="store_true", help="observations are goals, relabelled")
    args = parser.parse_args()
    agent_class = get_agent(args.agent)
    data = transitions(args.rows, args.observation_dim, args.action_dim)
    dataset = OfflineDataset.from_arrays(
        data["observations"],
        data["actions"],
        data["rewards"],
        data["terminals"],
        data["timeouts"],
        next_observations=data["next_observations"],
        goal_is_observation=args.goals,
        action_space=spaces.Box(-1.0, 1.0, (args.action_dim,), np.float32),
    )

    def make() -> Callable[[int], None]:
        agent = agent_class(None, dataset, seed=0, device="cpu", **args.keywords)

        def run(updates: int) -> None:
            agent.learn(updates, reset_num_timesteps=False)

        return run

    serve(make)


if __name__ == "__main__":
    main()
