"RSNA: layouts, dialects, faults in labels, the guarded test set, download with resume, and the real folders."
import hashlib
import re
import sys
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from boneage.core import ManifestError, data_path
from boneage.films import rsna
from boneage.films.files import write_png
from boneage.films.rsna import (
    SIX_RATERS, TEST_IDS, download_rsna, missing_df, read_labels, refuse_test,
    rsna_manifest, truth_checksum, truth_name)
from serving import archive, serving

FILM = np.arange(64*64, dtype=np.uint8).reshape(64, 64)

def films(folder, *ids, ending='png'):
    for i in ids:
        write_png(Path(folder)/f'{i}.{ending}', FILM)

def text(path, content, encoding='utf-8'):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content, encoding=encoding)

# ---------------------------------------------------------------- dialects

VALID = 'Image ID,male,Bone Age (months)\n1377,FALSE,180\n1400,TRUE,94\n'
DIALECTS = {
    'train': ('train.csv', 'id,boneage,male\n1377,180,False\n1400,94,True\n', 'train'),
    'train, 0/1': ('labels.csv', 'id,boneage,male\n1377,180,0\n1400,94,1\n', 'train'),
    'train, floats and zeros': ('labels.csv', 'id,boneage,male\n01377,180.0,FALSE\n1400.0,94.0,TRUE\n', 'train'),
    'valid': ('Validation Dataset.csv', VALID, 'valid'),
    'valid by its columns': ('a.csv', VALID, 'valid'),
    'valid by its name': ('valid.csv', 'id,boneage,male\n1377,180,False\n1400,94,True\n', 'valid'),
    'truth': ('truth.csv', 'Case ID,Sex,Ground truth bone age (months)\n1377,F,180\n1400,M,94\n', 'test'),
    'sex in words': ('a.csv', 'Image ID,Sex,Bone Age (months)\n1377,female,180\n1400, Male ,94\n', 'valid'),
    'semicolon': ('train.csv', 'id;boneage;male\n1377;180;False\n1400;94;True\n', 'train'),
    'tab': ('train.csv', 'id\tboneage\tmale\n1377\t180\tFalse\n1400\t94\tTrue\n', 'train'),
    'Windows': ('train.csv', '\ufeffid,boneage,male\r\n1377,180,False\r\n1400,94,True\r\n', 'train'),
    'spaces in headers': ('train.csv', ' ID , Bone Age, MALE\n1377,180,False\n1400,94,True\n', 'train'),
    'quoted': ('train.csv', '"id","boneage","male"\n"1377","180","False"\n"1400","94","True"\n', 'train'),
    'columns in another order': ('train.csv', 'male,note,id,boneage\nFalse,,1377,180\nTrue,x,1400,94\n', 'train'),
    'blank lines': ('train.csv', 'id,boneage,male\n1377,180,False\n\n1400,94,True\n\n', 'train'),
}

@pytest.mark.parametrize('name', DIALECTS)
def test_dialects_say_the_same(tmp_path, name):
    file, content, split = DIALECTS[name]
    text(tmp_path/file, content)
    films(tmp_path, 1377, 1400)
    df = rsna_manifest(tmp_path, verbose=False)
    rows = df[['id', 'sex', 'age_months', 'split']].values.tolist()
    assert rows == [['1377', 'F', 180., split], ['1400', 'M', 94., split]]
    assert df.source.eq('rsna2017').all()
    assert df.patient_id.isna().all()
    assert 'aspect' not in df

LAYOUTS = '', 'boneage-training-dataset', 'boneage-training-dataset/boneage-training-dataset', 'é ü/a b/c'

@pytest.mark.parametrize('where', LAYOUTS)
@pytest.mark.parametrize('ending', ['png', 'jpg', 'PNG'])
def test_layouts(tmp_path, where, ending):
    text(tmp_path/'train.csv', 'id,boneage,male\n1377,180,False\n')
    films(tmp_path/where, 1377, ending='png')
    film = tmp_path/where/f'1377.{ending}'
    Path(tmp_path/where/'1377.png').rename(film)
    assert Path(rsna_manifest(tmp_path, verbose=False).path[0]) == film

