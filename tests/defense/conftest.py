import pytest

from defense.scanning.scanning import Scan
from tests.support.drawn import drawn
from tests.support.eval_helpers import finished_run


@pytest.fixture(scope="session")
def scanned(tmp_path_factory) -> Scan:
    """A finished scan of 40 pairs in 3 shards, by a run that never trained."""
    folder = str(tmp_path_factory.mktemp("scanned"))
    dataset = drawn(f"{folder}/train", 40, 3)
    run = finished_run(f"{folder}/run", dataset)
    wanted = Scan(run=run, dataset=dataset.url, out=f"{folder}/scan", backend="local")
    wanted.start()
    return wanted
