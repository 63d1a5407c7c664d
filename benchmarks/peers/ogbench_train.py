r"""Train one of OGBench's own agents on a file and evaluate it in OGBench's environments.

    python benchmarks/peers/ogbench_train.py gciql pointmaze-medium-navigate-v0 FILE.npz OUT.json \
        --steps 25000 --evaluate 10000 25000 --set '{"batch_size": 256}'

Everything is the checkout's: agent, goals, evaluation tasks, and the hyperparameters of its
hyperparameters.sh for the dataset, of which --set changes the sizes. Episodes of a task run side by
side, so that one call gives the actions of all of them.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import ogbench
from ogbench.utils import load_dataset
from ogbench_reference import configured, create, goal_dataset, numbers, origin, published

LOSS_INTERVAL = 500


def evaluate(agent: Any, envs: Sequence[Any], key: Any) -> list[float]:
    """Return the success rate of every task, with one episode in each of ``envs``."""
    tasks = len(envs[0].unwrapped.task_infos)
    return [
        float(np.mean(_episodes(agent, envs, task, jax.random.fold_in(key, task))))
        for task in range(1, tasks + 1)
    ]


def _episodes(agent: Any, envs: Sequence[Any], task: int, key: Any) -> np.ndarray:
    starts = [env.reset(options={"task_id": task, "render_goal": False}) for env in envs]
    observations = np.stack([observation for observation, _ in starts])
    goals = np.stack([info["goal"] for _, info in starts])
    success = np.zeros(len(envs))
    running = list(range(len(envs)))
    while running:
        key, own = jax.random.split(key)
        # All rows, also those of finished episodes: another shape would be compiled again.
        actions = agent.sample_actions(observations, goals, seed=own, temperature=0.0)
        actions = np.clip(np.asarray(actions), -1.0, 1.0)
        for index in list(running):
            step = envs[index].step(actions[index])
            observations[index], _, terminated, truncated, info = step
            if terminated or truncated:
                success[index] = info["success"]
                running.remove(index)
    return success


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Return the evaluations and losses of one run."""
    config = configured(args.agent, published(args.agent, args.dataset) | args.set)
    dataset = goal_dataset(load_dataset(args.file, compact_dataset=True), config)
    random.seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002  (what OGBench draws from)
    agent = create(config, dataset, args.seed)
    make = ogbench.make_env_and_datasets
    envs = [make(args.dataset, env_only=True) for _ in range(args.episodes)]
    curve, losses, trained, evaluated = [], [], 0.0, 0.0
    start = time.monotonic()
    for step in range(1, args.steps + 1):
        agent, info = agent.update(dataset.sample(config["batch_size"]))
        if step % LOSS_INTERVAL == 0 or step == args.steps:
            losses.append({"step": step} | numbers(info))
        if step in args.evaluate:
            jax.block_until_ready(agent.network.params)
            trained += time.monotonic() - start
            start = time.monotonic()
            rates = evaluate(agent, envs, jax.random.PRNGKey(args.seed))
            evaluated += time.monotonic() - start
            start = time.monotonic()
            curve.append({"step": step, "success_rate": float(np.mean(rates)), "per_task": rates})
            print(json.dumps(curve[-1]), flush=True)
    jax.block_until_ready(agent.network.params)
    trained += time.monotonic() - start
    return {
        "agent": args.agent,
        "dataset": args.dataset,
        "seed": args.seed,
        "steps": args.steps,
        "episodes_per_task": args.episodes,
        "config": config.to_dict(),
        **origin(),
        "curve": curve,
        "losses": losses,
        "wall_time_s": round(trained, 1),
        "evaluation_s": round(evaluated, 1),
    }


def main() -> None:
    """Run what the command line says and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("agent")
    parser.add_argument("dataset", help="OGBench's name of the dataset")
    parser.add_argument("file", help="its .npz file")
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", type=int, nargs="*", default=[10_000, 25_000])
    parser.add_argument("--episodes", type=int, default=20, help="of each task")
    parser.add_argument("--set", type=json.loads, default={}, help="configuration, as JSON")
    args = parser.parse_args()
    result = json.dumps(train(args), indent=2)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    part = args.output.with_suffix(".part")
    part.write_text(result + "\n", "utf-8")
    part.replace(args.output)


if __name__ == "__main__":
    main()
