"""Train Stable-Baselines3's SAC with hindsight experience replay on Nav2D, online.

Shows that the environments of this package work with other libraries as they are: SB3 calls
``compute_reward`` to relabel goals. On one CPU core it takes one to two minutes.

    python examples/sb3_her_nav2d.py --maze u_maze --steps 15000
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import torch
from stable_baselines3 import SAC, HerReplayBuffer

import gcrl_gym  # noqa: F401  (registers the environments)


def make_agent(maze: str, seed: int) -> SAC:
    """SAC with hindsight goals, small networks and a short horizon."""
    env = gym.make("gcrl/Nav2D-v0", maze=maze, reward="penalty", max_episode_steps=100)
    return SAC(
        "MultiInputPolicy",
        env,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4, "goal_selection_strategy": "future"},
        learning_rate=1e-3,
        batch_size=256,
        gamma=0.97,
        tau=0.02,
        learning_starts=1_000,
        policy_kwargs={"net_arch": [64, 64]},
        seed=seed,
        device="cpu",
    )


def success_per_task(agent: SAC, maze: str) -> list[float]:
    """Success on each of the five evaluation tasks (1.0 or 0.0: the tasks are deterministic)."""
    env = gym.make("gcrl/Nav2D-v0", maze=maze)
    successes = []
    for task_id in range(1, env.get_wrapper_attr("num_tasks") + 1):
        observation, info = env.reset(seed=0, options={"task_id": task_id})
        terminated = truncated = False
        while not (terminated or truncated):
            action, _ = agent.predict(observation, deterministic=True)
            observation, _, terminated, truncated, info = env.step(action)
        successes.append(info["success"])
    return successes


def success_on_random_goals(agent: SAC, maze: str, episodes: int = 100) -> float:
    """Share of random starts and goals that the agent solves within 100 steps."""
    env = gym.make("gcrl/Nav2D-v0", maze=maze, max_episode_steps=100)
    successes = 0.0
    for episode in range(episodes):
        observation, info = env.reset(seed=episode)
        terminated = truncated = False
        while not (terminated or truncated):
            action, _ = agent.predict(observation, deterministic=True)
            observation, _, terminated, truncated, info = env.step(action)
        successes += info["success"]
    return successes / episodes


def main() -> None:
    """Train and print the success before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maze", default="u_maze")
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    agent = make_agent(args.maze, args.seed)
    before = success_on_random_goals(agent, args.maze)
    agent.learn(args.steps, progress_bar=True)
    after = success_on_random_goals(agent, args.maze)
    print(f"success on random goals: {before:.0%} untrained, {after:.0%} after {args.steps} steps")
    print("success on tasks 1 to 5:", success_per_task(agent, args.maze))


if __name__ == "__main__":
    main()
