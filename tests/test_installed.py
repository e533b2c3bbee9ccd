"""The package as others get it: a wheel, in an environment and a folder that know nothing of this checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email import message_from_bytes

import pytest
from conftest import ROOT, runs_below

import nested_lookahead
from nested_lookahead import __main__ as console

pytestmark = pytest.mark.xdist_group("installed")

QUICK = ("model=mlp", "epochs=2", "evaluation.train_samples=100", "threads=1")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(pip, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Type a line in an environment with the wheel and, of this one, all libraries but the package itself."""
    folder = tmp_path_factory.mktemp("environment")
    place = _environment(folder, wheel)
    (place / "libraries.pth").write_text("\n".join({sysconfig.get_path(name) for name in ("purelib", "platlib")}))
    return lambda line, where: _typed(folder, line, where)


def _environment(folder, wheel):
    """Made by pip as a user makes it; its folder of libraries."""
    venv.create(folder, symlinks=True)
    (place,) = folder.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", f"--python={folder}", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return place


def _typed(environment, line, where):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    path = f"{environment}/bin:{os.environ['PATH']}"
    return subprocess.run(
        line, shell=True, cwd=where, env={**clean, "PATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_wheel_has_all_of_conf_and_asks_for_torch_alone(wheel):
    with zipfile.ZipFile(wheel) as content:
        inside = {name for name in content.namelist() if name.startswith("nested_lookahead/conf/")}
        (metadata,) = (content.read(name) for name in content.namelist() if name.endswith("/METADATA"))
    checkout = {f"nested_lookahead/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert inside == checkout
    fields = message_from_bytes(metadata)
    assert [need for need in fields.get_all("Requires-Dist") if "extra ==" not in need] == ["torch>=2.6"]
    assert fields["Version"] == nested_lookahead.__version__


@pytest.mark.slow
def test_the_commands_work_from_any_folder(installed, tmp_path):
    """Train, sweep in worker processes, analyse: as from a checkout, with hints that can be typed here."""

    def type_(line):
        done = installed(line, tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    assert str(ROOT) not in type_("python -c 'import nested_lookahead; print(nested_lookahead.__file__)'")
    assert type_("nested-lookahead --version") == f"nested-lookahead {nested_lookahead.__version__}\n"
    assert "next           nested-lookahead analyze outputs/digits" in type_(
        f"nested-lookahead train {' '.join(QUICK)}"
    )
    sweep = f"nested-lookahead train -m hydra/launcher=joblib hydra.launcher.n_jobs=2 seed=0,1 {' '.join(QUICK)}"
    assert "2 runs: 1 completed, 1 skipped" in type_(sweep)
    log = (runs_below(tmp_path / "outputs")[1] / "train.log").read_text()
    assert "next           nested-lookahead analyze outputs/digits" in log  # of a worker process
    assert "outputs/digits/analysis/report.html" in type_("nested-lookahead analyze --figures=forest")
    assert "nested-lookahead analyze --figures=forest" in (tmp_path / "outputs/digits/analysis/report.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]
    shown = type_("nested-lookahead train --help")
    assert shown.count("  nested-lookahead train ") >= 5
    assert "python train.py" not in shown
    assert type_("nested-lookahead analyze --help").startswith("usage: nested-lookahead analyze ")
    assert "tables and figures in" in type_(
        "nested-lookahead theory --coordinates 5 --horizons 4 --no-figures --out theory"
    )


@pytest.mark.slow
def test_yaml_files_of_ones_own_stand_beside_those_of_the_wheel(installed, tmp_path):
    (tmp_path / "mine/conf/model").mkdir(parents=True)
    (tmp_path / "mine/line.py").write_text(
        "import math\nfrom torch import nn\n\n"
        "def line(shape, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), num_classes))\n"
    )
    (tmp_path / "mine/conf/model/line.yaml").write_text("name: line\n_target_: line.line\n")
    own = f"--config-dir mine/conf model=line trust=[line] optimizer=sgd {' '.join(QUICK[1:])}"
    done = installed(f"nested-lookahead train {own}", tmp_path)
    assert "completed" in done.stdout, done.stderr
    again = installed(f"nested-lookahead train {own} lr=0.1,-1 -m", tmp_path)
    assert re.search(r"  again: nested-lookahead train .*lr=-1", again.stdout), again.stderr


@pytest.mark.slow
def test_without_the_extra_the_commands_say_what_is_missing(wheel, tmp_path):
    _environment(tmp_path / "bare", wheel)
    for name in console.MODULES:
        done = _typed(tmp_path / "bare", f"nested-lookahead {name}", tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"error: \w+ is not installed; .* with its extra 'experiments'\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [([], 2, "required: command"), (["trian"], 2, "invalid choice: 'trian'"), (["--version"], 0, "nested-lookahead 0")],
)
def test_the_console_command_without_a_command(monkeypatch, capsys, arguments, status, said):
    monkeypatch.setattr(sys, "argv", ["/somewhere/nested-lookahead", *arguments])
    with pytest.raises(SystemExit) as end:
        console.main()
    assert end.value.code == status
    assert said in "".join(capsys.readouterr())


def test_a_broken_package_is_no_missing_extra(monkeypatch):
    monkeypatch.setitem(console.MODULES, "train", "nested_lookahead.no_such_module")
    monkeypatch.setattr(sys, "argv", ["nested-lookahead", "train"])
    with pytest.raises(ModuleNotFoundError):
        console.main()


def test_the_changelog_knows_the_version():
    """The newest version that it lists is this one; what is not released yet stands above it."""
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert next(name for name in headings if name != "Unreleased") == nested_lookahead.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]


def test_the_files_at_the_top_link_to_what_there_is():
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)h#][^)]*)\)", (ROOT / name).read_text()):
            assert (ROOT / target.partition("#")[0]).exists(), f"{name}: {target}"


def test_the_citation_can_be_read():
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "MIT"
    assert {"title", "message", "authors"} <= set(citation)
    assert "version" not in citation  # its owner is the package
