"""A PyTorch module of your own in a federation: a small convolutional network on 8x8 digits.

pip install "choral[torch]"
choral data split shards/                            # 1,797 real digits for three members
choral init fed/ --members 3 --shards shards/ --rounds 15 --model examples/pytorch/net.py:trainer
choral serve fed/aggregator
python examples/pytorch/net.py fed/member-1 shards/client_1_data.npy     # and 2, and 3
choral predict fed/aggregator --data shards/test_data.npy --model examples/pytorch/net.py:trainer
"""

import sys

import torch
from torch import nn

from choral.cli.terminal import show
from choral.client import participate
from choral.client.torch import TorchTrainer


def net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    )


trainer = TorchTrainer(net, lambda p: torch.optim.SGD(p, lr=0.05), shape=(1, 8, 8), epochs=2)

if __name__ == "__main__":
    record = participate(sys.argv[1], sys.argv[2], trainer, report=show)  # says what happens
    print(f"training is over at version {record.version}")
