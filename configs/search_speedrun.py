"""Search for the best five minutes of the speedrun's recipe: its widths, epochs and learning rate.

python main.py --mode=search --config=configs/search_speedrun.py

The five minutes are those of the train steps, measured on this machine before a trial begins: with
both cores, so start one worker.

python main.py --config=configs/search_speedrun.py:speedrun_cpu

trains another config on the same images, to compare it with the trials.
"""

import importlib

from configs import base


def get_config(which: str = ""):
    config = importlib.import_module(f"configs.{which or 'speedrun_cpu'}").get_config()
    config.data.validation_fraction = 0.1
    if which:
        return config
    # Half of the space keeps the limit. The learning rate is that of Muon.
    config.search.space = (
        base.choose("model.widths[0]", low=24, high=56, step=8),
        base.choose("model.widths[1]", low=64, high=192, step=32),
        base.choose("model.widths[2]", low=64, high=256, step=64),
        base.choose("epochs", low=2, high=4),
        base.choose("optimizer.learning_rate", low=0.06, high=0.24, log=True),
    )
    config.search.max_minutes = 5.0
    config.search.trials = 60
    config.search.minutes = 90.0
    return config
