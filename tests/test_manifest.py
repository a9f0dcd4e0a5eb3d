"Tables at the door: every wrong row is named, and a table moves with its folder."
import os
import shutil
from pathlib import Path
import pandas as pd
import pytest
from boneage.core import ManifestError
from boneage.films.files import write_png
from boneage.films.manifest import manifest_from_folder, manifest_problems, read_manifest, read_table, write_manifest
from boneage.films.patients import patient_code
from boneage.films.phantom import make_phantom
from dicoms import dicom

@pytest.fixture(scope='module')
def film():
    return make_phantom(seed=1, age_months=120, sex='M').pixels

CSV = {
    'missing column': ('id,sex\n1,F\n', 'column "path" is missing'),
    'doubled column': ('id,path,sex,sex\n1,a,F,F\n', 'column "sex" stands there 2 times'),
    'doubled id': ('id,path\n1,a\n1,b\n', 'row 2, id 1: this id stands in more than one row'),
    'age below 0': ('id,path,age_months\n1,a,-3\n', 'age_months is -3'),
    'age above 300': ('id,path,age_months\n1,a,301\n', 'expected 0 to 300'),
    'age in words': ('id,path,age_months\n1,a,ten\n', 'age_months is ten'),
    'sex unknown': ('id,path,sex\n1,a,unknown\n', "sex is 'unknown'"),
    'empty id': ('id,path\n,a\n', 'id is empty'),
    'split': ('id,path,split\n1,a,dev\n', "split is 'dev'"),
    'no rows': ('id,path\n', 'no rows'),
    'empty file': ('', 'empty file'),
    'picture': ('\x89PNG\n', 'missing'),
}

@pytest.mark.parametrize('kind', CSV)
def test_bad_table_says_why(tmp_path, kind):
    text, expected = CSV[kind]
    (tmp_path/'my films.csv').write_text(text, encoding='utf-8')
    with pytest.raises(ManifestError, match=expected) as e:
        read_manifest(tmp_path/'my films.csv')
    assert 'my films.csv' in str(e.value)

def test_a_table_from_a_spreadsheet_in_latin_1(tmp_path):
    (tmp_path/'t.csv').write_bytes('id,path\n1,Röntgen.png\n'.encode('latin-1'))
    with pytest.raises(ManifestError, match='not UTF-8'):
        read_table(tmp_path/'t.csv')

def test_every_wrong_row_is_listed_at_once():
    sexes = ['F', 'X', 'M', 'Y', 'F', 'Z']
    df = pd.DataFrame(dict(id=list('abcdef'), path='x', sex=sexes, age_months=[1, 2, 999, 4, -5, 6]))
    assert len(manifest_problems(df)) == 5

def test_manifest_moves_with_its_folder(tmp_path, film):
    old = tmp_path/'a ä'
    write_png(old/'films'/'1.png', film)
    write_manifest(pd.DataFrame(dict(id=['1'], path=[str(old/'films'/'1.png')])), old/'t.csv')
    old.rename(tmp_path/'moved')
    assert Path(read_manifest(tmp_path/'moved'/'t.csv').path[0]).exists()

def test_an_empty_column_of_codes_stays_text(tmp_path):
    (tmp_path/'t.csv').write_text('id,path,seg_code,crop_code,pred_code,qc_code,crop_how\n1,a,,,,,\n')
    df = read_table(tmp_path/'t.csv')
    for c in ('seg_code', 'crop_code', 'pred_code', 'qc_code', 'crop_how'):
        assert not pd.api.types.is_numeric_dtype(df[c])

def test_folder_without_films(tmp_path):
    with pytest.raises(ManifestError, match='no film found'):
        manifest_from_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        manifest_from_folder(tmp_path/'nowhere')

def test_dicom_header_becomes_a_row(tmp_path, film, monkeypatch):
    key = tmp_path/'key'
    key.write_bytes(bytes(range(32)))
    monkeypatch.setenv('BONEAGE_PATIENT_KEY', str(key))
    dicom(tmp_path/'a.dcm', film, PatientSex='F', PatientID='p7', PatientBirthDate='20100115', StudyDate='20200115')
    dicom(tmp_path/'b.dcm', film, PatientAge='011Y')
    a, b = manifest_from_folder(tmp_path).to_dict('records')
    assert (a['sex'], a['chron_age_months']) == ('F', 120.0)
    assert a['patient_id'] == patient_code('p7') != 'p7', 'the number stays in the header'
    assert b['chron_age_months'] == 132

def test_file_names_that_are_not_utf8(tmp_path, phantoms):
    try:
        shutil.copy(phantoms.path[0], os.fsencode(tmp_path) + b'/m\xe4dchen.png')
    except OSError:
        pytest.skip('this file system takes UTF-8 names only')
    shutil.copy(phantoms.path[0], tmp_path/'other.png')
    df = manifest_from_folder(tmp_path)
    assert df.id.tolist() == [r'm\xe4dchen', 'other']
    assert df.note.tolist()[0] == 'the name of the file is not UTF-8; rename it'
    write_manifest(df, tmp_path/'films.csv')
    assert read_manifest(tmp_path/'films.csv').id.tolist() == df.id.tolist()
