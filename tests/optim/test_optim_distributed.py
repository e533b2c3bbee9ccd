"""DistributedDataParallel on two gloo processes equals one process on the whole batch."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import free_port
from torch import nn

from nested_lookahead import NestedLookahead

pytestmark = pytest.mark.slow  # processes are started
STEPS = 14


def make():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, NestedLookahead(inner, 3, 2, 0.5, 0.4, "pullback")


def train(model, optimizer, share):
    for step in range(STEPS):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)[share]
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()


def on_two_processes(work, file):
    mp.spawn(work, args=(free_port(), file), nprocs=2)


def worker(rank, port, file):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model, optimizer = make()
    with torch.no_grad():  # DistributedDataParallel starts every rank from the weights of the first
        for param in model.parameters():
            param.add_(rank)
    parallel = nn.parallel.DistributedDataParallel(model)
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = NestedLookahead(inner, 3, 2, 0.5, 0.4, "pullback")
    train(parallel, optimizer, slice(rank, None, 2))
    torch.save(model.state_dict(), f"{file}.{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    on_two_processes(worker, tmp_path / "weights")
    model, optimizer = make()
    train(model, optimizer, slice(None))
    ranks = [torch.load(tmp_path / f"weights.{rank}", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(ranks[0], ranks[1], rtol=0, atol=0)
    torch.testing.assert_close(ranks[0], model.state_dict(), rtol=1e-12, atol=1e-12)


def sharded_worker(rank, port, file):
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    fully_shard(model, mesh=dist.init_device_mesh("cpu", (2,)))
    optimizer = NestedLookahead(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), 3, 2, 0.5, 0.4, "pullback")
    train(model, optimizer, slice(rank, None, 2))
    with optimizer.slow_weights():
        pass
    full = {name: value.full_tensor() for name, value in model.state_dict().items()}
    torch.save(full, f"{file}.{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="torch 2.6 has no FSDP2 on the CPU")
def test_sharded_parameters_equal_whole_ones(tmp_path):
    """FSDP2: parameters and slow weights are DTensors."""
    on_two_processes(sharded_worker, tmp_path / "weights")
    model, optimizer = make()
    train(model, optimizer, slice(None))
    sharded = torch.load(tmp_path / "weights.0", weights_only=True)
    torch.testing.assert_close(sharded, model.state_dict(), rtol=1e-12, atol=1e-12)
