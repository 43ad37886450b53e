"""Found by a search, in trial 45 of 47.

With validation accuracy 65.49%, 1,050,298 parameters, 41.1 M multiply-adds, 7 min.

python main.py --config=runs/search_longer/pareto/trial_45.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model(
        "cnn",
        blocks=(
            base.conv_block(56, batch_norm=True, dropout=0.2, l2=0.001),
            base.conv_block(128, batch_norm=True, dropout=0.2, l2=0.001),
            base.conv_block(304, batch_norm=True, dropout=0.2, l2=0.001),
        ),
        dense=(128, 64),
    )
    config.epochs = 4
    config.batch_size = 32
    config.data.train_images = 12500
    config.augment.flip = True
    config.schedule.name = "one_cycle"
    return config
