"""Every file operation can fail in every way, and nothing that was finished or saved is gone."""

import random

import pytest
import torch
from faulty import KINDS, STEPS, faults_of, jobs_alone, launch, metrics, undisturbed, whole_command

from nested_lookahead.runs import checkpoints

POINTS = 10
"""Of each kind in this suite, at random; ``benchmarks/faults.py --points`` takes them all."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """By what is run: its number of file operations, and its metrics."""
    return {main: undisturbed(tmp_path_factory.mktemp("undisturbed"), main) for main in (jobs_alone, whole_command)}


def assert_clear(tmp_path, main, kind, points, expected):
    for at in points:
        folder = tmp_path / f"{at}"
        folder.mkdir()
        assert faults_of(folder, main, at, kind, expected) == ("clear", ""), f"{kind} at operation {at}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_failing_file_operation_loses_nothing(tmp_path, reference, kind):
    operations, expected = reference[jobs_alone]
    assert operations > 300
    points = random.Random(kind).sample(range(1, operations + 1), POINTS)
    assert_clear(tmp_path, jobs_alone, kind, points, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGKILL", "EIO", "ENOSPC"])
def test_a_failing_file_operation_of_a_whole_command_loses_nothing(tmp_path, reference, kind):
    operations, expected = reference[whole_command]
    points = random.Random(kind).sample(range(1, operations + 1), 2)
    assert_clear(tmp_path, whole_command, kind, points, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGKILL", "EIO", "KeyboardInterrupt"])
def test_one_of_two_launches_meets_a_fault(tmp_path, reference, kind):
    """The other one is none the worse, and what is left is whole."""
    operations, expected = reference[jobs_alone]
    for at in random.Random(kind).sample(range(1, operations + 1), 5):
        folder, beside = tmp_path / f"{at}", tmp_path / f"{at}-beside"
        folder.mkdir()
        beside.mkdir()
        (beside / "outputs").symlink_to(folder / "outputs")
        (folder / "outputs").mkdir()
        ends = [launch(folder, jobs_alone, at, kind), launch(beside, jobs_alone)]
        for left in [end() for end in ends]:
            assert left.ends_in_one_line(), left.printed
        assert launch(folder, jobs_alone)().status == 0
        assert metrics(folder) == expected


def test_the_shim_counts_and_fails(tmp_path, reference):
    """A test of the test: a fault is met where it is asked for, and half of a write is written."""
    left = launch(tmp_path, jobs_alone, 1, "EIO")()
    assert left.status == 1
    assert "Input/output error" in left.printed
    assert left.steps < STEPS
    (tmp_path / "killed").mkdir()
    assert launch(tmp_path / "killed", jobs_alone, 200, "SIGKILL")().status == -9
    operations, _ = reference[jobs_alone]
    (tmp_path / "beyond").mkdir()
    assert launch(tmp_path / "beyond", jobs_alone, operations + 1, "SIGKILL")().status == 0


@pytest.mark.slow
def test_no_flipped_bit_of_a_checkpoint_goes_unnoticed(tmp_path):
    path, copy = tmp_path / "checkpoint.pt", tmp_path / "copy.pt"
    state = {"model": {"x": torch.arange(2.0)}, "progress": {"step": 3}}
    with open(path, "wb") as file:
        checkpoints.write(state, file)
    assert checkpoints.read(path)["progress"] == {"step": 3}
    assert torch.equal(torch.load(path, weights_only=True)["model"]["x"], torch.arange(2.0))
    content = bytearray(path.read_bytes())
    for position in range(len(content)):
        for bit in range(8):
            content[position] ^= 1 << bit
            copy.write_bytes(content)
            content[position] ^= 1 << bit
            with pytest.raises(checkpoints.Damaged):
                checkpoints.read(copy)
    for length in range(len(content)):
        copy.write_bytes(content[:length])
        with pytest.raises(checkpoints.Damaged):
            checkpoints.read(copy)
