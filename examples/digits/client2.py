"""Client 2 of docker-compose.yml. Change what you like: your own .npy, a trainer, what events do."""

import os

from choral.cli.terminal import leave, show
from choral.client import participate
from choral.errors import ChoralError

DATA = os.environ.get("CHORAL_DATA", "shards/client_2_data.npy")
FOLDER = os.environ.get("CHORAL_FOLDER", "fed/client2")
try:
    participate(FOLDER, DATA, state=os.environ.get("CHORAL_STATE"), report=show)
except ChoralError as error:
    leave(error)  # a sentence and a hint
