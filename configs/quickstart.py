"""The quickstart: model 1's family on scikit-learn's handwritten digits, which need no download.

python main.py --config=configs/quickstart.py
"""

from configs import model2


def get_config():
    config = model2.get_config()
    config.data.name = "digits"
    config.epochs = 20
    config.batch_size = 32
    config.augment.flip = False  # a mirrored digit is no digit
    return config
