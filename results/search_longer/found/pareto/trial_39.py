"""Found by a search, in trial 39 of 47.

With validation accuracy 63.92%, 701,642 parameters, 26.2 M multiply-adds, 3 min.

python main.py --config=runs/search_longer/pareto/trial_39.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model(
        "cnn",
        blocks=(
            base.conv_block(48, batch_norm=True, dropout=0.2, l2=0.001),
            base.conv_block(104, batch_norm=True, dropout=0.2, l2=0.001),
            base.conv_block(216, batch_norm=True, dropout=0.2, l2=0.001),
        ),
        dense=(128, 64),
    )
    config.epochs = 4
    config.batch_size = 32
    config.data.train_images = 12500
    config.augment.flip = True
    config.schedule.name = "one_cycle"
    return config
