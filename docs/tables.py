"""Write the README's tables and docs/datasets.md from the code."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import sys
from pathlib import Path

import gymnasium as gym

from gcrl_gym.agents import agent_names, get_agent
from gcrl_gym.datasets.sources import sources
from gcrl_gym.envs import specs

README = Path(__file__).parent.parent / "README.md"
CARDS = Path(__file__).parent / "datasets.md"
START = "<!-- tables: written by `make docs` from the code -->\n"
END = "<!-- end of tables -->"


def first_sentence(thing: object) -> str:
    """Return the first sentence of a docstring, on one line."""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")


def environments() -> list[str]:
    """Return the rows of the table of environments."""
    rows = ["| environment | actions | steps | what |", "|---|---|---|---|"]
    for spec in specs():
        env = gym.make(spec.id)
        what = first_sentence(type(env.unwrapped))
        rows.append(f"| `{spec.id}` | `{env.action_space}` | {spec.max_episode_steps} | {what} |")
    return rows


def datasets() -> list[str]:
    """Return the rows of the table of datasets, one per family of ids."""
    rows = ["| datasets | how many | source |", "|---|---|---|"]
    for source in sources():
        family = lambda id: id.rsplit("/", 1)[0]  # noqa: E731
        for prefix, ids in itertools.groupby(sorted(source.ids(), key=family), family):
            names = list(ids)
            example = f"`{names[0]}`" + (", ..." if len(names) > 1 else "")
            rows.append(f"| `{prefix}/*`: {example} | {len(names)} | {source.name} |")
    return rows


def agents() -> list[str]:
    """Return the rows of the table of agents."""
    rows = ["| agent | what | actions |", "|---|---|---|"]
    for name in agent_names():
        agent = get_agent(name)
        kinds = ", ".join(kind.__name__ for kind in agent.action_spaces)
        what = first_sentence(sys.modules[agent.__module__])
        rows.append(f"| [`{agent.__name__}`](gcrl_gym/agents/{name}.py) | {what} | {kinds} |")
    return rows


def render(readme: str) -> str:
    """Return the README with its tables as the code has them now."""
    head, rest = readme.split(START)
    tail = rest.split(END)[1]
    tables = "\n\n".join("\n".join(table()) for table in (environments, datasets, agents))
    return f"{head}{START}\n{tables}\n\n{END}{tail}"


def cards() -> str:
    """Return the page of dataset cards."""
    lines = [
        "# Datasets",
        "",
        "Written by `make docs` from the code. `gcrl data list` shows what is on your machine,",
        "`gcrl data show ID` one dataset with its conversion report.",
    ]
    for source in sources():
        for card in source.cards:
            lines += ["", f"## {card.ids}", "", "| | |", "|---|---|"]
            rows = dataclasses.asdict(card)
            lines += [
                f"| {name} | {text} |" for name, text in rows.items() if text and name != "ids"
            ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    README.write_text(render(README.read_text(encoding="utf-8")), encoding="utf-8")
    CARDS.write_text(cards(), encoding="utf-8")
