"""The one door to matplotlib, the extra `pictures`: no window, no state, figures are plain objects."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

from choral.disk import write_whole
from choral.errors import ParameterError


def matplotlib(part: str) -> Any:
    """A module of matplotlib, `figure` or `colors` for example.

    Raises:
        ParameterError: it is not installed.
    """
    try:
        return importlib.import_module(f"matplotlib.{part}")
    except ImportError as error:
        raise ParameterError(
            "pictures are drawn by matplotlib, which is not installed", hint='pip install "choral[pictures]"'
        ) from error


def figure(width: float, height: float) -> Any:
    """An empty figure of so many inches. Raises as `matplotlib` does."""
    return matplotlib("figure").Figure(figsize=(width, height), layout="constrained")


def write(drawn: Any, out: Path, *, hint: str, dpi: int = 150, form: str | None = None) -> None:
    """Write a figure as `form` says, or the suffix of `out`: png, svg, pdf.

    Raises:
        ParameterError: it cannot be written there, or in that form.
    """
    drawn_to = io.BytesIO()
    try:
        drawn.savefig(drawn_to, dpi=dpi, format=form or out.suffix[1:])
        write_whole(out, drawn_to.getvalue())
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"{out}: cannot be written ({getattr(error, 'strerror', None) or error})", hint=hint
        ) from error
