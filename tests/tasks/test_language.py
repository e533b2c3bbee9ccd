"""Text as a task: its source of known entropy, how it is cut and split, and the transformer that learns it."""

import hashlib
import itertools
import json
import math

import numpy as np
import pytest
import torch
from conftest import metrics_less_seconds, runs_below

from nested_lookahead import NestedLookahead
from nested_lookahead.errors import UserError
from nested_lookahead.settings import Split
from nested_lookahead.tasks import language
from nested_lookahead.tasks.data import split_source
from nested_lookahead.tasks.gpt import gpt
from nested_lookahead.tasks.language import HiddenMarkov, Text
from nested_lookahead.tasks.objectives import NO_LABEL, NextToken
from nested_lookahead.training.batches import Batches
from nested_lookahead.training.fit import measure
from nested_lookahead.training.hardware import Hardware
from nested_lookahead.training.trainer import Recipe, Trainer

CPU = Hardware(torch.device("cpu"), "fp32", channels_last=False)
WHOLE = Split(0.0, None, None)


def markov(length=3000, context=8, samples=20):
    return language.markov(context, samples, length, 3, 4, 0.5, 0, 0.2)


def make_trainer(seed=0, context=8):
    data = split_source(markov(context=context), Split(0.1, None, None), 0)
    torch.manual_seed(seed)
    model = gpt(data.shape, data.num_classes, layers=1, heads=2, width=8)
    optimizer = NestedLookahead(torch.optim.AdamW(model.parameters(), lr=0.01), k=3, s=2)
    batches = Batches(data.train, 4, torch.Generator().manual_seed(seed))
    return Trainer(model, optimizer, data, batches, Recipe(epochs=2), CPU)


def test_the_entropy_rate_of_the_golden_mean_process():
    """After a 1 comes a 0; else either, at even odds: two thirds of the time a bit is drawn."""
    source = HiddenMarkov(np.array([[0.5, 0.5], [1.0 - 1e-15, 1e-15]]), np.array([[0, 1], [0, 0]]))
    assert source.stationary() == pytest.approx([2 / 3, 1 / 3])
    assert source.entropy_rate() == pytest.approx(2 / 3 * math.log(2), abs=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("states", "symbols", "concentration"), [(1, 2, 1.0), (4, 8, 0.3), (7, 3, 1.0)])
def test_the_entropy_rate_is_that_of_a_long_sample(states, symbols, concentration):
    """Surprise of an observer that does not see the state, over 200,000 symbols: |z| <= 4."""
    source = HiddenMarkov.random(states, symbols, concentration, seed=5)
    belief, surprises = np.full(states, 1 / states), []
    into = [np.eye(states)[source.successor[:, x]] * source.emission[:, [x]] for x in range(symbols)]
    for symbol in source.sample(200_000, seed=6):
        joint = belief @ into[symbol]
        surprises.append(-math.log(joint.sum()))
        belief = joint / joint.sum()
    blocks = np.array(surprises[1000:]).reshape(100, -1).mean(axis=1)
    error = blocks.std(ddof=1) / 10
    assert abs(blocks.mean() - source.entropy_rate()) <= 4 * error
    assert error < 0.01


@pytest.mark.parametrize("length", [9, 10, 16, 17, 18, 100])
def test_evaluation_asks_for_each_token_once(length):
    tokens = torch.arange(length, dtype=torch.int32)
    part = Text(tokens, context=8)
    batches = list(part.fetch(torch.split(torch.arange(len(part)), 3)))
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert inputs.shape[1] == labels.shape[1] == 8
    asked = labels != NO_LABEL
    assert labels[asked].tolist() == list(range(1, length))
    assert torch.equal(labels[asked] - 1, inputs[asked])


