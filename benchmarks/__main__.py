"""Run every benchmark of this folder, one process each: python benchmarks [name ...]."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; return how many failed."""
    known = sorted(path.stem for path in FOLDER.glob("bench_*.py"))
    chosen = [name if name.startswith("bench_") else f"bench_{name}" for name in names] or known
    for name in sorted(set(chosen) - set(known)):
        print(f"no benchmark {name!r}; choose from {', '.join(known)}", file=sys.stderr)
        return 2
    failed = []
    for name in chosen:
        print(f"\n===== {name} =====", flush=True)
        command = [sys.executable, str(FOLDER / f"{name}.py")]
        path = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
