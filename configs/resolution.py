"""Accuracy against resolution: a config of transfer learning at another size of images.

python main.py --config=configs/resolution.py:transfer_probe,96
"""

import importlib


def get_config(which: str = "transfer_probe,96"):
    name, _, side = which.partition(",")
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data.resize = int(side)
    return config
