"""Transfer learning: a linear classifier on the features of EfficientNet-Lite0 from ImageNet.

The features are computed once; an epoch then takes seconds.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model("efficientnet_lite")
    config.init.source = "imagenet"
    config.init.skip = ("classifier/.*",)
    config.data.resize = 224
    config.probe = True
    config.epochs = 30
    config.eval.batch_size = 25
    config.batch_size = 256
    config.optimizer.learning_rate = 1e-3
    config.optimizer.l2 = 1e-6
    config.schedule.name = "cosine"
    return config
