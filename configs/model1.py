"""Model 1 of the report: three convolutions and nothing against overfitting.

python main.py --config=configs/model1.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.epochs = 20
    config.batch_size = 64
    config.model.blocks = (
        base.conv_block(32, padding="VALID"),
        base.conv_block(64, padding="VALID"),
        base.conv_block(64, padding="VALID", pool=1),
    )
    config.model.dense = (64,)
    return config
