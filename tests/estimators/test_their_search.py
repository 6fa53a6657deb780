"""scikit-learn's own tests of GridSearchCV, as installed, run on BatchedGridSearchCV."""

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

model_selection = pytest.importorskip(
    "sklearn.model_selection", reason="scikit-learn is not installed"
)
ours = pytest.importorskip("xpnet.sklearn")

pytestmark = pytest.mark.filterwarnings("default")

LEFT_OUT = {
    "test_array_api_search_cv_classifier": "its cases are a generator, which pytest refuses",
    "test_custom_run_search": "expects that only GridSearchCV's attributes exist",
    "test_pickle": "pickles a class of the module, which has another name here",
}


def _their_tests() -> dict[str, Any]:
    path = Path(model_selection.__file__).parent / "tests" / "test_search.py"
    name = "sklearn.model_selection.tests.test_search_on_ours"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_selection, "GridSearchCV", ours.BatchedGridSearchCV)
        spec.loader.exec_module(module)
    tests = {name: value for name, value in vars(module).items() if name.startswith("test_")}
    return {
        name: test
        for name, test in tests.items()
        if name not in LEFT_OUT and "GridSearchCV" in inspect.getsource(test)
    }


globals().update(_their_tests())


@pytest.fixture
def global_random_seed() -> int:
    """A fixture of their configuration."""
    return 42
