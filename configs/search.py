"""Architecture search: a better network than the final model, for at most its multiply-adds.

python main.py --mode=search --config=configs/search.py

A trial sees a third of the training images for a few epochs; half of the trials are stopped
earlier. The same command in a second terminal, or on another machine with a storage that both can
reach, is a second worker: see docs/search.md.
"""

from configs import base, final


def get_config():
    config = final.get_config()
    config.data.train_images = 15_000
    config.epochs = 6
    config.schedule.name = "one_cycle"
    config.plateau.enabled = False
    config.early_stopping.enabled = False
    config.model.blocks = (base.conv_block(64, batch_norm=True, l2=1e-4),)
    config.search.space = (
        base.choose("model.blocks", low=2, high=5),
        base.choose("model.blocks[*].filters", low=16, high=96, step=8, growth=2.5),
        base.choose("model.blocks[*].convolutions", low=1, high=3),
        base.choose("model.blocks[*].kernel", choices=(3, 5)),
        base.choose("model.blocks[*].batch_norm", choices=(True, False)),
        base.choose("model.blocks[*].dropout", low=0.0, high=0.3),
        base.choose("model.blocks[*].l2", low=1e-5, high=1e-3, log=True),
        base.choose("model.dense", choices=((), (64,), (128,), (128, 64))),
        base.choose("model.dense_dropout", low=0.0, high=0.5),
        base.choose("optimizer.learning_rate", low=3e-4, high=1e-2, log=True),
    )
    config.search.max_multiply_adds = 58_663_552  # the final model's
    config.search.pruner = "halving"
    config.search.trials = 60
    config.search.minutes = 90.0
    return config
