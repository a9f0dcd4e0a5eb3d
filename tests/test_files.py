"Files: no half writes, the two kinds of cards, weights that do not belong to theirs."
import errno
import json
import os
import pandas as pd
import pytest
from boneage.core import FilmError
from boneage.films.files import fingerprint, read_card_pair, read_grey, read_mask, write_card, write_csv

def test_write_leaves_no_half_file(tmp_path, monkeypatch):
    (tmp_path/'t.csv').write_text('old')
    def full(*a, **k):
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(pd.DataFrame, 'to_csv', full)
    with pytest.raises(OSError, match='t.csv'):
        write_csv(pd.DataFrame(dict(a=[1])), tmp_path/'t.csv')
    assert (tmp_path/'t.csv').read_text() == 'old'
    assert os.listdir(tmp_path) == ['t.csv']

@pytest.mark.parametrize('content', [b'', b'\x89PNG\r\n', b'Dear colleague,'], ids=['empty', 'cut', 'text'])
def test_a_damaged_picture_has_its_code(tmp_path, content):
    (tmp_path/'m.png').write_bytes(content)
    words = "m.png: the mask file is damaged; delete it and run `boneage segment` again"
    with pytest.raises(FilmError, match=words) as e:
        read_mask(tmp_path/'m.png')
    assert e.value.code == 'mask.damaged'
    with pytest.raises(FilmError, match='run `boneage crop` again') as e:
        read_grey(tmp_path/'none.png', 'crop')
    assert e.value.code == 'crop.missing'

@pytest.mark.parametrize('under', [None, 'weights'])
@pytest.mark.parametrize('name', ['net', 'net.json', 'net.safetensors'])
def test_weights_and_card_come_back(tmp_path, under, name):
    card_file = write_card(tmp_path/'net', b'numbers', dict(name='net', weights=dict(dtype='fp16')), under=under)
    data, card = read_card_pair(tmp_path/name, under=under)
    assert data == b'numbers'
    assert card == json.loads(card_file.read_text())
    facts = card if under is None else card[under]
    assert facts['bytes'] == 7
    assert facts['sha256'] == fingerprint(b'numbers')['sha256']
    assert card['weights']['dtype'] == 'fp16'

def test_a_card_holds_no_nan(tmp_path):
    with pytest.raises(ValueError):
        write_card(tmp_path/'net', b'numbers', dict(mae=float('nan')))
    assert os.listdir(tmp_path) == []

def _cut(weights, card):
    weights.write_bytes(weights.read_bytes()[:-1])

def _flip(weights, card):
    weights.write_bytes(b'Numbers')

def _no_weights(weights, card):
    weights.unlink()

def _no_card(weights, card):
    card.unlink()

def _torn(weights, card):
    card.write_text('{"bytes": 5')

def _list(weights, card):
    card.write_text('[1, 2]')

def _without_facts(weights, card):
    card.write_text('{"name": "net"}')

BROKEN = {
    _cut: (ValueError, 'net.safetensors: 6 bytes, expected 7: cut off'),
    _flip: (ValueError, 'net.safetensors: SHA-256 is .*, expected'),
    _no_weights: (FileNotFoundError, 'net.safetensors: no such checkpoint; expected the weights'),
    _no_card: (FileNotFoundError, 'net.json: no such card; expected it beside net.safetensors'),
    _torn: (ValueError, 'net.json: not a readable card .* no card of weights'),
    _list: (ValueError, 'net.json: not a card'),
    _without_facts: (ValueError, 'net.json: not a card'),
}

@pytest.mark.parametrize('under', [None, 'weights'])
@pytest.mark.parametrize('harm', BROKEN, ids=lambda o: o.__name__.strip('_'))
def test_what_does_not_belong_together_is_refused(tmp_path, harm, under):
    error, words = BROKEN[harm]
    card = write_card(tmp_path/'net', b'numbers', dict(name='net'), under=under)
    harm(card.with_suffix('.safetensors'), card)
    with pytest.raises(error, match=words) as e:
        read_card_pair(card, under=under, remedy='install the package again')
    assert 'install the package again' in str(e.value)
