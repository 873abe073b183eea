"""The same with a head of its own for every member: the convolution is learned by all, the decision alone.

    choral init fed/ --members 3 --shards shards/ --rounds 15 --model examples/pytorch/head.py:trainer
    choral join fed/member-1 --data shards/client_1_data.npy --model examples/pytorch/head.py:trainer

The arrays of the last layer are in no task, no vector and no log. Each member keeps its own in its
state folder, and measures with it: `choral predict fed/member-1 …`
"""

import torch
from torch import nn

from choral.client.torch import TorchTrainer
from choral.learning import Personal


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        return self.head(self.body(x))


whole = TorchTrainer(Net, lambda p: torch.optim.SGD(p, lr=0.05), shape=(1, 8, 8), epochs=2)
trainer = Personal(whole, "head.*")
