"""Lightning trains as a plain loop does; the page's callback measures and saves the slow weights."""

import pytest
import torch
from page import defined
from plain_loop import OPTIMIZERS, PER_EPOCH, assert_same, halving, loader, loss, model, nested, slow_of, trained

lightning = pytest.importorskip("lightning")
callbacks = pytest.importorskip("lightning.pytorch.callbacks")

pytestmark = pytest.mark.filterwarnings("ignore")


class Module(lightning.LightningModule):
    def __init__(self, make, schedule=None):
        super().__init__()
        self.net, self.make, self.schedule = model(), make, schedule

    def training_step(self, batch):
        return loss(self.net, batch)

    def validation_step(self, batch):
        self.log("loss", loss(self.net, batch))

    def test_step(self, batch):
        self.log("tested", loss(self.net, batch))

    def configure_optimizers(self):
        optimizer = self.make(self.parameters())
        if self.schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": self.schedule(optimizer), "interval": "step"}]


def fitted(module, epochs, *called, validate=False, ckpt_path=None, **more):
    """The trainer, after so many epochs in all."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet["enable_checkpointing"] = any(isinstance(one, callbacks.ModelCheckpoint) for one in called)
    trainer = lightning.Trainer(max_epochs=epochs, callbacks=list(called), **quiet | more)
    trainer.fit(module, loader(), loader() if validate else None, ckpt_path=ckpt_path, weights_only=False)
    return trainer


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_it_trains_as_a_plain_loop(make):
    module = Module(make)
    trainer = fitted(module, 2)
    net, optimizer = trained(make, 2)
    assert_same(module.net, net)
    assert trainer.global_step == 2 * PER_EPOCH
    if hasattr(optimizer, "slow_weights"):
        ours, theirs = slow_of(module.net, trainer.optimizers[0]), slow_of(net, optimizer)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_accumulated_and_clipped_gradients_and_a_schedule():
    module = Module(nested, halving)
    trainer = fitted(module, 3, accumulate_grad_batches=2, gradient_clip_val=0.1)
    net, optimizer = trained(nested, 3, accumulate=2, clip=0.1, schedule=halving)
    assert_same(module.net, net)
    assert trainer.optimizers[0].fast_steps == optimizer.fast_steps == 3 * PER_EPOCH // 2
    assert trainer.optimizers[0].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.01 / 4


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_it_resumes_in_the_middle_of_a_cycle(make, tmp_path):
    fitted(Module(make), 1).save_checkpoint(tmp_path / "one.ckpt")
    again = Module(make)
    fitted(again, 3, ckpt_path=tmp_path / "one.ckpt")
    assert_same(again.net, trained(make, 3)[0])


def test_bf16():
    module = Module(nested)
    fitted(module, 2, precision="bf16-mixed")
    close, _ = trained(nested, 2)
    for ours, theirs in zip(module.net.parameters(), close.parameters(), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.2, atol=0.05)


def test_the_callback_measures_and_saves_slow_weights_and_disturbs_nothing(tmp_path):
    module = Module(nested)
    saver = callbacks.ModelCheckpoint(dirpath=tmp_path, filename="one")
    trainer = fitted(module, 1, defined("with_lightning.py", "SlowWeights")(), saver, validate=True)
    net, optimizer = trained(nested, 1)
    assert_same(module.net, net)
    slow = slow_of(net, optimizer)
    saved = torch.load(tmp_path / "one.ckpt", weights_only=False)
    for key, value in net.state_dict().items():
        assert torch.equal(saved["state_dict"][f"net.{key}"], slow[key])
        assert torch.equal(saved["fast_weights"][f"net.{key}"], value)
        assert not torch.equal(slow[key], value)
    fast = measured(net)
    net.load_state_dict(slow)
    assert trainer.callback_metrics["loss"].item() == pytest.approx(measured(net), rel=1e-5)
    assert measured(net) != pytest.approx(fast, rel=1e-3)


def measured(net):
    with torch.no_grad():
        return sum(loss(net, batch).item() for batch in loader()) / PER_EPOCH


def test_a_run_with_the_callback_resumes_with_fast_weights_and_is_tested_with_slow_ones(tmp_path):
    slow_weights = defined("with_lightning.py", "SlowWeights")
    saver = callbacks.ModelCheckpoint(dirpath=tmp_path, filename="one")
    fitted(Module(nested), 1, slow_weights(), saver, validate=True)
    again = Module(nested)
    fitted(again, 3, slow_weights(), validate=True, ckpt_path=tmp_path / "one.ckpt")
    assert_same(again.net, trained(nested, 3)[0])

    tester = lightning.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", callbacks=[slow_weights()])
    (found,) = tester.test(Module(nested), loader(), ckpt_path=tmp_path / "one.ckpt", verbose=False, weights_only=False)
    net, optimizer = trained(nested, 1)
    net.load_state_dict(slow_of(net, optimizer))
    assert found["tested"] == pytest.approx(measured(net), rel=1e-5)


def test_fast_weights_come_back_when_a_validation_fails():
    class Failing(Module):
        def validation_step(self, batch):
            raise RuntimeError("no")

    module = Failing(nested)
    with pytest.raises(RuntimeError, match="no"):
        fitted(module, 1, defined("with_lightning.py", "SlowWeights")(), validate=True, num_sanity_val_steps=0)
    assert_same(module.net, trained(nested, 1)[0])


def test_lightnings_own_average():
    module = Module(nested)
    trainer = fitted(module, 2, callbacks.EMAWeightAveraging(decay=0.9), validate=True)
    net, _ = trained(nested, 2)
    assert not torch.equal(module.net[0].weight, net[0].weight)  # the average, from the end of training on
    assert trainer.callback_metrics["loss"].item() == pytest.approx(measured(module.net), rel=1e-5)
