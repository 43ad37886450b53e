"""The quickstart: model 2 without flips, on scikit-learn's handwritten digits: no download.

python main.py --config=configs/quickstart.py

Under a minute of training on two CPU cores; expect 98 % of the 360 test digits.
"""

from configs import model2


def get_config():
    config = model2.get_config()
    config.data.name = "digits"
    config.epochs = 15
    config.batch_size = 32
    config.augment.flip = False  # a mirrored digit is no digit
    return config
