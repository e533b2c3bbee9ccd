"""Layers that average over workers: four gloo processes against a literal simulation of them in one."""

import copy
import functools
import os
import re
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import ROOT, free_port

from nested_lookahead import Lookahead, MultilayerLookahead, NestedLookahead
from nested_lookahead.communicate import Group, bytes_per_step

pytestmark = pytest.mark.xdist_group("optim_workers")

WORKERS, STEPS, LR, MOMENTUM = 4, 26, 0.05, 0.9
NODES = ([0, 1], [2, 3])
SHAPES = ((3, 2), (4,))
CASES = {
    "nested": {"layers": [(3, 0.6, 0.0), (2, 0.7, 0.0)], "groups": ("node", "all")},
    "outer momentum": {"layers": [(3, 1.0, 0.0), (2, 0.7, 0.8)], "groups": ("node", "all")},
    "DiLoCo": {"layers": [(5, 0.7, 0.9)], "groups": ("all",)},
    "outer alone": {"layers": [(2, 0.5, 0.0), (3, 1.0, 0.0)], "groups": (None, "all")},
    "same place in each node": {"layers": [(3, 0.6, 0.0), (2, 0.7, 0.5)], "groups": ("node", "across")},
}


def start():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def gradient(rank, weights):
    """Of a quadratic of the worker's own: curvatures and optima differ."""
    generator = torch.Generator().manual_seed(rank + 1)
    return [
        (1 + torch.rand(w.shape, generator=generator, dtype=torch.float64))
        * (w - torch.randn(w.shape, generator=generator, dtype=torch.float64))
        for w in weights
    ]


def simulated(layers, groups):
    """Each worker's weights at the end, from the rules written out."""
    theta = [start() for _ in range(WORKERS)]
    velocity = [[torch.zeros_like(w) for w in start()] for _ in range(WORKERS)]
    slow = [[start() for _ in range(WORKERS)] for _ in layers]
    buffer = [[[torch.zeros_like(w) for w in start()] for _ in range(WORKERS)] for _ in layers]
    for step in range(1, STEPS + 1):
        for rank in range(WORKERS):
            for w, v, g in zip(theta[rank], velocity[rank], gradient(rank, theta[rank]), strict=True):
                v.mul_(MOMENTUM).add_(g)
                w.sub_(LR * v)
        period = 1
        for depth, (k, alpha, mu) in enumerate(layers):
            period *= k
            if step % period:
                break
            below = theta if depth == 0 else slow[depth - 1]
            means = [mean(below, rank, groups[depth]) for rank in range(WORKERS)]
            for rank in range(WORKERS):
                for i, target in enumerate(means[rank]):
                    phi, b = slow[depth][rank][i], buffer[depth][rank][i]
                    d = phi - target
                    b.mul_(mu).add_(d)
                    phi.sub_(alpha * (d + mu * b))
            for lower in (theta, *slow[:depth]):
                for rank in range(WORKERS):
                    lower[rank] = copy.deepcopy(slow[depth][rank])
    return theta


def mean(weights, rank, group):
    node = next(node for node in NODES if rank in node)
    members = {
        None: [rank],
        "node": node,
        "all": range(WORKERS),
        "across": [other[node.index(rank)] for other in NODES],
    }[group]
    return [sum(weights[r][i] for r in members) / len(members) for i in range(len(SHAPES))]


def make(params, layers, groups, **inner):
    from nested_lookahead.optim import layer_of

    made = [layer_of(k, alpha, "none", "constant", mu, True) for k, alpha, mu in layers]
    return MultilayerLookahead(torch.optim.SGD(params, lr=LR, momentum=MOMENTUM), made, groups=groups, **inner)


def train(rank, make_optimizer):
    params = [torch.nn.Parameter(w) for w in start()]
    optimizer = make_optimizer(params)
    for _ in range(STEPS):
        for param, g in zip(params, gradient(rank, [p.detach() for p in params]), strict=True):
            param.grad = g
        optimizer.step()
    return params, optimizer