def test_training_cuts_fresh_windows_at_random_places():
    part = Text(torch.arange(50, dtype=torch.uint8), context=8, samples=1000)
    chunks = torch.split(torch.arange(len(part)), 100)
    (first, labels), *_ = part.fetch(chunks, seed=1)
    assert torch.equal(first + 1, labels)
    assert torch.equal(first, next(part.fetch(chunks, seed=1))[0])
    assert not torch.equal(first, next(part.fetch(chunks, seed=2))[0])
    starts = torch.cat([inputs[:, 0] for inputs, _ in part.fetch(chunks, seed=1)])
    assert set(starts.tolist()) == set(range(42))


def test_the_parts_are_contiguous_and_the_test_part_is_the_end():
    source = markov()
    data = split_source(source, Split(0.25, None, None), seed=3)
    parts = [data.train.tokens, data.validation.tokens, data.test.tokens]
    assert [len(part) for part in parts] == [1800, 600, 600]
    assert torch.equal(torch.cat(parts), torch.cat([source.train.tokens, source.test.tokens]))
    assert len(data.train) == 20
    assert len(data.validation) == math.ceil(599 / 8)
    assert len(split_source(source, WHOLE, seed=0).validation) == 0
    assert torch.equal(split_source(source, Split(0.25, 100, None), 0).train.tokens, source.train.tokens[:100])


def test_a_part_without_a_window_is_refused():
    with pytest.raises(UserError, match=r"more than the context's 8 tokens each, and have 24 and 6"):
        markov(length=30)
    with pytest.raises(UserError, match=r"train_size=8: must be in \[9, 2400\] tokens"):
        split_source(markov(), Split(0.0, 8, None), 0)
    with pytest.raises(UserError, match="a part of the text has no more than"):
        split_source(markov(), Split(0.003, None, None), 0)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_mean_is_over_tokens(batch_size):
    trainer = make_trainer()
    part = Text(trainer.data.test.tokens[:30], context=8)  # 29 answers in 4 windows, the last of them one of 5
    loss, bits = measure(trainer, part, batch_size)
    inputs, labels = (torch.cat(parts) for parts in zip(*part.fetch([torch.arange(4)]), strict=True))
    with torch.no_grad():
        chosen = trainer.model(inputs).log_softmax(2).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    assert loss == pytest.approx(-chosen[labels != NO_LABEL].sum().item() / 29, rel=1e-5)
    assert bits == pytest.approx(loss / math.log(2), rel=1e-6)


def test_text_as_characters_and_bytes(tmp_path):
    (tmp_path / "mine.txt").write_text("naïve à Zürich " * 20, encoding="utf-8")
    characters = language.text(str(tmp_path / "mine.txt"), "characters", 5, 10, 0.5)
    assert (len(characters.train.tokens), characters.num_classes) == (150, len(set("naïve à Zürich ")))
    assert characters.train.tokens[0] == characters.train.tokens[15] == sorted(set("naïve à Zürich ")).index("n")
    bytes_ = language.text(str(tmp_path / "mine.txt"), "bytes", 5, 10, 0.5)
    assert len(bytes_.train.tokens) + len(bytes_.test.tokens) == 20 * 18
    assert [source.objective.metric.name for source in (characters, bytes_)] == [
        "bits per character",
        "bits per byte",
    ]
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1") * 100)
    with pytest.raises(UserError, match=r"is no UTF-8 .* dataset\.unit=bytes"):
        language.text(str(tmp_path / "latin.txt"), "characters", 5, 10, 0.5)
    with pytest.raises(UserError, match=r"set dataset\.file to its path"):
        language.text(None, "characters", 5, 10, 0.5)
    with pytest.raises(UserError, match="cannot be read"):
        language.text(str(tmp_path / "none.txt"), "characters", 5, 10, 0.5)


def test_more_than_256_characters_keep_apart(tmp_path):
    (tmp_path / "wide.txt").write_text("".join(map(chr, range(0x4E00, 0x4E00 + 600))), encoding="utf-8")
    source = language.text(str(tmp_path / "wide.txt"), "characters", 5, 10, 0.5)
    assert torch.cat([source.train.tokens, source.test.tokens]).tolist() == list(range(600))


