"""Found by a search, in trial 63 of 89.

Its validation accuracy 56.04%, 113,554 parameters, 12.9 M multiply-adds, 78 s.

python main.py --config=runs/search/pareto/trial_63.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model(
        "cnn",
        blocks=(
            base.conv_block(48, batch_norm=True, dropout=0.2, l2=0.001),
            base.conv_block(104, batch_norm=True, dropout=0.2, l2=0.001),
        ),
        dense=(),
    )
    config.epochs = 4
    config.batch_size = 64
    config.data.train_images = 10000
    config.augment.flip = True
    config.schedule.name = "one_cycle"
    return config
