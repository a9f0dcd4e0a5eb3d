"Tables of simulated predictions: plain ones, and every odd one that a person could bring."
import numpy as np
import pandas as pd


def readings(n, seed=0, bias=2., sd=8.):
    "Simulated readings and predictions, with intervals."
    rng = np.random.default_rng(seed)
    age = np.clip(rng.normal(127, 41, n), 1, 228).round()
    ids = [f'f{i}' for i in range(n)]
    sex = rng.choice(['F', 'M'], n)
    pred = age + bias + rng.normal(0, sd, n)
    df = pd.DataFrame(dict(id=ids, sex=sex, age_months=age, pred_months=pred, model='sim'))
    return df.assign(pred_low=df.pred_months - 13, pred_high=df.pred_months + 13)


def _partly_known_patients(d):
    known = (d.index % 20).astype(float)
    return d.assign(patient_id=pd.Series(known).where(d.index > 9))


def _markup(d):
    return d.assign(id=[f'<b>{i}&"' for i in range(len(d))], model='<script>alert(1)</script>')


ODD = { # name -> what is done to sixty readings
    'one film': lambda d: d.head(1),
    'two films': lambda d: d.head(2),
    'three films': lambda d: d.head(3),
    'one sex': lambda d: d[d.sex == 'F'],
    'no sex': lambda d: d.drop(columns='sex'),
    'some sex unknown': lambda d: d.assign(sex=d.sex.where(d.index > 20)),
    'constant prediction': lambda d: d.assign(pred_months=120., pred_low=100., pred_high=140.),
    'perfect': lambda d: d.assign(pred_months=d.age_months),
    'one age': lambda d: d.assign(age_months=120.),
    'all the same': lambda d: d.assign(age_months=120., pred_months=120.),
    'missing band': lambda d: d[d.age_months >= 60],
    'no prediction for some': lambda d: d.assign(pred_months=d.pred_months.where(d.index % 3 > 0)),
    'no intervals': lambda d: d.drop(columns=['pred_low', 'pred_high']),
    'intervals for some': lambda d: d.assign(pred_low=d.pred_low.where(d.index > 20)),
    'no interval at all': lambda d: d.assign(pred_low=np.nan, pred_high=np.nan),
    'ages at the edges': lambda d: d.assign(age_months=[0., 300.]*30),
    'one patient': lambda d: d.assign(patient_id='p'),
    'two patients': lambda d: d.assign(patient_id=d.index % 2),
    'twenty patients': lambda d: d.assign(patient_id=d.index % 20),
    'some patients unknown': _partly_known_patients,
    'markup in ids': _markup,
}


def odd(kind):
    return ODD[kind](readings(60))