def test_shakespeare_is_downloaded_once_and_its_digest_checked(tmp_path, monkeypatch):
    content = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 50
    (tmp_path / "origin").write_bytes(content)
    monkeypatch.setattr(language, "SHAKESPEARE", (tmp_path / "origin").as_uri())
    arguments = (str(tmp_path / "data"), True, 8, 10, 0.1)
    with pytest.raises(UserError, match=r"could not be downloaded: .* is not the text that it was"):
        language.shakespeare(*arguments)
    assert not (tmp_path / "data/tinyshakespeare.txt").exists()
    monkeypatch.setattr(language, "SHAKESPEARE_SHA256", hashlib.sha256(content).hexdigest())
    source = language.shakespeare(*arguments)
    assert len(source.train.tokens) + len(source.test.tokens) == len(content)
    (tmp_path / "origin").unlink()
    assert language.shakespeare(*arguments).num_classes == source.num_classes
    (tmp_path / "data/tinyshakespeare.txt").write_bytes(content + b"!")
    with pytest.raises(UserError, match="is not the text that was published; delete it"):
        language.shakespeare(*arguments)
    with pytest.raises(UserError, match=r"dataset\.download=true"):
        language.shakespeare(str(tmp_path / "else"), False, 8, 10, 0.1)


def test_the_transformer_cannot_look_ahead_and_looks_back():
    model = gpt((16,), 11, layers=2, heads=2, width=12).eval()
    tokens = torch.randint(11, (3, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 8] = (changed[:, 8] + 1) % 11
    differs = (model(tokens) - model(changed)).abs().amax(dim=(0, 2)) > 1e-7
    assert differs.tolist() == [False] * 8 + [True] * 8


def test_the_transformer_starts_as_gpt_2():
    torch.manual_seed(0)
    model = gpt((64,), 65, layers=4, heads=4, width=128)
    per_block = 12 * 128**2 + 2 * 128
    assert sum(p.numel() for p in model.parameters()) == (65 + 64) * 128 + 4 * per_block + 128  # tied: once
    stds = {name: p.std().item() for name, p in model.named_parameters() if p.dim() > 1}
    for name, std in stds.items():
        last = name.endswith(("attended.weight", "narrow.weight"))
        assert std == pytest.approx(0.02 / math.sqrt(8) if last else 0.02, rel=0.05), name
    tokens = torch.randint(65, (4, 65))
    loss = NextToken().loss(model(tokens[:, :-1]), tokens[:, 1:])
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


def test_what_does_not_fit_the_transformer_is_refused():
    with pytest.raises(ValueError, match="width=10 that is a multiple of heads=4"):
        gpt((8,), 5, layers=1, heads=4, width=10)
    with pytest.raises(ValueError, match="gpt takes text"):
        gpt((1, 8, 8), 5, layers=1, heads=1, width=8)


def test_a_run_resumes_within_an_epoch_and_a_cycle():
    whole, cut = make_trainer(), make_trainer()
    whole.train_epoch()
    for inputs, labels in itertools.islice(cut.batches, 4):
        cut.train_step(inputs, labels)
        cut.step += 1
    resumed = make_trainer(seed=1)
    resumed.load_state_dict(cut.state_dict())
    resumed.train_epoch()
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_the_preset_learns_to_within_a_tenth_of_a_nat_of_the_entropy(command):
    arguments = ["experiment=language", "hydra.sweeper.grids=[]", "optimizer=adamw", "seed=0", "evaluation.every=12"]
    assert command("train.py", *arguments)[0] == 0
    (run,) = runs_below("outputs")
    test = json.loads((run / "summary.json").read_text())["final"]["fast"]["test"]
    entropy = HiddenMarkov.random(4, 8, 0.3, 0).entropy_rate()
    assert entropy < test["loss"] < entropy + 0.1
    assert {row["split"] for row in metrics_less_seconds(run)} == {"train", "validation", "test"}