def test_whole_challenge(tmp_path, capsys):
    films(tmp_path/'boneage-training-dataset'/'boneage-training-dataset', 1377, 1378)
    films(tmp_path/'boneage-validation-dataset-1', 1386)
    films(tmp_path/'boneage-validation-dataset-2', 1392)
    films(tmp_path/'boneage-test-dataset', 4360, 4361)
    text(tmp_path/'train.csv', 'id,boneage,male\n1377,180,False\n1378,12,False\n')
    valid = 'Image ID,male,Bone Age (months)\n1386,TRUE,30\n1392,FALSE,162\n'
    text(tmp_path/'Validation Dataset.csv', valid)
    text(tmp_path/'boneage-test-dataset.csv', 'Case ID,Sex\n4360,M\n4361,F\n')
    df = rsna_manifest(tmp_path)
    assert df.split.value_counts().to_dict() == dict(train=2, valid=2, test=2)
    assert df.age_months.isna().sum() == 2
    assert '2 films without a bone age' in capsys.readouterr().out
    truth = 'Case ID,Sex,Ground truth bone age (months)\n4361,F,71.25\n4360,M,168.93\n'
    text(tmp_path/'Bone age ground truth.csv', truth)
    df = rsna_manifest(tmp_path).set_index('id')
    assert df.age_months['4360'] == 168.93
    assert df.age_months.notna().all()

def test_squashed_films_get_their_aspect(tmp_path):
    films(tmp_path/'x', 1377, 1378)
    text(tmp_path/'train.csv', 'id,boneage,male\n1377,180,False\n1378,12,False\n')
    text(tmp_path/'original_sizes.csv', 'id,width,height\n1377,1500,2000\n')
    df = rsna_manifest(tmp_path, verbose=False)
    assert df.aspect[0] == .75
    assert np.isnan(df.aspect[1])

# ---------------------------------------------------------------- missing, extra, doubled

def test_nothing_is_dropped_silently(tmp_path, capsys):
    films(tmp_path, 1377, 9999)
    films(tmp_path/'copy', 1377)
    films(tmp_path/'__MACOSX', 1378)
    films(tmp_path, '._1378')
    text(tmp_path/'train.csv', 'id,boneage,male\n1377,180,False\n1378,12,False\n')
    text(tmp_path/'notes.csv', 'name,remark\na,b\n')
    df = rsna_manifest(tmp_path)
    assert df.id.tolist() == ['1377']
    assert Path(df.path[0]).parent == tmp_path
    assert df.attrs['missing'] == ['1378']
    assert [Path(p).name for p in df.attrs['extra']] == ['9999.png']
    assert df.attrs['doubled'] == ['1377']
    out = capsys.readouterr().out
    assert '1 labels without a film: 1378' in out
    assert '1 films without a label: 9999' in out
    assert 'more than once (first one taken): 1377' in out
    problems = ['label without a film', 'film without a label', 'film stored more than once']
    assert missing_df(df).problem.tolist() == problems

def test_long_lists_are_cut_in_print_only(tmp_path, capsys):
    films(tmp_path, 1377)
    rows = ''.join(f'{i},100,True\n' for i in range(1377, 1477))
    text(tmp_path/'train.csv', 'id,boneage,male\n' + rows)
    df = rsna_manifest(tmp_path)
    assert len(df.attrs['missing']) == 99
    assert '... (99 in all)' in capsys.readouterr().out

# ---------------------------------------------------------------- faults

BAD = {
    'doubled id': ('1377,180,False\n1377,180,False\n', ['line 2: id 1377 stands', 'line 3: id 1377 stands']),
    'age below 0': ('1377,-1,False\n', ["id 1377: age is '-1'"]),
    'age above 300': ('1377,301,False\n', ["age is '301'"]),
    'age in words': ('1377,ten years,False\n', ["age is 'ten years'"]),
    'age nan in words': ('1377,inf,False\n', ["age is 'inf'"]),
    'sex unknown': ('1377,180,unknown\n', ["sex is 'unknown'; expected M or F"]),
    'empty id': (',180,False\n', ['line 2, id nan: the id is empty']),
    'three at once': ('1377,-1,False\n1378,20,x\n1379,500,True\n', ['line 2', 'line 3', 'line 4']),
}

