"Tables mean what they say, folders say what they left out, one odd film stops nothing, no reject is lost in silence."
import os

import numpy as np
import pandas as pd
import pytest
from boneage.core import ManifestError
from boneage.evaluate import check_predictions, evaluate_df
from boneage.films.files import write_png
from boneage.films.manifest import manifest_from_folder, manifest_problems, read_manifest, read_table, write_manifest
from boneage.films.phantom import make_phantom
from boneage.films.rsna import rsna_manifest
from boneage.films.tables import read_cells
from boneage.model.rows import training_rows
from boneage.review.decisions import Decisions, apply_qc, doubts, join_qc
from boneage.review.log import DECISION_COLS
from dicoms import dicom
from PIL import Image


@pytest.fixture(scope='module')
def film():
    return make_phantom(seed=1, age_months=60, sex='M', size=256).pixels


def put(path, text, encoding='utf-8'):
    path.write_bytes(text.encode(encoding))
    return path


# --- dialects that are read -----------------------------------------------------------------------------------------

WANTED = [['007', '7.png', 'M', 131.5], ['8.png', 'b,c.png', 'F', 90.]]
PLAIN = 'id,path,sex,age_months\n007,7.png,M,131.5\n8.png,"b,c.png",F,90\n'
DIALECTS = {
    'plain': ('t.csv', PLAIN),
    'byte-order mark': ('t.csv', '\ufeff' + PLAIN),
    'Windows lines': ('t.csv', PLAIN.replace('\n', '\r\n')),
    'capitals': ('t.csv', PLAIN.replace('id,path,sex,age_months', 'ID,Path,SEX,Age (months)')),
    'spaces in the head': ('t.csv', PLAIN.replace('id,path,sex,', 'id, path , sex,')),
    'spaces everywhere': ('t.csv', PLAIN.replace(',M,', ' , M , ')),
    'trailing commas': ('t.csv', PLAIN.replace('.5\n', '.5,\n').replace('90\n', '90,\n')),
    'trailing commas in the head': ('t.csv', PLAIN.replace('\n', ',,\n')),
    'blank rows': ('t.csv', '\n,,,\n' + PLAIN.replace('M,131.5\n', 'M,131.5\n,,,\n\n') + ',,,\n'),
    'semicolons': ('t.csv', 'id;path;sex;age_months\n007;7.png;M;131.5\n8.png;b,c.png;F;90\n'),
    'decimal commas': ('t.csv', 'id;path;sex;age_months\n007;7.png;M;131,5\n8.png;b,c.png;F;90\n'),
    'quoted decimal commas': ('t.csv', PLAIN.replace('131.5', '"131,5"')),
    'a declared separator': ('t.csv', 'sep=|\nid|path|sex|age_months\n007|7.png|M|131.5\n8.png|b,c.png|F|90\n'),
    'tabs': ('t.tsv', 'id\tpath\tsex\tage_months\n007\t7.png\tM\t131.5\n8.png\tb,c.png\tF\t90\n'),
    'tabs in .txt': ('t.TXT', 'id\tpath\tsex\tage_months\n007\t7.png\tM\t131.5\n8.png\tb,c.png\tF\t90\n'),
    'male': ('t.csv', PLAIN.replace('sex', 'male').replace('M,', 'True,').replace('F,', 'False,')),
    'male as numbers': ('t.csv', PLAIN.replace('sex', 'Male').replace('M,', '1,').replace('F,', '0,')),
    'female': ('t.csv', PLAIN.replace('sex', 'female').replace('M,', 'no,').replace('F,', 'yes,')),
    'gender': ('t.csv', PLAIN.replace('sex', 'Gender').replace('M,', 'boy,').replace('F,', 'FEMALE,')),
    'patient sex': ('t.csv', PLAIN.replace('sex', 'Patient Sex')),
    'two columns that agree': ('t.csv', 'male,' + PLAIN.replace('007', 'true,007').replace('8.png,', 'false,8.png,')),
}


