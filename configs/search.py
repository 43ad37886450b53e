"""Architecture search: networks that beat the final model, for fewer multiply-adds or as many.

python main.py --mode=search --config=configs/search.py

Only the network is searched: all else is the final model's. A trial trains on 10,000 images for
four epochs, which is too short to tell how much dropout or L2 a whole training needs. The same
command in a second terminal, or on another machine, is a second worker: see docs/search.md.

python main.py --config=configs/search.py:final

trains the network of another config as the trials are trained, to compare it with them.
"""

import importlib

from configs import base


def get_config(which: str = ""):
    config = importlib.import_module(f"configs.{which or 'final'}").get_config()
    config.data.train_images = 10_000
    config.epochs = 4
    config.batch_size = 64  # enough steps for batch norm's running averages to settle
    config.schedule.name = "one_cycle"
    config.plateau.enabled = False
    config.early_stopping.enabled = False
    if which:
        return config
    config.search.space = (
        base.choose("model.blocks", low=2, high=5),
        base.choose("model.blocks[*].filters", low=16, high=96, step=8, growth=2.5),
        base.choose("model.blocks[*].convolutions", low=1, high=3),
        base.choose("model.blocks[*].batch_norm", choices=(True, False)),
        base.choose("model.dense", choices=((), (64,), (128,), (128, 64))),
    )
    config.search.objectives = ("accuracy", "multiply_adds")
    config.search.max_multiply_adds = 58_663_552  # the final model's
    config.search.trials = 200
    config.search.minutes = 60.0
    return config
