"""A search whose trials train next to nothing: its time is what a search adds."""

from configs import base


def get_config():
    config = base.get_config()
    config.data.name = "digits"
    config.epochs = 1
    config.batch_size = 256
    config.model.blocks = (base.conv_block(8, kernel=1, pool=4),)
    config.model.dense = ()
    config.search.space = (
        base.choose("optimizer.learning_rate", low=1e-3, high=1e-1, log=True),
        base.choose("label_smoothing", low=0.0, high=0.2),
    )
    return config
