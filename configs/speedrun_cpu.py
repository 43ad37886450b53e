"""The report's best accuracy in five minutes on two CPU cores: speedrun90, in two epochs.

python main.py --config=configs/speedrun_cpu.py
"""

from configs import speedrun90


def get_config():
    config = speedrun90.get_config()
    config.epochs = 2
    config.schedule.warmup_epochs = 0.23 * config.epochs
    return config