def records(df, folder):
    df = df.assign(path=[os.path.relpath(p, folder) for p in df.path])
    return df[['id', 'path', 'sex', 'age_months']].values.tolist()


@pytest.mark.parametrize('kind', DIALECTS)
def test_a_dialect_is_read_as_it_was_meant(kind, tmp_path):
    name, text = DIALECTS[kind]
    assert records(read_manifest(put(tmp_path/name, text)), tmp_path) == WANTED


def test_utf_16_is_read(tmp_path):
    assert records(read_manifest(put(tmp_path/'t.csv', PLAIN, 'utf-16')), tmp_path) == WANTED


def test_a_spreadsheet_is_read_as_it_is_shown(tmp_path):
    openpyxl = pytest.importorskip('openpyxl', reason='needs openpyxl')
    book = openpyxl.Workbook()
    for row in (['ID', 'Path', 'Male', 'age_months'], [7, '7.png', True, 131.5], [], ['8.png', 'b,c.png', False, 90.0]):
        book.active.append(row)
    book.active['A2'].number_format = '000'
    book.create_sheet('notes').append(['seen by anna'])
    book.save(tmp_path/'t.xlsx')
    assert records(read_manifest(tmp_path/'t.xlsx'), tmp_path) == WANTED
    book['notes'].insert_rows(1)
    book['notes']['A1'] = 'id'
    book.save(tmp_path/'t.xlsx')
    with pytest.raises(ManifestError, match='several sheets'):
        read_manifest(tmp_path/'t.xlsx')


def test_every_command_reads_the_same_dialects(boneage, film, tmp_path):
    write_png(tmp_path/'7.png', film)
    put(tmp_path/'t.TSV', 'ID\tPath\tGender\n\t\t\n007\t7.png\tboy\n')
    assert boneage('segment', tmp_path/'t.TSV', '--out', tmp_path/'w')[0] in (0, 3)
    df = read_table(tmp_path/'w/segmented.csv')
    assert df[['id', 'sex']].values.tolist() == [['007', 'M']]


RSNA = {
    'ids with endings': 'id,boneage,male\n1377.png,48,False\n',
    'blank rows': 'id,boneage,male\n\n1377,48,False\n,,\n',
    'trailing commas': 'id,boneage,male\n1377,48,False,\n',
    'decimal commas': 'id;boneage;gender\n01377;48,0;female\n',
}


@pytest.mark.parametrize('kind', RSNA)
def test_labels_of_rsna_are_read_by_the_same_reader(kind, film, tmp_path):
    write_png(tmp_path/'1377.png', film)
    put(tmp_path/'train.csv', RSNA[kind])
    df = rsna_manifest(tmp_path, verbose=False)
    assert df[['id', 'sex', 'age_months']].values.tolist() == [['1377', 'F', 48.]]


# --- tables in doubt ------------------------------------------------------------------------------------------------

HEAD = 'id,path,sex,age_months\n'
DOUBTS = {
    'a value too many': (HEAD + 'a,a.png,F,12\nb,b.png,F,12,5\n', 'row 3: 5 values, but the head names 4 columns'),
    'a value too many in every row': (HEAD + 'a,a.png,F,12,x\nb,b.png,F,12,x\n', 'row 2: 5 values'),
    'contradiction': ('id,path,sex,male\na,a.png,F,False\nb,b.png,F,True\n', 'row 3: sex says F, male says True'),
    'one meaning twice': ('id,path,Path\na,a.png,b.png\n', 'columns path, Path mean the same'),
    'a quote that never ends': ('id,path\n1,"a.png\n2,b.png\n', 'mind the quotes'),
    'zero bytes': ('id,path\n1,a.png\n\0\0\0', 'zero bytes'),
    'thousands or decimals': ('id;path;age_months\n1;a.png;1,234\n', 'age_months is 1,234'),
    'both kinds of decimals': ('id;path;age_months\n1;a.png;12,5\n2;b.png;12.5\n', 'row 2, id 1: age_months is 12,5'),
    'female, or false': ('id,path,female\n1,a.png,f\n', "sex is 'f'; expected F or M"),
    'blank rows are counted': ('id,path,sex\n\n1,a.png,F\n,,\n2,b.png,X\n', 'row 5, id 2: sex'),
}


