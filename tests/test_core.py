"Errors that carry data from one process to another."
import pickle
import pytest
from joblib import Parallel, delayed
from boneage.core import FilmError, ManifestError, Refusal
# old names, until every room has moved

@pytest.mark.parametrize('kind', [FilmError, Refusal])
def test_an_error_crosses_a_pickle_with_its_data(kind):
    e = kind('hand.png: too small', code='film.small', value=12, hint='export it again')
    back = pickle.loads(pickle.dumps(e))
    assert type(back) is kind
    assert str(back) == 'hand.png: too small'
    assert (back.code, back.value, back.hint) == ('film.small', 12, 'export it again')

def _refuse():
    raise Refusal('no hand found', code='hand.none', value=.3)

def test_an_error_comes_out_of_another_process():
    with pytest.raises(Refusal, match='no hand found') as e:
        Parallel(n_jobs=2)([delayed(_refuse)()])
    assert (e.value.code, e.value.value) == ('hand.none', .3)

def test_a_table_error_crosses_a_pickle():
    e = ManifestError([f'row {i}' for i in range(30)], 'films.csv')
    back = pickle.loads(pickle.dumps(e))
    assert str(back) == str(e)
    assert back.problems == e.problems
    assert '... and 10 more' in str(back)
