"Shared by all tests: real films where `BONEAGE_DATA` names them, else a skip that says why; a small workspace."
import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault('MPLBACKEND', 'agg')
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE') # threads that spin slow each other down on a busy machine


def pytest_configure(config):
    "A job in the background is started deaf to Ctrl-C, and so would be the programs that the tests start and stop."
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session')
def real_data():
    "Folder with rsna-299/ and rsna-original/."
    root = os.environ.get('BONEAGE_DATA')
    if not root or not (Path(root)/'rsna-299').is_dir():
        pytest.skip('BONEAGE_DATA does not point at a folder with rsna-299: no real films here')
    return Path(root)


@pytest.fixture(scope='session')
def phantoms(tmp_path_factory):
    "Twelve synthetic films in a folder whose name has a space and an accent, as a manifest."
    from boneage.films.phantom import phantom_df
    return phantom_df(12, tmp_path_factory.mktemp('röntgen films'), seed=5)


@pytest.fixture
def boneage(capsys):
    "Run a command in this process: exit code, stdout, stderr."
    from boneage import cli

    def run(*words):
        capsys.readouterr()
        code = cli.main([str(w) for w in words])
        return code, *capsys.readouterr()
    return run


@pytest.fixture(scope='session')
def work(phantoms, tmp_path_factory):
    "The chain run once by the commands, in folders with spaces and accents: films, masks, crops, flags, model."
    from boneage import cli
    from boneage.films.manifest import write_manifest
    from commands import TINY
    folder = tmp_path_factory.mktemp('José Müller')
    write_manifest(phantoms, folder/'films.csv')
    chain = [
        ['segment', folder/'films.csv', '--out', folder],
        ['crop', folder, '--size', 96, '--margin', .05],
        ['qc', folder, '--limit', 3],
        ['train', folder, '--out', folder/'model', '--epochs', 2, *TINY],
    ]
    for words in chain:
        assert cli.main([str(o) for o in words]) == 0
    return folder
