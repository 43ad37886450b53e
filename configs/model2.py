"""Model 2 of the report: model 1 with dropout and random flips.

python main.py --config=configs/model2.py
"""

from configs import model1


def get_config():
    config = model1.get_config()
    config.epochs = 60
    config.augment.flip = True
    config.model.dense_dropout = 0.5
    config.early_stopping.enabled = True
    return config
