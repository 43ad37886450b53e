"""The space of a search holds ranges over the keys of a config, and only those that apply."""

import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
import tiny
from ml_collections import ConfigDict

from cifar_jax.config.schema import Search
from cifar_jax.errors import UserError
from cifar_jax.models import cnn
from cifar_jax.search import source
from cifar_jax.search.evolution import RegularizedEvolution
from cifar_jax.search.space import Space
from cifar_jax.search.trial import digest
from configs import base, search, search_longer, search_speedrun


def config(*ranges: ConfigDict) -> Any:
    """A typed config with one block and these ranges."""
    found = tiny.config({"model.blocks": (base.conv_block(8, dropout=0.1),)})
    found.search.space = ranges
    return tiny.typed(found)


def chosen(values: dict[str, Any], *ranges: ConfigDict):
    """The config of a trial that chooses these values, and the names that it was asked for."""
    trial = optuna.trial.FixedTrial(values)
    return Space(config(*ranges)).sample(trial), set(trial.distributions)


def blocks(model: Any) -> tuple[cnn.ConvBlock, ...]:
    assert isinstance(model, cnn.Config)
    return model.blocks


def test_blocks_are_copies_of_the_last_one():
    found, _ = chosen(
        {"model.blocks": 3, "model.blocks[2].filters": 24},
        base.choose("model.blocks", low=1, high=4),
        base.choose("model.blocks[2].filters", low=8, high=32),
    )
    assert [block.filters for block in blocks(found.model)] == [8, 8, 24]
    assert {block.dropout for block in blocks(found.model)} == {0.1}


def test_nothing_is_chosen_for_what_a_trial_does_not_have():
    ranges = (
        base.choose("model.blocks", low=1, high=4),
        base.choose("model.blocks[2].filters", low=8, high=32),
        base.choose("model.dense", choices=((), (16, 8))),
        base.choose("model.dense_dropout", low=0.0, high=0.5),
    )
    values = {"model.blocks": 2, "model.dense": "()"}
    found, asked = chosen(values, *ranges)
    assert len(blocks(found.model)) == 2 and asked == {"model.blocks", "model.dense"}
    values |= {"model.dense": "(16, 8)", "model.dense_dropout": 0.25}
    found, asked = chosen(values, *ranges)
    assert found.model.dense == (16, 8) and found.model.dense_dropout == 0.25  # pyright: ignore[reportAttributeAccessIssue]
    assert "model.dense_dropout" in asked


def test_all_blocks_share_a_value_or_grow():
    ranges = (
        base.choose("model.blocks", low=1, high=4),
        base.choose("model.blocks[*].filters", low=8, high=32, growth=2.0),
        base.choose("model.blocks[*].kernel", choices=(1, 3)),
    )
    values = {"model.blocks": 3, "model.blocks[*].filters": 12, "model.blocks[*].kernel": 3}
    found, _ = chosen({**values, "model.blocks[*].filters growth": 1.9}, *ranges)
    assert [block.filters for block in blocks(found.model)] == [12, 24, 40]  # 12, 22.8, 43.32
    assert {block.kernel for block in blocks(found.model)} == {3}
    _, asked = chosen({**values, "model.blocks": 1}, *ranges)
    assert "model.blocks[*].filters growth" not in asked


def test_an_item_of_a_tuple_is_a_key_of_its_own():
    found = tiny.config()
    found.model = base.model("speedrun")
    found.search.space = (base.choose("model.widths[1]", low=32, high=64, step=32),)
    trial = optuna.trial.FixedTrial({"model.widths[1]": 64})
    widths = Space(tiny.typed(found)).sample(trial).model.widths  # pyright: ignore[reportAttributeAccessIssue]
    assert widths[1] == 64 and len(widths) == 3


