"""Found by a search, in trial 81 of 89.

Its validation accuracy 51.04%, 204,098 parameters, 2.2 M multiply-adds, 31 s.

python main.py --config=runs/search/pareto/trial_81.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model(
        "cnn",
        blocks=(
            base.conv_block(24, batch_norm=True, dropout=0.2, l2=0.001),
            base.conv_block(24, batch_norm=True, dropout=0.2, l2=0.001),
        ),
        dense=(128,),
    )
    config.epochs = 4
    config.batch_size = 64
    config.data.train_images = 10000
    config.augment.flip = True
    config.schedule.name = "one_cycle"
    return config
