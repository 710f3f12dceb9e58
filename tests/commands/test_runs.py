"""What runs over several seeds and rates say together."""

import json
import math

import numpy as np
import pytest

from fastdrop.commands.console import Console
from fastdrop.commands.main import main
from fastdrop.commands.runs.comparison import best_of, chance_of, difference, rates_of
from fastdrop.commands.runs.results import MODELS, RESULTS, Results, Run, model_name
from fastdrop.commands.train.summary import conclusion, facts_of, summary
from fastdrop.models import load_model

RATES = [0.2, 0.5]


def made(losses, accuracies=None, metric="accuracy"):
    """Results with these validation losses at the end: {rate: one of each seed}."""
    accuracies = losses if accuracies is None else accuracies
    seeds = len(losses[0.0])
    runs = [
        Run(
            p,
            seed,
            {
                "loss": [9.0, 0.5],
                "val_loss": [9.0, losses[p][seed]],
                metric: [0.5, 0.5],
                f"val_{metric}": [0.5, accuracies[p][seed]],
            },
            {},
        )
        for seed in range(seeds)
        for p in losses
    ]
    settings = {"dropout": [p for p in losses if p], "seeds": seeds, "seed": 0, "epochs": 2}
    return Results("1", {}, [], {"metric": metric}, settings, runs)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 30])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, -2.0, 5.0, 40.0])
def test_students_t(t, degrees):
    """Against the integral of its density, with x = sqrt(degrees) tan(angle)."""
    angles = np.linspace(math.atan(abs(t) / math.sqrt(degrees)), math.pi / 2, 100_001)
    density = np.cos(angles) ** (degrees - 1)
    gamma = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    area = ((density[1:] + density[:-1]) / 2).sum() * (angles[1] - angles[0])
    expected = 2 * area * math.exp(gamma) / math.sqrt(math.pi)
    assert chance_of(t, degrees) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("degrees", "t"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262)])
def test_students_t_of_tables(degrees, t):
    assert chance_of(t, degrees) == pytest.approx(0.05, abs=2e-5)
    assert chance_of(math.inf, degrees) == pytest.approx(0, abs=1e-15)


def test_means_and_spreads():
    first, *others = rates_of(made({0.0: [1.0, 3.0], 0.2: [2.0, 2.0], 0.5: [1.0, 2.0]}).runs)
    assert (first.dropout, first.mean["val_loss"]) == (0.0, 2.0)
    assert first.spread["val_loss"] == pytest.approx(math.sqrt(2))
    assert [rate.mean["val_loss"] for rate in others] == [2.0, 1.5]
    assert best_of([first, *others]).dropout == 0.5


def test_the_best_rate_is_one_that_drops():
    assert best_of(rates_of(made({0.0: [0.1], 0.2: [3.0], 0.5: [2.0]}).runs)).dropout == 0.5


def test_pairs_tell_more_than_means():
    """Seeds that differ more from each other than dropout does from none."""
    found = difference(made({0.0: [1.0, 2.0, 3.0], 0.2: [0.9, 1.89, 2.91]}).runs, 0.2, "val_loss")
    assert found.mean == pytest.approx(-0.1)
    assert found.error == pytest.approx(0.01 / math.sqrt(3))
    assert found.chance == pytest.approx(chance_of(-10 * math.sqrt(3), 2))
    assert not found.is_luck


def test_the_best_of_several_has_several_chances():
    one = made({0.0: [1.0, 2.0], 0.2: [0.9, 1.8]})
    two = made({0.0: [1.0, 2.0], 0.2: [0.9, 1.8], 0.5: [1.0, 2.0]})
    chances = [difference(results.runs, 0.2, "val_loss").chance for results in (one, two)]
    assert chances[1] == pytest.approx(2 * chances[0])


@pytest.mark.parametrize(
    ("with_dropout", "chance"), [([1.0, 2.0], 1.0), ([0.5, 1.5], 0.0), ([1.5, 2.5], 0.0)]
)
def test_differences_that_are_always_the_same(with_dropout, chance):
    found = difference(made({0.0: [1.0, 2.0], 0.2: with_dropout}).runs, 0.2, "val_loss")
    assert (found.error, found.chance) == (0.0, pytest.approx(chance, abs=1e-12))


