"""Longer training of the final model, the second future development that the report names.

python main.py --config=configs/final_long.py

The same network. More epochs alone would overfit and wait for a learning rate that falls only when
the validation loss stalls: so the pictures are also shifted by up to four pixels and lose a square
of eight, and the rate falls along a cosine to 0. The L2 penalty becomes decoupled weight decay, of
all kernels: Adam would divide the penalty's gradient by the size of the loss' and so shrink least
what moves most (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101). All 150 epochs are
made; the test uses the best of them, as before.

On two CPU cores 45 to 75 seconds an epoch, two to three hours in all. What it reaches: README.md's
tables.
"""

from configs import final


def get_config():
    config = final.get_config()
    config.epochs = 150
    config.augment.crop_padding = 4
    config.augment.cutout = 8
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.1
    for block in config.model.blocks:
        block.l2 = 0.0
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 3.0
    config.plateau.enabled = False
    config.early_stopping.enabled = False
    return config
