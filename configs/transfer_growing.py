"""transfer_finetune with images that grow to 160 pixels, on all 50,000 images.

python main.py --config=configs/transfer_growing.py

Images of 96 pixels take a third of the time of 160, and the last epochs get used to the size that
is tested. With no images to validate on, it tests the last epoch.
"""

from configs import transfer_finetune


def get_config():
    config = transfer_finetune.get_config()
    config.data.resize = 160
    config.data.validation_fraction = 0.0
    config.epochs = 9
    config.augment.sides = (96, 96, 96, 96, 96, 128, 128, 160, 160)
    return config
