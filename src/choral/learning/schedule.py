"""Step sizes that change from one model version to the next.

A schedule is a text in the task's options, so that it is in the task's digest and every member
follows the same one. It depends on the version alone: nothing is counted, nothing is remembered.
"""

from __future__ import annotations

import math

from choral.errors import ParameterError

FORMS = "constant, exponential:G, step:EVERY:G or cosine:VERSIONS, with G above 0 and at most 1"
_LEAST = 1e-6  # a factor that rounds to nothing would be no step size


def factor(schedule: str, version: int) -> float:
    """What the step size is multiplied with when training starts from model version `version`.

    - `constant`: 1.
    - `exponential:G`: G to the power of the version.
    - `step:EVERY:G`: multiplied by G every so many versions.
    - `cosine:VERSIONS`: half a wave from 1 down to 0.01 (Loshchilov and Hutter 2017, eq. 5, without
      restarts), and 0.01 from there on.

    Raises `ParameterError` for another form, or numbers out of range.

    >>> factor("constant", 7), factor("exponential:0.5", 2), factor("step:10:0.1", 19)
    (1.0, 0.25, 0.1)
    >>> [round(factor("cosine:10", version), 3) for version in (0, 5, 10, 11)]
    [1.0, 0.505, 0.01, 0.01]
    """
    name, *numbers = schedule.split(":")
    try:
        if name == "constant" and not numbers:
            return 1.0
        if name == "exponential":
            (gain,) = numbers
            return max(_gain(gain) ** version, _LEAST)
        if name == "step":
            every, gain = numbers
            return max(_gain(gain) ** (version // _count(every)), _LEAST)
        if name == "cosine":
            (versions,) = numbers
            part = min(1.0, version / _count(versions))
            return 0.01 + 0.99 * (1 + math.cos(math.pi * part)) / 2
    except ValueError:
        pass
    raise ParameterError(f"schedule is {schedule!r}, expected {FORMS}", hint="for example step:30:0.5")


def _gain(text: str) -> float:
    gain = float(text)
    if not 0 < gain <= 1:
        raise ValueError(text)
    return gain


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count
