"""The quickstart: model 2 without flips on scikit-learn's handwritten digits. No download.

python main.py --config=configs/quickstart.py

Trains in under a minute on two CPU cores. Expect 98 % accuracy on the 360 test digits.
"""

from configs import model2


def get_config():
    config = model2.get_config()
    config.data.name = "digits"
    config.epochs = 15
    config.batch_size = 32
    config.augment.flip = False  # a mirrored digit is not a digit
    return config
