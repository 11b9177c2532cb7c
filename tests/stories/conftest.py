import pytest

from tests.support.undisturbed import Undisturbed, tell


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Undisturbed:
    return tell(tmp_path_factory.mktemp("undisturbed"))
