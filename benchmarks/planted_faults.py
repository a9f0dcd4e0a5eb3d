"""Faults of films, outlines and crops, made by plain transforms that know nothing of `boneage.films.phantom`.

    from planted_faults import FILM, COPY, OUTLINE, CROP, Film
    blurred = FILM['blurred'](film, rng, other)            film and other: Film of pixels and mask; rng: numpy Generator

A fault of a film or a copy gives new pixels, one of an outline a new mask, one of a crop a new crop or None.
Numbers with which a fault is drawn were chosen by eye so that a reviewer would see it. review_triage.py plants
them. The order of the tables, and of the draws inside a function, decides what a seed gives.
"""
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from boneage.cropping import hand_box
from boneage.hand.shapes import Palm, dilate, erode, opening, palm
from boneage.training.data import jpeg_copy
from common import grey, turned

FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass
class Film:
    "A film and its hand."
    pixels:np.ndarray # uint8 HxW
    mask:np.ndarray # bool HxW

    @cached_property
    def palm(self)->Palm: # centre (y, x) and radius, px
        return palm(self.mask)

    @cached_property
    def box(self)->tuple: # y0, x0, y1, x1, half-open
        return hand_box(self.mask)

    @property
    def height(self):
        return self.pixels.shape[0]

    @property
    def width(self):
        return self.pixels.shape[1]

    @property
    def size(self): # as OpenCV takes it
        return self.width, self.height

    @property
    def numbers(self): # pixels that may pass black and white
        return self.pixels.astype(float)


def named(*faults)->dict:
    "Functions by their names."
    return {fault.__name__: fault for fault in faults}


def like(film, other)->np.ndarray:
    "The pixels of another film at the size of this one."
    return cv2.resize(other.pixels, film.size, interpolation=cv2.INTER_AREA)


def coin(rng)->bool:
    return rng.random() < .5


def sign(rng)->int:
    return rng.choice([-1, 1])


# ---- faults of a film: Film, generator, Film of somebody else -> pixels

def motion(film, rng, other):
    "The hand moved along a straight line during the exposure."
    n = int(max(film.size)*rng.uniform(.05, .1))
    angle = rng.uniform(0, np.pi)
    half = n/2*np.array([np.cos(angle), np.sin(angle)])
    start = (n/2 - half).astype(int)
    end = (n/2 + half).astype(int)
    kernel = np.zeros((n, n), np.float32)
    cv2.line(kernel, start.tolist(), end.tolist(), 1)
    return cv2.filter2D(film.pixels, -1, kernel/kernel.sum())


def second_hand_over(film, rng, other):
    "Another hand lies over this one, shifted to one side."
    shift = int(film.width*rng.uniform(.4, .6))
    hand = like(film, other)
    laid = np.zeros_like(film.pixels)
    if coin(rng):
        laid[:, shift:] = hand[:, :-shift]
    else:
        laid[:, :-shift] = hand[:, shift:]
    return np.maximum(film.pixels, laid)


def text_over(film, rng, other):
    "A name and a number, three times across the palm."
    (y, x), r = film.palm
    out = film.pixels.copy()
    left = int(x - 2.5*r)
    for k in (-1, 0, 1):
        line = f'NAME {rng.integers(1e9)}'
        cv2.putText(out, line, (left, int(y + k*r)), FONT, r/32, 255, max(2, int(r/12)))
    return out


def page_of_text(film, rng, other):
    "A scanned report instead of a film."
    out = np.zeros_like(film.pixels)
    for k in range(1, 13):
        line = f'report {rng.integers(1e12)}'
        y = int(k*film.height/13)
        cv2.putText(out, line, (5, y), FONT, film.width/450, 230, 1)
    return out


