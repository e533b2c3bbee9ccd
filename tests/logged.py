"""What a logger should have of a run, out of its metrics."""

SMALL = ("model=mlp", "epochs=3", "dataset.split.train_size=200")
"""Evaluated after steps 4, 8 and 12."""


def as_logged(rows, metric="accuracy"):
    """Lines of metrics.csv in the form that a logger gets, less seconds."""
    steps = {}
    for row in rows:
        values = steps.setdefault(int(row["step"]), {"epoch": float(row["epoch"]), "lr": float(row["lr"])})
        for column, name in (("loss", "loss"), ("accuracy", metric)):
            values[f"{row['split']}/{name}/{row['weights']}"] = float(row[column])
    return steps


def less_seconds(steps):
    return {step: {key: value for key, value in values.items() if key != "seconds"} for step, values in steps.items()}
