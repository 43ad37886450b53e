"""What a person would write down instead of a search: two convolutions a block, fewer filters.

python main.py --config=configs/two_convolutions.py

All else is the final model's. It needs 53 million multiply-adds an image; the final model 59.
"""

from configs import base, final


def get_config():
    config = final.get_config()
    config.model.blocks = tuple(
        base.conv_block(filters, batch_norm=True, dropout=dropout, l2=0.001, convolutions=2)
        for filters, dropout in ((32, 0.2), (64, 0.2), (128, 0.2), (256, 0.5))
    )
    return config
