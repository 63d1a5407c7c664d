"""``gcrl doctor``: what is installed here, what works, and why something does not."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import shutil
import sys
from dataclasses import dataclass

from gcrl_gym.cli.parsing import parse

CORE = ("gymnasium", "numpy", "torch", "stable_baselines3", "minari", "h5py", "geomloss", "pygame")
OPTIONAL = {
    "ogbench": "OGBench environments: pip install 'gcrl-gym[ogbench]'",
    "gymnasium_robotics": "maze and robot environments: pip install 'gcrl-gym[robotics]'",
    "mujoco": "physics of the two above",
    "tensorboard": "TensorBoard logs: pip install 'gcrl-gym[tensorboard]'",
    "pyarrow": "Minari sets stored as arrow: pip install 'gcrl-gym[arrow]'",
    "mamba_ssm": "Mamba on CUDA: pip install 'gcrl-gym[mamba]'",
    "ray": "sweeps on a cluster: pip install 'gcrl-gym[ray]'",
    "pykeops": "Sinkhorn with backend='online'",
}


@dataclass
class Doctor:
    """Show versions, optional packages, device and speed settings."""


def run(arguments: list[str]) -> None:
    """Print the report."""
    parse(Doctor, arguments, "gcrl doctor")
    from gcrl_gym import __version__

    line("gcrl_gym", __version__)
    line("python", f"{platform.python_version()} ({sys.executable})")
    line("system", platform.platform())
    print("\npackages")
    for name in CORE:
        line(f"  {name}", _version(name))
    print("\noptional packages")
    for name, purpose in OPTIONAL.items():
        line(f"  {name}", _usable(name, purpose))
    print("\ncomputation")
    for name, text in _computation().items():
        line(f"  {name}", text)
    print("\nfiles")
    for name in ("GCRL_DATA_DIR", "MINARI_DATASETS_PATH", "GCRL_MMAP_GIB"):
        line(f"  {name}", os.environ.get(name, "not set"))


def line(name: str, text: str) -> None:
    """Print one aligned line."""
    print(f"{name:<22} {text}")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "missing: pip install gcrl-gym again"


def _usable(name: str, purpose: str) -> str:
    """Import the package: installed is not the same as working."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return f"not installed ({purpose})"
        return f"installed, but it misses {error.name}"
    except Exception as error:
        return f"installed, but importing it fails: {type(error).__name__}: {error}"
    return f"{_version(name)} works"


def _computation() -> dict[str, str]:
    import torch

    from gcrl_gym.agents.numerics import fast_matmul_precision
    from gcrl_gym.video import has_ffmpeg, prepare_rendering

    prepare_rendering()
    cuda = torch.cuda.is_available()
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    return {
        "device": torch.cuda.get_device_name() if cuda else "CPU (no CUDA device)",
        "CPU": f"{_cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads",
        "matmul='auto'": f"float32 matmul precision {fast_matmul_precision()!r} while training",
        "compiler": compiler or "none found: compile=True falls back to eager",
        "video": "mp4 (ffmpeg found)" if has_ffmpeg() else "GIF only: pip install imageio-ffmpeg",
        "MuJoCo rendering": os.environ.get("MUJOCO_GL")
        or ("display" if os.environ.get("DISPLAY") else "no OpenGL: install libegl1 or libosmesa6"),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                text.split(":", 1)[1].strip() for text in file if text.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
