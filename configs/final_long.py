"""Longer training of the final model, the second item of future work in the report.

python main.py --config=configs/final_long.py

The network is the same. With more epochs alone it would overfit, at a learning rate that falls only
when the validation loss stalls. So images are also shifted by up to four pixels and lose a square
of eight by eight, and the learning rate follows a cosine to 0. Decoupled weight decay of all
kernels replaces the L2 penalty: Adam divides the gradient of the penalty by the size of the whole
gradient, and so shrinks least the weights that move most (Loshchilov & Hutter 2019,
https://arxiv.org/abs/1711.05101). It trains all 150 epochs and tests the best, as before.

An epoch takes 45 to 75 seconds on two CPU cores, a run two to three hours. For its accuracy, see
the tables in README.md.
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