@pytest.mark.parametrize('kind', DOUBTS)
def test_doubt_is_an_error_that_names_the_row(kind, tmp_path):
    text, expected = DOUBTS[kind]
    with pytest.raises(ManifestError, match=expected) as e:
        read_manifest(put(tmp_path/'t.csv', text))
    assert 't.csv' in str(e.value)


@pytest.mark.parametrize('ending', ['.xls', '.ods', '.numbers'])
def test_a_foreign_spreadsheet_says_what_to_do(ending, boneage, tmp_path):
    put(tmp_path/f't{ending}', 'x')
    code, _, err = boneage('segment', tmp_path/f't{ending}', '--out', tmp_path/'w')
    assert code == 1
    assert 'save it as .xlsx or CSV' in err


def ages(values, **columns):
    return pd.DataFrame(dict(id=[f'f{i}' for i in range(len(values))], path='x.png', age_months=values, **columns))


YEARS = {
    'years': (ages(np.linspace(2, 17, 40)), True),
    'few films': (ages(np.linspace(2, 17, 9)), False),
    'months': (ages(np.linspace(2, 190, 40)), False),
    'infants, said so': (ages(np.linspace(2, 17, 40), age_unit='Months'), False),
    'years, said so': (ages([4, 200], age_unit='years'), True),
}


@pytest.mark.parametrize('kind', YEARS)
def test_ages_that_look_like_years_are_refused(kind):
    df, refused = YEARS[kind]
    assert any('look like years' in p for p in manifest_problems(df)) == refused


def predictions(n=30):
    ages = np.linspace(20, 200, n).round()
    return pd.DataFrame(dict(id=[f'f{i}' for i in range(n)], age_months=ages, pred_months=ages + 5))


def test_one_comma_too_many_changes_no_error(tmp_path):
    df = predictions()
    df.to_csv(tmp_path/'a.csv', index=False)
    put(tmp_path/'b.csv', (tmp_path/'a.csv').read_text().replace('\n', ',\n').replace('months,\n', 'months\n'))
    assert evaluate_df(read_table(tmp_path/'b.csv'))['mae'].value == pytest.approx(5)
    put(tmp_path/'c.csv', (tmp_path/'a.csv').read_text().replace('\n', ',0\n').replace('months,0\n', 'months\n'))
    with pytest.raises(ManifestError, match='4 values'):
        read_table(tmp_path/'c.csv')


@pytest.mark.parametrize('value', [1e9, -1e4, 601])
@pytest.mark.parametrize('column', ['pred_months', 'pred_low', 'reader_1'])
def test_months_of_no_hand_are_refused(value, column):
    df = predictions()
    df[column] = df.pred_months
    df.loc[3, column] = value
    with pytest.raises(ManifestError, match=f'row 5, id f3: {column} is .*expected months between'):
        check_predictions(df)


def test_a_table_of_refusals_says_so(boneage, tmp_path):
    df = predictions(3).assign(pred_months=None, pred_error=['a.png: no hand found', 'b.png: no hand found', 'damaged'])
    df.to_csv(tmp_path/'p.csv', index=False)
    code, _, err = boneage('evaluate', tmp_path/'p.csv', '--out', tmp_path/'r.html')
    assert code == 1
    assert 'none of the 3 films has a prediction: every film was refused: 2 x no hand found, 1 x damaged' in err


