"Downloads from a server on this machine: cut short, changed, without ranges, wrong; archives; checksums."
import hashlib
import os
import zipfile
import numpy as np
import pytest
from boneage.films import download
from boneage.films.download import fetch, record_checksum, unpack
from serving import archive, serving

@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as s:
        yield s

def digest(server):
    return hashlib.sha256(server.data).hexdigest()

def cut_short(server, path, n=300_000, **kw):
    server.cut = n
    with pytest.raises(OSError, match='Run the same command again'):
        fetch(server.url, path, **kw)
    server.cut = None
    assert not path.exists()

# ---------------------------------------------------------------- going on

def test_fetch_goes_on(server, tmp_path):
    cut_short(server, tmp_path/'a.bin')
    have = (tmp_path/'a.bin.part').stat().st_size
    assert 0 < have <= 300_000
    assert fetch(server.url, tmp_path/'a.bin').read_bytes() == server.data
    assert server.asked == [None, f'bytes={have}-']
    assert [p.name for p in tmp_path.iterdir()] == ['a.bin']
    fetch(server.url, tmp_path/'a.bin')
    assert len(server.asked) == 2

def test_fetch_starts_afresh_when_the_file_changed(server, tmp_path):
    cut_short(server, tmp_path/'a.bin')
    server.data = np.random.default_rng(1).bytes(650_000)
    server.tag = '"b"'
    assert fetch(server.url, tmp_path/'a.bin').read_bytes() == server.data

def test_fetch_from_a_server_without_ranges(server, tmp_path):
    server.ranges = False
    cut_short(server, tmp_path/'a.bin')
    assert fetch(server.url, tmp_path/'a.bin').read_bytes() == server.data

def test_fetch_finishes_a_complete_part(server, tmp_path):
    (tmp_path/'a.bin.part').write_bytes(server.data)
    (tmp_path/'a.bin.etag').write_text('"a"')
    assert fetch(server.url, tmp_path/'a.bin').read_bytes() == server.data
    assert server.asked == ['bytes=700000-']

def test_without_a_mark_a_half_is_only_trusted_with_a_hash(server, tmp_path):
    server.tag = None
    cut_short(server, tmp_path/'a.bin')
    assert fetch(server.url, tmp_path/'a.bin').read_bytes() == server.data
    assert server.asked == [None, None], 'no mark, no hash: from the beginning'
    cut_short(server, tmp_path/'b.bin', sha256=digest(server))
    have = (tmp_path/'b.bin.part').stat().st_size
    assert fetch(server.url, tmp_path/'b.bin', sha256=digest(server)).read_bytes() == server.data
    assert server.asked[2:] == [None, f'bytes={have}-']

def test_without_a_mark_a_complete_part_is_taken_by_its_hash(server, tmp_path):
    server.tag = None
    (tmp_path/'a.bin.part').write_bytes(server.data)
    fetch(server.url, tmp_path/'a.bin', sha256=digest(server))
    assert server.asked == ['bytes=700000-']
    assert os.listdir(tmp_path) == ['a.bin']

# ---------------------------------------------------------------- what came

def test_what_came_wrong_is_deleted(server, tmp_path):
    with pytest.raises(ValueError, match='what came has SHA-256 .* it was deleted'):
        fetch(server.url, tmp_path/'a.bin', sha256='00ff')
    assert os.listdir(tmp_path) == []

def test_two_halves_that_do_not_fit_are_found(server, tmp_path):
    server.tag = None
    (tmp_path/'a.bin.part').write_bytes(b'rubbish')
    with pytest.raises(ValueError, match='it was deleted'):
        fetch(server.url, tmp_path/'a.bin', sha256=digest(server))
    assert fetch(server.url, tmp_path/'a.bin', sha256=digest(server)).read_bytes() == server.data

def test_what_is_there_is_checked(server, tmp_path):
    (tmp_path/'a.bin').write_bytes(server.data)
    fetch(server.url, tmp_path/'a.bin', sha256=digest(server)[:8])
    assert server.asked == []
    (tmp_path/'a.bin').write_bytes(b'altered')
    with pytest.raises(ValueError, match='a.bin: SHA-256 .* damaged or altered; delete it'):
        fetch(server.url, tmp_path/'a.bin', sha256=digest(server)[:8])

def test_fetch_says_what_went_wrong(server, tmp_path, monkeypatch):
    server.data = None
    with pytest.raises(OSError, match='404.*by hand'):
        fetch(server.url, tmp_path/'a.bin')
    with pytest.raises(OSError, match='by hand') as e:
        fetch('http://127.0.0.1:1/', tmp_path/'a.bin', timeout=2)
    assert 'http://127.0.0.1:1/' in str(e.value)
    assert str(tmp_path/'a.bin') in str(e.value)
    server.data = bytes(1000)
    monkeypatch.setattr(download.shutil, 'disk_usage', lambda p: type('U', (), dict(free=10)))
    with pytest.raises(OSError, match='needed.*make room'):
        fetch(server.url, tmp_path/'a.bin')

# ---------------------------------------------------------------- archives and checksums

def test_unpack_goes_on(tmp_path):
    (tmp_path/'a.zip').write_bytes(archive(x__1='one', x__2='two'))
    unpack(tmp_path/'a.zip', tmp_path/'o')
    time = (tmp_path/'o/x/1').stat().st_mtime_ns
    (tmp_path/'o/x/2').unlink()
    unpack(tmp_path/'a.zip', tmp_path/'o')
    assert (tmp_path/'o/x/2').read_text() == 'two'
    assert (tmp_path/'o/x/1').stat().st_mtime_ns == time

def test_bad_archives(tmp_path):
    (tmp_path/'a.zip').write_text('half a zip')
    with pytest.raises(ValueError, match='delete it and download'):
        unpack(tmp_path/'a.zip', tmp_path/'o')
    with zipfile.ZipFile(tmp_path/'b.zip', 'w') as z:
        z.writestr('../../evil', 'x')
    with pytest.raises(ValueError, match='outside the folder'):
        unpack(tmp_path/'b.zip', tmp_path/'o'/'p')
    assert not (tmp_path/'evil').exists()

def test_checksums_are_recorded_and_compared(tmp_path):
    (tmp_path/'a b').write_text('one')
    (tmp_path/'c').write_text('two')
    for name in ('a b', 'c', 'a b'):
        record_checksum(tmp_path/name)
    one, two = (hashlib.sha256(o).hexdigest() for o in (b'one', b'two'))
    assert (tmp_path/'SHA256SUMS').read_text() == f'{one}  a b\n{two}  c\n'
    (tmp_path/'c').write_text('changed')
    with pytest.raises(ValueError, match='recorded was'):
        record_checksum(tmp_path/'c')
