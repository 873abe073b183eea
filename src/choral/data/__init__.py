"""What is learned from: shards on disk, digits to try things with, ways to split them."""

from choral.data.digits import load_digits
from choral.data.shard import Shard, save_shard
from choral.data.shard import load as load_shard
from choral.data.synthetic import synthetic_digits

__all__ = ["Shard", "load_digits", "load_shard", "save_shard", "synthetic_digits"]
