import os
from pathlib import Path

import pytest
from undisturbed import Undisturbed, tell


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Undisturbed:
    if "UNDIST" in os.environ:
        return Undisturbed(Path(os.environ["UNDIST"]))
    return tell(tmp_path_factory.mktemp("undisturbed"))
