"""Architecture search with longer trials: fewer networks, chosen nearer to a whole training.

python main.py --mode=search --config=configs/search_longer.py

In the 624 steps of a trial of `configs/search.py`, networks of two blocks win, because they learn
first. Here a trial takes 1,560 steps, of half the batch and a quarter more images, and a network
has at least three blocks. Batch norm is settled: the shorter search chose it. No trial is stopped
early: after an epoch, batch norm's running averages still lag, and the accuracy is near chance.
"""

from configs import base, search


def get_config(which: str = ""):
    config = search.get_config(which)
    config.data.train_images = 12_500
    config.batch_size = 32
    if which:
        return config
    config.search.space = (
        base.choose("model.blocks", low=3, high=5),
        base.choose("model.blocks[*].filters", low=16, high=96, step=8, growth=2.5),
        base.choose("model.blocks[*].convolutions", low=1, high=3),
        base.choose("model.dense", choices=((), (64,), (128,), (128, 64))),
    )
    config.search.objectives = ("accuracy",)
    config.search.minutes = 62.0
    return config
