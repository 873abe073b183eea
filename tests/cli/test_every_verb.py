"""Whatever is given to whichever option: a sentence and what to do, never a library's exception."""

from __future__ import annotations

import gc
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import structlog

from choral.cli import cli, main
from choral.cli import demo as demo_verb
from choral.cli import federation as federation_verb
from choral.data import save_shard
from choral.service.serve import serve as run_aggregator

ENOUGH = 0.4  # seconds after which a value counts as taken: the verb works, and is stopped as by Ctrl-C

NEW = "{new}"  # a path where nothing is yet, another one in every call
BASES = {
    "demo": "--members 2 --rounds 1 --no-kill --data npy:shards",
    "init": f"{NEW} --members 3 --features 4 --weight-cap 10",
    "serve": "fed/aggregator --port 0",
    "join": "fed/member-1 --data shards/client_1_data.npy --url http://127.0.0.1:9 --patience 0",
    "status": "fed/aggregator",
    "readmit": "fed/aggregator member-1",
    "log": "fed/aggregator",
    "watch": "fed/aggregator --once",
    "plot": f"fed/aggregator --out {NEW}.html",
    "doctor": "fed/member-1 http://127.0.0.1:9 --data shards/client_1_data.npy",
    "predict": "fed/aggregator --data shards/client_1_data.npy",
    "model export": f"fed/aggregator {NEW}.safetensors",
    "data split": f"{NEW} --data shards/client_1_data.npy --members 2 --count 20",
    "data mnist": f"mnist {NEW} --members 2",
    "data from-npy": f"X.npy y.npy {NEW}.npy",
    "data from-csv": f"table.csv {NEW}.npy --label kind",
    "data show": f"shards/client_1_data.npy --out {NEW}.png --shape 2x2",
    "data inspect": "shards/client_1_data.npy",
    "simulate": "--members 4 --cohort 4 --rounds 1 --data shards/client_1_data.npy --option epochs=1",
    "compare": "--members 2 --rounds 1 --data shards/client_1_data.npy --seeds 1 --split iid",
    "tls renew": "private",
    "ping": "fed/aggregator",
    "kubernetes secrets": "fed",
}

# relative ones only: what is accepted is written
PATHS = (
    "nowhere/at/all", "shards", "empty", "garbage", "empty/below", "loop", "a" * 300, "[bold]qqq[/]",
    "[/]", "caf\udce9", "", "pipe", "x.npy", "fed/member-1", "table.csv", "X.npy",
)  # fmt: skip
NUMBERS = (
    "-1", "0", "9" * 30, "1e300", "-1e300", "nan", "inf", "-inf", "1.5", "ten", "0x10", "٣", "", "[/]",
)  # fmt: skip
WORDS = (
    "", "[/]", "[bold]qqq[/]", "caf\udce9", "-1", "9" * 30, "nan", "shards", "empty", "a" * 300, "a/b",
    "a,,b", ",", "a,a", " a , b ", "=", "a=", "=1", "a=nan", "epochs=0", "epochs=ten", "epochs=inf",
    "rate=nan", "softmax:", ":", "broken.py:Model", "raises.py:Model", "none.py:Model", "table.csv:X",
    "npy:", "npy:nowhere", "npy:empty", "npy:shards", "dirichlet:", "dirichlet:0", "dirichlet:nan",
    "dirichlet:-1", "dirichlet:1e-300", "shards:", "shards:0", "shards:99999999", "lognormal:",
    "lognormal:nan", "lognormal:-1", "0x0", "28x", "999999x999999", "best", "1,2,x", "\t", ";;", '"',
    "http://", "http://[::1", "http://a:99999", "http://:5", "http://a:b", "ftp://a", "http://a b",
    "http://u@a", "http://[/]", "http://\udce9", "http://" + "a" * 300, "//", "http://127.0.0.1:9",
)  # fmt: skip

# what a library's exception looks like when it is printed
FOREIGN = re.compile(
    r"Traceback|pydantic|validation error|input_value|\[type=|Errno|object at 0x|<class |"
    r"\b[A-Z]\w*(Error|Exception)\b|errors\.pydantic|WinError|\bNoneType\b"
)


