"""Evidence for reports, made by hand: results, small models and samples of every kind."""

import numpy as np

from fastdrop import Sequential
from fastdrop.commands.report.evidence import Evidence, Samples
from fastdrop.commands.report.outcomes import Column
from fastdrop.commands.runs.results import Results, Run
from fastdrop.datasets import load_digits
from fastdrop.layers import Dense, Dropout, Flatten

CHECKSUM = "5e" * 32
EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>\x00\u202e"
CONDITIONS = ("without", "with")


def figures(metric, end, epochs, rng, better=1.0):
    """Curves of a run that ends somewhere: falling losses, an accuracy that rises."""
    course = np.exp(-np.arange(epochs) / 4)
    loss = end * (1 + 5 * course)
    noise = rng.normal(0, 0.01 * end, epochs)
    if metric == "accuracy":
        known, new = 1 - 0.5 * course, 1 - end * better - 0.5 * course
    else:
        known, new = 100 * loss, 130 * loss * better
    return {
        "loss": (0.5 * loss).tolist(),
        "val_loss": (better * loss + noise).tolist(),
        metric: known.tolist(),
        f"val_{metric}": (new + noise).tolist(),
    }


def results(metric="accuracy", seeds=5, rates=(0.5,), epochs=20, classes=(), unit="", better=0.7):
    """What `fastdrop train` would have left; dropout is better by a factor."""
    rng = np.random.default_rng(0)
    runs = [
        Run(
            rate,
            seed,
            figures(
                metric, 0.1 + 0.002 * seed, epochs, rng, better + (rate - 0.5) ** 2 if rate else 1
            ),
            {name: [0.01 * size] * epochs for name, size in (("training", 3), ("evaluation", 1))},
        )
        for seed in range(seeds)
        for rate in (0.0, *rates)
    ]
    data = {
        "name": "table.csv",
        "path": "table.csv",
        "label": "label",
        "checksum": CHECKSUM,
        "training": 100,
        "validation": 50,
        "task": "classification" if metric == "accuracy" else "regression",
        "metric": metric,
        "unit": unit,
        "classes": list(classes),
        "roles": None,
    }
    settings = {"hidden": [16, 8], "dropout": list(rates), "epochs": epochs, "seed": 0, "lr": 1e-3}
    command = ["fastdrop", "train", "--data", "table.csv"]
    return Results("0.1", {"NumPy": "2.4"}, command, data, settings, runs)


def models(outputs, activation, loss, x, y, epochs=5):
    """Two networks that have learned a little."""
    made = {}
    for condition, p in zip(CONDITIONS, (0.0, 0.5)):
        layers = [Flatten(), Dense(16, "relu"), Dense(8, "relu")]
        layers += [Dropout(p)] * bool(p) + [Dense(outputs, activation)]
        made[condition] = Sequential(layers, seed=1)
        made[condition].compile("adam", loss)
        made[condition].fit(x, y, 32, epochs, verbose=0)
    return made


def of_digits(**changed):
    """Images of ten classes."""
    x, y = load_digits()
    x = (x[:300] / 16).astype(np.float32)
    names = changed.pop("classes", tuple("0123456789"))
    trained = models(len(names), "softmax", "sparse_categorical_crossentropy", x, y[:300])
    found = results(**{"rates": (0.1, 0.3, 0.5, 0.8), "classes": names} | changed)
    return Evidence(found, 0.5, trained, Samples(x, y[:300], np.arange(300), names), [])


def table(classes, names, rows=200):
    """Numbers of which only the first column matters."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, len(names))).astype(np.float32)
    y = (x[:, 0] > 0).astype(int) + (x[:, 0] > 1) if classes else 3 * x[:, 0]
    columns = [Column(name, [i]) for i, name in enumerate(names)]
    return Samples(
        x,
        y,
        np.arange(1, len(x) + 1),
        classes,
        1.0,
        0.0,
        columns,
        lambda row: [f"{v:.2f}" for v in x[row]],
    )


def of_table(classes=("low", "middle", "high"), names=("age", "income", "noise"), **changed):
    """A table with three classes."""
    samples = table(classes, names)
    trained = models(3, "softmax", "sparse_categorical_crossentropy", samples.x, samples.y, 30)
    found = results(**{"classes": classes} | changed)
    return Evidence(found, 0.5, trained, samples, [])


def of_regression(**changed):
    """A table with a number to predict."""
    samples = table((), ("area", "rooms", "noise"))
    trained = models(1, "linear", "mean_squared_error", samples.x, samples.y, 60)
    found = results(**{"metric": "root_mean_squared_error", "unit": "EUR"} | changed)
    return Evidence(found, 0.5, trained, samples, [])


def of_nothing_but_results(**changed):
    """A run whose models and data are gone."""
    return Evidence(results(**changed), 0.5, {}, None, ["What needs the data is missing: <gone>."])


def of_evil_names():
    """Names of classes, columns and files that would be code if they were not escaped."""
    classes = tuple(f"{EVIL}{i}" for i in range(3))
    found = of_table(classes, [f"{EVIL}{i}" for i in range(3)])
    data = found.results.data | {"name": EVIL, "path": EVIL}
    named = found.results._replace(data=data, command=["fastdrop", "train", EVIL])
    return found._replace(results=named, missing=[EVIL])


CASES = {
    "images": of_digits,
    "many classes": lambda: of_digits(classes=[f"class {number}" for number in range(25)]),
    "table": of_table,
    "regression": of_regression,
    "one seed": lambda: of_table(seeds=1),
    "one epoch": lambda: of_regression(seeds=1, epochs=1),
    "nothing but results": of_nothing_but_results,
    "evil names": of_evil_names,
}
