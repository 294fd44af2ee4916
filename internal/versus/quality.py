#!/usr/bin/python3
"""Sets the training engine beside scikit-learn, in quality, on real rows.

    bhtrain matrix SNAPSHOT --out MATRIX
    go run ./internal/evaluate --snapshot SNAPSHOT --predictions shipped.f32 shipped
    internal/versus/quality.py --matrix MATRIX --bhtrain BHTRAIN --shipped shipped.f32

Both sides fit the same training rows of the exported matrix, unweighted, with the
same parameters, and are measured on the same test rows by the same code: macro-F1
over the classes that the test rows have, and the mean of the areas under the ROC
curves of each class against all others. Derived rows of the matrix are left out.
"records" are the test rows that are no title of an exploit.

Boosting draws nothing at random, so a seed draws the training rows too: each seed
a share of each class, the same for both sides. Printed are medians over the seeds.
scikit-learn takes hours on all rows of the threat classes: --rows and --slow-rows
bound them, --slow-seeds the seeds of GradientBoosting; --full takes all rows, which
leaves boosting with one draw. Reputations draw nine tenths of their rows.

--shipped has what the shipped models, which are bounded in size, weigh rows and
have seen all of them, say of the test rows.

Needs Debian's python3-sklearn.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time

# Threads of HistGradientBoosting meet thousands of times a second, and on a shared
# machine wait for each other: one is faster than two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.metrics import f1_score, roc_auc_score


class Matrix:
    """The exported matrix: rows that are not derived."""

    def __init__(self, folder):
        with open(os.path.join(folder, "columns.csv"), newline="") as f:
            columns = list(csv.DictReader(f))
        self.names = [c["name"] for c in columns]
        self.features = {
            model: [i for i, c in enumerate(columns) if model in c["models"].split()]
            for model in ("classifier", "anomaly", "reputation")
        }
        first = min(self.features["classifier"] + self.features["anomaly"] + self.features["reputation"])
        keep, info = [], []
        derived, source, part, klass, bad = (self.names.index(n) for n in ("derived", "source", "part", "class_index", "bad"))
        with open(os.path.join(folder, "matrix.csv"), newline="") as f:
            next(f)
            for line in f:
                head = line.split(",", first)
                if head[derived] == "1":
                    continue
                info.append((head[source], head[part], int(head[klass]), int(head[bad])))
                keep.append(np.array(head[first].split(","), np.float32))
        self.first, self.x = first, np.array(keep)
        self.source = np.array([i[0] for i in info])
        self.part = np.array([i[1] for i in info])
        self.klass = np.array([i[2] for i in info])
        self.bad = np.array([i[3] for i in info])

    def at_test(self, rows):
        """Where rows of the test part stand in it."""
        return np.searchsorted(np.flatnonzero(self.part == "test"), rows)

    def columns(self, model):
        return self.x[:, np.array(self.features[model]) - self.first]


def draw(rows, labels, n, seed):
    """About n of the rows, the same share of each class, at least two of it."""
    if n <= 0 or len(rows) <= n:
        return rows
    random, kept = np.random.RandomState(seed), []
    for c in np.unique(labels[rows]):
        some = rows[labels[rows] == c]
        kept.append(random.choice(some, min(len(some), max(2, round(n * len(some) / len(rows)))), replace=False))
    return np.sort(np.concatenate(kept))


def table(path, x, labels):
    with open(path, "w") as f:
        f.write(",".join([f"c{i}" for i in range(x.shape[1])] + ["label"]) + "\n")
        for row, label in zip(x, labels):
            f.write(",".join([format(v, ".9g") for v in row] + [str(label)]) + "\n")


def measure(truth, probabilities, classes):
    """Macro-F1 and mean AUC over the classes that occur in truth."""
    said = np.asarray(classes)[probabilities.argmax(axis=1)]
    occur = [c for c in classes if (truth == c).any()]
    f1 = f1_score(truth, said, labels=occur, average="macro", zero_division=0)
    areas = [roc_auc_score(truth == c, probabilities[:, list(classes).index(c)]) for c in occur if (truth != c).any()]
    return f1, float(np.mean(areas))


class Contest:
    """Learners on both sides: x and y of all rows, pool to draw n training rows from."""

    def __init__(self, options, folder, x, y, pool, n, test, parts):
        self.options, self.folder, self.parts = options, folder, parts
        self.x, self.y, self.pool, self.n = x, y, pool, n
        self.classes = sorted(set(y[pool].tolist()))
        self.known = test[np.isin(y[test], self.classes)]
        self.csv = [os.path.join(folder, n) for n in ("train.csv", "test.csv")]
        table(self.csv[1], x[self.known], y[self.known])

    def ours(self, arguments, seed):
        scores = os.path.join(self.folder, "scores.f32")
        subprocess.run([self.options.bhtrain, "bench", "--csv", self.csv[0], "--test", self.csv[1], "--label", "label",
                        "--seed", str(seed), "--predictions", scores, "--format", "json", "--threads", str(self.options.threads),
                        *arguments], check=True, stdout=subprocess.DEVNULL)
        p = np.fromfile(scores, "<f4").astype(float)
        return np.stack([1 - p, p], axis=1) if len(self.classes) == 2 else p.reshape(-1, len(self.classes))

    def figures(self, probabilities):
        out = []
        for _, part in self.parts:
            inside = np.isin(self.known, part)
            out += measure(self.y[self.known][inside], probabilities[inside], self.classes)
        return out

    def run(self, name, arguments, make, seeds):
        """Sides of one learner: arguments of ours, by name, and make(seed) theirs."""
        got, took = {n: [] for n in [*arguments, name]}, dict.fromkeys([*arguments, name], 0)
        for seed in range(1, seeds + 1):
            train = draw(self.pool, self.y, self.n, seed)
            table(self.csv[0], self.x[train], self.y[train])
            for side in got:
                start = time.time()
                if side == name:
                    p = make(seed).fit(self.x[train], self.y[train]).predict_proba(self.x[self.known])
                else:
                    p = self.ours(arguments[side], seed)
                took[side] += time.time() - start
                got[side].append(self.figures(p))
        median = {side: [statistics.median(v) for v in zip(*f)] for side, f in got.items()}
        for side, f in got.items():
            line(side, median[side], f"{took[side] / seeds:.0f} s")
            if seeds > 1:
                line("  least", [min(v) for v in zip(*f)])
                line("  most", [max(v) for v in zip(*f)])
        for side in arguments:
            line(f"{side} - {name}"[:44], [a - b for a, b in zip(median[side], median[name])], signed=True)


def line(name, values, after="", signed=False):
    print(f"  {name:<44}" + "".join(f" {v:{'+' if signed else ''}10.4f}" for v in values) + f"  {after}", flush=True)


def heading(text, parts):
    print(f"{text}\n  {'':<44}" + "".join(f" {'F1 ' + n:>10} {'AUC ' + n:>10}"[:22].rjust(22) for n, _ in parts), flush=True)


def forest(options):
    return ({"ours": ["--algorithm", "forest", "--trees", "200", "--depth", "20", "--min-split", "5", "--min-leaf", "2"]},
            lambda s: RandomForestClassifier(n_estimators=200, max_depth=20, min_samples_split=5, min_samples_leaf=2, random_state=s, n_jobs=options.threads))


# scikit-learn's gradient boosting shrinks no leaf, and bounds no hessian (the
# histograms: by a thousandth); bhtrain bench does both by default, as XGBoost does.
BOOSTING = ["--algorithm", "boosting", "--trees", "150", "--learning-rate", "0.1", "--depth", "5"]
FREE = [*BOOSTING, "--l2", "0.001", "--min-hessian", "0.001"]


def gradient():
    return ({"ours": [*FREE, "--min-leaf", "1"]},
            lambda s: GradientBoostingClassifier(n_estimators=150, learning_rate=0.1, max_depth=5, random_state=s))


def histogram():
    return ({"ours": [*FREE, "--min-leaf", "20"], "ours, defaults": BOOSTING},
            lambda s: HistGradientBoostingClassifier(max_iter=150, learning_rate=0.1, max_depth=5, max_leaf_nodes=None, early_stopping=False, random_state=s))


def classifier(m, options, folder, shipped):
    x, y = m.columns("classifier"), m.klass
    test = np.flatnonzero((m.part == "test") & (y >= 0))
    parts = [("all", test), ("records", test[m.source[test] != "exploitdb"])]
    pool = np.flatnonzero((m.part == "training") & (y >= 0))
    for only, name, (arguments, make), rows, seeds in (
        ("forest", "RandomForestClassifier", forest(options), options.rows, options.seeds),
        ("histogram", "HistGradientBoostingClassifier", histogram(), options.rows, options.seeds),
        ("gradient", "GradientBoostingClassifier", gradient(), options.slow_rows, options.slow_seeds),
    ):
        if wanted(options, only):
            drawn = len(draw(pool, y, rows, 1))
            heading(f"threat classes, {drawn} of {len(pool)} training rows, {len(test)} test rows, {seeds} seeds: {only}", parts)
            Contest(options, folder, x, y, pool, rows, test, parts).run(name, arguments, make, seeds)
    if shipped is not None:
        p = shipped[:, :-2]
        heading("threat classes: the shipped classifier", parts)
        line("shipped", [v for _, part in parts for v in measure(y[part], p[m.at_test(part)], list(range(p.shape[1])))])


def reputation(m, options, folder, shipped):
    x, y = m.columns("reputation"), m.bad
    pool, test = (np.flatnonzero((m.part == part) & (y >= 0)) for part in ("training", "test"))
    parts = [("all", test)]
    if wanted(options, "reputation"):
        rows = 0 if options.full else len(pool) * 9 // 10
        c = Contest(options, folder, x, y, pool, rows, test, parts)
        for name, (arguments, make), seeds in (
            ("RandomForestClassifier", forest(options), options.seeds),
            ("HistGradientBoostingClassifier", histogram(), options.seeds),
            ("GradientBoostingClassifier", gradient(), options.slow_seeds),
        ):
            heading(f"reputation, {rows or len(pool)} of {len(pool)} training rows, {len(test)} test rows, {seeds} seeds", parts)
            c.run(name, arguments, make, seeds)
    if shipped is not None:
        p = shipped[m.at_test(test), -2]
        heading("reputation: the shipped model", parts)
        line("shipped", measure(y[test], np.stack([1 - p, p], axis=1), [0, 1]))


def anomaly(m, options, folder, shipped):
    x = m.columns("anomaly")
    benign = m.klass == max(m.klass)  # the last class of the taxonomy that trains
    record = (m.source != "exploitdb") & (m.source != "ordinary") & (m.klass >= 0)
    train = np.flatnonzero(record & benign & (m.part == "training"))
    test = np.flatnonzero(record & (m.part == "test"))
    print(f"anomalies, {len(train)} benign training rows, {len(test)} test rows: isolation forest 100/256\n  {'':<44} {'AUC':>10}")
    if wanted(options, "isolation"):
        label = np.where(benign, "benign", "attack")
        paths = [os.path.join(folder, n) for n in ("train.csv", "test.csv")]
        table(paths[0], x[train], label[train])
        table(paths[1], x[test], label[test])
        both = []
        for who in ("ours", "IsolationForest"):
            got = []
            for s in range(1, options.seeds + 1):
                if who == "ours":
                    scores = os.path.join(folder, "scores.f32")
                    subprocess.run([options.bhtrain, "bench", "--csv", paths[0], "--test", paths[1], "--label", "label", "--task", "anomaly",
                                    "--normal", "benign", "--trees", "100", "--sample", "256", "--seed", str(s), "--predictions", scores, "--format", "json"],
                                   check=True, stdout=subprocess.DEVNULL)
                    p = np.fromfile(scores, "<f4")
                else:
                    p = -IsolationForest(n_estimators=100, max_samples=256, random_state=s).fit(x[train]).score_samples(x[test])
                got.append(roc_auc_score(~benign[test], p))
            both.append(statistics.median(got))
            line(f"{who}, {options.seeds} seeds", both[-1:])
        line("difference", [both[0] - both[1]], signed=True)
    if shipped is not None:
        line("shipped", [roc_auc_score(~benign[test], shipped[m.at_test(test), -1])])


def wanted(options, name):
    return not options.only or name in options.only


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--matrix", required=True, help="directory that 'bhtrain matrix' wrote")
    p.add_argument("--bhtrain", required=True, help="the bhtrain program")
    p.add_argument("--shipped", help="float32 scores of the shipped models for the test rows")
    p.add_argument("--rows", type=int, default=2_000, help="training rows of the threat classes, 0 for all (default: %(default)s)")
    p.add_argument("--slow-rows", type=int, default=1_000, help="the same for GradientBoostingClassifier (default: %(default)s)")
    p.add_argument("--seeds", type=int, default=5, help="seeds, each with rows of its own (default: %(default)s)")
    p.add_argument("--slow-seeds", type=int, default=1, help="seeds of GradientBoostingClassifier (default: %(default)s)")
    p.add_argument("--full", action="store_true", help="all rows, and all seeds of all learners: hours")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--only", action="append", choices=["forest", "histogram", "gradient", "reputation", "isolation"])
    options = p.parse_args()
    if options.full:
        options.rows, options.slow_rows, options.slow_seeds = 0, 0, options.seeds
    m = Matrix(options.matrix)
    shipped = None
    if options.shipped:
        shipped = np.fromfile(options.shipped, "<f4").astype(float).reshape(int((m.part == "test").sum()), -1)
    with tempfile.TemporaryDirectory() as folder:
        anomaly(m, options, folder, shipped)
        reputation(m, options, folder, shipped)
        classifier(m, options, folder, shipped)


if __name__ == "__main__":
    sys.exit(main())
