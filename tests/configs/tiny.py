"""A run of seconds with every kind of state: batch norm, dropout, EMA, plateau, early stopping."""

from configs import base


def get_config():
    config = base.get_config()
    config.data.name = "digits"
    config.data.standardize = True
    config.epochs = 3
    config.batch_size = 32
    config.augment.crop_padding = 2
    config.model.blocks = (
        base.conv_block(4, batch_norm=True, pool=4, dropout=0.1, l2=0.001),
        base.conv_block(8, padding="VALID"),
    )
    config.model.dense = (16,)
    config.optimizer.learning_rate = 0.01
    config.optimizer.ema_decay = 0.9
    config.plateau.enabled = True
    config.plateau.patience = 1
    config.early_stopping.enabled = True
    config.eval.batch_size = 64
    config.checkpoint.every_steps = 10
    return config
