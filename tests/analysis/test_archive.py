"""Archives of studies: what is kept, and that nothing which a stranger packs does any harm."""

import io
import lzma
import os
import tarfile

import pandas as pd
import pytest
from made_runs import make_run

from nested_lookahead.analysis import archive
from nested_lookahead.analysis.asked import gathered
from nested_lookahead.errors import UserError


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        make_run("outputs/made", "sgd", seed=seed, final=0.9 + seed / 100)
    (tmp_path / "outputs/made/more").mkdir()
    make_run("outputs/made/more", "lookahead")
    checkpoint = next((tmp_path / "outputs").glob("**/seed=1")) / "checkpoint.pt"
    checkpoint.write_bytes(os.urandom(100_000))
    return tmp_path


def test_an_archive_reads_like_its_folder(study):
    said = archive.pack([study / "outputs/made"], study / "kept/made.tar.xz")
    assert said.startswith(f"4 runs in {study}/kept/made.tar.xz, ")
    assert (study / "kept/made.tar.xz").stat().st_size < 8_000
    one, other = (gathered([study / path]) for path in ("outputs/made", "kept/made.tar.xz"))
    pd.testing.assert_frame_equal(one.runs.drop(columns="path"), other.runs.drop(columns="path"))
    columns = [column for column in one.metrics if column != "path"]
    pd.testing.assert_frame_equal(one.metrics[columns], other.metrics[columns])
    assert other.runs["path"].str.startswith(f"{study}/kept/made.tar.xz/made/").all()
    assert set(other.metrics["path"]) == set(other.runs["path"])


def test_the_same_runs_make_the_same_bytes_and_nothing_is_left_beside(study):
    contents = set()
    for name in ("a.tar.xz", "b.tar.xz"):
        archive.pack([study / "outputs/made"], study / name)
        contents.add((study / name).read_bytes())
    assert len(contents) == 1
    assert sorted(path.name for path in study.iterdir()) == ["a.tar.xz", "b.tar.xz", "outputs"]


def test_what_cannot_be_packed_is_one_line(study):
    for folder, message in (("nowhere", "no such folder"), ("outputs/made/none", "no run here")):
        (study / "outputs/made/none").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=message):
            archive.pack([study / folder], study / "x.tar.xz")
    (study / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        archive.pack([study / "outputs/made"], study / "file/x.tar.xz")


def member(name, kind=tarfile.REGTYPE, content=b"x", **more):
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, len(content) if kind == tarfile.REGTYPE else 0
    for key, value in more.items():
        setattr(made, key, value)
    return made, content


def packed(path, *members):
    with tarfile.open(path, "w:xz") as file:
        for made, content in members:
            file.addfile(made, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (member("run/summary.json", tarfile.SYMTYPE, linkname="/etc/passwd"), "is neither a file nor a folder"),
        (member("run/summary.json", tarfile.LNKTYPE, linkname="../../x"), "is neither a file nor a folder"),
        (member("run/summary.json", tarfile.FIFOTYPE), "is neither a file nor a folder"),
        (member("run/summary.json", tarfile.CHRTYPE), "is neither a file nor a folder"),
        (member("run/checkpoint.pt"), "is none of config.yaml, metrics.csv"),
        (member("run/run.sh"), "is none of config.yaml, metrics.csv"),
        (member("../outside/summary.json"), "not an archive of runs: .*outside"),
        (member("run/../../summary.json"), "not an archive of runs: .*outside"),
    ],
)
def test_a_strangers_archive_is_refused(tmp_path, made, message):
    (tmp_path / "in").mkdir()
    path = packed(tmp_path / "in" / "x.tar.xz", made)
    with pytest.raises(UserError, match=message) as error:
        gathered([path])
    assert "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["in", "x.tar.xz"]


def test_an_absolute_name_stays_inside(tmp_path):
    target = tmp_path / "target" / "summary.json"
    (tmp_path / "out").mkdir()
    archive.unpack(packed(tmp_path / "x.tar.xz", member(str(target))), tmp_path / "out")
    assert not target.exists()
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 1


def test_limits(tmp_path, monkeypatch):
    many = [member(f"run{i}/summary.json", content=b"x" * 10) for i in range(4)]
    path = packed(tmp_path / "x.tar.xz", *many)
    for limit, message in (("MOST_MEMBERS", "more than 3 members"), ("MOST_BYTES_OF_ONE", "has 10 bytes, more than 3")):
        with monkeypatch.context() as patch, pytest.raises(UserError, match=message):
            patch.setattr(archive, limit, 3)
            archive.unpack(path, tmp_path / limit)
    monkeypatch.setattr(archive, "MOST_BYTES", 39)
    with pytest.raises(UserError, match="more than 39 bytes when unpacked"):
        archive.unpack(path, tmp_path / "all")


def test_a_bomb_in_a_header_is_not_unpacked(tmp_path):
    """Of 64 MiB, in a few kilobytes: a PAX header is read into memory whole."""
    made = tarfile.TarInfo("run/summary.json")
    made.pax_headers = {"comment": "x" * (64 << 20)}
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as file:
        file.addfile(made)
    (tmp_path / "x.tar.xz").write_bytes(lzma.compress(plain.getvalue(), preset=0))
    with pytest.raises(UserError, match="a header of more than a megabyte"):
        gathered([tmp_path / "x.tar.xz"])


def test_a_damaged_archive_is_one_line(study):
    archive.pack([study / "outputs/made"], study / "whole.tar.xz")
    content = (study / "whole.tar.xz").read_bytes()
    damages = {
        "cut": content[: len(content) // 2],
        "text": b"no archive",
        "empty": b"",
        "flipped": content[:500] + bytes([content[500] ^ 255]) + content[501:],
        "xz of text": lzma.compress(b"no archive" * 100),
    }
    for what, damaged in damages.items():
        (study / "x.tar.xz").write_bytes(damaged)
        with pytest.raises(UserError, match=r"x\.tar\.xz: damaged, or no \.tar\.xz: ") as error:
            gathered([study / "x.tar.xz"])
        assert "\n" not in str(error.value), what
    with pytest.raises(UserError, match="no such file"):
        gathered([study / "nowhere.tar.xz"])


def test_what_is_wrong_inside_names_the_archive(study):
    packed(study / "x.tar.xz", member("run/config.yaml"))
    with pytest.raises(UserError, match=rf"^{study}/x\.tar\.xz: no finished run here \(1 left out"):
        gathered([study / "x.tar.xz"])


def test_a_pipe_in_the_place_of_an_archive_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.tar.xz")
    with pytest.raises(UserError, match=r"x\.tar\.xz is no regular file"):
        archive.unpack(tmp_path / "x.tar.xz", tmp_path)
