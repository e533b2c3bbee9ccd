"""How a command line ends: a user's mistake in one line that says what, where and what is allowed."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nested_lookahead.errors import JobError, UserError, one_line, unknown_key
from nested_lookahead.inputs import VALUES, load_yaml, opened, stands_for
from nested_lookahead.training.processes import first_process

LARGEST_CONFIG = 2**20
"""Bytes of a file of settings, by far."""
CHECKOUT = Path(__file__).parents[2]
CONF = next(folder for folder in (Path(__file__).with_name("conf"), CHECKOUT / "conf") if folder.is_dir())
"""In a wheel it lies in the package, in a checkout at the top."""
SCRIPTS = {"train": "train.py", "analyze": "analyze.py", "theory": "-m nested_lookahead.theory"}


def invocation(name: str) -> str:
    """How a command of this package is typed, in the way that this process was: in a checkout ``python train.py``."""
    if sys.argv[0].startswith("nested-lookahead ") or CONF.parent != CHECKOUT:
        return f"nested-lookahead {name}"
    return f"python {SCRIPTS[name]}"


def hydra_arguments(arguments: list[str]) -> list[str]:
    """A command line as Hydra's parser takes it: ``-m`` may stand anywhere, and ``--dry-run`` is a launcher's work."""
    dry = "--dry-run" in arguments
    multirun = dry or not {"-m", "--multirun"}.isdisjoint(arguments)
    kept = [argument for argument in arguments if argument not in ("--dry-run", "-m", "--multirun")]
    return [*kept, *(["hydra/launcher=list"] if dry else []), *(["-m"] if multirun else [])]


def run_command(main: Callable[[], object]) -> int:
    """Run a command line's ``main`` and return its exit status.

    A mistake prints one line; anything else is a fault of the program and prints its traceback. With
    ``HYDRA_FULL_ERROR=1`` in the environment everything is raised as it is.
    """
    logging.raiseExceptions = False  # a log on a full disk has nothing to add to the error itself
    raise_all = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them its own way
    try:
        if (folder := _folder_of_configurations(sys.argv[1:])) is not None:
            _check(folder)
            sys.path += [beside for beside in (str(folder.resolve().parent),) if beside not in sys.path]
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read along has seen enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's end would say so, too
        return 128 + 13  # SIGPIPE, by which others end
    except (Exception, JobError) as error:
        cause = error.error if isinstance(error, JobError) else error
        if raise_all:
            raise cause from cause.__cause__
        message = explain(cause)
        if message is None:
            traceback.print_exception(cause)
        elif first_process():
            print(f"error: {one_line(message, 2000)}", file=sys.stderr)
        return 1
    finally:
        if not raise_all:
            del os.environ["HYDRA_FULL_ERROR"]
    return 0


def _folder_of_configurations(arguments: list[str]) -> Path | None:
    """What ``--config-dir`` names; beside it lie the modules of one's own that its files speak of."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    options.add_argument("--config-dir", "-cd", type=Path)
    with contextlib.suppress(argparse.ArgumentError, SystemExit):
        kept = [one for one in arguments if one.startswith("-") or "=" not in one]
        return options.parse_known_args(kept)[0].config_dir  # type: ignore[no-any-return]
    return None


def _check(folder: Path) -> None:
    """Before Hydra reads its files, which writes every alias out.

    Raises:
        UserError: a file stands for more values than any configuration has.
    """
    for path in folder.rglob("*.yaml"):
        try:
            with opened(path, LARGEST_CONFIG) as file:
                if stands_for(load_yaml(file.read()), VALUES) > VALUES:
                    raise UserError(f"{path}: stands for more than {VALUES:,} values")
        except (yaml.YAMLError, UnicodeError, RecursionError, OSError):  # Hydra says so
            continue
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error


def explain(error: BaseException) -> str | None:
    """One line for a mistake in the settings, None for any other error."""
    chain = _chain(error)
    for link in chain:
        if isinstance(link, UserError):
            return str(link)
    if disk_is_full(error):
        return "no space left on the disk; make room, and the same command goes on"
    for link in chain:
        if isinstance(link, OSError) and link.strerror:
            return f"{link.filename}: {link.strerror}" if link.filename else link.strerror
        if isinstance(link, MemoryError):
            return "not enough memory"
    for link in reversed(chain):  # the cause before its consequences
        if isinstance(link, OmegaConfBaseException) and link.full_key and link.msg:
            if isinstance(link, AttributeError | KeyError) and OmegaConf.is_dict(link.parent_node):
                node = OmegaConf.to_container(link.parent_node, resolve=False)
                assert isinstance(node, dict)
                return unknown_key(str(link.full_key), [str(key) for key in node if key != "hydra"], _keys_below(node))
            if "is not a subclass of" in link.msg:
                return f"{link.full_key}: is a group; choose as {str(link.full_key).replace('.', '/')}={link.value}"
            return f"{link.full_key}: {one_line(link.msg)}"
    if missing := re.search(r"'hydra/(launcher|sweeper)/(joblib|slurm|submitit_local|ray|optuna)'", str(error)):
        group, choice = missing.groups()
        extra = choice.replace("submitit_local", "slurm")
        return f"hydra/{group}={choice}: not installed here; pip install -e '.[{extra}]'"
    if _raised_in(error, "hydra", "omegaconf", "yaml", "optuna", "sqlalchemy", "sqlite3"):
        return one_line(str(error))
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and what led to it."""
    chain = [error]
    while (link := chain[-1].__cause__ or chain[-1].__context__) is not None and link not in chain:
        chain.append(link)
    return chain


def disk_is_full(error: BaseException) -> bool:
    return any(isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT) for link in _chain(error))


def _keys_below(node: Any) -> Iterator[str]:
    """In dots, of the groups in a group: one level too high is the commonest mistake."""
    for key, inner in node.items():
        if isinstance(inner, dict) and key != "hydra":
            yield from (f"{key}.{further}" for further in (*inner, *_keys_below(inner)))


def _raised_in(error: BaseException, *packages: str) -> bool:
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").partition(".")[0] in packages
