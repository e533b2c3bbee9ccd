"""The analysis as functions: what docs/analysis.md shows of a notebook is run, and nothing heavy is imported early."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import pytest
from conftest import ROOT
from made_runs import make_run

from nested_lookahead import analysis
from nested_lookahead.errors import UserError


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(5):
        make_run("outputs/digits", "sgd", seed=seed, final=0.9)
        make_run("outputs/digits", "lookahead", seed=seed, final=0.95 + seed / 1000)
        make_run("outputs/before", "sgd", seed=seed, final=0.88 + seed / 1000)
    return tmp_path


def test_the_example_of_the_documentation(made):
    text = (ROOT / "docs/analysis.md").read_text()
    (section,) = re.findall(r"## In a notebook\n(.*?)\n## ", text, re.DOTALL)
    example = "\n".join(re.findall(r"```pycon\n(.*?)```", section, re.DOTALL))
    test = doctest.DocTestParser().get_doctest(example, {}, "docs/analysis.md", None, 0)
    assert len(test.examples) >= 5
    said = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.slow
def test_names_stay_functions_whatever_is_imported():
    script = (
        "import sys; from nested_lookahead import analysis\n"
        "assert not {'torch', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "import nested_lookahead.analysis.report\n"
        "assert all(callable(getattr(analysis, name)) for name in analysis.__all__)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_tables_are_tidy(made):
    study = analysis.load("outputs/digits", filter=["optimizer=lookahead", "seed=0,1"])
    assert study.runs[["method", "inner", "seed"]].to_numpy().tolist() == [["lookahead", "sgd", s] for s in (0, 1)]
    assert len(study.metrics) == 2 * 10 * 2 * 3  # runs, epochs, kinds of weights, splits
    table = analysis.results("outputs/digits")
    assert table["method"].tolist() == ["SGD", "Lookahead (SGD)"]
    assert table["fast_mean"].tolist() == [pytest.approx(90), pytest.approx(95.2)]


def test_comparisons(made):
    (row,) = analysis.compare("outputs/digits", baseline="sgd").to_dict("records")
    assert (row["label"], row["baseline_label"], row["verdict"]) == ("Lookahead (SGD)", "SGD", "better")
    assert row["difference"] == pytest.approx(5.2)
    (row,) = analysis.compare("outputs/digits", Path("outputs/before")).to_dict("records")
    assert (row["shown"], row["baseline_shown"]) == ("from=now", "from=before")
    assert analysis.compare(analysis.load("outputs/before")).empty


def test_figures(made):
    study = analysis.load("outputs/digits")
    figure = analysis.draw("learning_curves", study, metric="error")
    assert isinstance(figure, matplotlib.figure.Figure)
    assert figure.axes[0].get_yscale() == "log"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: analysis.load("nowhere"), "nowhere: no such folder"),
        (lambda: analysis.draw("pie", "outputs/digits"), "pie: no such figure; there are learning_curves, "),
        (lambda: analysis.draw("divergences", "outputs/digits"), "divergences: these runs have nothing to show there"),
        (lambda: analysis.draw("forest", "outputs/digits", task="cifar"), "task='cifar': is that of 0 tasks"),
        (lambda: analysis.compare("outputs/digits", baseline="lion"), "--baseline lion: no such method or group"),
        (lambda: analysis.compare("outputs/digits", baseline="k=7"), "--baseline k=7: no such method or group"),
        (lambda: analysis.compare("outputs/digits", family="some"), "family='some': must be one of baseline, all"),
    ],
)
def test_mistakes(made, call, message):
    with pytest.raises(UserError, match="^" + re.escape(message)):
        call()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'plot'"):
        _ = analysis.plot
