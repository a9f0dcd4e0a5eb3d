"Shapes and direction of hands: against brute force, turned, mirrored, doubled, and on masks that are no hands."
import cv2
import numpy as np
import pytest

from boneage.cropping import Turn
from boneage.films.phantom import make_phantom
from boneage.hand.direction import (
    find_fingers, find_wrist, finger_reach, hand_direction, hand_frame, hand_tilt, thumb_left, wrist_reach)
from boneage.hand.shapes import (
    biggest_part, clean_mask, dilate, disk, distance, erode, fill_holes, morph, opening, palm)

SEEDS = range(6)

def blobs(seed, shape=(60, 50)):
    "A random mask of a few pieces."
    noise = np.random.default_rng(seed).normal(size=shape)
    return cv2.GaussianBlur(noise, (0, 0), 2.5) > .03

def between(a, b):
    "Degrees between two directions."
    return abs((a - b + 180) % 360 - 180)

@pytest.fixture(scope='module')
def hands():
    return [make_phantom(s, size=300) for s in range(8)]

# ---------------------------------------------------------------- shapes

def true_distance(mask):
    points = np.argwhere(mask)
    everywhere = np.argwhere(np.ones_like(mask))
    far = np.linalg.norm(everywhere[:, None] - points[None], axis=2).min(1)
    return far.reshape(mask.shape)

@pytest.mark.parametrize('seed', SEEDS)
def test_distance_is_the_true_one(seed):
    m = blobs(seed)
    np.testing.assert_allclose(distance(m), true_distance(m), rtol=.03)

@pytest.mark.parametrize('r', [1, 2, 5, 9])
@pytest.mark.parametrize('seed', SEEDS)
def test_morph_grows_by_a_true_disk(seed, r):
    m = blobs(seed)
    far = true_distance(m)
    grown = morph(m, cv2.MORPH_DILATE, r)
    assert grown[far <= r].all() and not grown[far > r + .5].any()

@pytest.mark.parametrize('r', [1, 3, 6])
@pytest.mark.parametrize('seed', SEEDS)
def test_growing_and_shrinking_mirror_each_other(seed, r):
    m = blobs(seed)
    for one, other in ((cv2.MORPH_DILATE, cv2.MORPH_ERODE), (cv2.MORPH_CLOSE, cv2.MORPH_OPEN)):
        np.testing.assert_array_equal(morph(m, one, r), ~morph(~m, other, r))
    np.testing.assert_array_equal(dilate(m, r), ~erode(~m, r, beyond=1))
    assert not (opening(m, r) & ~m).any() and not (morph(m, cv2.MORPH_OPEN, r) & ~m).any()

def test_an_unknown_operation_is_refused():
    with pytest.raises(ValueError, match='op is 99'):
        morph(blobs(0), 99, 2)

@pytest.mark.parametrize('r', [0, .4, 1, 1.4])
def test_the_least_kernel_is_a_cross(r):
    np.testing.assert_array_equal(disk(r), [[0, 1, 0], [1, 1, 1], [0, 1, 0]])

@pytest.mark.parametrize('seed', SEEDS)
def test_palm_is_the_largest_circle(seed):
    m = blobs(seed)
    (y, x), r = palm(m)
    depth = true_distance(~np.pad(m, 1))[1:-1, 1:-1]*m
    assert r == pytest.approx(depth.max(), rel=.03)
    assert depth[y, x] == pytest.approx(depth.max(), rel=.03)

def test_palm_obeys_its_limits():
    m = np.zeros((40, 60), bool)
    m[5:36, 5:36] = True
    m[15:26, 36:] = True
    assert palm(m).centre == (20, 20)
    (y, x), r = palm(m, within=np.arange(60) > 45)
    assert x > 45 and r < palm(m).radius
    end = m[:, 52:]
    assert palm(end).radius < 5
    assert palm(end, extend=30).radius == pytest.approx(6, abs=.2)