def verbs(group: click.Group = cli, before: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


VERBS = dict(verbs())


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def nothing_of_it_stays() -> Iterator[None]:
    """A verb that runs in this process sets up its logs and its umask: both as before for the next test."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    structlog.reset_defaults()
    os.umask(before)


@pytest.fixture
def place(tmp_path, monkeypatch, capfd):
    """A folder with one of everything, and this process in it."""
    monkeypatch.chdir(tmp_path)
    Path("empty").write_bytes(b"")
    Path("garbage").write_bytes(bytes(range(256)) * 8)
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    Path("broken.py").write_text("def (:\n")
    Path("raises.py").write_text("raise RuntimeError('on purpose')\n")
    Path("table.csv").write_text("a,b,kind\n1,2,x\n3,4,y\n5,6,x\n")
    Path("mnist").mkdir()
    Path("shards").mkdir()
    rng = np.random.default_rng(1)
    images, y = rng.integers(0, 255, (40, 4), np.uint8), np.arange(40) % 4
    np.save("X.npy", images)
    np.save("y.npy", y)
    for name in ("client_1_data", "client_2_data", "client_3_data", "test_data"):
        save_shard(f"shards/{name}.npy", images, y)
    url = ("--url", "http://127.0.0.1:9")
    assert say(capfd, "init", "fed", "--members", "3", "--shards", "shards", *url).code == 0
    assert say(capfd, "init", "private", "--members", "3", "--shards", "shards", "--tls").code == 0
    assert say(capfd, "serve", "fed/aggregator", "--port", "0").code in (0, 130)  # there is a version 0 now
    return tmp_path


def say(capfd, *arguments: str) -> Said:
    """What `choral …` says, in this process; stopped like by Ctrl-C when it goes on."""
    code = 0
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, ENOUGH, 0.2)
    try:
        main(arguments)
    except SystemExit as error:
        code = error.code or 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if code == 130:  # what was stopped in the middle ends here, and not in the middle of another test
            gc.collect()
    out, err = capfd.readouterr()
    return Said(code, out, err)


def values_for(parameter: click.Parameter) -> tuple[str, ...]:
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return ("", "other", "[/]")
    if isinstance(kind, click.Path):
        return PATHS
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        return NUMBERS
    return WORDS


def wrong_lines(verb: str) -> Iterator[list[str]]:
    """A command line for each value of each option and argument."""
    base = BASES[verb].split()
    command = VERBS[verb]
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            yield [*base, f"{parameter.opts[0]}=x"]
            continue
        for value in values_for(parameter):
            if isinstance(parameter, click.Argument):
                place = arguments.index(parameter)
                yield (
                    ["--", *[*base[:place], value, *base[place + 1 :]]]
                    if not any(part.startswith("-") for part in base)
                    else [
                        *base[:place],
                        *([value] if not value.startswith("-") else ["x"]),
                        *base[place + 1 :],
                    ]
                )
            else:
                yield [*base, f"{parameter.opts[0]}={value}" if parameter.opts[0].startswith("--") else value]


def test_every_verb_has_a_line_to_start_from():
    assert set(BASES) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_value_ends_in_a_sentence_with_a_hint(verb, place, capfd, monkeypatch):
    def started(*_: object, **__: object) -> None:
        raise KeyboardInterrupt  # everything was accepted; from here on there would be processes

    async def serving(*given: object, started: Callable[[str], None], **more: object) -> None:
        def stop(_: str) -> None:
            raise KeyboardInterrupt

        await run_aggregator(*given, started=stop, **more)

    monkeypatch.setattr(demo_verb, "_play", started)
    monkeypatch.setattr(federation_verb, "run_aggregator", serving)
    wrong = []
    for number, line in enumerate(wrong_lines(verb)):
        given = [*verb.split(), *(part.replace(NEW, f"new-{number}") for part in line)]
        try:
            said = say(capfd, *given)
        except Exception as error:
            capfd.readouterr()
            wrong.append(f"{given}: {type(error).__name__}: {error}")
            continue
        if problem := lacking(verb, said):
            wrong.append(f"{given}: {problem}: exit {said.code}: {said.err.strip() or said.out.strip()!r}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)


def lacking(verb: str, said: Said) -> str | None:
    # of a person's own file its own error is told
    if foreign := FOREIGN.search(re.sub(r"raised \w+Error", "raised an error", said.err + said.out)):
        return f"a library speaks ({foreign[0]})"
    if "qqq" in said.err + said.out and "[bold]qqq[" not in said.err + said.out:
        return "what a person wrote was taken as markup"
    if said.code in (0, 2, 130):
        return "no way to the help" if said.code == 2 and "Try 'choral" not in said.err else None
    if said.code not in (1, 75):
        return "an exit code that nobody knows"
    told = said.out if verb == "doctor" and not said.err else said.err
    sentence, hint = re.search(r"error:\s*\S|not well: |fail", told), re.search(r"hint: \S|-> \S", told)
    return None if sentence and hint else "no sentence with a hint"