def bar(film, rng, other):
    "A rod of metal across the palm."
    (y, x), r = film.palm
    angle = rng.uniform(0, np.pi)
    length = r*rng.uniform(1, 2)
    dx = length*np.cos(angle)
    dy = length*np.sin(angle)
    width = max(2, int(r*rng.uniform(.12, .3)))
    start = int(x - dx), int(y - dy)
    end = int(x + dx), int(y + dy)
    return cv2.line(film.pixels.copy(), start, end, 255, width)


def outer_columns(width, share)->np.ndarray: # bool, one a column
    "The first share of the columns; with a negative share the last."
    at = np.arange(width)
    return at < share*width if share > 0 else at >= (1 + share)*width


def plate(film, rng, other):
    "An even bright plate over one side."
    out = film.numbers
    at = outer_columns(film.width, sign(rng)*rng.uniform(.35, .65))
    skin = np.median(film.pixels[film.mask])
    bright = skin*rng.uniform(.8, 1.3)
    out[:, at] = np.maximum(out[:, at], bright) + .2*out[:, at]
    return grey(out)


def cast(film, rng, other):
    "A bright, cloudy cast around wrist and forearm."
    (y, _), r = film.palm
    side = int(.5*r) | 1
    wide = cv2.dilate(film.mask.astype(np.uint8), np.ones((side, side)))
    near = wide > 0
    near[:int(y + .2*r)] = False
    plaster = rng.uniform(130, 190)
    grain = rng.normal(0, 25, (12, 12))
    clouds = cv2.resize(grain, film.size, interpolation=cv2.INTER_CUBIC)
    out = film.numbers
    out[near] = out[near]*.3 + plaster + clouds[near]
    return grey(out)


def black_part(film, rng, other):
    "Black below the palm, or on one side of it."
    (y, x), r = film.palm
    out = film.pixels.copy()
    if coin(rng):
        below = int(y - rng.uniform(0, .6)*r)
        out[below:] = 0
    else:
        out[:, :x] = 0
    return out


def wedge(film, rng, other):
    "The collimator's edge cuts the fingers off aslant."
    top = film.box[0]
    (y, _), _ = film.palm
    share = rng.uniform(.3, .6)
    right = int(top + share*(y - top))
    left = int(top + (share - .3)*(y - top))
    corners = [0, 0], [film.width, 0], [film.width, right], [0, left]
    return cv2.fillPoly(film.pixels.copy(), [np.array(corners)], 0)


def covered(film, rng, other):
    "A black or white square over part of the hand."
    (y, x), r = film.palm
    y = y - rng.uniform(-.5, 1.5)*r
    x = x + rng.uniform(-.8, .8)*r
    half = r*rng.uniform(.6, 1)
    colour = int(rng.choice([0, 255]))
    start = int(x - half), int(y - half)
    end = int(x + half), int(y + half)
    return cv2.rectangle(film.pixels.copy(), start, end, colour, -1)


def far_away(film, rng, other):
    "A small film on a large canvas."
    f = rng.uniform(.2, .35)
    w = int(film.width*f)
    h = int(film.height*f)
    small = cv2.resize(film.pixels, (w, h), interpolation=cv2.INTER_AREA)
    y = int(rng.uniform(0, film.height - h))
    x = int(rng.uniform(0, film.width - w))
    edge = np.median(film.pixels[:3])
    out = np.full_like(film.pixels, int(edge))
    out[y:y + h, x:x + w] = small
    return out


def cropped(film, rng, other):
    "The film ends in the fingers, in the palm, or on one side of the hand."
    y0, x0, _, x1 = film.box
    (y, _), r = film.palm
    where = rng.integers(4)
    if where == 0:
        fingers = y - r - y0
        return film.pixels[int(y0 + rng.uniform(.3, .7)*fingers):]
    if where == 1:
        return film.pixels[:int(y + r*rng.uniform(.2, .8))]
    cut = int(rng.uniform(.2, .4)*(x1 - x0))
    if where == 2:
        return film.pixels[:, x0 + cut:]
    return film.pixels[:, :x1 - cut]


