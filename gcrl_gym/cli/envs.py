"""``gcrl envs``: the registered environments."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass

from gcrl_gym.cli.parsing import parse


@dataclass
class Envs:
    """List the environments of the package, with their keywords."""


def run(arguments: list[str]) -> None:
    """Print one block per environment."""
    parse(Envs, arguments, "gcrl envs")
    from gymnasium.envs.registration import load_env_creator

    from gcrl_gym.envs import specs

    for spec in specs():
        kind = load_env_creator(str(spec.entry_point))
        print(f"{spec.id}  ({spec.max_episode_steps} steps)")
        print(f"    {(inspect.getdoc(kind) or '').splitlines()[0]}")
        keywords = [
            f"{name}={parameter.default!r}"
            for name, parameter in inspect.signature(kind).parameters.items()
            if parameter.default is not parameter.empty and name != "render_mode"
        ]
        print(
            textwrap.fill(
                ", ".join(keywords), 90, initial_indent=" " * 4, subsequent_indent=" " * 4
            )
        )
    print("\nAny other Gymnasium environment with goals works too, for example OGBench's.")
