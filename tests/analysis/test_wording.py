"""What no text of an analysis may say, whatever the runs are."""

import re

import pytest
from made_runs import make_run

from nested_lookahead.analysis.asked import gathered
from nested_lookahead.analysis.report import Request, write
from nested_lookahead.metric import Metric

BITS = Metric("bits per character", better="down", digits=4, delta=0.01)
FORBIDDEN = {
    r"p = 0\.000(?!\d)": "a p-value is never 0",
    r"[-−]0\.0+(?![\d])": "a zero has no sign",
    r"\b(k|s)=\d+\.0\b": "a period is a whole number",
    r"no seed in common": "where all diverged, that is what is to be said",
    r"\bnan\b": "a number that there is not",
    r"error: \d+ tasks": "several tasks are no error",
}  # fmt: skip


def equal(folder):
    for seed in range(6):
        make_run(folder, "sgd", seed=seed, final=0.9 + 1e-9 * seed)
        make_run(folder, "nested_lookahead", seed=seed, final=0.9 - 1e-9)


def far_apart(folder):
    for seed in range(6):
        make_run(folder, "sgd", seed=seed, final=0.1 + 1e-5 * seed)
        make_run(folder, "lookahead", seed=seed, final=0.9)
        make_run(folder, "nested_lookahead", seed=seed, final=0.95 + 1e-5 * seed)


def all_diverged(folder):
    for seed in range(3):
        make_run(folder, "sgd", seed=seed)
        make_run(folder, "lookahead", seed=seed, status="diverged")
        make_run(folder, "nested_lookahead", seed=seed, status="diverged")


def two_tasks(folder):
    for seed in range(3):
        for model in ("cnn", "mlp"):
            make_run(folder / model, "sgd", seed=seed, model=model)
            make_run(folder / model, "lookahead", seed=seed, model=model)


def less_is_better(folder):
    for seed in range(5):
        make_run(folder, "sgd", seed=seed, final=0.5 + 0.01 * seed, metric=BITS)
        make_run(folder, "lookahead", seed=seed, final=0.5 + 0.01 * seed, metric=BITS)


def one_setting_less(folder):
    """A column with gaps is one of floats."""
    for seed in range(3):
        for k in (3, 5):
            make_run(folder, "nested_lookahead", seed=seed, k=k)
        make_run(folder, "sgd", seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("make", [equal, far_apart, all_diverged, two_tasks, less_is_better, one_setting_less])
def test_no_text_says_what_cannot_be(make, tmp_path):
    make(tmp_path / "runs")
    said = write(
        gathered([tmp_path / "runs"]), tmp_path / "out", Request(pictures=("forest", "seeds", "expected_best"))
    )
    texts = {"printed": said}
    for path in sorted((tmp_path / "out").iterdir()):
        if path.suffix in (".md", ".tex", ".svg", ".html"):
            content = path.read_text()
            content = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", content, flags=re.DOTALL)  # what people read
            texts[path.name] = content
    assert len(texts) > 4
    for name, text in texts.items():
        for pattern, why in FORBIDDEN.items():
            found = re.search(f".{{0,60}}{pattern}.{{0,20}}", text)
            assert not found, f"{name}: {why}: {found[0]}"
        if make is less_is_better:
            assert "accuracy" not in text, name


def test_the_patterns_find_what_they_are_for():
    samples = ("p = 0.000", "−0.00 points", "k=5.0", "no seed in common", "nan ± 0.1", "error: 2 tasks")
    for (pattern, _), sample in zip(FORBIDDEN.items(), samples, strict=True):
        assert re.search(pattern, sample)
    assert not any(re.search(pattern, "p = 0.0001, -0.001, k=5, banana") for pattern in FORBIDDEN)
