#!/usr/bin/python3
"""Sets the training engine beside scikit-learn, in quality, on real rows.

    bhtrain matrix --snapshot SNAPSHOT --out MATRIX
    go run ./internal/evaluate --snapshot SNAPSHOT --predictions shipped.f32 shipped
    internal/versus/quality.py --matrix MATRIX --bhtrain BHTRAIN --shipped shipped.f32

Both sides fit the same training rows of the exported matrix, unweighted, and are
measured on the same test rows by the same code: macro-F1 over the classes that
the test rows have, and the mean of the areas under the ROC curves of each class
against all others. Derived rows of the matrix are left out. Printed are medians
over the seeds. "records" are the test rows that are no title of an exploit.

scikit-learn's forests and gradient boosting take hours on all rows: --rows and
--slow-rows bound the training rows, drawn once, the same for both sides.
--shipped has the probabilities that the shipped classifier, which is bounded in
size, weighs rows and has seen all of them, gives to the test rows.

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

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve on a shared machine

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

    def columns(self, model):
        return self.x[:, np.array(self.features[model]) - self.first]


def draw(rows, n, seed=1):
    """n of the rows, the same at each call."""
    if n <= 0 or len(rows) <= n:
        return rows
    return np.sort(np.random.RandomState(seed).choice(rows, n, replace=False))


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
    """One learner on both sides."""

    def __init__(self, options, folder, x, y, train, test, parts):
        self.options, self.folder, self.parts = options, folder, parts
        self.x, self.y, self.train, self.test = x, y, train, test
        self.classes = sorted(set(y[train].tolist()))
        self.known = test[np.isin(y[test], self.classes)]
        self.csv = [os.path.join(folder, n) for n in ("train.csv", "test.csv")]
        table(self.csv[0], x[train], y[train])
        table(self.csv[1], x[self.known], y[self.known])

    def theirs(self, make, seed):
        model = make(seed).fit(self.x[self.train], self.y[self.train])
        return model.predict_proba(self.x[self.known])

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

    def run(self, name, arguments, make, their_seeds, our_seeds):
        rows = []
        for who, fit, seeds in (("ours", lambda s: self.ours(arguments, s), our_seeds), (name, lambda s: self.theirs(make, s), their_seeds)):
            start = time.time()
            got = [self.figures(fit(s)) for s in range(1, seeds + 1)]
            rows.append([statistics.median(v) for v in zip(*got)])
            line(f"{who}, {seeds} seed{'s' * (seeds > 1)}", rows[-1], f"{(time.time() - start) / seeds:.0f} s")
        line("difference", [a - b for a, b in zip(*rows)], signed=True)


def line(name, values, after="", signed=False):
    print(f"  {name:<44}" + "".join(f" {v:{'+' if signed else ''}10.4f}" for v in values) + f"  {after}", flush=True)


def heading(text, parts):
    print(f"{text}\n  {'':<44}" + "".join(f" {'F1 ' + n:>10} {'AUC ' + n:>10}"[:22].rjust(22) for n, _ in parts), flush=True)


def forest(options):
    return (["--algorithm", "forest", "--trees", "200", "--depth", "20", "--min-split", "5", "--min-leaf", "2"],
            lambda s: RandomForestClassifier(n_estimators=200, max_depth=20, min_samples_split=5, min_samples_leaf=2, random_state=s, n_jobs=options.threads))


BOOSTING = ["--algorithm", "boosting", "--trees", "150", "--learning-rate", "0.1", "--depth", "5"]


def gradient(seed):
    return GradientBoostingClassifier(n_estimators=150, learning_rate=0.1, max_depth=5, random_state=seed)


def histogram(seed):
    return HistGradientBoostingClassifier(max_iter=150, learning_rate=0.1, max_depth=5, max_leaf_nodes=None, early_stopping=False, random_state=seed)


def classifier(m, options, folder):
    x, y = m.columns("classifier"), m.klass
    test = np.flatnonzero((m.part == "test") & (y >= 0))
    parts = [("all", test), ("records", test[m.source[test] != "exploitdb"])]
    pool = np.flatnonzero((m.part == "training") & (y >= 0))
    fast = Contest(options, folder, x, y, draw(pool, options.rows), test, parts)
    if wanted(options, "forest"):
        heading(f"threat classes, {len(fast.train)} training rows, {len(test)} test rows: forest 200/20/5/2", parts)
        arguments, make = forest(options)
        fast.run("RandomForestClassifier", arguments, make, options.seeds, options.seeds)
    if wanted(options, "histogram"):
        heading(f"threat classes, {len(fast.train)} training rows: boosting 150/0.1/5", parts)
        fast.run("HistGradientBoostingClassifier", BOOSTING, histogram, options.seeds, options.seeds)
    if wanted(options, "gradient"):
        slow = Contest(options, folder, x, y, draw(pool, options.slow_rows), test, parts)
        heading(f"threat classes, {len(slow.train)} training rows: boosting 150/0.1/5", parts)
        slow.run("GradientBoostingClassifier", BOOSTING, gradient, options.slow_seeds, options.seeds)
    if options.shipped:
        p = np.fromfile(options.shipped, "<f4").astype(float).reshape(len(test), -1)
        heading("threat classes: the shipped classifier", parts)
        classes = list(range(p.shape[1]))
        line("shipped", [v for _, part in parts for v in measure(y[part], p[np.isin(test, part)], classes)])


def reputation(m, options, folder):
    if not wanted(options, "reputation"):
        return
    x, y = m.columns("reputation"), m.bad
    train, test = (np.flatnonzero((m.part == part) & (y >= 0)) for part in ("training", "test"))
    parts = [("all", test)]
    c = Contest(options, folder, x, y, train, test, parts)
    arguments, make = forest(options)
    for name, arguments, make in (("RandomForestClassifier", arguments, make), ("HistGradientBoostingClassifier", BOOSTING, histogram),
                                  ("GradientBoostingClassifier", BOOSTING, gradient)):
        heading(f"reputation, {len(train)} training rows, {len(test)} test rows", parts)
        c.run(name, arguments, make, options.seeds, options.seeds)


def anomaly(m, options, folder):
    if not wanted(options, "isolation"):
        return
    x = m.columns("anomaly")
    benign = m.klass == max(m.klass)  # the last class of the taxonomy that trains
    record = (m.source != "exploitdb") & (m.source != "ordinary") & (m.klass >= 0)
    train = np.flatnonzero(record & benign & (m.part == "training"))
    test = np.flatnonzero(record & (m.part == "test"))
    label = np.where(benign, "benign", "attack")
    paths = [os.path.join(folder, n) for n in ("train.csv", "test.csv")]
    table(paths[0], x[train], label[train])
    table(paths[1], x[test], label[test])
    print(f"anomalies, {len(train)} benign training rows, {len(test)} test rows: isolation forest 100/256\n  {'':<44} {'AUC':>10}")
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


def wanted(options, name):
    return not options.only or name in options.only


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--matrix", required=True, help="directory that 'bhtrain matrix' wrote")
    p.add_argument("--bhtrain", required=True, help="the bhtrain program")
    p.add_argument("--shipped", help="float32 probabilities of the shipped classifier for the test rows")
    p.add_argument("--rows", type=int, default=10_000, help="training rows of the classifier, 0 for all (default: %(default)s)")
    p.add_argument("--slow-rows", type=int, default=2_000, help="the same for GradientBoostingClassifier (default: %(default)s)")
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--slow-seeds", type=int, default=1, help="seeds of GradientBoostingClassifier on threat classes (default: %(default)s)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--only", action="append", choices=["forest", "histogram", "gradient", "reputation", "isolation"])
    options = p.parse_args()
    m = Matrix(options.matrix)
    with tempfile.TemporaryDirectory() as folder:
        anomaly(m, options, folder)
        reputation(m, options, folder)
        classifier(m, options, folder)


if __name__ == "__main__":
    sys.exit(main())
