"""Whatever a person names as a file or a folder gets a sentence: no library's exception, and no markup."""

import numpy as np
import pytest
from click.testing import CliRunner

from choral.cli.data import data
from choral.data import save_shard
from choral.errors import ChoralError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with good files of each kind, and with things that are not what they are taken for."""
    monkeypatch.chdir(tmp_path)
    save_shard("shard.npy", np.eye(4), [0, 1, 2, 3])
    np.save("X.npy", np.eye(4))
    np.save("y.npy", np.arange(4))
    (tmp_path / "a.csv").write_text("a,y\n1.5,0\n2,1\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("no shard, no table")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(data, [*map(str, arguments)])


PLACES = [
    "missing",
    "folder",
    "file",
    "file/below",
    "missing/below",
    "n" * 300,
    "",
    "folder/",
    "[/red]",
    "a\nb",
]
VERBS = {
    "split from": lambda place: ("split", "out", "--data", place, "--members", 1),
    "split to": lambda place: ("split", place, "--data", "shard.npy", "--members", 1, "--test", 0),
    "mnist from": lambda place: ("mnist", place, "out"),
    "from-npy X": lambda place: ("from-npy", place, "y.npy", "out.npy"),
    "from-npy y": lambda place: ("from-npy", "X.npy", place, "out.npy"),
    "from-npy to": lambda place: ("from-npy", "X.npy", "y.npy", place),
    "from-csv from": lambda place: ("from-csv", place, "out.npy", "--label", "y"),
    "from-csv to": lambda place: ("from-csv", "a.csv", place, "--label", "y"),
    "show from": lambda place: ("show", place, "-o", "out.png"),
    "show to": lambda place: ("show", "shard.npy", "-o", place),
    "inspect": lambda place: ("inspect", place),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("place", PLACES, ids=lambda place: repr(place[:12]))
@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_will_not_do_gets_a_sentence(verb, place):
    ran = run(*VERBS[verb](place))
    if ran.exit_code in (0, 2):  # it will do, or click has said why not
        return
    assert isinstance(ran.exception, ChoralError), ran.exception
    assert ran.exception.hint
    assert "Errno" not in ran.exception.reason


def test_brackets_in_a_path_are_shown_and_not_obeyed(here):
    for name in ("[bold]x[/bold]", "[/red]", "[link=http://x]y"):
        place = here / name.replace("/", "-")
        shown = name.replace("/", "-")
        ran = run("split", place, "--data", "shard.npy", "--members", 1, "--test", 0)
        assert f"{shown}" in ran.output.replace("\n", "")
        shard = place / "client_1_data.npy"
        assert shown in run("inspect", shard).output.replace("\n", "")


@pytest.mark.usefixtures("here")
def test_two_values_for_a_column_in_the_options_are_refused():
    one = ("from-csv", "a.csv", "out.npy", "--label", "y")
    for more, found in (
        (("--columns", "a,a"), "'a' more than once"),
        (("--drop", "a,,b"), "an empty name"),
        (("--one-hot", "a=1,2", "--one-hot", "a = 1,2"), "'a' more than once"),
        (("--one-hot", "a=1,2,1"), "'1' more than once"),
        (("--classes", "0, 0"), "'0' more than once"),
    ):
        ran = run(*one, *more)
        assert isinstance(ran.exception, ChoralError)
        assert found in ran.exception.reason


def test_two_splits_do_not_mix_in_one_folder(here):
    def split(members):
        return run("split", "out", "--data", "shard.npy", "--members", members, "--test", 0)

    assert split(3).exit_code == split(4).exit_code == split(4).exit_code == 0
    before = {path.name: path.read_bytes() for path in (here / "out").iterdir()}
    ran = split(2)
    assert isinstance(ran.exception, ChoralError)
    assert "found client_3_data.npy of another split" in ran.exception.reason
    assert {path.name: path.read_bytes() for path in (here / "out").iterdir()} == before
