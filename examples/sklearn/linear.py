"""A linear classifier of scikit-learn in a federation, on 8x8 digits.

    pip install "choral[sklearn]"
    choral data split shards/                            # 1,797 real digits for three members
    choral init fed/ --members 3 --shards shards/ --rounds 15 --model examples/sklearn/linear.py:trainer
    choral serve fed/aggregator
    python examples/sklearn/linear.py fed/member-1 shards/client_1_data.npy  # and 2, and 3
    choral predict fed/aggregator --data shards/test_data.npy --model examples/sklearn/linear.py:trainer

`logistic` is another one to try: --model examples/sklearn/linear.py:logistic
"""

import sys

from sklearn.linear_model import LogisticRegression, SGDClassifier

from choral.cli.terminal import show
from choral.client import participate
from choral.client.sklearn import SklearnTrainer

trainer = SklearnTrainer(
    SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.1), features=64, classes=10, epochs=5
)
logistic = SklearnTrainer(LogisticRegression(warm_start=True, max_iter=5), features=64, classes=10)

if __name__ == "__main__":
    record = participate(sys.argv[1], sys.argv[2], trainer, report=show)  # says what happens
    print(f"training is over at version {record.version}")
