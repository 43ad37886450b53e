"""Data efficiency: a config trained on fewer images, as many of each class.

python main.py --config=configs/fewer_images.py:final,1000

Whoever has fewer images has fewer to validate on, too: 15 for every 85 that train, as ever. Few
images make few steps, so an epoch has at least ten, and the number of epochs grows with the square
root of what is missing, as does the patience that is counted in them: ten times fewer images, three
times as many epochs. Nothing else is chosen anew.
"""

import importlib
import math

ALL = 42_500


def get_config(which: str = "transfer_probe,1000"):
    name, _, images = which.partition(",")
    config = importlib.import_module(f"configs.{name}").get_config()
    count = config.data.train_images = int(images)
    config.data.validation_fraction *= count / ALL
    config.batch_size = min(config.batch_size, count // 10)
    longer = math.sqrt(ALL / count)
    config.epochs = round(longer * config.epochs)
    config.schedule.warmup_epochs *= longer
    config.plateau.patience = round(longer * config.plateau.patience)
    config.early_stopping.patience = round(longer * config.early_stopping.patience)
    return config
