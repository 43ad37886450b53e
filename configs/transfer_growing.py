"""transfer_finetune with images that grow to 160 pixels, and more augmentation; no full run yet.

Most epochs have images of 96 pixels, which take a third of the time of 160; the last ones get used
to the size that is tested.
"""

from configs import transfer_finetune


def get_config():
    config = transfer_finetune.get_config()
    config.data.resize = 160
    config.epochs = 10
    config.augment.sides = (*7 * (96,), 128, 160, 160)
    config.augment.crop_padding = 4
    config.augment.cutout = 12
    return config
