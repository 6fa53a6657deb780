"""scikit-learn's own tests of its MLPs, as installed, run on ours."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

neural_network = pytest.importorskip(
    "sklearn.neural_network", reason="scikit-learn is not installed"
)
ours = pytest.importorskip("xpnet.sklearn")

# Their tests expect and ignore warnings as their own configuration has it.
pytestmark = pytest.mark.filterwarnings("default")

SKIPPED = {"test_gradient": "calls _loss_grad_lbfgs, a private method with their arguments"}


def _their_tests() -> dict[str, Any]:
    path = Path(neural_network.__file__).parent / "tests" / "test_mlp.py"
    spec = importlib.util.spec_from_file_location("test_mlp_of_scikit_learn", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLPClassifier", "MLPRegressor"):
            patch.setattr(neural_network, name, getattr(ours, name))
        spec.loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if name.startswith("test_")}


for _name, _test in _their_tests().items():
    globals()[_name] = pytest.mark.skip(SKIPPED[_name])(_test) if _name in SKIPPED else _test


@pytest.fixture
def global_random_seed() -> int:
    """A fixture of their configuration."""
    return 42
