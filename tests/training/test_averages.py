"""Averages of the weights beside a run: what they are, that they do not touch it, and how they are kept."""

import copy

import pytest
import torch
from test_training import EVALUATION, make_trainer
from torch import nn

from nested_lookahead import checkpoint
from nested_lookahead.runs import checkpoints
from nested_lookahead.training.averages import Average, averages_of
from nested_lookahead.training.fit import evaluate, fit, weights_in

KEPT = {"ema": (0.5, 0.9), "tail": 0.5}


def flat(params):
    return torch.cat([param.detach().flatten() for param in params])


def test_they_are_what_they_say():
    param = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    made = averages_of([param], [0.5, 0.75], 0.4, steps=10)
    assert list(made) == ["ema0.5", "ema0.75", "tail"]
    assert list(averages_of([param], [0.9], None, 10)) == ["ema"]
    assert list(averages_of([param], [0.9999999, 0.9999998], None, 10)) == ["ema0.9999999", "ema0.9999998"]
    xs, half, quarter = [], 1.0, 1.0
    for step in range(1, 11):
        with torch.no_grad():
            param += step
        for average in made.values():
            average.update(step)
        assert made["tail"].ready == (step > 4)
        xs.append(param.item())
        half, quarter = 0.5 * half + 0.5 * xs[-1], 0.75 * quarter + 0.25 * xs[-1]
    assert made["ema0.5"].kept[0].item() == pytest.approx(half, rel=1e-14)
    assert made["ema0.75"].kept[0].item() == pytest.approx(quarter, rel=1e-14)
    assert made["tail"].kept[0].item() == pytest.approx(sum(xs[4:]) / 6, rel=1e-14)


def test_in_place_in_one_copy():
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
    average = Average(params, 0.9)
    places = [kept.data_ptr() for kept in average.kept]
    average.update(1)
    assert [kept.data_ptr() for kept in average.kept] == places
    assert not {*places} & {param.data_ptr() for param in params}


def test_a_run_is_the_same_with_and_without_them():
    plain, kept = make_trainer(), make_trainer(**KEPT)
    rows = [row for trainer in (plain, kept) for rows in fit(trainer, EVALUATION) for row in rows]
    assert torch.equal(flat(plain.model.parameters()), flat(kept.model.parameters()))
    for name, buffer in plain.model.named_buffers():
        assert torch.equal(buffer, dict(kept.model.named_buffers())[name])
    shown = {(row["step"], row["weights"]) for row in rows}
    assert {weights for _, weights in shown} == {"fast", "slow", "ema0.5", "ema0.9", "tail"}
    assert (kept.total_steps // 2, "tail") not in shown  # it has not begun


def test_each_is_evaluated_with_batch_norm_statistics_of_its_own_and_goes_away():
    trainer = make_trainer(**KEPT)
    trainer.train_epoch()
    trainer.train_epoch()
    before = copy.deepcopy(trainer.model.state_dict())
    seen = {}
    for kind in ("slow", "ema0.5", "tail"):
        with pytest.raises(ZeroDivisionError), weights_in(trainer, EVALUATION, kind):
            seen[kind] = {name: value.clone() for name, value in trainer.model.state_dict().items()}
            raise ZeroDivisionError
        for name, value in trainer.model.state_dict().items():
            assert torch.equal(value, before[name]), (kind, name)
    (mean,) = [name for name in before if name.endswith("running_mean")][:1]
    assert not torch.equal(seen["tail"][mean], before[mean])
    assert not torch.equal(seen["tail"][mean], seen["ema0.5"][mean])
    fast, tail = (rows[0]["loss"] for rows in _by_kind(evaluate(trainer, EVALUATION), "fast", "tail"))
    assert fast != tail


def _by_kind(rows, *kinds):
    return [[row for row in rows if row["weights"] == kind] for kind in kinds]


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_goes_on_with_them_from_a_checkpoint(tmp_path, epochs):
    whole, half = make_trainer(epochs=3, **KEPT), make_trainer(epochs=3, **KEPT)
    for _ in range(epochs):
        half.train_epoch()
    with open(tmp_path / "checkpoint.pt", "wb") as file:
        checkpoints.write(half.state_dict(), file)
    resumed = make_trainer(epochs=3, **KEPT)
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for trainer, done in ((whole, 0), (resumed, epochs)):
        for _ in range(3 - done):
            trainer.train_epoch()
    for name, average in whole.averages.items():
        assert torch.equal(flat(average.kept), flat(resumed.averages[name].kept)), name
        assert average.count == resumed.averages[name].count


def test_weights_of_each_kind_come_out_of_a_checkpoint(tmp_path):
    trainer = make_trainer(**KEPT)
    trainer.train_epoch()
    with open(tmp_path / "checkpoint.pt", "wb") as file:
        checkpoints.write(trainer.state_dict(), file)
    with pytest.raises(ValueError, match=r"weights must be one of fast, slow, ema0.5, ema0.9, got 'tail'"):
        checkpoint.weights(tmp_path, "tail")  # it has not begun
    assert all(
        torch.equal(value, trainer.model.state_dict()[name]) for name, value in checkpoint.weights(tmp_path).items()
    )
    for kind, swap in (("slow", trainer.optimizer.slow_weights), ("ema0.9", trainer.averages["ema0.9"].weights)):
        kept = checkpoint.weights(tmp_path / "checkpoint.pt", kind)
        torch.save(kept, tmp_path / "kept.pt")
        other = make_trainer().model
        other.load_state_dict(torch.load(tmp_path / "kept.pt", weights_only=True))
        with swap():
            assert torch.equal(flat(other.parameters()), flat(trainer.model.parameters()))


@pytest.mark.parametrize("form", ["SGDScheduleFree", "AdamWScheduleFree"])
def test_schedule_free_trains_as_its_own_loop_does(form, tmp_path):
    """Modes set by hand, as its package says; ours evaluates in between, and comes back bit for bit."""
    schedulefree = pytest.importorskip("schedulefree")

    def make(params):
        return getattr(schedulefree, form)(params, lr=0.05)

    trainer, own = make_trainer(optimizer=make), make_trainer(optimizer=make)
    rows = list(fit(trainer, EVALUATION))
    own.optimizer.train()
    own.model.train()
    for _ in range(2):
        for images, labels in own.batches:
            logits = own.model(own.data.normalize(images))
            own.optimizer.zero_grad()
            nn.functional.cross_entropy(logits, labels).backward()
            own.optimizer.step()
    assert torch.equal(flat(trainer.model.parameters()), flat(own.model.parameters()))
    with open(tmp_path / "checkpoint.pt", "wb") as file:
        checkpoints.write(trainer.state_dict(), file)
    own.optimizer.eval()
    kept = checkpoint.weights(tmp_path)
    for name, param in own.model.named_parameters():
        torch.testing.assert_close(kept[name], param.detach())
    seen = {row["split"]: row["loss"] for row in rows[-1] if row["weights"] == "fast"}
    plain = evaluate(own, EVALUATION)  # in the mode in which it is
    assert {row["split"]: row["loss"] for row in plain if row["weights"] == "fast"} == pytest.approx(seen, rel=1e-4)
