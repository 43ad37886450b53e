"""Transfer learning: EfficientNet-Lite0 from ImageNet, fine-tuned at 128 pixels.

The stem and the first four blocks stay as they are: their maps are the largest, so a step takes
half the time.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model("efficientnet_lite", frozen_blocks=4)
    config.init.source = "imagenet"
    config.init.skip = ("classifier/.*",)
    config.data.resize = 128
    config.epochs = 12
    config.batch_size = 64
    config.augment.flip = True
    config.augment.crop_padding = 2
    config.augment.crop_fill = "reflect"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.01
    config.optimizer.rules = (base.rule("backbone/.*", start=0.5),)  # the classifier first
    config.optimizer.ema_decay = 0.998
    config.label_smoothing = 0.1
    config.schedule.name = "one_cycle"
    config.schedule.warmup_epochs = 1.0
    config.eval.batch_size = 100
    config.eval.tta = "flip"
    return config
