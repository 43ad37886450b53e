"""96 % with a larger network (airbench96, Jordan 2024), for accelerators; not yet run here.

python main.py --config=configs/speedrun96.py --config.dtype=bfloat16

Published: 96.03 % with six views of each test image, the mean of 400 runs of 34.7 s on one A100. It
would take most of a day on two CPU cores.

It trains with SGD and lookahead. The recipe is stated for the sum of the losses of 1024 images; for
their mean, the learning rate is 9 / (1 + 1 / (1 - 0.85)), and the L2 weight half of its coefficient
(the gradient of l2 * w ** 2 is 2 * l2 * w).
"""

from configs import base, speedrun94


def get_config():
    config = speedrun94.common(widths=(128, 384, 512), epochs=37, batch_size=1024)
    config.augment.crop_padding = 4
    config.augment.cutout = 12
    config.model.residual = True
    config.model.norm_momentum = 0.9
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1.174
    config.optimizer.rules = (base.rule("batch_normalization_.*/bias", rate=64.0),)
    config.optimizer.l2 = 6.667e-4
    config.optimizer.lookahead_every = 5
    config.schedule.warmup_epochs = 3.7
    config.eval.tta = "multicrop"
    return config