def test_row_numbers_are_those_of_the_file():
    df = pd.DataFrame(dict(id=list('abcd'), sex='F', age_months=[10, 20, 30, None], crop_path='x.png'))
    with pytest.raises(ManifestError, match='row 5, id d: age_months is empty'):
        training_rows(df.assign(split=['test', 'test', 'train', 'train']))
    two = pd.concat([predictions(4).assign(model=m) for m in 'ab'], ignore_index=True)
    two.loc[6, 'pred_months'] = np.inf
    with pytest.raises(ManifestError, match='row 8, id f2'):
        evaluate_df(two, model='b')


def test_text_that_a_spreadsheet_would_run_comes_back_as_it_was(tmp_path):
    ids = ['=HYPERLINK("x")', '+1+1', '-a', '@x', "'=x", "'a", '-5', 'plain']
    df = pd.DataFrame(dict(id=ids, path=[str(tmp_path/i) for i in ids], off=[-1.5, -2, 3, 4, 5, 6, 7, 8]))
    write_manifest(df, tmp_path/'t.csv')
    assert read_manifest(tmp_path/'t.csv').values.tolist() == df.values.tolist()
    cells = read_cells(tmp_path/'t.csv')
    assert all(c[0] not in '=+@' for c in cells.id)
    assert cells.off.tolist()[0] == '-1.5'


# --- folders --------------------------------------------------------------------------------------------------------

def fill(folder, film):
    "Films of every kind, and what is none."
    for name in ('IM000001', '1.2.840.113619.2.5.17', 'named.dcm'):
        dicom(folder/name, film, PatientSex='F')
    for name in ('a.webp', 'c.GIF', 'd.bmp', 'e.jp2'):
        Image.fromarray(film).save(folder/name)
    write_png(folder/'sub/f.png', film)
    (folder/'sub/f.png').rename(folder/'sub/export')
    put(folder/'notes.txt', 'x')
    put(folder/'letter.md', 'Dear colleague,')
    put(folder/'more.zip', 'PK\3\4')
    put(folder/'nothing', '')
    put(folder/'DICOMDIR', 'x')
    put(folder/'.DS_Store', 'x')


def test_a_folder_is_read_by_content_and_lists_what_it_left_out(film, tmp_path):
    (tmp_path/'in').mkdir()
    fill(tmp_path/'in', film)
    df = manifest_from_folder(tmp_path/'in')
    films = '1.2.840.113619.2.5.17 IM000001 a c d e export named'
    assert sorted(df.id) == films.split()
    assert df.sex.eq('F').sum() == 3
    left = {os.path.basename(path): why for path, why in df.attrs['left_out']}
    assert sorted(left) == ['DICOMDIR', 'letter.md', 'more.zip', 'notes.txt', 'nothing']
    assert 'unpack' in left['more.zip'] and 'empty' in left['nothing'] and left['notes.txt'] == 'a table'


def test_the_commands_say_what_was_left_out(boneage, film, tmp_path):
    write_png(tmp_path/'in/a.png', film)
    put(tmp_path/'in/letter.md', 'Dear colleague,')
    _, out, _ = boneage('segment', tmp_path/'in', '--out', tmp_path/'w')
    assert 'left out: 1 files' in out and 'letter.md: neither a picture nor DICOM' in out


ODD_AGES = {
    'anonymised': dict(PatientBirthDate='19000101', StudyDate='20240915'),
    'an adult': dict(PatientAge='045Y'),
    '999 years': dict(PatientAge='999Y'),
    'born after the study': dict(PatientBirthDate='20250101', StudyDate='20240915'),
    'no date at all': dict(PatientBirthDate='19000101', StudyDate=''),
}


