"""What is a docstring about? TF-IDF and a perceptron on the words of Python's standard library.

The samples are docstrings, the classes are the subjects of their modules. A module is either for
training or for the test, so the words that are a module's own do not help. X is sparse: it does not
become dense as a whole.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline

from xpnet import MLPClassifier

TRAINING = {
    "files": "os shutil posixpath pathlib tempfile glob fnmatch tarfile io bz2",
    "network": "socket ssl ftplib smtplib http.client urllib.request urllib.parse email.message "
    "imaplib xmlrpc.client",
    "numbers": "math cmath decimal random operator",
    "processes": "threading multiprocessing.pool subprocess asyncio.tasks asyncio.events "
    "concurrent.futures multiprocessing.managers signal",
}
TEST = {
    "files": "zipfile gzip lzma",
    "network": "poplib http.cookiejar socketserver http.server",
    "numbers": "statistics fractions numbers",
    "processes": "queue sched asyncio.locks multiprocessing.context",
}


def docstrings(name: str) -> Iterator[str]:
    """What a module says of its functions and classes, and of their methods."""
    module = importlib.import_module(name)
    for key, value in vars(module).items():
        if key.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        for part in (value, *(vars(value).values() if inspect.isclass(value) else ())):
            documented = inspect.isroutine(part) or inspect.isclass(part)
            text = part.__doc__ if documented or isinstance(part, property) else None
            if text and len(text.split()) >= 8:
                yield text


def corpus(subjects: dict[str, str]) -> tuple[list[str], list[str]]:
    """Texts, each once, and their subjects."""
    texts = {
        text: s for s, names in subjects.items() for n in names.split() for text in docstrings(n)
    }
    return list(texts), list(texts.values())


def main(say: Callable[..., None] = print) -> dict[str, float]:
    texts, subjects = corpus(TRAINING)
    others, expected = corpus(TEST)
    words = TfidfVectorizer(sublinear_tf=True, stop_words="english", dtype=np.float32)
    say(f"{len(texts)} texts to train on, {len(others)} to test, {len(set(subjects))} subjects")

    models: dict[str, Any] = {
        "the largest class": DummyClassifier(),
        "logistic regression": LogisticRegression(class_weight="balanced"),
        "MLPClassifier": MLPClassifier(
            (20,), dropout=0.3, class_weight="balanced",  # scikit-learn's has neither
            learning_rate_init=0.01, tol=1e-2, n_iter_no_change=5, random_state=0,
        ),
    }  # fmt: skip
    scores = {}
    for name, model in models.items():
        pipeline = make_pipeline(words, model).fit(texts, subjects)
        scores[name] = float(balanced_accuracy_score(expected, pipeline.predict(others)))
        say(f"{name:20} {scores[name]:.2f} balanced accuracy")  # each class counts the same
    new = ["Compress a folder and write it as an archive.", "Return the mean of the squares."]
    say(dict(zip(new, pipeline.predict(new).tolist(), strict=True)))
    return scores


if __name__ == "__main__":
    main()
