"Shared by all tests: real films where `BONEAGE_DATA` names them, else a skip that says why; a small synthetic workspace."
import os, signal
from pathlib import Path
import pytest

os.environ.setdefault('MPLBACKEND', 'agg')
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE') # threads that wait by spinning slow each other down on a busy machine

def pytest_configure(config): # a job in the background is started deaf to Ctrl-C, and so would be the programs the tests start and stop
    signal.signal(signal.SIGINT, signal.default_int_handler)

@pytest.fixture(scope='session')
def real_data():
    "Folder with rsna-299/ and rsna-original/"
    root = os.environ.get('BONEAGE_DATA')
    if not root or not (Path(root)/'rsna-299').is_dir(): pytest.skip('BONEAGE_DATA does not point at a folder with rsna-299: no real films here')
    return Path(root)

@pytest.fixture(scope='session')
def phantoms(tmp_path_factory):
    "Twelve synthetic films in a folder whose name has a space and an accent, as a manifest"
    from boneage.phantom import phantom_df
    return phantom_df(12, tmp_path_factory.mktemp('röntgen films'), seed=5)
