"""Found by a search, in trial 26 of 47.

With validation accuracy 66.11%, 750,906 parameters, 49.3 M multiply-adds, 5 min.

python main.py --config=runs/search_longer/pareto/trial_26.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model(
        "cnn",
        blocks=(
            base.conv_block(32, batch_norm=True, dropout=0.2, l2=0.001, convolutions=2),
            base.conv_block(72, batch_norm=True, dropout=0.2, l2=0.001, convolutions=2),
            base.conv_block(160, batch_norm=True, dropout=0.2, l2=0.001, convolutions=2),
        ),
        dense=(128, 64),
    )
    config.epochs = 4
    config.batch_size = 32
    config.data.train_images = 12500
    config.augment.flip = True
    config.schedule.name = "one_cycle"
    return config
