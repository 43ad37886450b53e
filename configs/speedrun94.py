"""94 % from scratch on a CPU: a fast published recipe (airbench94_muon, Jordan 2024), in JAX.

python main.py --config=configs/speedrun94.py

The recipe: a stem that whitens the images, convolutions that start as the identity and are trained
with Muon, batch norm without scale, a few epochs, and alternating flips. Test accuracy is given
plain and averaged over six views of each image. It trains on all 50,000 images and tests the last
epoch; the settings were chosen with --config.data.validation_fraction=0.1.

Published: 94.01 % with six views, the mean of 200 runs of 8 epochs on one A100 in batches of 2000.
Such batches need 40 GB here, so batches are smaller, and Muon's learning rate is lower.
"""

from ml_collections import ConfigDict

from configs import base

_RATE = 0.12


def get_config():
    config = with_muon(widths=(64, 256, 256), epochs=8, batch_size=500)
    # After that, backpropagation stops before the stem.
    config.optimizer.rules += (base.rule("stem/bias", stop=3.0),)
    config.eval.tta = "multicrop"
    return config


def with_muon(widths: tuple[int, int, int], epochs: int, batch_size: int) -> ConfigDict:
    """The recipe for a network of these widths.

    It gives the rates of biases, 0.053, and of the last layer, 0.67, for the sum of the losses of a
    batch; here they are relative to Muon's rate, for the mean.
    """
    relative = batch_size / _RATE
    config = common(widths, epochs, batch_size)
    config.model.logit_scale = 1 / widths[-1]
    config.model.head_std = 1.0
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = _RATE
    config.optimizer.rules = (
        base.rule("(batch_normalization_.*|stem)/bias", rate=0.053 * relative),
        base.rule("head/kernel", rate=0.67 * relative),
    )
    config.optimizer.l2 = 2e-6 * relative / 2  # the gradient of l2 * w ** 2 is 2 * l2 * w
    return config


def common(widths: tuple[int, int, int], epochs: int, batch_size: int) -> ConfigDict:
    """What the recipes of airbench have in common, with Muon or with SGD."""
    config = base.get_config()
    config.epochs = epochs
    config.batch_size = batch_size
    config.label_smoothing = 0.2
    config.data.validation_fraction = 0.0
    config.data.standardize = True
    config.augment.flip = True
    config.augment.alternate_flips = True
    config.augment.crop_padding = 2
    config.augment.crop_fill = "reflect"
    config.model = base.model("speedrun", widths=widths, dirac=True, whitening=True)
    config.optimizer.momentum = 0.85
    config.optimizer.nesterov = True
    config.schedule.name = "linear"
    return config
