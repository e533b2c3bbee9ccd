"""The Trainer of transformers trains as a plain loop does, given an optimizer or a class of them."""

import pytest
import torch
from page import defined
from plain_loop import OPTIMIZERS, PER_EPOCH, assert_same, data, halving, loader, loss, model, nested, slow_of, trained

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


class Net(torch.nn.Module):
    """Returns its loss, as the Trainer has it."""

    def __init__(self):
        super().__init__()
        self.net = model()

    def forward(self, x, labels):
        return {"loss": loss(self.net, (x, labels)), "logits": self.net(x)}


class InOrder(transformers.Trainer):
    def _get_train_sampler(self, dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def steady(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def trainer(folder, epochs, kind=InOrder, schedule=steady, make=None, **more):
    samples = [{"x": x, "labels": y} for x, y in data()]
    settings = {"max_grad_norm": 0.0, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    settings |= {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "save_strategy": "epoch"}
    settings |= {"lr_scheduler_type": "constant", "logging_strategy": "no"}
    net, built = Net(), {}
    if make is not None:
        optimizer = make(net.parameters())
        built = {"optimizers": (optimizer, schedule(optimizer))}
    kept = {key: more.pop(key) for key in ("optimizer_cls_and_kwargs",) if key in more}
    arguments = transformers.TrainingArguments(str(folder), num_train_epochs=epochs, **settings | more)
    return kind(net, arguments, train_dataset=samples, eval_dataset=samples, **built, **kept)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_it_trains_as_a_plain_loop(make, tmp_path):
    ours = trainer(tmp_path, 2, make=make)
    ours.train()
    net, optimizer = trained(make, 2)
    assert_same(ours.model.net, net)
    if hasattr(optimizer, "slow_weights"):
        found = slow_of(ours.model.net, ours.optimizer.optimizer)
        torch.testing.assert_close(found, slow_of(net, optimizer), rtol=0, atol=0)


def test_accumulated_and_clipped_gradients_and_a_schedule(tmp_path):
    ours = trainer(tmp_path, 3, make=nested, schedule=halving, gradient_accumulation_steps=2, max_grad_norm=0.1)
    ours.train()
    net, optimizer = trained(nested, 3, accumulate=2, clip=0.1, schedule=halving)
    assert ours.optimizer.optimizer.fast_steps == optimizer.fast_steps == 3 * PER_EPOCH // 2
    assert ours.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.01 / 4
    torch.testing.assert_close(dict(ours.model.net.state_dict()), dict(net.state_dict()))


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_it_resumes_in_the_middle_of_a_cycle(make, tmp_path):
    trainer(tmp_path, 1, make=make).train()
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    again = trainer(tmp_path, 3, make=make)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert_same(again.model.net, trained(make, 3)[0])


def test_a_class_that_it_builds_and_slow_weights_that_it_evaluates(tmp_path):
    kind = defined("with_transformers.py", "NestedAdamW")
    evaluating = defined("with_transformers.py", "EvaluatesSlowWeights")

    class Ours(evaluating, InOrder):
        pass

    settings = {"lr": 0.01, "k": 3, "s": 2}
    ours = trainer(tmp_path, 1, kind=Ours, optimizer_cls_and_kwargs=(kind, settings), eval_strategy="epoch")
    ours.train()
    net, optimizer = trained(lambda params: kind(params, weight_decay=0.0, **settings), 1)
    assert_same(ours.model.net, net)
    assert not torch.equal(net[0].weight, slow_of(net, optimizer)["0.weight"])
    net.load_state_dict(slow_of(net, optimizer))
    with torch.no_grad():
        wanted = sum(loss(net, batch).item() for batch in loader()) / PER_EPOCH
    (found,) = [entry["eval_loss"] for entry in ours.state.log_history if "eval_loss" in entry]
    assert found == pytest.approx(wanted, rel=1e-5)
