"""The command line, ``gcrl``: everything the Python API does in one command each.

Nothing heavy is imported before a command needs it. A user's mistake is one line on stderr and exit
status 2; ``--debug`` shows the traceback. A warning is one line, once.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from gcrl_gym.errors import UserError, nearest

# Command -> what it does. Each is a module of this package with a function run(arguments).
COMMANDS = {
    "quickstart": "Train, evaluate and film POGO on a small maze in a few minutes.",
    "envs": "List the environments.",
    "data": "List, show, download, convert, check and collect datasets.",
    "train": "Train an agent on a dataset, in a run folder that can be resumed.",
    "finetune": "Go on training a saved agent online, in a run folder too.",
    "eval": "Evaluate a trained agent on all tasks.",
    "record": "Film a trained agent.",
    "play": "Drive an environment by keyboard, and keep the episodes as a dataset.",
    "doctor": "Show versions, optional packages, device and speed settings.",
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 for success, 2 for a mistake (data check: 1), 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _one_line()
            dispatch(arguments)
    except KeyboardInterrupt as interrupt:
        fail(str(interrupt) or "Interrupted.", 130)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed at exit
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, (UserError, OSError)):
            fail(str(error), getattr(error, "exit_status", 2))
        fail(f"Internal error, {type(error).__name__}: {error} (--debug shows where).", 1)
    sys.exit(0)


def _one_line() -> Callable[..., None]:
    """Return a way to show warnings: one line on stderr, each message once."""
    shown: set[str] = set()

    def show(message: Warning | str, *_where: object, **_more: object) -> None:
        text = " ".join(str(message).split())
        if text not in shown:
            shown.add(text)
            print(f"gcrl: warning: {text}", file=sys.stderr)

    return show


def dispatch(arguments: list[str]) -> None:
    """Run the command named first, or print the overview."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return
    if arguments[0] == "--version":
        from gcrl_gym import __version__

        print(f"gcrl_gym {__version__}")
        return
    command, *rest = arguments
    if command not in COMMANDS:
        raise UserError(
            f"Unknown command {command!r}.{nearest(command, COMMANDS)} See gcrl --help."
        )
    importlib.import_module(f"gcrl_gym.cli.{command}").run(rest)


def overview() -> str:
    """Return the help text of ``gcrl`` itself."""
    lines = [
        "usage: gcrl COMMAND ...",
        "",
        "Offline goal-conditioned reinforcement learning: data, agents, evaluation, videos.",
        "",
        "commands:",
        *(f"  {name:<12}{text}" for name, text in COMMANDS.items()),
        "",
        "options:",
        "  -h, --help  Show this; gcrl COMMAND --help shows the options of a command.",
        "  --version   Show the version.",
        "  --debug     Show the traceback of an error.",
        "",
        "example:",
        "  gcrl train pogo --dataset gcrl/nav2d/play-v0 --steps 20000 --seed 0",
    ]
    return "\n".join(lines)


def fail(message: str, status: int) -> NoReturn:
    """Print ``message`` as one line on stderr and exit."""
    print(f"gcrl: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
