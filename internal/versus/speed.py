#!/usr/bin/python3
"""Times the training engine beside scikit-learn and XGBoost, in one run.

Every contestant fits the same generated rows, in a process of its own, in turns,
with the same number of threads, trees, splits between root and leaf, leaves and
bins. Printed are medians over the runs: seconds by the clock and of CPU for the
fit, and the peak memory of the whole process until it is done. Here the fit
begins with a table in memory, whose values take two bytes as all are small whole
numbers, there with an array of float32 that NumPy has loaded from its own format,
which is the least they can do with. A fit
of XGBoost includes making its DMatrix; "train" is without.

Needs Debian's python3-sklearn and python3-xgboost, and up to 4 GB in $TMPDIR.
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

CLASSES = {"binary": 2, "multiclass": 6}
TEST_ROWS = 10_000

# Trees (rounds of boosting) by number of values, rows x columns: time is linear
# in them, and scikit-learn's forests are slow.
TREES = {
    "boosting": [(1e6, 150), (1e7, 100), (1e8, 50), (1e9, 20)],
    "forest": [(1e6, 200), (1e7, 50), (1e8, 6), (1e9, 2)],
    "isolation": [(1e9, 100)],
}
GROWTH_TREES = {"boosting": 20, "forest": 8, "isolation": 100}
FOREST = {"depth": 20, "min_split": 5, "min_leaf": 2}
BOOSTING = [{"depth": 6, "leaves": 64}, {"depth": 12, "leaves": 31}]
BINS, RATE, SAMPLE = 255, 0.1, 256


def trees(learner, rows, columns):
    return next(n for values, n in TREES[learner] if rows * columns <= values)


# The rows.


def generate(folder, rows, columns, seed):
    """Writes rows as CSV and for NumPy, with labels of both tasks.

    A third of the columns is even over 10,000 values, a third are counts of which
    0 is the most frequent, and a third is long-tailed. Labels follow a function of nine
    columns, with noise.
    """
    import numpy as np

    text = np.array([b"%04d," % i for i in range(10_000)], "S5")
    names = [f"c{i}" for i in range(columns)]
    for part, n in (("train", rows), ("test", TEST_ROWS)):
        rng = np.random.default_rng([seed, part == "test"])
        x = np.lib.format.open_memmap(f"{folder}/{part}.npy", "w+", np.float32, (n, columns))
        y = {task: np.empty(n, np.uint8) for task in CLASSES}
        files = {task: open(f"{folder}/{part}-{task}.csv", "wb") for task in CLASSES}
        for f in files.values():
            f.write((",".join(names + ["label"]) + "\n").encode())
        block = max(1, 2_000_000 // columns)
        for lo in range(0, n, block):
            m = min(block, n - lo)
            v = np.empty((m, columns), np.int32)
            v[:, 0::3] = rng.integers(0, 10_000, v[:, 0::3].shape)
            v[:, 1::3] = np.minimum(rng.geometric(0.4, v[:, 1::3].shape) - 1, 99)
            v[:, 2::3] = np.minimum(rng.exponential(700, v[:, 2::3].shape), 9999)
            x[lo : lo + m] = v
            a, b, c = v[:, 0] / 10_000, v[:, 3] / 10_000, v[:, 6] / 10_000
            s = np.sin(6 * a) + b * c + 0.3 * (v[:, 1] > 1) * (v[:, 4] == 0) - 0.4 * (v[:, 7] > 0) * b
            s += 0.2 * np.log1p(v[:, 2]) * a - 0.1 * np.log1p(v[:, 5]) + 0.3 * (v[:, 8] < 300) + rng.normal(0, 0.3, m)
            y["binary"][lo : lo + m] = s > 0.9
            y["multiclass"][lo : lo + m] = np.searchsorted([-0.4, 0.2, 0.7, 1.1, 1.5], s)
            cells = text[v].view(np.uint8).reshape(m, columns * 5)
            for task, f in files.items():
                line = np.empty((m, columns * 5 + 2), np.uint8)
                line[:, :-2] = cells
                line[:, -2] = y[task][lo : lo + m] + ord("0")
                line[:, -1] = ord("\n")
                f.write(line.data)
        x.flush()
        for task, f in files.items():
            f.close()
            np.save(f"{folder}/{part}-{task}.npy", y[task])


def same_rows(folder, rows, task):
    """Fails when the two forms of the rows are not the same rows."""
    import numpy as np

    for part, n in (("train", rows), ("test", TEST_ROWS)):
        x, y = np.load(f"{folder}/{part}.npy", mmap_mode="r"), np.load(f"{folder}/{part}-{task}.npy")
        assert x.shape[0] == len(y) == n, "the forms of the rows differ in number"
        with open(f"{folder}/{part}-{task}.csv", "rb") as f:
            header = f.readline()
            width = 5 * x.shape[1] + 2
            for r in range(0, n, max(1, n // 1000)):
                f.seek(len(header) + r * width)
                line = [float(v) for v in f.read(width).split(b",")]
                assert line == [*x[r].tolist(), float(y[r])], f"the forms of row {r} differ"
            f.seek(0, os.SEEK_END)
            assert f.tell() == len(header) + n * width, "the forms of the rows differ in size"


# The others.


def cpu():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime


def peak_mb():
    # Not ru_maxrss, in which the memory of the parent shows.
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def peer(job):
    """Fits one contestant on the rows and returns what it took."""
    import numpy as np

    folder, task, threads = job["folder"], job["task"], job["threads"]
    if job["load"] == "csv":
        rows = np.loadtxt(f"{folder}/train-{task}.csv", delimiter=",", skiprows=1)
        x, y = rows[:, :-1], rows[:, -1].astype(np.uint8)
    else:
        x, y = np.load(f"{folder}/train.npy"), np.load(f"{folder}/train-{task}.npy")
    r = {}
    if job["who"] == "xgboost":
        import xgboost

        params = {
            "objective": "binary:logistic" if task == "binary" else "multi:softprob", "tree_method": "hist",
            "max_depth": job["depth"], "max_leaves": job["leaves"], "max_bin": BINS, "eta": RATE, "nthread": threads, "seed": job["seed"],
            "grow_policy": "depthwise" if job["leaves"] >= 1 << job["depth"] else "lossguide",
        }
        if task == "multiclass":
            params["num_class"] = CLASSES[task]
        wall, used = time.perf_counter(), cpu()
        d = xgboost.DMatrix(x, y, nthread=threads)
        made = cpu()
        m = xgboost.train(params, d, job["trees"])
        r["fit_wall_s"], r["fit_cpu_s"], r["train_cpu_s"] = time.perf_counter() - wall, cpu() - used, cpu() - made
        r["peak_rss_mb"] = peak_mb()
        r["nodes"] = sum(t.count("\n") + 1 for t in (t.strip() for t in m.get_dump()))
        scores = m.predict(xgboost.DMatrix(np.load(f"{folder}/test.npy"), nthread=threads))
    else:
        import sklearn.ensemble as e

        if job["who"] == "sklearn-hist":
            m = e.HistGradientBoostingClassifier(
                max_iter=job["trees"], max_depth=job["depth"], max_leaf_nodes=job["leaves"], max_bins=BINS, learning_rate=RATE,
                min_samples_leaf=1, l2_regularization=1, early_stopping=False, random_state=job["seed"])
        elif job["who"] == "sklearn-forest":
            m = e.RandomForestClassifier(
                job["trees"], max_depth=job["depth"], min_samples_split=job["min_split"], min_samples_leaf=job["min_leaf"],
                n_jobs=threads, random_state=job["seed"])
        else:
            m = e.IsolationForest(n_estimators=job["trees"], max_samples=SAMPLE, n_jobs=threads, random_state=job["seed"])
        wall, used = time.perf_counter(), cpu()
        m.fit(x, y)
        r["fit_wall_s"], r["fit_cpu_s"] = time.perf_counter() - wall, cpu() - used
        r["peak_rss_mb"] = peak_mb()
        test = np.load(f"{folder}/test.npy")
        if job["who"] == "sklearn-isolation":
            r["nodes"] = sum(t.tree_.node_count for t in m.estimators_)
            scores = -m.score_samples(test)
        else:
            if job["who"] == "sklearn-hist":
                r["nodes"] = sum(len(t.nodes) for round in m._predictors for t in round)
            else:
                r["nodes"] = sum(t.tree_.node_count for t in m.estimators_)
            scores = m.predict_proba(test)
            if task == "binary":
                scores = scores[:, 1]
    from sklearn.metrics import roc_auc_score

    truth = np.load(f"{folder}/test-{task}.npy")
    r["auc"] = float(roc_auc_score(truth, scores, multi_class="ovr"))
    r["rows"], r["columns"] = x.shape
    return r


def ours(bhtrain, job):
    args = ["--csv", f"{job['folder']}/train-{job['task']}.csv", "--test", f"{job['folder']}/test-{job['task']}.csv", "--label", "label"]
    args += ["--algorithm", job["learner"], "--trees", job["trees"], "--seed", job["seed"], "--threads", job["threads"], "--format", "json"]
    if job["learner"] == "boosting":
        args += ["--depth", job["depth"], "--leaves", job["leaves"], "--bins", BINS, "--learning-rate", RATE]
    elif job["learner"] == "forest":
        args += ["--depth", job["depth"], "--bins", BINS, "--min-split", job["min_split"], "--min-leaf", job["min_leaf"]]
    else:
        args += ["--task", "anomaly", "--sample", SAMPLE]
    return json.loads(subprocess.run([bhtrain, "bench", *map(str, args)], check=True, stdout=subprocess.PIPE).stdout)


def run(bhtrain, job):
    if job["who"] == "bhtrain":
        return ours(bhtrain, job)
    # Threads that wait for others sleep: else waiting counts as CPU time.
    env = dict(os.environ, OMP_NUM_THREADS=str(job["threads"]), OMP_WAIT_POLICY="passive", OPENBLAS_NUM_THREADS="1")
    out = subprocess.run([sys.executable, __file__, "--peer", json.dumps(job)], check=True, stdout=subprocess.PIPE, env=env).stdout
    return json.loads(out)


# The contests.


def contests(learners, rows, columns):
    for learner in learners:
        n = trees(learner, rows, columns)
        if learner == "boosting":
            for task in CLASSES:
                for shape in BOOSTING:
                    yield {"learner": learner, "task": task, "trees": n, **shape}, ["xgboost", "sklearn-hist"]
        elif learner == "forest":
            for task in CLASSES:
                yield {"learner": learner, "task": task, "trees": n, **FOREST}, ["sklearn-forest"]
        else:
            yield {"learner": learner, "task": "binary", "trees": n}, ["sklearn-isolation"]


def compare(o, folder, rows, columns, results):
    for job, rivals in contests(o.learners, rows, columns):
        if job["task"] not in o.tasks or "depth" in job and job["learner"] == "boosting" and o.depths and job["depth"] not in o.depths:
            continue
        job.update(folder=folder, threads=o.threads, load=o.load)
        same_rows_in_child(job, rows)
        took = {who: [] for who in ["bhtrain", *rivals]}
        for k in range(o.runs):
            for who in took:
                r = run(o.bhtrain, dict(job, who=who, seed=k + 1))
                assert (r["rows"], r["columns"]) == (rows, columns), f"{who} saw {r['rows']} x {r['columns']}"
                took[who].append(r)
        shape = f"depth {job['depth']}" if "depth" in job else f"sample {SAMPLE}"
        if "leaves" in job:
            shape += f", {job['leaves']} leaves"
        name = job["learner"] + ("" if job["learner"] == "isolation" else " " + job["task"])
        for who, r in took.items():
            m = {f: statistics.median(v[f] for v in r) for f in r[0] if isinstance(r[0][f], (int, float))}
            row = {"rows": rows, "columns": columns, "contest": name, "shape": shape, "who": who, **dict(m, trees=job["trees"])}
            if who != "bhtrain":
                row["wall_ratio"] = m["fit_wall_s"] / mine["fit_wall_s"]
                row["cpu_ratio"] = m["fit_cpu_s"] / mine["fit_cpu_s"]
                row["memory_ratio"] = m["peak_rss_mb"] / mine["peak_rss_mb"]
                if "train_cpu_s" in m:
                    row["train_cpu_ratio"] = m["train_cpu_s"] / mine["fit_cpu_s"]
            else:
                mine = m
            results.append(row)
            show(row)


def same_rows_in_child(job, rows):
    child("same", [job["folder"], rows, job["task"]])


def child(what, args):
    # This process stays small: it is the parent of those whose memory counts.
    subprocess.run([sys.executable, __file__, "--child", json.dumps([what, args])], check=True)


HEAD = ("rows", "columns", "contest", "trees", "shape", "who", "wall s", "CPU s", "MB", "nodes", "AUC", "wall", "CPU", "train", "memory")
WIDTH = "{:>9} {:>7} {:<20} {:>5} {:<19} {:<17} {:>8} {:>8} {:>7} {:>9} {:>7} {:>6} {:>6} {:>6} {:>6}"


def show(r):
    ratio = lambda f: f"{r[f]:.2f}" if f in r else ""
    print(WIDTH.format(
        r["rows"], r["columns"], r["contest"], r["trees"], r["shape"], r["who"], f"{r['fit_wall_s']:.3f}", f"{r['fit_cpu_s']:.3f}",
        f"{r['peak_rss_mb']:.0f}", f"{r['nodes']:.0f}", f"{r['auc']:.4f}", ratio("wall_ratio"), ratio("cpu_ratio"), ratio("train_cpu_ratio"), ratio("memory_ratio"),
    ).rstrip(), flush=True)


def growth(o, folder, rows, columns, took):
    """Our side alone with the same trees at all sizes."""
    for learner in o.learners:
        job = {"learner": learner, "task": "binary", "trees": GROWTH_TREES[learner], "folder": folder, "threads": o.threads, "seed": 1}
        job.update(BOOSTING[0] if learner == "boosting" else FOREST if learner == "forest" else {})
        cpus = [ours(o.bhtrain, job)["fit_cpu_s"] for _ in range(o.runs)]
        took.setdefault((learner, columns), []).append((rows, statistics.median(cpus)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bhtrain", help="the program")
    p.add_argument("--rows", default="10000,100000,1000000")
    p.add_argument("--columns", default="29,256")
    p.add_argument("--learners", default="boosting,forest,isolation")
    p.add_argument("--tasks", default=",".join(CLASSES), help="isolation counts as binary")
    p.add_argument("--depths", help="of boosting: 6, 12 or both")
    p.add_argument("--load", choices=["npy", "csv"], default="npy", help="what the others read the rows from")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--trees", type=int, help="for all sizes (default: fewer, the larger)")
    p.add_argument("--json", help="file for all figures")
    p.add_argument("--no-rivals", action="store_true", help="only the growth of our own time")
    p.add_argument("--no-growth", action="store_true")
    p.add_argument("--peer", help=argparse.SUPPRESS)
    p.add_argument("--child", help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.peer:
        print(json.dumps(peer(json.loads(o.peer))))
        return
    if o.child:
        what, args = json.loads(o.child)
        {"generate": generate, "same": same_rows}[what](*args)
        return
    if not o.bhtrain:
        p.error("--bhtrain is missing")
    o.learners, o.tasks = o.learners.split(","), o.tasks.split(",")
    o.depths = [int(d) for d in o.depths.split(",")] if o.depths else []
    if o.trees:
        for learner in TREES:
            TREES[learner] = [(math.inf, o.trees)]
    results, took = [], {}
    if not o.no_rivals:
        print("Ratios are theirs over ours: above 1 is better here.", flush=True)
        print(WIDTH.format(*HEAD), flush=True)
    for columns in map(int, o.columns.split(",")):
        for rows in map(int, o.rows.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                child("generate", [folder, rows, columns, 1])
                if not o.no_rivals:
                    compare(o, folder, rows, columns, results)
                if not o.no_growth:
                    growth(o, folder, rows, columns, took)
    grown = []
    for (learner, columns), points in took.items():
        for (n, a), (m, b) in zip(points, points[1:]):
            grown.append({"learner": learner, "columns": columns, "from": n, "to": m, "from_cpu_s": a, "to_cpu_s": b, "exponent": math.log(b / a) / math.log(m / n)})
    if grown:
        print("\nGrowth: CPU time is as rows to this power, with the same trees.")
        for g in grown:
            print(f"{g['learner']:<10} {g['columns']:>4} columns, {g['from']:>8} to {g['to']:>8} rows: {g['from_cpu_s']:8.3f} s to {g['to_cpu_s']:8.3f} s, exponent {g['exponent']:.2f}")
    if o.json:
        with open(o.json, "w") as f:
            json.dump({"contests": results, "growth": grown}, f, indent=1)


main()
