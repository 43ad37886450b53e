"""Model 3 of the report: a larger network, held back by L2 and random flips.

python main.py --config=configs/model3.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.epochs = 40
    config.batch_size = 128
    config.augment.flip = True
    config.model.blocks = (
        base.conv_block(64, l2=0.001),
        base.conv_block(128, l2=0.001),
        base.conv_block(256, l2=0.001),
        base.conv_block(256, l2=0.001, pool=1),
    )
    config.model.dense = (128, 64)
    config.early_stopping.enabled = True
    return config