def worker(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORKERS)
    nodes = [dist.new_group(node) for node in NODES]
    across = [dist.new_group(list(place)) for place in zip(*NODES, strict=True)]
    alone = [dist.new_group([r]) for r in range(WORKERS)]
    here = {
        None: None,
        "node": Group(nodes[rank // 2]),
        "all": Group(),
        "across": Group(across[rank % 2]),
        "all in bf16": Group(wire=torch.bfloat16),
        "alone": Group(alone[rank]),
    }
    sent, reduce = [], dist.all_reduce

    def counted(tensor, *arguments, **options):
        sent.append(tensor.numel() * tensor.element_size())
        return reduce(tensor, *arguments, **options)

    dist.all_reduce = counted
    found = {}
    for name, case in CASES.items():
        groups = [here[group] for group in case["groups"]]
        sent.clear()
        params, optimizer = train(rank, functools.partial(make, layers=case["layers"], groups=groups))
        syncs = [STEPS // period for period in periods(case["layers"])]
        steps_of = bytes_per_step(optimizer)
        planned = sum(n * per * p for n, per, p in zip(syncs, steps_of, periods(case["layers"]), strict=True))
        found[name] = {"weights": [p.detach() for p in params], "sent": sum(sent), "planned": planned}
    bf16 = functools.partial(make, layers=CASES["DiLoCo"]["layers"], groups=[here["all in bf16"]])
    found["bf16"] = {"weights": [p.detach() for p in train(rank, bf16)[0]]}
    plain = functools.partial(make, layers=CASES["nested"]["layers"])
    pair = [train(rank, functools.partial(plain, groups=groups))[0] for groups in (None, [here["alone"]] * 2)]
    found["one worker"] = all(torch.equal(a, b) for a, b in zip(*pair, strict=True))
    torch.save(found, f"{folder}/found.{rank}")
    dist.barrier()
    if rank == WORKERS - 1:
        os._exit(0)  # dies
    try:
        train(rank, functools.partial(make, layers=CASES["DiLoCo"]["layers"], groups=[here["all"]]))
    except RuntimeError as error:
        torch.save([str(error), *error.__notes__], f"{folder}/error.{rank}")
    os._exit(0)


def periods(layers):
    made, period = [], 1
    for k, *_ in layers:
        period *= k
        made.append(period)
    return made


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What each of the four workers found."""
    folder = tmp_path_factory.mktemp("workers")
    mp.spawn(worker, args=(free_port(), str(folder)), nprocs=WORKERS)
    return folder, [torch.load(folder / f"found.{rank}", weights_only=True) for rank in range(WORKERS)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_workers_do_what_they_do_written_out(ended, name):
    expected = simulated(**CASES[name])
    for rank, found in enumerate(ended[1]):
        torch.testing.assert_close(found[name]["weights"], expected[rank], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_they_send_is_what_was_counted(ended, name):
    for found in ended[1]:
        assert found[name]["sent"] == pytest.approx(found[name]["planned"])
        assert found[name]["sent"] > 0


@pytest.mark.slow
def test_a_mean_in_16_bits_is_close(ended):
    expected = simulated(**CASES["DiLoCo"])
    for rank, found in enumerate(ended[1]):
        torch.testing.assert_close(found["bf16"]["weights"], expected[rank], rtol=0.02, atol=0.02)


@pytest.mark.slow
def test_one_worker_is_the_optimizer_without_a_group_to_the_bit(ended):
    assert [found["one worker"] for found in ended[1]] == [True] * WORKERS


@pytest.mark.slow
def test_a_worker_that_dies_is_named_as_the_cause(ended):
    for rank in range(WORKERS - 1):
        message, note = torch.load(ended[0] / f"error.{rank}", weights_only=True)
        assert message == "a mean over 4 workers failed, as one died or did not answer"
        assert note == "while 1 layer(s) synced after 5 fast steps"


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    """As one worker, in this process: ``torchrun`` starts several."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/workers.md").read_text(), flags=re.DOTALL)
    for name, value in only_process().items():
        monkeypatch.setenv(name, value)
    exec(compile(code, "workers.py", "exec"), {})
    assert capsys.readouterr().out == "[1.0, 1.0, 1.0] (0.0, 0.0)\n"


def only_process():
    """What ``torchrun`` says to the only process that it starts."""
    names = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return {"TORCHELASTIC_RUN_ID": "none", **{name: str(value) for name, value in names.items()}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "joined",
    [
        "import nested_lookahead.communicate; dist.init_process_group('gloo')",
        "from nested_lookahead.training.processes import Processes; Processes.join(); atexit._clear()",
    ],
    ids=["a loop of one's own", "a run"],
)
def test_nothing_keeps_a_process_group_that_was_destroyed(joined):
    """A group that lives on aborts the process at its end, in half of all cases."""
    script = f"""
import atexit, sys, torch, torch.distributed as dist
{joined}
group = dist.group.WORLD
torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
dist.destroy_process_group()
print(sys.getrefcount(group) - 1)  # but for the one that asks
"""
    environment = {**os.environ, **only_process()}
    assert subprocess.check_output([sys.executable, "-c", script], env=environment, text=True) == "1\n"


def halved(below, slow):
    """Stands for a group: what the layer sees is half as far from its slow weights."""
    for a, b in zip(below, slow, strict=True):
        a.copy_((a + b) / 2)


@pytest.mark.parametrize("build", [Lookahead, NestedLookahead])
def test_a_layer_syncs_with_what_its_group_makes_of_the_weights_below(build):
    """A step half as far is half the step size."""
    found = []
    for options in ({"alpha": 0.8, "groups": [halved, None][: 1 if build is Lookahead else 2]}, {"alpha": 0.4}):
        params = [torch.nn.Parameter(w) for w in start()]
        optimizer = build(torch.optim.SGD(params, lr=LR, momentum=MOMENTUM), k=2, **options)
        for _ in range(9):
            for param, g in zip(params, gradient(0, [p.detach() for p in params]), strict=True):
                param.grad = g
            optimizer.step()
        found.append([p.detach() for p in params])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_groups_are_one_per_layer_and_not_saved():
    params = [torch.nn.Parameter(w) for w in start()]
    inner = torch.optim.SGD(params, lr=LR)
    with pytest.raises(ValueError, match="groups must be one per layer, 2, got 1"):
        NestedLookahead(inner, groups=[halved])
    with pytest.raises(TypeError, match="must be callable"):
        Lookahead(inner, groups=["all"])
    optimizer = NestedLookahead(inner, k=2, groups=[halved, None])
    assert "'groups'" not in str(optimizer.state_dict())
    assert bytes_per_step(optimizer) == (0.0, 0.0)
    copied = copy.deepcopy(optimizer)
    assert copied.groups == (halved, None)
