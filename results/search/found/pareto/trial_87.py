"""Found by a search, in trial 87 of 89.

Its validation accuracy 58.72%, 148,874 parameters, 18.1 M multiply-adds, 96 s.

python main.py --config=runs/search/pareto/trial_87.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model(
        "cnn",
        blocks=(
            base.conv_block(56, batch_norm=True, dropout=0.2, l2=0.001),
            base.conv_block(128, batch_norm=True, dropout=0.2, l2=0.001),
        ),
        dense=(),
    )
    config.epochs = 4
    config.batch_size = 64
    config.data.train_images = 10000
    config.augment.flip = True
    config.schedule.name = "one_cycle"
    return config