@pytest.mark.parametrize('name', BAD)
def test_every_wrong_row_is_named(tmp_path, name):
    rows, words = BAD[name]
    films(tmp_path, 1377, 1378, 1379)
    text(tmp_path/'train.csv', 'id,boneage,male\n' + rows)
    with pytest.raises(ManifestError) as e:
        rsna_manifest(tmp_path)
    problems = e.value.problems
    assert len(problems) == len(words)
    for problem, word in zip(problems, words, strict=True):
        assert 'train.csv' in problem
        assert word in problem

def test_contradictions_between_tables(tmp_path):
    films(tmp_path, 1377)
    text(tmp_path/'a/train.csv', 'id,boneage,male\n1377,180,False\n')
    text(tmp_path/'b/train.csv', 'id,boneage,male\n1377,180,False\n')
    assert len(rsna_manifest(tmp_path, verbose=False)) == 1
    text(tmp_path/'b/train.csv', 'id,boneage,male\n1377,181,True\n')
    with pytest.raises(ManifestError, match='age_months differs: 180.0 .* 181.0') as e:
        rsna_manifest(tmp_path)
    assert len(e.value.problems) == 2
    text(tmp_path/'b/train.csv', 'Image ID,male,Bone Age (months)\n1377,False,180\n')
    text(tmp_path/'b/valid.csv', 'Image ID,male,Bone Age (months)\n1377,False,180\n')
    with pytest.raises(ManifestError, match='split differs'):
        rsna_manifest(tmp_path)

def test_columns_that_say_one_thing_twice(tmp_path):
    text(tmp_path/'train.csv', 'id,boneage,male,Sex\n1377,180,False,F\n')
    with pytest.raises(ManifestError, match='two of them mean the same'):
        rsna_manifest(tmp_path)

NO_LABELS = {'no table': None, 'empty file': '', 'other columns': 'name\nx\n', 'ids only': 'id\n1377\n'}

@pytest.mark.parametrize('content', NO_LABELS.values(), ids=NO_LABELS)
def test_no_labels(tmp_path, content):
    films(tmp_path, 1377)
    if content is not None:
        text(tmp_path/'train.csv', content)
    with pytest.raises(FileNotFoundError, match='no RSNA labels'):
        rsna_manifest(tmp_path)

def test_no_films_and_no_folder(tmp_path):
    text(tmp_path/'train.csv', 'id,boneage,male\n1377,180,False\n')
    with pytest.raises(FileNotFoundError, match='not one film'):
        rsna_manifest(tmp_path)
    with pytest.raises(FileNotFoundError, match='no such folder'):
        rsna_manifest(tmp_path/'gone')

def test_spreadsheet_without_openpyxl(tmp_path, monkeypatch):
    text(tmp_path/'truth.xlsx', 'not really')
    monkeypatch.setitem(sys.modules, 'openpyxl', None)
    with pytest.raises(ImportError, match='pip install openpyxl'):
        read_labels(tmp_path/'truth.xlsx')

def test_spreadsheet(tmp_path):
    pytest.importorskip('openpyxl', reason='needs openpyxl')
    sheet = pd.DataFrame({'Case ID': [4360], 'Sex': ['M'], 'Ground truth bone age (months)': [168.93]})
    sheet.to_excel(tmp_path/'truth.xlsx', index=False)
    films(tmp_path, 4360)
    assert rsna_manifest(tmp_path, verbose=False).age_months[0] == 168.93

# ---------------------------------------------------------------- the guarded test set

