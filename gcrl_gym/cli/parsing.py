"""Parsing of arguments into dataclasses with tyro; its errors become one line."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import tyro

from gcrl_gym.errors import UserError, nearest

Args = TypeVar("Args")

DataDir = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="DIR",
        help="folder with source files (<name>.npz, ..); by default $GCRL_DATA_DIR",
    ),
]


def parse(kind: type[Args], arguments: Sequence[str], prog: str) -> Args:
    """Parse ``arguments`` into the dataclass ``kind``, whose docstrings are the help texts.

    Raises:
        UserError: unknown, missing or wrong arguments.
        SystemExit: after ``--help``.
    """
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            config = (tyro.conf.FlagCreatePairsOff,)
            return tyro.cli(kind, args=list(arguments), prog=prog, config=config)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_one_line(messages.getvalue())} See {prog} --help.") from None


def _one_line(box: str) -> str:
    """Return the message in tyro's framed, wrapped error text: the part above the first rule."""
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    rules = [number for number, line in enumerate(lines) if set(line) == {"─"}]
    message = " ".join(lines[: rules[0]] if rules else lines)
    similar = re.search(r"Perhaps you meant:\s+(--[\w-]+)", " ".join(lines))
    hint = f" Did you mean {similar.group(1)}?" if similar else ""
    return message.strip().rstrip(".") + "." + hint


def subcommand(arguments: Sequence[str], kinds: dict[str, Any], prog: str) -> tuple[str, list[str]]:
    """Split off the subcommand; print the overview for ``--help``.

    Raises:
        UserError: none given, or an unknown one.
        SystemExit: after ``--help``.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: {prog} COMMAND ...\n\ncommands:")
        for name, text in kinds.items():
            print(f"  {name:<12}{text}")
        sys.exit(0)
    if not arguments or arguments[0] not in kinds:
        given = f"Unknown command {arguments[0]!r}." if arguments else "Say what to do."
        hint = nearest(arguments[0], kinds) if arguments else ""
        raise UserError(f"{given}{hint} {prog} has {', '.join(kinds)}.")
    return arguments[0], list(arguments[1:])
