"""Found by a search, in trial 84 of 89.

Its validation accuracy 54.51%, 49,530 parameters, 5.6 M multiply-adds, 42 s.

python main.py --config=runs/search/pareto/trial_84.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model(
        "cnn",
        blocks=(
            base.conv_block(40, batch_norm=True, dropout=0.2, l2=0.001),
            base.conv_block(48, batch_norm=True, dropout=0.2, l2=0.001),
        ),
        dense=(),
    )
    config.epochs = 4
    config.batch_size = 64
    config.data.train_images = 10000
    config.augment.flip = True
    config.schedule.name = "one_cycle"
    return config