def test_test_ids_are_test_wherever_they_stand(tmp_path):
    films(tmp_path, 1377, 4360, 4559, 4560)
    text(tmp_path/'train.csv', 'id,boneage,male\n1377,1,False\n4360,2,True\n4559,3,True\n4560,4,True\n')
    df = rsna_manifest(tmp_path, verbose=False)
    assert df.split.tolist() == ['train', 'test', 'test', 'train']
    with pytest.raises(ValueError, match='2 film.* ids 4360, 4559'):
        refuse_test(df)
    with pytest.raises(ValueError, match='4360'):
        refuse_test(df.assign(split='train', id=[1377, 4360, 4559, 4560]))
    with pytest.raises(ValueError, match='test set'):
        refuse_test(df.drop(columns='split'))
    ok = df[df.split == 'train']
    assert refuse_test(ok) is ok
    for other in (df.assign(source='clinic'), df.drop(columns='source'), df.iloc[:0]):
        assert refuse_test(other) is other

def test_truth_by_checksum(monkeypatch):
    df = pd.DataFrame(dict(id=[str(i) for i in TEST_IDS], age_months=np.linspace(1, 228, 200)))
    lines = ''.join(f'{i},{a:.2f}\n' for i, a in zip(TEST_IDS, df.age_months, strict=True))
    sha = hashlib.sha256(lines.encode()).hexdigest()
    assert truth_checksum(df) == sha
    assert truth_checksum(df.sample(frac=1, random_state=0)) == sha
    assert truth_checksum(df.assign(id=df.id.astype(int))) == sha
    assert truth_name(df) == f'other version (SHA-256 {sha})'
    assert truth_name(df.assign(age_months=df.age_months.round())) != truth_name(df)
    monkeypatch.setattr(rsna, 'SIX_RATERS', sha)
    assert truth_name(df) == 'six-rater weighted means'
    assert truth_name(df[:50]).startswith('part of')
    assert truth_name(df.assign(age_months=np.nan)).startswith('no truth')
    assert re.fullmatch('[0-9a-f]{64}', SIX_RATERS)

# ---------------------------------------------------------------- download

@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as s:
        yield s

def test_download_unpacks_inner_archives_and_resumes(server, tmp_path):
    write_png(tmp_path/'f.png', FILM)
    png = (tmp_path/'f.png').read_bytes()
    server.data = archive(
        part1_dot_zip=archive(boneage__1386_dot_png=png),
        part2_dot_zip=archive(boneage__1392_dot_png=png),
        labels_dot_csv='Image ID,male,Bone Age (months)\n1386,TRUE,30\n1392,FALSE,162\n',
        filler=np.random.default_rng(0).bytes(200_000))
    server.cut = 100_000
    with pytest.raises(OSError):
        download_rsna(tmp_path/'r s', ['valid'], url=server.url)
    server.cut = None
    df = rsna_manifest(download_rsna(tmp_path/'r s', ['valid'], url=server.url), verbose=False)
    assert df.id.tolist() == ['1386', '1392']
    assert df.split.eq('valid').all()
    assert not list(tmp_path.rglob('part*.zip'))
    n = len(server.asked)
    download_rsna(tmp_path/'r s', ['valid'], url=server.url)
    assert len(server.asked) == n

def test_wrong_part(tmp_path):
    with pytest.raises(ValueError, match='no such part: test'):
        download_rsna(tmp_path, ['train', 'test'])

# ---------------------------------------------------------------- the real folders

@pytest.mark.parametrize('name,n,boys', [('rsna-299', 12611, 6833), ('rsna-original', 35, None)])
def test_real_folders(name, n, boys):
    folder = data_path(name)
    if folder is None or not folder.is_dir():
        pytest.skip(f'set BONEAGE_DATA to the folder that holds {name}')
    df = rsna_manifest(folder, verbose=False)
    assert len(df) == n
    assert not df.attrs['missing']
    assert not df.attrs['extra']
    assert df.id.is_unique
    assert df.split.eq('train').all()
    assert refuse_test(df) is df
    if boys:
        assert (df.sex == 'M').sum() == boys
        assert round(df.age_months.mean(), 1) == 127.3
        assert df.aspect.between(.3, 2).all()