def zoomed(film, rng, other):
    "Little more than the palm."
    (y, x), r = film.palm
    half = int(r*rng.uniform(1.3, 1.8))
    top = max(0, y - half)
    left = max(0, x - half)
    return film.pixels[top:y + half, left:x + half]


def finger_gone(film, rng, other):
    "One finger painted over with the grey of the surround."
    (y, x), r = film.palm
    top = film.box[0]
    bottom = int(y - .9*r)
    left = int(x + rng.uniform(-.6, .2)*r)
    right = int(left + .8*r)
    out = film.pixels.copy()
    out[top:bottom, left:right] = np.median(film.pixels[~film.mask])
    return out


def striped(film, rng, other):
    out = film.pixels.copy()
    period = max(6, film.height//12)
    for k in range(0, film.height, period):
        out[k:k + period//2] = 0
    return out


def pixelated(film, rng, other):
    side = int(rng.integers(28, 48))
    small = cv2.resize(film.pixels, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, film.size, interpolation=cv2.INTER_NEAREST)


def ramp(film, rng, other):
    "Brighter from one side to the other."
    slope = np.linspace(0, rng.uniform(180, 250), film.width)
    if not coin(rng):
        slope = slope[::-1]
    return grey(film.pixels*.5 + slope)


def blurred(film, rng, other):
    sigma = max(film.size)*rng.uniform(.012, .025)
    return cv2.GaussianBlur(film.pixels, (0, 0), sigma)


def dark(film, rng, other):
    gain = rng.uniform(.06, .14)
    return grey(film.pixels*gain)


def bright(film, rng, other):
    gain = rng.uniform(2.5, 4)
    return grey(film.pixels*gain + rng.uniform(40, 90))


def white(film, rng, other):
    veil = rng.uniform(190, 220)
    return grey(film.pixels*.12 + veil)


def flat(film, rng, other):
    gain = rng.uniform(.05, .1)
    return grey(film.pixels*gain + rng.uniform(40, 160))


def with_gamma(film, exponent):
    return grey(255*(film.pixels/255.)**exponent)


def gamma_dark(film, rng, other):
    return with_gamma(film, rng.uniform(3, 4.5))


def gamma_bright(film, rng, other):
    return with_gamma(film, rng.uniform(.12, .22))


def noise(film, rng, other):
    sd = rng.uniform(45, 80)
    grain = rng.normal(0, sd, film.pixels.shape)
    return grey(film.pixels + grain)


def pepper(film, rng, other):
    "A tenth of the pixels black, a tenth white."
    draw = rng.random(film.pixels.shape)
    out = film.pixels.copy()
    out[draw < .1] = 0
    out[draw >= .9] = 255
    return out


def posterized(film, rng, other):
    level = np.digitize(film.pixels, [60, 120, 190])
    return (level*80).astype(np.uint8)


def crushed(film, rng, other):
    "JPEG at the lowest quality."
    quality = int(rng.integers(1, 4))
    return jpeg_copy(film.pixels, quality)


def inverted(film, rng, other):
    return 255 - film.pixels


def mirrored(film, rng, other):
    return film.pixels[:, ::-1]


def upside_down(film, rng, other):
    return film.pixels[::-1]


def on_its_side(film, rng, other):
    quarters = rng.choice([1, 3])
    return np.rot90(film.pixels, quarters)


def on_its_head(film, rng, other):
    return np.rot90(film.pixels, 2)


def aslant(film, rng, other):
    degrees = sign(rng)*rng.uniform(35, 70)
    return turned(film.pixels, degrees)


def squashed(film, rng, other):
    width = film.width
    height = film.height
    if coin(rng):
        width //= 2
    else:
        height //= 2
    return cv2.resize(film.pixels, (width, height), interpolation=cv2.INTER_AREA)


def two_hands(film, rng, other):
    "Another hand beside this one."
    hand = like(film, other)
    if coin(rng):
        hand = hand[:, ::-1]
    return np.hstack([film.pixels, hand])


def double_exposure(film, rng, other):
    hand = like(film, other)[:, ::-1]
    return grey(film.pixels*.55 + hand*.45)


def rolled(film, rng, other):
    "The halves of the film have changed places."
    half = film.width//2
    return np.roll(film.pixels, half, 1)


def blank(film, rng, other):
    "No hand, only noise around one grey."
    level = rng.uniform(20, 200)
    return grey(rng.normal(level, 3, film.pixels.shape))


def static(film, rng, other):
    "Noise of every grey."
    drawn = rng.integers(0, 256, film.pixels.shape)
    return drawn.astype(np.uint8)


COMBINED = 'blurred', 'dark', 'aslant', 'two_hands', 'bar', 'noise', 'mirrored', 'far_away' # of which two may meet


def two_faults(film, rng, other):
    "Two of the faults that may meet, one after the other."
    first, second = rng.choice(list(COMBINED), 2, replace=False)
    pixels = FILM[first](film, rng, other)
    pixels = np.ascontiguousarray(pixels)
    mask = cv2.resize(film.mask.astype(np.uint8), pixels.shape[::-1])
    return FILM[second](Film(pixels, mask > 0), rng, other)


FILM = named(
    motion, second_hand_over, text_over, page_of_text, bar, plate, cast, black_part, wedge, covered, far_away, cropped,
    zoomed, finger_gone, striped, pixelated, ramp, blurred, dark, bright, white, flat, gamma_dark, gamma_bright, noise,
    pepper, posterized, crushed, inverted, mirrored, upside_down, on_its_side, on_its_head, aslant, squashed, two_hands,
    double_exposure, rolled, blank, static, two_faults)


# ---- a film that is in the table already

def copy(film, rng, other):
    return film.pixels


def copy_darker(film, rng, other):
    return grey(film.pixels*.75)


def copy_smaller(film, rng, other):
    return cv2.resize(film.pixels, None, fx=.6, fy=.6, interpolation=cv2.INTER_AREA)


def copy_recompressed(film, rng, other):
    return jpeg_copy(film.pixels, 40)


COPY = named(copy, copy_darker, copy_smaller, copy_recompressed)


# ---- faults of an outline: Film, generator, Film of somebody else -> mask

def from_palm(film)->np.ndarray: # float HxW
    "Distance from the palm's centre, palm radii."
    (y, x), r = film.palm
    rows = np.arange(film.height) - y
    columns = np.arange(film.width) - x
    return np.hypot(rows[:, None], columns)/r


def below_palm(film, start, end=np.inf)->np.ndarray: # bool Hx1
    "The rows between two distances below the palm's centre, palm radii."
    (y, _), r = film.palm
    at = (np.arange(film.height) - y)/r
    rows = (at >= start) & (at < end)
    return rows[:, None]


def one_side(film, rng)->np.ndarray: # bool 1xW
    "The columns on one side of the palm's centre."
    (_, x), _ = film.palm
    left = np.arange(film.width) < x
    return (left ^ coin(rng))[None]


def finger_lost(film, rng, other):
    "One thin part above the palm missing; all of them where none is found."
    (y, _), r = film.palm
    fingers = film.mask & ~opening(film.mask, int(.5*r))
    fingers[y:] = False
    n, label, stats, _ = cv2.connectedComponentsWithStats(fingers.astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA]
    large = [k for k in range(1, n) if areas[k] > .2*r*r]
    if not large:
        return film.mask & ~below_palm(film, -9, -1.2)
    return film.mask & (label != rng.choice(large))


def hull(film, rng, other):
    "The convex hull: the gaps between the fingers count as hand."
    mask = film.mask.astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    corners = cv2.convexHull(np.concatenate(outlines))
    filled = cv2.fillPoly(np.zeros_like(mask), [corners], 1)
    return filled > 0


def boxed(film, rng, other):
    y0, x0, y1, x1 = film.box
    out = np.zeros_like(film.mask)
    out[y0:y1, x0:x1] = True
    return out


def corner(film, rng, other):
    "The hand and a corner of the film."
    side = int(film.palm.radius*rng.uniform(.7, 1.1))
    columns = slice(0, side) if coin(rng) else slice(-side, None)
    out = film.mask.copy()
    out[:side, columns] = True
    return out


def shifted(film, rng, other):
    angle = rng.uniform(0, 6.28)
    way = .6*film.palm.radius
    dy = int(way*np.sin(angle))
    dx = int(way*np.cos(angle))
    return np.roll(film.mask, (dy, dx), (0, 1))


def tips_lost(film, rng, other):
    (y, _), r = film.palm
    tip = (film.box[0] - y)/r
    lost = tip + rng.uniform(.6, 1)
    return film.mask & ~below_palm(film, -99, lost)


def half(film, rng, other):
    return film.mask & one_side(film, rng)


def no_fingers(film, rng, other):
    knuckles = -rng.uniform(.9, 1.3)
    return film.mask & ~below_palm(film, -99, knuckles)


def no_wrist(film, rng, other):
    start = rng.uniform(.1, .7)
    return film.mask & ~below_palm(film, start)


def forearm_only(film, rng, other):
    return film.mask & below_palm(film, .8)


def fat(film, rng, other):
    r = film.palm.radius*rng.uniform(.25, .4)
    return dilate(film.mask, int(r))


def thin(film, rng, other):
    r = film.palm.radius*rng.uniform(.12, .2)
    return erode(film.mask, int(r), beyond=1)


def of_another(film, rng, other):
    mask = other.mask.astype(np.uint8)
    mask = cv2.resize(mask, film.size, interpolation=cv2.INTER_NEAREST)
    return mask > 0


def everything(film, rng, other):
    return np.ones_like(film.mask)


def surround(film, rng, other):
    return ~film.mask


def hole(film, rng, other):
    r = rng.uniform(.35, .6)
    return film.mask & (from_palm(film) >= r)


def with_plate(film, rng, other):
    "The hand and everything beside the palm on one side."
    rows = below_palm(film, -1, 1.5)
    return film.mask | (rows & one_side(film, rng))


def circle(film, rng, other):
    return from_palm(film) < 1.2


def upside(film, rng, other):
    return film.mask[::-1]


def mirror(film, rng, other):
    return film.mask[:, ::-1]


def nothing(film, rng, other):
    return np.zeros_like(film.mask)


def speck(film, rng, other):
    return from_palm(film) < .15


def frayed(film, rng, other):
    "Grains all over the hand missing."
    coarse = film.height//4, film.width//4
    grain = rng.random(coarse).astype(np.float32)
    kept = cv2.resize(grain, film.size) > .35
    return film.mask & kept


def threshold(film, rng, other):
    "Whatever is bright."
    share = rng.uniform(60, 80)
    return film.pixels > np.percentile(film.pixels, share)


def bones(film, rng, other):
    "The brighter half of the hand."
    share = rng.uniform(45, 60)
    level = np.percentile(film.pixels[film.mask], share)
    return film.mask & (film.pixels > level)


OUTLINE = named(
    finger_lost, hull, boxed, corner, shifted, tips_lost, half, no_fingers, no_wrist, forearm_only, fat, thin,
    of_another, everything, surround, hole, with_plate, circle, upside, mirror, nothing, speck, frayed, threshold,
    bones)


# ---- faults of a crop: crop, crop of somebody else -> crop, or None: the file is gone

def crop_of_another(crop, other):
    return other


def crop_black(crop, other):
    return np.zeros_like(crop)


def crop_half(crop, other):
    out = crop.copy()
    out[:, crop.shape[1]//2:] = 0
    return out


def crop_turned(crop, other):
    return np.rot90(crop, 2)


def crop_lost(crop, other):
    return None


CROP = named(crop_of_another, crop_black, crop_half, crop_turned, crop_lost)
