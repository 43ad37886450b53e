"""A search of seconds: networks of 1x1 convolutions on the digits."""

from configs import base


def get_config():
    config = base.get_config()
    config.data.name = "digits"
    config.epochs = 3
    config.batch_size = 128
    config.model.blocks = (base.conv_block(8, kernel=1, pool=4),)
    config.model.dense = ()
    config.optimizer.learning_rate = 0.03
    config.search.space = (
        base.choose("model.blocks", low=1, high=2),
        base.choose("model.blocks[*].filters", low=4, high=64, growth=2.0),
        base.choose("optimizer.learning_rate", low=1e-3, high=1e-1, log=True),
    )
    config.search.trials = 4
    config.search.heartbeat = 4  # a busy machine may miss some
    config.search.patience = 5.0
    return config
