"""Train, evaluate and use CIFAR-10 classifiers: see `python main.py --help`."""

from cifar_jax import cli

if __name__ == "__main__":
    cli.main()
