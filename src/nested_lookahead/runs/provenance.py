"""What a run was made with and from: versions of what can change a result, and the commit of the code."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from nested_lookahead import __version__


def environment() -> dict[str, Any]:
    """Versions of what can change a result, and the commit of the code."""
    packages = ("torch", "torchvision", "numpy", "hydra-core")
    versions = {"python": sys.version.split()[0], "nested-lookahead": __version__}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "torch" in sys.modules:
        versions["torch"] = sys.modules["torch"].__version__  # with the build: +cpu, +cu130
    return {"versions": versions, "git": _git_state()}


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout this module lies in, and whether tracked files differ from it; None outside git."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # an installed copy may lie in somebody else's checkout
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
