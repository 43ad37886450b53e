"""Found by a search, in trial 36 of 89.

Its validation accuracy 54.97%, 57,570 parameters, 6.3 M multiply-adds, 68 s.

python main.py --config=runs/search/pareto/trial_36.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model(
        "cnn",
        blocks=(
            base.conv_block(40, batch_norm=True, dropout=0.2, l2=0.001),
            base.conv_block(56, batch_norm=True, dropout=0.2, l2=0.001),
        ),
        dense=(),
    )
    config.epochs = 4
    config.batch_size = 64
    config.data.train_images = 10000
    config.augment.flip = True
    config.schedule.name = "one_cycle"
    return config
