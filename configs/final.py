"""The final model of the report: batch norm, dropout, L2, early stopping, plateau schedule.

python main.py --config=configs/final.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.epochs = 40
    config.batch_size = 128
    config.augment.flip = True
    config.model.blocks = (
        base.conv_block(64, batch_norm=True, dropout=0.2, l2=0.001),
        base.conv_block(128, batch_norm=True, dropout=0.2, l2=0.001),
        base.conv_block(256, batch_norm=True, dropout=0.2, l2=0.001),
        base.conv_block(512, batch_norm=True, dropout=0.5, l2=0.001),
    )
    config.model.dense = (128, 64)
    config.plateau.enabled = True
    config.early_stopping.enabled = True
    return config
