"""What is learned: models as named float32 arrays, their updates, and the rules that apply them.

A user's own model fills `Trainer`; `Softmax` and `MLP` are built in.
"""

from choral.learning.personal import Personal
from choral.learning.softmax import MLP, Softmax
from choral.learning.trainer import Evaluation, Parameters, Trainer

__all__ = ["MLP", "Evaluation", "Parameters", "Personal", "Softmax", "Trainer"]
