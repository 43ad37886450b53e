"""Found by a search, in trial 29 of 35.

With validation accuracy 88.78%, 686,792 parameters, 58.0 M multiply-adds, 4 min.

python main.py --config=runs/search_speedrun/pareto/trial_29.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model = base.model(
        "speedrun",
        widths=(56, 160, 128),
        logit_scale=0.0078125,
        head_std=1.0,
        dirac=True,
        whitening=True,
    )
    config.epochs = 2
    config.batch_size = 250
    config.label_smoothing = 0.2
    config.data.validation_fraction = 0.1
    config.data.standardize = True
    config.augment.flip = True
    config.augment.alternate_flips = True
    config.augment.crop_padding = 2
    config.augment.crop_fill = "reflect"
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 0.1294252974484797
    config.optimizer.momentum = 0.85
    config.optimizer.nesterov = True
    config.optimizer.l2 = 0.0020833333333333333
    config.optimizer.rules = (
        base.rule("(batch_normalization_.*|stem)/bias", rate=110.41666666666667),
        base.rule("head/kernel", rate=1395.8333333333335),
        base.rule("stem/bias", frozen=True),
    )
    config.schedule.name = "linear"
    return config
