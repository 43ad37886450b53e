"""speedrun94 with Muon for the convolutions (airbench94_muon, Jordan 2024); no full run yet.

python main.py --config=configs/speedrun94_muon.py

Published: 94.01 % with six views, the mean of 200 runs of 8 epochs on one A100 in batches of 2000.
Such batches need 40 GB here, so batches are smaller, and Muon's learning rate is lower. The recipe
freezes the bias of the stem after 75 steps; here it keeps training.
"""

from ml_collections import ConfigDict

from configs import base, speedrun94

_MUON = 0.12


def get_config():
    config = speedrun94.get_config()
    config.epochs = 8
    config.batch_size = 500
    return with_muon(config)


def with_muon(config: ConfigDict) -> ConfigDict:
    """Trains the convolutions with Muon, in batches of `config.batch_size`.

    The recipe gives the other rates, 0.053 for biases and 0.67 for the last layer, for the sum of
    the losses of a batch; here they are relative to Muon's rate, for the mean.
    """
    relative = config.batch_size / _MUON
    config.model.logit_scale = 1 / config.model.widths[-1]
    config.model.head_std = 1.0
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = _MUON
    config.optimizer.muon_momentum = 0.6
    config.optimizer.rules = (
        base.rule("(batch_normalization_.*|stem)/bias", rate=0.053 * relative),
        base.rule("head/kernel", rate=0.67 * relative),
    )
    config.optimizer.l2 = 2e-6 * relative / 2
    config.optimizer.lookahead_every = 0
    config.schedule.initial_fraction = 0.0
    config.schedule.warmup_epochs = 0.0
    config.schedule.final_fraction = 0.0
    return config
