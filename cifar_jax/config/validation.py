"""Finds keys that contradict each other, overrides without effect, and likely causes of a NaN."""

from collections.abc import Iterator

from cifar_jax.config import keys, schema
from cifar_jax.errors import UserError

_LARGE = 100.0  # useful factors of gradients, updates and logits are about 1 or less


def check(config: schema.Config) -> schema.Config:
    """Returns `config` if its keys do not contradict each other.

    Raises:
      UserError: some do; the message has a line for each, with the key and the remedy.
    """
    faults = [*_contradictions(config), *config.model.faults()]
    if faults:
        raise UserError("\n".join(faults))
    return config


def _contradictions(config: schema.Config) -> Iterator[str]:
    optimizer, schedule = config.optimizer, config.schedule
    if optimizer.weight_decay and optimizer.name != "adamw":
        yield (
            "config.optimizer.weight_decay is decoupled and belongs to adamw: set "
            "config.optimizer.name=adamw, or use the coupled L2 of the network"
        )
    if optimizer.nesterov and optimizer.name not in ("sgd", "muon"):
        yield "config.optimizer.nesterov belongs to sgd and muon: set config.optimizer.name=sgd"
    if config.seed + config.seeds > 2**32:
        yield (
            f"config.seeds={config.seeds} from config.seed={config.seed} goes beyond 4294967295: "
            f"set config.seed to at most {2**32 - config.seeds}"
        )
    for name, verb in (("profile", "traces"), ("wandb", "logs")):
        if config.seeds > 1 and getattr(config, name):
            yield f"config.{name} {verb} one run: leave it out, or set config.seeds=1"
    if config.augment.alternate_flips and not config.augment.flip:
        yield "config.augment.alternate_flips needs flips: set config.augment.flip=True"
    if config.data.standardize and config.model.standardizes:
        yield (
            f"config.data.standardize is not for {config.model.name}, which standardizes images "
            "itself: set it to False"
        )
    for rule in optimizer.rules:
        start, end = rule.start or 0, min(rule.stop or config.epochs, config.epochs)
        if start >= end:
            yield (
                f"the rule for {rule.path!r} in config.optimizer.rules never trains: it starts "
                f"after {start:g} epochs, but ends after {end:g}; lower its start, or set frozen"
            )
    if config.probe:
        yield from _probe(config)
    if len(config.augment.sides) > config.epochs:
        yield (
            f"config.augment.sides has {len(config.augment.sides)} sides for config.epochs="
            f"{config.epochs}: use at most one for each epoch"
        )
    if not config.data.validation_fraction:
        for name in ("early_stopping", "plateau"):
            if getattr(config, name).enabled:
                yield (
                    f"config.{name}.enabled needs validation images: set it to False, or "
                    "config.data.validation_fraction above 0"
                )
    if schedule.initial_fraction and schedule.name == "one_cycle":
        yield (
            "config.schedule.initial_fraction does not apply to one_cycle, which starts at 1/25 of "
            "its peak: set config.schedule.name=linear"
        )
    if schedule.warmup_epochs >= config.epochs:
        yield (
            "config.schedule.warmup_epochs must be below config.epochs "
            f"({config.epochs}): it is {schedule.warmup_epochs:g}"
        )
    if schedule.name == "piecewise" and any(
        boundary * config.epochs < schedule.warmup_epochs for boundary in schedule.boundaries
    ):
        yield "config.schedule.boundaries must come after config.schedule.warmup_epochs"
    if list(schedule.boundaries) != sorted(set(schedule.boundaries)):
        yield "config.schedule.boundaries must increase: sort them and drop duplicates"


def _probe(config: schema.Config) -> Iterator[str]:
    """Keys that would change images, which a run with `config.probe` does not see again."""
    for leaf in keys.leaves(config.augment, "augment."):
        if leaf.value and not leaf.key.needs:
            yield f"config.{leaf.name} does not apply to config.probe: leave it out"
    if config.eval.tta != "none":
        yield "config.eval.tta does not apply to config.probe: leave it out"


def without_effect(config: schema.Config, names: set[str]) -> str | None:
    """Names the first of these keys that has no effect in this config; None if all have one.

    Args:
      names: keys such as "plateau.factor".
    """
    for leaf in keys.leaves(config):
        need = leaf.key.needs
        if leaf.name in names and need and not need.met(leaf.section):
            place = f"config.{leaf.name.rpartition('.')[0]}.{need.key}"
            wanted = f"to {' or '.join(map(str, need.values))}" if need.values else "first"
            return (
                f"config.{leaf.name} has no effect while {place} is "
                f"{getattr(leaf.section, need.key)!r}: set {place} {wanted}, or leave it out"
            )
    return None


def blame(config: schema.Config, step: int) -> str:
    """What to change if the loss or the gradient of a step, counted from 1, is not finite."""
    large = [
        f"config.{leaf.name} ({leaf.value:g})"
        for leaf in keys.leaves(config)
        if leaf.key.factor and leaf.value > _LARGE
    ]
    if large:
        return f"lower {', '.join(large)} or config.optimizer.learning_rate"
    if step == 1:
        return "no update has been made yet, so change config.model, config.augment or config.dtype"
    return "lower config.optimizer.learning_rate or set config.optimizer.gradient_clip"
