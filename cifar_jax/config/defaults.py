"""Every default, commented. Each experiment starts from here and states only what differs."""

from ml_collections import ConfigDict


def conv_block(
    filters: int,
    kernel: int = 3,
    padding: str = "SAME",
    batch_norm: bool = False,
    pool: int = 2,
    dropout: float = 0.0,
    l2: float = 0.0,
) -> ConfigDict:
    """One block: convolution, ReLU, [batch norm], [max-pool], [dropout].

    `pool` is the window and the stride of the max-pooling, 1 for none; `l2` weighs the squared
    kernel in the objective, as Keras' `kernel_regularizer` does.
    """
    return ConfigDict(
        {
            "filters": filters,
            "kernel": kernel,
            "padding": padding,
            "batch_norm": batch_norm,
            "pool": pool,
            "dropout": dropout,
            "l2": l2,
        }
    )


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # decides the split, the initial weights, batch order, augmentation and dropout
    config.seeds = 1  # more: as many runs side by side, from seed on, saved at the end of epochs
    config.epochs = 40  # at most: early stopping may end a run before
    config.batch_size = 128  # global, over all devices; an epoch drops the last partial batch
    config.dtype = "float32"  # or "bfloat16": computes in bf16, parameters stay float32
    config.label_smoothing = 0.0
    config.steps_per_dispatch = 0  # train steps per call; 0: 1 on CPU, 50 on GPU and TPU
    config.profile = False  # write a JAX profiler trace of a few steps into the workdir

    config.data = ConfigDict()
    config.data.name = "cifar10"  # "digits", or any TFDS set of small images
    config.data.dir = ""  # prepared TFDS directory; "": TFDS_DATA_DIR, else TFDS' default
    config.data.archive = ""  # local official CIFAR-10 archive, .tar.gz or unpacked
    config.data.cache_dir = ""  # decoded arrays; "": cifar_jax in the user's cache directory
    config.data.download = True  # allow the download when the data is nowhere on this machine
    config.data.validation_fraction = 0.15  # of the training images; 0: train on all of them
    config.data.stratified = True  # the same class distribution in both parts
    config.data.standardize = False  # by the training images' per-channel mean and deviation

    config.augment = ConfigDict()
    config.augment.flip = False  # mirror left-right, one image in two
    config.augment.alternate_flips = False  # instead mirror each image in every other epoch
    config.augment.crop_padding = 0  # pad by so many pixels, crop the size back at random
    config.augment.crop_fill = "zero"  # what the padding is, or "reflect"
    config.augment.cutout = 0  # side of a random square set to zero
    config.augment.mixup = 0.0  # alpha of the Beta distribution of the mixing weight; 0: off

    config.model = ConfigDict()
    config.model.name = "cnn"  # of blocks and dense layers; "speedrun": of widths
    config.model.widths = (64, 256, 256)  # filters of the groups of "speedrun"
    config.model.residual = False  # a third convolution in each of these groups, and a sum
    config.model.norm_momentum = 0.6  # of the running statistics of "speedrun"
    config.model.logit_scale = 1 / 9  # of "speedrun"
    config.model.head_std = 0.0  # of its last kernel at first; 0: that of U(+-1 / sqrt(fan_in))
    config.model.blocks = (conv_block(32), conv_block(64))
    config.model.dense = (64,)  # widths of the hidden dense layers, each with a ReLU
    config.model.dense_dropout = 0.0  # after each hidden dense layer
    config.model.dense_l2 = 0.0  # on the kernels of the hidden dense layers

    config.model.dirac = False  # 3x3 kernels begin by handing their channels on
    config.model.whitening = ConfigDict()  # a frozen 2x2 convolution in front, made of the data
    config.model.whitening.enabled = False
    config.model.whitening.images = 5000  # of the training set, that it is made of
    config.model.whitening.epsilon = 5e-4  # added to the variances
    config.model.whitening.bias_rate = 1.0  # learning rate of its bias, relative; 0: none

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # "adamw", "sgd", "muon"
    config.optimizer.learning_rate = 1e-3  # the schedule's peak
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.epsilon = 1e-7  # Keras' default
    config.optimizer.momentum = 0.9  # of sgd, and of what is no convolution under muon
    config.optimizer.nesterov = False  # likewise
    config.optimizer.muon_momentum = 0.6
    config.optimizer.l2 = 0.0  # coupled, on all that is trained, besides the l2 of layers
    config.optimizer.norm_bias_rate = 1.0  # learning rate of batch norm's biases, relative
    config.optimizer.head_rate = 1.0  # of the last layer, relative
    config.optimizer.lookahead_every = 0  # steps between meetings with a slow copy; 0: off
    config.optimizer.lookahead_decay = 0.95  # a step, of the slow copy at the end of the run
    config.optimizer.weight_decay = 0.0  # decoupled, on kernels; of adamw
    config.optimizer.gradient_clip = 0.0  # global norm; 0: off
    config.optimizer.ema_decay = 0.0  # evaluate a moving average of the parameters; 0: off

    config.schedule = ConfigDict()
    config.schedule.name = "constant"  # "linear", "cosine", "one_cycle", "piecewise"
    config.schedule.warmup_epochs = 0.0  # linear to the peak (one_cycle: of its rise)
    config.schedule.initial_fraction = 0.0  # of the warm-up: first / peak learning rate
    config.schedule.boundaries = (0.5, 0.75)  # of piecewise, as fractions of config.epochs
    config.schedule.factor = 0.1  # of piecewise, at each boundary
    config.schedule.final_fraction = 0.0  # of linear, cosine, one_cycle: last / peak rate

    config.plateau = ConfigDict()  # scales the learning rate when the validation loss stalls
    config.plateau.enabled = False
    config.plateau.factor = 0.5
    config.plateau.patience = 3  # epochs without improvement
    config.plateau.min_delta = 1e-4  # above 0
    config.plateau.cooldown = 0  # epochs
    config.plateau.min_scale = 0.0

    config.early_stopping = ConfigDict()
    config.early_stopping.enabled = False
    config.early_stopping.metric = "validation_loss"  # or "validation_accuracy"
    config.early_stopping.patience = 10  # epochs without improvement
    config.early_stopping.min_delta = 0.0
    # The test uses the epoch of the best validation accuracy; False: the last epoch.
    config.early_stopping.restore_best = True

    config.eval = ConfigDict()
    # Test-time augmentation, reported beside the plain figure: the mean logits of the image and its
    # mirror ("flip"), and of crops shifted by a pixel besides ("multicrop").
    config.eval.tta = "none"
    config.eval.batch_size = 500  # any size: the last batch is padded, and its padding not counted

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 0  # besides one an epoch; 0: none

    return config.lock()
