"""Model 1 of the report: three convolutions and nothing against overfitting.

python main.py --config=configs/model1.py

Reproduces the table with 122,570 parameters, 68.77 % test accuracy, test loss 1.1005. The report
does not give the batch size (64 here), the optimizer (Adam at Keras' defaults) or the number of
epochs (20: the validation loss turns after about 11, and the rest shows the overfitting).

On two CPU cores 12 to 24 seconds an epoch. Expect about 70 %: see README.md.
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