@pytest.mark.parametrize('seed', SEEDS)
def test_parts_and_holes(seed):
    m = blobs(seed)
    part = biggest_part(m)
    n, label = cv2.connectedComponents(m.astype(np.uint8), connectivity=4)
    assert part.sum() == np.bincount(label.ravel())[1:].max() and n > 1
    assert biggest_part(m, weights=part.astype(float)*-1 + 1).sum() <= part.sum()
    full = fill_holes(m)
    np.testing.assert_array_equal(fill_holes(full), full)
    assert (full >= m).all()

@pytest.mark.parametrize('seed', SEEDS)
def test_a_clean_mask_is_one_piece_without_holes(seed):
    m = clean_mask(blobs(seed))
    assert cv2.connectedComponents(m.astype(np.uint8), connectivity=4)[0] == 2
    np.testing.assert_array_equal(fill_holes(m), m)

# ---------------------------------------------------------------- direction

@pytest.mark.parametrize('degrees', [0, 30, 90, 135, 180, -100, -45])
def test_direction_turns_with_the_film(hands, degrees):
    for h in hands:
        turn = Turn(h.shape, degrees)
        before = hand_direction(h.mask)
        after = hand_direction(turn(h.mask))
        assert before.source == after.source == 'forearm'
        assert between(after.angle - before.angle, degrees) < 2.5, h

def test_direction_is_near_the_true_one(hands):
    for h in hands:
        down, right = np.subtract(h.landmarks['tip3'], h.landmarks['wrist'])
        assert between(hand_direction(h.mask).angle, np.degrees(np.arctan2(right, -down))) < 15, h

def test_a_mirror_changes_the_sign(hands):
    for h in hands:
        assert between(hand_direction(h.mask[:, ::-1]).angle, -hand_direction(h.mask).angle) < 1, h

def test_fingers_decide_where_the_forearm_has_no_answer(hands, monkeypatch):
    import boneage.hand.direction as direction
    by_forearm = [hand_direction(h.mask) for h in hands]
    monkeypatch.setattr(direction, '_by_forearm', lambda mask: None)
    for h, first in zip(hands, by_forearm):
        found = hand_direction(h.mask)
        assert found.source == 'fingers' and between(found.angle, first.angle) < 25
        assert hand_tilt(h.mask) == 0, 'nothing is turned by a guess'

@pytest.mark.parametrize('name,mask,fingers', [
    ('empty', np.zeros((50, 40), bool), 0),
    ('pixel', np.eye(50, dtype=bool) & (np.arange(50) == 9), 0),
    ('disc', np.hypot(*np.indices((64, 64)) - 32) < 20, 0),
    ('full', np.ones((50, 50), bool), 0)])
def test_what_is_no_hand_has_no_direction_to_act_on(name, mask, fingers):
    found = hand_direction(mask)
    assert (found is None) == (name in ('empty', 'pixel'))
    assert found is None or found.source == 'outline'
    assert hand_tilt(mask) == 0 and not find_wrist(mask).found
    assert len(find_fingers(mask)) == fingers

# ---------------------------------------------------------------- the hand's own frame

@pytest.mark.parametrize('degrees', [0, 90, 180, -60])
def test_places_in_the_hand_do_not_depend_on_how_the_film_lies(hands, degrees):
    for h in hands:
        turn = Turn(h.shape, degrees)
        names = ['tip1', 'tip3', 'wrist']
        marks = np.array([h.landmarks[o] for o in names])
        before = hand_frame(h.mask).points(marks)
        after = hand_frame(turn(h.mask)).points(turn.points(marks))
        np.testing.assert_allclose(after, before, atol=.25)
        assert before[1, 1] > 2 and before[2, 1] < 0

def test_size_does_not_matter(hands):
    for h in hands:
        small = hand_frame(h.mask)
        mask = np.kron(h.mask, np.ones((3, 3), bool))
        large = hand_frame(mask)
        assert finger_reach(large) == pytest.approx(finger_reach(small), abs=.15)
        assert wrist_reach(mask, large) == pytest.approx(wrist_reach(h.mask, small), abs=.15)

def test_the_thumb_tells_left_from_right():
    for seed in range(6):
        left = make_phantom(seed, size=300)
        right = make_phantom(seed, size=300, side='R')
        assert thumb_left(hand_frame(left.mask)) < 0 < thumb_left(hand_frame(right.mask)), seed
