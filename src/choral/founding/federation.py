"""A new federation: the task that all agree on, and a folder for each participant."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from choral.data import load_shard
from choral.errors import ParameterError
from choral.federation.enrolment import Federation
from choral.federation.files import checked
from choral.federation.task import Task
from choral.founding.authority import Tls
from choral.founding.defaults import ROUNDS, model_options, rule_of
from choral.founding.folders import provision
from choral.founding.trainers import trainer_for
from choral.learning import model_file
from choral.learning.update import schema_of
from choral.vectors.fixed_point import LARGEST_COHORT


def found(
    folder: str | os.PathLike[str],
    members: Sequence[str],
    *,
    shards: Sequence[str | os.PathLike[str]] = (),
    features: int | None = None,
    classes: int | None = None,
    weight_cap: int | None = None,
    model: str = "softmax",
    options: Mapping[str, Any] | None = None,
    rounds: int = ROUNDS,
    rule: str | None = None,
    rule_options: Mapping[str, Any] | None = None,
    minimum: int | None = None,
    tolerated: int | str = "quarter",
    largest_cohort: int | None = None,
    holdout: float = 0.2,
    url: str = "http://127.0.0.1:8750",
    seed: int = 0,
    tls: Tls | None = None,
    each: Callable[[list[str]], Iterable[str]] = list,
    **rest: Any,
) -> tuple[Federation, Task]:
    """Make the folders of a new federation: one for the aggregator, one for each of the `members`.

    Args:
        folder: a new folder; `folder/aggregator` goes to whoever runs it, `folder/NAME` to that member.
        members: their names.
        shards: where features, classes and weight cap are read from, as far as they are not given.
        features: values an example.
        classes: 2 to 256; at least 10 if it is read off shards.
        weight_cap: training examples of a member that count at most.
        model: softmax, mlp, or a person's own as FILE.py:NAME.
        options: of the model; those of a built-in one have defaults.
        rounds: versions to train.
        rule, rule_options: how a mean is applied; server momentum, or plain means for one's own model.
        minimum: n_min; 3, or 2 of 2.
        tolerated: c, a number or "quarter".
        url: where members find the aggregator.
        seed: of the first model and of training.
        tls: certificates, as `founding.authority` makes them.
        each: hands on the names, to show how far it is.
        rest: further fields of the task.

    Returns:
        What all participants agree on.

    Raises:
        ParameterError: a folder that exists, or a task or a federation that cannot be.
        ShardError: a shard that is none.
    """
    looked_at = [load_shard(path) for path in shards]
    if looked_at:
        features = features or looked_at[0].images.shape[1]
        classes = classes or max(10, max(int(shard.labels.max()) for shard in looked_at) + 1)
        weight_cap = weight_cap or max(math.ceil(len(shard) * (1 - holdout)) for shard in looked_at)
    if not features or not weight_cap:
        raise ParameterError(
            "features and weight cap of the task are not known",
            hint="give --shards FOLDER, or --features and --weight-cap (examples in the largest shard)",
        )
    chosen = model_options(model, options or {})
    applied = rule_of(model, rule, rule_options or {})  # the aggregator would refuse it at its start
    name, trainer = trainer_for(model, features, classes or 10, chosen)
    parameters = trainer.initial(np.random.default_rng(seed))
    initial = model_file.encode(parameters)
    task = checked(
        Task,
        {
            "model": {
                "name": name,
                "features": features,
                "classes": classes or 10,
                "arrays": dict(schema_of(parameters)),
                "initial": model_file.digest(initial).hex(),
                "options": {} if name == "custom" else chosen,
            },
            "rule": {"name": applied.name, "options": dict(applied.options)},
            "rounds": rounds,
            "largest_cohort": largest_cohort or min(len(members), LARGEST_COHORT),
            "weight_cap": weight_cap,
            "holdout": holdout,
            "seed": seed,
            "name": "federation",
            **rest,
        },
        "the task",
    )
    federation = provision(
        Path(folder),
        url=url,
        members=members,
        task=task,
        initial=initial,
        minimum=minimum or min(3, len(members)),
        tolerated=tolerated,
        random=os.urandom,
        tls=tls,
        each=each,
    )
    return federation, task
