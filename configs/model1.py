"""Model 1 of the report: three convolutions and no regularization.

python main.py --config=configs/model1.py

Reproduces the table with 122,570 parameters, 68.77 % test accuracy and a test loss of 1.1005. The
report does not give the batch size (64 here), the optimizer (Adam with Keras' defaults) or the
number of epochs (20: the validation loss rises from about epoch 11 on; the rest is to show the
overfitting).

An epoch takes 12 to 24 seconds on two CPU cores. Expect about 70 %: see README.md.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.epochs = 20
    config.batch_size = 64
    config.model.blocks = (
        base.conv_block(32, padding="VALID"),
        base.conv_block(64, padding="VALID"),
        base.conv_block(64, padding="VALID", pool=1),
    )
    config.model.dense = (64,)
    return config
