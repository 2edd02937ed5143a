"""Statistics of a classifier by scikit-learn, SciPy and NumPy, for package metric.

    python golden/metric.py        writes golden/metric.json

Logits are multiples of 1/4096, which float32 holds exactly, so that both sides read the same numbers.
"""

import json
import pathlib

import numpy as np
import scipy
import sklearn
from scipy import optimize, special, stats
from sklearn import metrics

CLASSES, IMAGES, BINS = 6, 240, 15

rng = np.random.default_rng(7)
labels = rng.integers(0, CLASSES - 1, IMAGES)  # the last class never occurs …
logits = 2.5 * rng.standard_normal((IMAGES, CLASSES))
logits[np.arange(IMAGES), labels] += 3.0
logits[:, 3] -= 1.5
logits = np.round(4096 * logits) / 4096
other = np.round(4096 * (logits + 2.0 * rng.standard_normal(logits.shape))) / 4096  # a second classifier

predicted = logits.argmax(1)
right = predicted == labels
probabilities = special.softmax(logits, axis=1)
confidence = probabilities.max(1)

out = {
    "case": "metric",
    "note": "statistics of a classifier: logits, labels and what scikit-learn, SciPy and NumPy make of them",
    "script": "metric.py", "command": "python golden/metric.py",
    "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "sklearn": sklearn.__version__},
    "classes": CLASSES, "labels": labels.tolist(),
    "values": {"logits": logits.ravel().tolist()},
}

# Counts by class.
precision, recall, f1, support = metrics.precision_recall_fscore_support(
    labels, predicted, labels=range(CLASSES), zero_division=np.nan)
macro = metrics.precision_recall_fscore_support(
    labels, predicted, labels=range(CLASSES), average="macro", zero_division=np.nan)
nan = lambda xs: [None if np.isnan(x) else float(x) for x in xs]
out["confusion"] = metrics.confusion_matrix(labels, predicted, labels=range(CLASSES)).ravel().tolist()
out["precision"], out["recall"], out["f1"], out["support"] = nan(precision), nan(recall), nan(f1), support.tolist()
out["macro"] = [float(x) for x in macro[:3]]
out["top"] = {str(k): int(round(metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(CLASSES), normalize=False)))
              for k in (1, 2, 5)}

# Cross-entropy of each picture, its mean and interval.
losses = -special.log_softmax(logits, axis=1)[np.arange(IMAGES), labels]
np.testing.assert_allclose(losses.mean(), metrics.log_loss(labels, probabilities, labels=range(CLASSES)), rtol=1e-12)
out["nll"] = float(losses.mean())
out["nll_interval"] = [float(x) for x in stats.norm.interval(0.95, losses.mean(), stats.sem(losses))]
out["brier"] = float(((probabilities - np.eye(CLASSES)[labels]) ** 2).sum(1).mean())


# Calibration, as in the code of Guo et al. (temperature_scaling.py): bins (low, high].
def reliability(confidence, right):
    edges = np.linspace(0, 1, BINS + 1)
    ece, worst, counts = 0.0, 0.0, []
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        counts.append(int(inside.sum()))
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            ece += gap * inside.mean()
            worst = max(worst, gap)
    return float(ece), float(worst), counts


out["bins"] = BINS
out["ece"], out["mce"], out["bin_counts"] = reliability(confidence, right)


def nll(log_temperature):
    scaled = special.log_softmax(logits / np.exp(log_temperature), axis=1)
    return -scaled[np.arange(IMAGES), labels].mean()


fit = optimize.minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-12})
out["temperature"], out["temperature_nll"] = float(np.exp(fit.x)), float(fit.fun)
scaled = special.softmax(logits / np.exp(fit.x), axis=1)
out["temperature_ece"] = reliability(scaled.max(1), right)[0]

# Answering only the most confident.
order = np.argsort(-confidence, kind="stable")
running = np.cumsum(right[order])
errors = 1 - running / np.arange(1, IMAGES + 1)
out["aurc"] = float(errors.mean())
out["answered_correct"] = {str(k): int(running[k - 1]) for k in (24, 120, 240)}
enough = np.nonzero(running / np.arange(1, IMAGES + 1) >= 0.9)[0]
out["answered_at_90"] = int(enough.max() + 1)
assert len(np.unique(confidence)) == IMAGES and all(len(set(row)) == CLASSES for row in logits)  # no ties

# Two classifiers on the same pictures.
other_right = other.argmax(1) == labels
only_a, only_b = int((right & ~other_right).sum()), int((~right & other_right).sum())
pairs = [(only_a, only_b, IMAGES), (0, 0, 10), (5, 5, 20), (0, 7, 50), (30, 12, 1000), (1000, 1100, 10000), (600, 200, 50000)]
out["paired"] = []
for a, b, n in pairs:
    p = stats.binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    # Agresti & Min: Wald's interval of paired proportions, half a picture added to each count.
    p_a, p_b, m = (a + 0.5) / (n + 2), (b + 0.5) / (n + 2), n + 2
    half = stats.norm.ppf(0.975) * np.sqrt((p_a + p_b - (p_b - p_a) ** 2) / m)
    out["paired"].append([a, b, n, float(p), float(p_b - p_a - half), float(p_b - p_a + half)])

target = pathlib.Path(__file__).parent / "metric.json"
target.write_text(json.dumps(out, separators=(",", ":")) + "\n")
print(target, target.stat().st_size, {k: v for k, v in out.items() if k not in ("values", "labels")})