@pytest.mark.parametrize(
    ("name", "keys", "fault"),
    [
        ("model.blocs", {"low": 1, "high": 2}, "did you mean model.blocks"),
        ("model.blocks[0].filers", {"low": 1, "high": 2}, r"mean model.blocks\[\*\].filters"),
        ("model.blocks[1].filters", {"low": 1, "high": 2}, "is not a key"),
        ("optimizer", {"low": 1, "high": 2}, "is not a key"),
        ("optimizer.learning_rate", {"low": -1.0, "high": 1.0}, "must be a number above 0"),
        ("epochs", {"low": 1.5, "high": 2.0}, "must be an integer"),
        ("optimizer.name", {"choices": ("adam", "addam")}, "must be one of 'adam'"),
        ("model.blocks", {"low": 0, "high": 2}, "is a number of blocks: it cannot be 0"),
        ("data.standardize", {"low": 0, "high": 1}, "must be True or False"),
        ("seed", {"low": 0, "high": 1}, "is the same for all trials"),
        ("epochs", {"low": 1}, "needs either low and high, or choices"),
        ("epochs", {}, "needs either low and high, or choices"),
        ("epochs", {"low": 1, "high": 2, "choices": (1,)}, "needs either low and high, or"),
        ("epochs", {"low": 3, "high": 2}, "low=3 above high=2"),
        ("model.dense_l2", {"low": 0, "high": 1, "log": True}, "needs low above 0"),
        ("epochs", {"low": 1, "high": 9, "log": True, "step": 2}, "both log and step"),
        ("epochs", {"low": 1, "high": 9, "growth": 2.0}, "growth needs a key with"),
        ("epochs", {"choices": (1, 2), "step": 1}, "step, log and growth do not apply"),
    ],
)
def test_a_range_that_cannot_be_is_refused_by_name(name: str, keys: dict[str, Any], fault: str):
    with pytest.raises(UserError, match=fault) as caught:
        Space(config(base.choose(name, **keys)))
    assert "config.search.space[0]" in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_has_one_range_and_a_space_at_least_one():
    one = base.choose("epochs", low=1, high=2)
    with pytest.raises(UserError, match=r"config.search.space\[1\]: epochs has a range already"):
        Space(config(one, one))
    with pytest.raises(UserError, match="config.search.space is empty"):
        Space(config())


def test_contradictory_choices_are_a_fault_of_the_trial():
    one = base.choose("schedule.warmup_epochs", low=0.0, high=9.0)
    with pytest.raises(UserError, match="warmup_epochs must be below config.epochs"):
        chosen({"schedule.warmup_epochs": 8.0}, one)


def test_the_digest_tells_apart_what_decides_the_result():
    same = tiny.typed(tiny.config())
    for overrides, differs in (
        ({"seed": 7}, False),
        ({"data.cache_dir": "/tmp"}, False),
        ({"search.trials": 3}, False),
        ({"optimizer.learning_rate": 0.5}, True),
        ({"model.dense": (9,)}, True),
    ):
        assert (digest(tiny.typed(tiny.config(overrides))) != digest(same)) == differs, overrides


@pytest.mark.parametrize(
    "searched", [search, search_longer, search_speedrun], ids=lambda config: config.__name__
)
def test_the_source_of_a_config_gives_the_config_again(searched: ModuleType, tmp_path: Path):
    space = Space(tiny.typed(searched.get_config()))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for i in range(5):
        found = space.sample(study.ask())
        path = tmp_path / f"best{i}.py"
        path.write_text(source.of(found, 'Found by a """search"""', "python main.py"))
        again = tiny.typed(runpy.run_path(str(path))["get_config"]())
        assert again == found and again.search == Search()


def test_evolution_changes_one_value_of_a_good_trial():
    study = optuna.create_study(direction="maximize", sampler=RegularizedEvolution(0, 6, 4))

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_int("x", 0, 9)
        y = trial.suggest_categorical("y", ["a", "b", "c"])
        z = trial.suggest_float("z", 0, 1) if y == "a" else 0.0
        return x + z

    study.optimize(objective, n_trials=40)
    for trial in study.trials[6:]:
        earlier = study.trials[trial.number - 6 : trial.number]
        changes = [
            sum(trial.params.get(name) != parent.params.get(name) for name in ("x", "y", "z"))
            for parent in earlier
        ]
        assert min(changes) <= 2  # of "y", "z" comes or goes with it
    assert study.best_value > 9