@pytest.mark.parametrize('kind', ODD_AGES)
def test_an_impossible_age_stops_neither_folder_nor_workspace(kind, boneage, film, tmp_path):
    (tmp_path/'in').mkdir()
    dicom(tmp_path/'in/odd.dcm', film, PatientSex='M', **ODD_AGES[kind])
    dicom(tmp_path/'in/good.dcm', film, PatientSex='F', PatientAge='004Y')
    df = manifest_from_folder(tmp_path/'in').set_index('id')
    assert df.chron_age_months['good'] == 48 and pd.isna(df.chron_age_months['odd'])
    assert boneage('segment', tmp_path/'in', '--out', tmp_path/'w')[0] == 0
    assert boneage('crop', tmp_path/'w', '--size', 64)[0] in (0, 3)
    assert len(read_manifest(tmp_path/'w/cropped.csv')) == 2


@pytest.mark.parametrize('age', ['1496.5', '-4', 'unknown', '999'])
def test_an_impossible_age_of_an_older_table_is_left_out_with_a_note(age, tmp_path):
    put(tmp_path/'t.csv', f'id,path,chron_age_months\na,a.png,{age}\nb,b.png,48\n')
    df = read_table(tmp_path/'t.csv')
    assert read_manifest(tmp_path/'t.csv').id.tolist() == ['a', 'b']
    assert df.chron_age_months.isna().tolist() == [True, False]
    assert df.note[0].startswith(f'calendar age {age}') and pd.isna(df.note[1])


def test_a_name_that_is_not_utf8_is_a_row_with_an_error(boneage, film, tmp_path):
    write_png(tmp_path/'in/good.png', film)
    try:
        with open(os.fsencode(tmp_path) + b'/in/M\xfcller.png', 'wb') as f:
            f.write((tmp_path/'in/good.png').read_bytes())
    except OSError:
        pytest.skip('this file system takes UTF-8 names only')
    code, out, _ = boneage('segment', tmp_path/'in', '--out', tmp_path/'w')
    assert code == 3
    df = read_table(tmp_path/'w/segmented.csv').set_index('id')
    assert df.seg_status['good'] == 'ok' and df.seg_status[r'M\xfcller'] == 'error'
    assert 'not UTF-8; rename' in df.note[r'M\xfcller'] and 'not UTF-8; rename' in out


# --- decisions ------------------------------------------------------------------------------------------------------

FILMS = pd.DataFrame(dict(id=['0007036', '0003591', 'hand  12'], path=['a.png', 'b.png', 'c.png']))
LOST = {
    'zeros cut off': ('7036,reject,,,anna,2025-01-01T10:00:00,1', 'reject 7036 (0007036?)'),
    'a rounded number': ('1.2E+10,reject,,,anna,2025-01-01T10:00:00,1', 'a number that a spreadsheet has rounded'),
    'the ending of a file': ('0007036.png,reject,,,anna,2025-01-01T10:00:00,1', '(0007036?)'),
    'a line that says nothing': ('0007036,rejekt,,,anna,2025-01-01T10:00:00,1', "line 2 of decisions.csv says"),
    'a torn line': ('0007036,rej', 'line 2 of decisions.csv is cut off'),
}


@pytest.mark.parametrize('kind', LOST)
def test_a_reject_is_never_lost_in_silence(kind, tmp_path):
    line, expected = LOST[kind]
    path = put(tmp_path/'decisions.csv', ','.join(DECISION_COLS) + f'\n{line}\n')
    assert expected in doubts(FILMS, path)[0]
    with pytest.raises(ValueError, match='decisions in doubt'):
        apply_qc(FILMS, path)
    assert len(apply_qc(FILMS, path, force=True)) == 3


def test_spaces_lose_no_reject(tmp_path):
    Decisions(tmp_path/'d.csv', 'anna').add('hand  12', 'reject')
    assert doubts(FILMS, tmp_path/'d.csv') == []
    assert join_qc(FILMS, tmp_path/'d.csv').qc.tolist() == ['', '', 'reject']
    twins = pd.concat([FILMS, FILMS.tail(1).assign(id='hand 12')])
    assert 'differ by spaces only' in doubts(twins, tmp_path/'d.csv')[0]


