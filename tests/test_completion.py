"""Shell completion, which is Hydra's, as bash asks for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from nested_lookahead import __main__ as console

BASH = """
PATH={python}:$PATH
eval "$(python train.py -sc install=bash)"
COMP_LINE={line!r}
read -ra COMP_WORDS <<< "$COMP_LINE"
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
hydra_bash_completion
echo ${{COMPREPLY[@]}}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("python train.py optimizer/inner=ad", {"adagrad", "adam", "adamw"}),
        ("python train.py -m optimizer=snoo pullback=reset_", {"reset_inner", "reset_outer"}),
    ],
)
def test_in_a_checkout(line, words):
    script = BASH.format(python=Path(sys.executable).parent, line=line)
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    key = line.rpartition(" ")[2].partition("=")[0]
    assert {word.removeprefix(f"{key}=") for word in done.stdout.split()} == words
    assert "@hydra.main" in (ROOT / "train.py").read_text()  # or Hydra 1.4 would not ask it


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "words"), [("python train.py pullback=reset_", {"pullback=reset_inner", "pullback=reset_outer"})]
)
def test_in_fish(line, words):
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    set_up = f"set -x PATH {Path(sys.executable).parent} $PATH; python train.py -sc install=fish | source"
    script = f"{set_up}; complete -C {line!r}"
    done = subprocess.run(["fish", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {*done.stdout.split()} == words


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("nested-lookahead ", "train\nanalyze\ntheory", "optimizer"),
        ("nested-lookahead train optimizer=lookahead pullback=re", "pullback=reset", "train"),
        ("nested-lookahead train epo", "epochs=", "train"),
        ("nested-lookahead analyze out", "", "optimizer"),
    ],
)
def test_of_the_console_command(monkeypatch, capsys, line, some, none):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr(sys, "argv", ["/somewhere/nested-lookahead", "-sc", "query=bash"])
    assert console.main() == 0
    said = capsys.readouterr().out
    assert some in said
    assert none not in said


def test_the_console_command_asks_to_be_completed_by_its_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/somewhere/nested-lookahead", "-sc", "install=bash"])
    assert console.main() == 0
    assert capsys.readouterr().out.endswith(" hydra_bash_completion nested-lookahead\n")
