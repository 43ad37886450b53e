"""Found by a search, in trial 13 of 89.

Its validation accuracy 59.72%, 853,418 parameters, 50.9 M multiply-adds, 4 min.

python main.py --config=runs/search/pareto/trial_13.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model(
        "cnn",
        blocks=(
            base.conv_block(48, batch_norm=True, dropout=0.2, l2=0.001, convolutions=2),
            base.conv_block(88, batch_norm=True, dropout=0.2, l2=0.001, convolutions=2),
        ),
        dense=(128,),
    )
    config.epochs = 4
    config.batch_size = 64
    config.data.train_images = 10000
    config.augment.flip = True
    config.schedule.name = "one_cycle"
    return config