def test_kept_is_not_written_over_doubts_without_force(work, boneage, tmp_path):
    Decisions(tmp_path/'d.csv', 'anna').add('phantom-1', 'reject')
    words = 'qc', work, '--out', tmp_path, '--decisions', tmp_path/'d.csv'
    code, _, err = boneage(*words)
    assert code == 3
    assert 'reject phantom-1' in err and '--force' in err
    assert not (tmp_path/'kept.csv').exists()
    assert boneage(*words, '--force')[0] == 0
    assert len(read_manifest(tmp_path/'kept.csv')) == 12


# --- nothing that was read is written over --------------------------------------------------------------------------

def test_a_picture_never_replaces_the_film(boneage, film, tmp_path):
    write_png(tmp_path/'a.png', film)
    before = (tmp_path/'a.png').read_bytes()
    code, _, err = boneage('predict', tmp_path/'a.png', '--sex', 'F', '--picture', tmp_path/'x/../a.png')
    assert code == 1
    assert 'is one of the inputs' in err
    assert (tmp_path/'a.png').read_bytes() == before


def over(command, tmp_path, text='id,path,age_months,pred_months,crop_path,sex\na,a.png,10,12,c.png,F\n', **names):
    table = put(tmp_path/names.get('table', 't.csv'), text)
    return [command, table, '--out', tmp_path/names.get('out', 't.csv')], table


OVER = {
    'predict': dict(text='id,path,sex\na,a.png,F\n'),
    'evaluate': {},
    'segment': dict(table='segmented.csv', out=''),
    'crop': dict(text='id,path,mask_path\na,a.png,m.png\n', table='cropped.csv', out=''),
    'qc': dict(table='qc.csv', out=''),
    'train': dict(table='predictions.csv', out=''),
}


@pytest.mark.parametrize('command', OVER)
def test_an_output_that_is_an_input_is_refused(command, boneage, tmp_path):
    words, table = over(command, tmp_path, **OVER[command])
    before = table.read_bytes()
    code, _, err = boneage(*words)
    assert code == 1
    assert 'is one of the inputs' in err
    assert table.read_bytes() == before


def test_labels_of_rsna_are_not_written_over(boneage, film, tmp_path):
    write_png(tmp_path/'1377.png', film)
    labels = put(tmp_path/'train.csv', 'id,boneage,male\n1377,48,False\n')
    code, _, err = boneage('rsna', tmp_path, '--out', labels)
    assert code == 1
    assert 'is one of the inputs' in err


@pytest.mark.parametrize('name', ['p.xlsx', 'p.jsonl', 'p.png'])
def test_a_table_is_not_written_under_a_name_that_says_otherwise(name, boneage, film, tmp_path):
    write_png(tmp_path/'in/a.png', film)
    code, _, err = boneage('predict', tmp_path/'in', '--sex', 'F', '--out', tmp_path/name)
    assert code == 1
    assert 'ends in .csv' in err


def test_male_stands_above_the_option(work, boneage, phantoms, tmp_path):
    put(tmp_path/'t.csv', f'id,path,male\nboy,"{phantoms.path[0]}",True\n')
    words = 'predict', tmp_path/'t.csv', '--sex', 'F', '--model', work/'model', '--out', tmp_path/'p.csv'
    code, out, _ = boneage(*words)
    assert code in (0, 3)
    assert 'the sex is taken from the column male' in out
    assert read_table(tmp_path/'p.csv').sex.tolist() == ['M']


@pytest.mark.parametrize('name', ['export.pkl', 'best.pth', 'x.ckpt'])
def test_an_export_of_fastai_is_not_opened(name, boneage, film, tmp_path):
    write_png(tmp_path/'a.png', film)
    put(tmp_path/name, 'x')
    code, _, err = boneage('predict', tmp_path/'a.png', '--sex', 'F', '--model', tmp_path/name)
    assert code == 1
    assert 'none is opened' in err and f'{name}.json' not in err