def test_one_seed_tells_nothing():
    results = made({0.0: [1.0], 0.2: [0.5]})
    assert difference(results.runs, 0.2, "val_loss") is None
    assert "One seed cannot tell whether that is luck" in conclusion(results)
    assert "±" not in summary(results, Console())


@pytest.mark.parametrize("metric", ["accuracy", "root_mean_squared_error"])
def test_the_conclusion(metric):
    losses = {0.0: [0.5, 0.6, 0.7], 0.2: [0.4, 0.51, 0.59], 0.5: [0.9, 1.0, 1.1]}
    metrics = {0.0: [0.9, 0.91, 0.89], 0.2: [0.95, 0.89, 0.9], 0.5: [0.8, 0.8, 0.8]}
    results = made(losses, metrics, metric)
    said = conclusion(results)
    assert "p = 0.2 took the validation loss from 0.6000 to 0.5000" in said
    assert "(-0.1000 ± 0.0058, more than luck)" in said
    assert "may be luck" in said
    assert "Means over 3 seeds" in said
    facts = facts_of(results, "out")
    json.dumps(facts, allow_nan=False)
    assert facts["best"] == 0.2
    assert [found["may be luck"] for found in facts["differences"]] == [False, True]


def test_a_command_line_with_rates_and_seeds(tmp_path, capsys):
    rng = np.random.default_rng(0)
    path, out = tmp_path / "data.npz", tmp_path / "out"
    np.savez(path, x=rng.normal(size=(60, 4)), y=rng.integers(0, 2, 60))
    words = ["train", "--data", str(path), "--hidden", "8", "--epochs", "2", "--seeds", "3"]
    words += ["--seed", "5", "--dropout", "0.2,0.5", "--out", str(out), "--json"]
    assert main(words) == 0
    facts = json.loads(capsys.readouterr().out)
    results = Results.read(out)
    assert [(run.dropout, run.seed) for run in results.runs] == [
        (p, seed) for seed in (5, 6, 7) for p in (0.0, *RATES)
    ]
    assert results.command == ["fastdrop", *words]
    assert facts["rates"] == json.loads(json.dumps([r._asdict() for r in rates_of(results.runs)]))
    assert facts["best"] in RATES
    # every rate's model of the first seed, and the best once more
    data = results.data
    assert (data["training"], data["validation"], data["classes"]) == (48, 12, ["0", "1"])
    for p in (0.0, *RATES):
        model = load_model(out / model_name(p, RATES))
        assert facts["models"][str(p)] == str(out / model_name(p, RATES))
        assert model.seed == 5
        assert sum("Dropout" in type(layer).__name__ for layer in model.layers) == bool(p)
    best = (out / model_name(facts["best"], RATES)).read_bytes()
    assert (out / MODELS[1]).read_bytes() == best


def test_seeds_share_the_split_and_differ_in_all_else(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(path, x=rng.normal(size=(60, 4)), y=rng.integers(0, 2, 60))
    words = ["train", "--data", str(path), "--hidden", "8", "--epochs", "1"]
    found = {}
    for name, more in {"both": ["--seeds", "2"], "second": ["--seed", "1"]}.items():
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
        found[name] = Results.read(tmp_path / name)
    assert found["both"].data["checksum"] != found["second"].data["checksum"]
    first, second = (run.figures for run in found["both"].runs if not run.dropout)
    assert first["loss"] != second["loss"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected a folder that fastdrop train wrote training.json to"),
        ("{", "expected a file that fastdrop has saved, got JSONDecodeError"),
        ("[]", "another structure"),
        ('{"settings": {}}', "another structure"),
    ],
)
def test_folders_without_results(tmp_path, text, message):
    if text is not None:
        (tmp_path / RESULTS).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        Results.read(tmp_path)
    assert len(str(error.value)) <= 200
