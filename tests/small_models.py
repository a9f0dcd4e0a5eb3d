"What several test files stand on: a table of synthetic crops, and a model that was never trained but answers."
import numpy as np
import pandas as pd
import torch

from boneage.cropping import CropHow
from boneage.films.files import write_png
from boneage.films.phantom import make_phantom
from boneage.model.network import BoneAgeNet, load_crops
from boneage.model.release import FORMAT, BoneAgeModel, licence_note, net_bytes, versions, with_hash, with_metrics


SMALL_CROPS = CropHow(size=96)


def crop_table(folder, n=32, how=SMALL_CROPS):
    "Crops of synthetic hands of rising age, girls and boys in turn"
    return pd.DataFrame([_crop_row(folder, i, how) for i in range(n)])


def _crop_row(folder, i, how):
    hand = make_phantom(seed=700 + i, age_months=10 + 6.5*i, sex='FM'[i % 2])
    path = folder/f'{i}.png'
    write_png(path, how(hand.pixels, hand.mask).pixels)
    return dict(id=str(i), crop_path=str(path), sex=hand.sex, age_months=hand.age_months, source='synthetic')


def small_model(crops, *, seed=3, sd=40., size=64, name='small', segmenter=('hand_vit_tiny',)):
    "A `tiny` network as it starts, with a full card from these crops; a large sd makes it answer any change of a film"
    torch.manual_seed(seed)
    net = BoneAgeNet('tiny', 100., sd)
    card = dict(
        format=FORMAT, name=name, created='2026-11-25', intended_use='Research only. Not a medical device.',
        licence=licence_note(['synthetic']), architecture=net.config,
        preprocessing=dict(size=size, segmenter=list(segmenter)), target=dict(unit='months', mean=100., sd=sd),
        data=dict(n_train=0, sources=['synthetic']), libraries=versions(),
        training=dict(weights='none', epochs=0, seconds=0, hardware='none'))
    model = BoneAgeModel(net, with_hash(card, net_bytes(net), 'fp32'))
    months = model.predict(load_crops(crops.crop_path, size), crops.sex)
    evaluated = crops.assign(split='valid', pred_months=np.round(months, 2))
    return BoneAgeModel(net, with_metrics(model.card, evaluated, mirror=True))
