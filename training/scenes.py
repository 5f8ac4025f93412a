"""Captions and pictures, drawn by rule: the whole training set of the image starter model.

`scene(rng)` returns a 64x64 RGB picture (numpy, uint8) and a caption. Nothing is read from outside:
every picture is a handful of flat shapes, drawn at four times the size and averaged down.
"""
import math

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
SCALE = 4
WIDE = SIZE * SCALE

COLOURS = {
    "red": (218, 38, 42), "orange": (245, 138, 28), "yellow": (250, 214, 48), "green": (46, 164, 72),
    "blue": (42, 92, 218), "purple": (138, 58, 188), "pink": (246, 130, 184), "white": (246, 246, 246),
    "black": (26, 26, 30), "grey": (142, 142, 148), "brown": (128, 80, 44),
}
# Colours of things one would expect in any colour, and those of plain backgrounds.
BRIGHT = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black"]
GROUNDS = ["white", "blue", "black", "green", "yellow", "red", "pink", "purple", "orange", "grey"]

# What a caption may also say, for each word it is trained on; the exporter copies the word's embedding.
SYNONYMS = {
    "red": ["crimson", "scarlet", "ruby"], "orange": ["amber"], "yellow": ["golden", "gold", "lemon"],
    "green": ["emerald", "lime"], "blue": ["azure", "navy", "cobalt", "sapphire"],
    "purple": ["violet", "lilac", "magenta", "amethyst"], "pink": ["rose", "rosy"], "white": ["ivory"],
    "black": ["dark"], "grey": ["gray", "silver"], "brown": ["tan", "chocolate"],
    "circle": ["ball", "disc", "disk", "dot", "sphere", "circles", "balls"], "square": ["box", "cube", "rectangle", "squares"],
    "triangle": ["pyramid", "triangles"], "star": ["asterisk"], "heart": ["hearts", "love"],
    "diamond": ["rhombus"], "ring": ["hoop", "rings", "donut"],
    "face": ["smiley", "emoji", "faces"], "sad": ["unhappy", "crying"], "smiling": ["happy", "cheerful", "smile"],
    "cat": ["kitten", "kitty", "cats"], "flower": ["tulip", "daisy", "flowers", "blossom", "sunflower"],
    "mushroom": ["toadstool", "mushrooms"], "fish": ["goldfish", "fishes"], "potion": ["bottle", "flask", "elixir"],
    "gem": ["jewel", "crystal", "gemstone"], "house": ["home", "cottage", "hut", "cabin", "houses", "building"],
    "tree": ["oak", "trees", "forest"], "mountains": ["mountain", "peaks", "alps", "peak"],
    "boat": ["sailboat", "ship", "yacht", "boats"], "sea": ["ocean", "lake", "water"], "castle": ["fortress", "palace"],
    "city": ["skyline", "town", "skyscrapers", "buildings", "cityscape"], "beach": ["coast", "shore"],
    "balloon": ["balloons"], "car": ["automobile", "cars", "truck"], "rocket": ["spaceship", "spacecraft", "rockets"],
    "planet": ["planets", "saturn", "world"], "night": ["midnight", "nighttime"], "sunset": ["dusk", "evening", "dawn", "sunrise"],
    "snow": ["winter", "snowy"], "day": ["daytime", "noon"], "clouds": ["cloud", "cloudy"], "small": ["tiny", "little"],
    "big": ["large", "huge", "giant"], "background": ["backdrop"], "picture": ["image", "drawing", "painting", "illustration"],
    "roof": ["rooftop"], "sail": ["sails"], "on": ["upon"], "hill": ["hills"],
}


class Canvas:
    """A picture four times too large; all coordinates are fractions of its side, y downwards."""

    def __init__(self, top, bottom=None):
        rows = np.linspace(0, 1, WIDE)[:, None, None]
        top, bottom = np.array(top, float), np.array(bottom or top, float)
        pixels = np.repeat(top * (1 - rows) + bottom * rows, WIDE, axis=1)
        self.image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, points, colour):
        self.draw.polygon([(x * WIDE, y * WIDE) for x, y in points], fill=tuple(colour))

    def ellipse(self, x, y, rx, ry, colour):
        self.draw.ellipse([(x - rx) * WIDE, (y - ry) * WIDE, (x + rx) * WIDE, (y + ry) * WIDE], fill=tuple(colour))

    def rectangle(self, x0, y0, x1, y1, colour):
        self.draw.rectangle([x0 * WIDE, y0 * WIDE, x1 * WIDE, y1 * WIDE], fill=tuple(colour))

    def arc(self, x, y, r, start, end, colour, width):
        box = [(x - r) * WIDE, (y - r) * WIDE, (x + r) * WIDE, (y + r) * WIDE]
        self.draw.arc(box, start, end, fill=tuple(colour), width=round(width * WIDE))

    def line(self, points, colour, width):
        self.draw.line([(x * WIDE, y * WIDE) for x, y in points], fill=tuple(colour), width=round(width * WIDE), joint="curve")

    def pixels(self):
        return np.asarray(self.image.reduce(SCALE))


def shade(colour, factor):
    """Darker below 1, lighter above."""
    if factor <= 1:
        return tuple(int(c * factor) for c in colour)
    return tuple(int(255 - (255 - c) / factor) for c in colour)


def tint(rng, name, spread=9):
    """A named colour, a little different every time."""
    return tuple(int(np.clip(c + rng.normal(0, spread), 0, 255)) for c in COLOURS[name])


def polar(x, y, radii, turn=0.0):
    n = len(radii)
    return [(x + r * math.sin(2 * math.pi * i / n + turn), y - r * math.cos(2 * math.pi * i / n + turn)) for i, r in enumerate(radii)]


def pick(rng, options, weights=None):
    if weights is not None:
        weights = np.array(weights, float) / sum(weights)
    return options[int(rng.choice(len(options), p=weights))]


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


# --- plain shapes ---------------------------------------------------------------------------------------------------

def heart(x, y, r):
    points = []
    for i in range(60):
        t = 2 * math.pi * i / 60
        points.append((x + r * math.sin(t) ** 3, y - r * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16))
    return points


def draw_shape(canvas, shape, x, y, r, colour, behind):
    if shape == "circle":
        canvas.ellipse(x, y, r, r, colour)
    elif shape == "ring":
        canvas.ellipse(x, y, r, r, colour)
        canvas.ellipse(x, y, r * 0.56, r * 0.56, behind)
    elif shape == "square":
        canvas.rectangle(x - r * 0.86, y - r * 0.86, x + r * 0.86, y + r * 0.86, colour)
    elif shape == "triangle":
        canvas.polygon([(x, y - r), (x + r * 1.02, y + r * 0.8), (x - r * 1.02, y + r * 0.8)], colour)
    elif shape == "diamond":
        canvas.polygon([(x, y - r * 1.08), (x + r * 0.78, y), (x, y + r * 1.08), (x - r * 0.78, y)], colour)
    elif shape == "star":
        canvas.polygon(polar(x, y + r * 0.06, [r * 1.12, r * 0.46] * 5), colour)
    else:
        canvas.polygon(heart(x, y - r * 0.04, r), colour)


SHAPES = ["circle", "square", "triangle", "star", "heart", "diamond", "ring"]


def plain_ground(rng, avoid):
    """A background of one colour and the words for it; half the time it is left unsaid and then mostly white."""
    if rng.random() < 0.4:
        name = pick(rng, ["white", "grey", "blue", "green"], [7, 1, 1, 1])
        if name in avoid:
            name = "black" if "white" in avoid else "white"
        return tint(rng, name, 5), ""
    name = pick(rng, [g for g in GROUNDS if g not in avoid])
    return tint(rng, name), name


def ground_words(rng, subject, ground):
    if not ground:
        return subject
    return pick(rng, [f"{subject} on a {ground} background", f"{subject}, {ground} background", f"{ground} background with {subject}",
                      f"{subject} on {ground}", f"{subject} in front of a {ground} background"], [5, 3, 1, 2, 1])


def shapes(rng):
    shape, name = pick(rng, SHAPES), pick(rng, BRIGHT)
    behind, ground = plain_ground(rng, [name])
    canvas = Canvas(behind)
    size = rng.random()
    radius, word = rng.uniform(0.24, 0.32), ""
    if size < 0.12:
        radius, word = rng.uniform(0.11, 0.16), "small "
    elif size < 0.24:
        radius, word = rng.uniform(0.38, 0.42), "big "
    x, y = 0.5 + rng.normal(0, 0.025), 0.5 + rng.normal(0, 0.025)
    draw_shape(canvas, shape, x, y, radius, tint(rng, name), behind)
    return canvas, ground_words(rng, article(f"{word}{name} {shape}"), ground)


# --- things on a plain background -----------------------------------------------------------------------------------

def faces(rng):
    name = pick(rng, ["yellow", "yellow", "yellow", "blue", "green", "red", "orange", "pink", "purple"])
    behind, ground = plain_ground(rng, [name])
    canvas, colour = Canvas(behind), tint(rng, name)
    x, y, r = 0.5 + rng.normal(0, 0.015), 0.5 + rng.normal(0, 0.015), rng.uniform(0.34, 0.40)
    canvas.ellipse(x, y, r, r, shade(colour, 0.72))
    canvas.ellipse(x, y, r * 0.93, r * 0.93, colour)
    for side in (-1, 1):
        canvas.ellipse(x + side * r * 0.36, y - r * 0.24, r * 0.12, r * 0.18, (30, 24, 24))
    mood = pick(rng, ["smiling", "sad"], [2, 1])
    if mood == "smiling":
        canvas.arc(x, y + r * 0.04, r * 0.56, 20, 160, (60, 24, 20), r * 0.13)
    else:
        canvas.arc(x, y + r * 0.86, r * 0.52, 212, 328, (60, 24, 20), r * 0.13)
    said = name if name != "yellow" or rng.random() < 0.5 else ""
    words = article(f"{mood} {said} face".replace("  ", " ")) if rng.random() < 0.7 else article(f"{said} {mood} face".strip())
    return canvas, ground_words(rng, words, ground)


def cats(rng):
    name = pick(rng, ["orange", "grey", "black", "white", "brown"])
    behind, ground = plain_ground(rng, [name])
    canvas, colour = Canvas(behind), tint(rng, name)
    x, y, r = 0.5 + rng.normal(0, 0.015), 0.55 + rng.normal(0, 0.015), rng.uniform(0.30, 0.34)
    edge = shade(colour, 0.7) if name != "black" else (70, 70, 78)
    for side in (-1, 1):
        canvas.polygon([(x + side * r * 0.95, y - r * 0.2), (x + side * r * 0.86, y - r * 1.3), (x + side * r * 0.2, y - r * 0.75)], colour)
        canvas.polygon([(x + side * r * 0.80, y - r * 0.45), (x + side * r * 0.78, y - r * 1.02), (x + side * r * 0.42, y - r * 0.72)], (238, 150, 160))
    canvas.ellipse(x, y, r * 1.06, r * 0.92, colour)
    eyes = (90, 190, 80) if name != "white" else (70, 140, 210)
    for side in (-1, 1):
        canvas.ellipse(x + side * r * 0.42, y - r * 0.16, r * 0.19, r * 0.21, eyes)
        canvas.ellipse(x + side * r * 0.42, y - r * 0.16, r * 0.08, r * 0.19, (15, 15, 15))
        for lift in (-0.06, 0.12):
            canvas.line([(x + side * r * 0.3, y + r * 0.3), (x + side * r * 1.2, y + r * (0.26 + lift * 1.6))], edge, r * 0.05)
    canvas.polygon([(x - r * 0.12, y + r * 0.16), (x + r * 0.12, y + r * 0.16), (x, y + r * 0.32)], (235, 110, 130))
    canvas.arc(x - r * 0.13, y + r * 0.36, r * 0.14, 0, 150, edge, r * 0.07)
    canvas.arc(x + r * 0.13, y + r * 0.36, r * 0.14, 30, 180, edge, r * 0.07)
    words = article(f"{name} cat") if rng.random() < 0.75 else f"the face of {article(name + ' cat')}"
    return canvas, ground_words(rng, words, ground)


def flowers(rng):
    name = pick(rng, ["red", "orange", "yellow", "blue", "purple", "pink", "white"])
    behind, ground = plain_ground(rng, [name, "green"])
    canvas, colour = Canvas(behind), tint(rng, name)
    x, y, r = 0.5 + rng.normal(0, 0.02), 0.36 + rng.normal(0, 0.015), rng.uniform(0.2, 0.24)
    stem = tint(rng, "green")
    canvas.line([(x, y), (x + 0.01, 1.0)], stem, 0.04)
    canvas.ellipse(x + 0.11, 0.80, 0.11, 0.05, stem)
    canvas.ellipse(x - 0.10, 0.72, 0.10, 0.045, stem)
    for px, py in polar(x, y, [r * 0.78] * 6, rng.uniform(0, 1)):
        canvas.ellipse(px, py, r * 0.46, r * 0.46, colour)
    canvas.ellipse(x, y, r * 0.42, r * 0.42, (250, 205, 60) if name not in ("yellow", "orange") else (110, 66, 30))
    return canvas, ground_words(rng, article(f"{name} flower"), ground)


def mushrooms(rng):
    name = pick(rng, ["red", "red", "blue", "purple", "brown", "orange"])
    behind, ground = plain_ground(rng, [name, "white"])
    canvas, colour = Canvas(behind), tint(rng, name)
    x, y, r = 0.5 + rng.normal(0, 0.02), 0.5 + rng.normal(0, 0.015), rng.uniform(0.33, 0.38)
    canvas.polygon([(x - 0.1, y), (x + 0.1, y), (x + 0.14, y + 0.36), (x - 0.14, y + 0.36)], (240, 226, 200))
    canvas.draw.pieslice([(x - r) * WIDE, (y - r) * WIDE, (x + r) * WIDE, (y + r) * WIDE], 180, 360, fill=colour)
    canvas.ellipse(x, y, r, r * 0.14, colour)
    for dx, dy, dr in ((0, -0.66, 0.17), (-0.52, -0.34, 0.15), (0.52, -0.34, 0.15), (0, -0.14, 0.13)):
        canvas.ellipse(x + dx * r, y + dy * r, dr * r, dr * r, (250, 246, 240))
    return canvas, ground_words(rng, article(f"{name} mushroom"), ground)


def fishes(rng):
    name = pick(rng, ["orange", "red", "yellow", "green", "purple", "pink", "white"])
    if rng.random() < 0.6:
        canvas = Canvas((70, 170, 225), (20, 80, 170))
        for _ in range(int(rng.integers(2, 5))):
            bx, by, br = rng.uniform(0.08, 0.92), rng.uniform(0.05, 0.3), rng.uniform(0.018, 0.035)
            canvas.ellipse(bx, by, br, br, (190, 228, 248))
        canvas.polygon([(0, 1), (0, 0.9), (0.3, 0.86), (0.7, 0.92), (1, 0.87), (1, 1)], (226, 204, 140))
        place = pick(rng, [" in the sea", " in the sea", " under the sea", ""])
        finish = lambda subject: subject + place
    else:
        behind, ground = plain_ground(rng, [name])
        canvas = Canvas(behind)
        finish = lambda subject: ground_words(rng, subject, ground)
    colour, dark = tint(rng, name), shade(tint(rng, name, 3), 0.72)
    x, y, r = 0.46 + rng.normal(0, 0.02), 0.52 + rng.normal(0, 0.02), rng.uniform(0.26, 0.30)
    canvas.polygon([(x + r * 0.75, y), (x + r * 1.6, y - r * 0.62), (x + r * 1.38, y), (x + r * 1.6, y + r * 0.62)], dark)
    canvas.polygon([(x - r * 0.3, y - r * 0.5), (x + r * 0.2, y - r * 0.95), (x + r * 0.5, y - r * 0.35)], dark)
    canvas.ellipse(x, y, r, r * 0.64, colour)
    canvas.ellipse(x - r * 0.56, y - r * 0.14, r * 0.17, r * 0.17, (250, 250, 250))
    canvas.ellipse(x - r * 0.60, y - r * 0.14, r * 0.09, r * 0.09, (10, 10, 10))
    canvas.arc(x - r * 0.42, y, r * 0.5, -50, 50, dark, r * 0.09)
    return canvas, finish(article(f"{name} fish"))


def potions(rng):
    name = pick(rng, ["red", "blue", "green", "purple", "yellow", "pink", "orange"])
    behind, ground = plain_ground(rng, [name, "grey"])
    canvas, colour = Canvas(behind), tint(rng, name)
    x, y, r = 0.5 + rng.normal(0, 0.015), 0.62 + rng.normal(0, 0.015), rng.uniform(0.25, 0.28)
    glass = (176, 206, 220)
    canvas.rectangle(x - r * 0.34, y - r * 1.75, x + r * 0.34, y - r * 0.6, glass)
    canvas.ellipse(x, y, r * 1.12, r * 1.12, glass)
    canvas.ellipse(x, y, r * 0.95, r * 0.95, colour)
    canvas.rectangle(x - r * 0.44, y - r * 1.9, x + r * 0.44, y - r * 1.62, (140, 90, 50))
    canvas.ellipse(x - r * 0.4, y - r * 0.36, r * 0.16, r * 0.24, shade(colour, 2.6))
    return canvas, ground_words(rng, article(f"{name} potion"), ground)


def gems(rng):
    name = pick(rng, ["red", "blue", "green", "purple", "yellow", "pink"])
    behind, ground = plain_ground(rng, [name])
    canvas, colour = Canvas(behind), tint(rng, name)
    x, y, r = 0.5 + rng.normal(0, 0.015), 0.5 + rng.normal(0, 0.015), rng.uniform(0.32, 0.37)
    a, b, c = y - r * 0.72, y - r * 0.22, y + r * 0.88
    canvas.polygon([(x - r * 0.6, a), (x + r * 0.6, a), (x + r, b), (x, c), (x - r, b)], colour)
    canvas.polygon([(x - r * 0.6, a), (x - r * 0.34, b), (x - r, b)], shade(colour, 1.5))
    canvas.polygon([(x - r * 0.6, a), (x, a), (x - r * 0.34, b)], shade(colour, 2.2))
    canvas.polygon([(x, a), (x + r * 0.34, b), (x - r * 0.34, b)], shade(colour, 1.35))
    canvas.polygon([(x - r, b), (x - r * 0.34, b), (x, c)], shade(colour, 1.2))
    canvas.polygon([(x + r * 0.34, b), (x + r, b), (x, c)], shade(colour, 0.7))
    return canvas, ground_words(rng, article(f"{name} gem"), ground)


# --- landscapes -----------------------------------------------------------------------------------------------------

SKIES = {
    "day": ((92, 170, 240), (196, 228, 250)), "sunset": ((120, 60, 130), (252, 160, 70)),
    "night": ((10, 14, 44), (38, 48, 100)), "snow": ((170, 200, 226), (226, 236, 244)),
}
SKY_WORDS = {
    "day": ["", "", " by day", " under a blue sky", " on a sunny day"], "sunset": [" at sunset", " at sunset", " under an orange sky", ", sunset"],
    "night": [" at night", " at night", " under the stars", ", night"], "snow": [" in the snow", " in the snow", " in snow", ", snow"],
}
GRASS = {"day": (92, 178, 74), "sunset": (84, 96, 52), "night": (22, 56, 50), "snow": (244, 248, 252)}
LIGHT = {"day": 1.0, "sunset": 0.82, "night": 0.55, "snow": 1.0}


class Sky:
    """A canvas with a sky of some hour, and the words that tell it."""

    def __init__(self, rng, hours=("day", "sunset", "night", "snow"), weights=(4, 3, 3, 2), horizon=0.7, lights=True):
        self.rng, self.hour = rng, pick(rng, list(hours), list(weights)[: len(hours)])
        top, bottom = SKIES[self.hour]
        self.canvas = Canvas(tuple(np.array(top) + rng.normal(0, 5)), tuple(np.array(bottom) + rng.normal(0, 5)))
        self.words = pick(rng, SKY_WORDS[self.hour])
        canvas, left = self.canvas, rng.random() < 0.5
        spot = (rng.uniform(0.14, 0.22), rng.uniform(0.13, 0.2)) if left else (rng.uniform(0.78, 0.86), rng.uniform(0.13, 0.2))
        if not lights:
            return
        if self.hour == "day":
            sun, clouds = "sunny" in self.words or rng.random() < 0.5, rng.random() < 0.4
            if sun:
                canvas.ellipse(*spot, 0.095, 0.095, (255, 222, 60))
            if clouds:
                self.cloud(1 - spot[0], rng.uniform(0.14, 0.22), rng.uniform(0.8, 1.1))
            if sun and "sunny" not in self.words and rng.random() < 0.35:
                self.words += pick(rng, [" with the sun", ", sun"])
            elif clouds and rng.random() < 0.6:
                self.words += pick(rng, [" with clouds", ", clouds"])
        elif self.hour == "night":
            for _ in range(int(rng.integers(9, 14))):
                size = rng.uniform(0.008, 0.014)
                canvas.ellipse(rng.uniform(0, 1), rng.uniform(0, horizon * 0.8), size, size, (245, 244, 214))
            if rng.random() < 0.6:
                canvas.ellipse(*spot, 0.09, 0.09, (244, 240, 208))
                if rng.random() < 0.5:
                    self.words += pick(rng, [" with the moon", ", moon", " and a moon"])
        elif self.hour == "sunset":
            x = rng.uniform(0.25, 0.75)
            canvas.ellipse(x, horizon - rng.uniform(0.0, 0.08), 0.13, 0.13, (255, 226, 120))
        elif self.hour == "snow":
            for _ in range(int(rng.integers(14, 22))):
                canvas.ellipse(rng.uniform(0, 1), rng.uniform(0, horizon), 0.012, 0.012, (255, 255, 255))

    def cloud(self, x, y, size):
        for dx, dy, r in ((-0.09, 0.01, 0.05), (0, -0.02, 0.07), (0.09, 0.01, 0.055), (0.03, 0.02, 0.05), (-0.04, 0.02, 0.05)):
            self.canvas.ellipse(x + dx * size, y + dy * size, r * size, r * size * 0.8, (252, 252, 255))

    def lit(self, colour):
        """The colour as it looks at this hour."""
        return shade(colour, LIGHT[self.hour])

    def meadow(self, y, bend=0.05):
        colour = np.array(GRASS[self.hour]) + self.rng.normal(0, 4)
        edge = [(x, y - bend * math.sin(math.pi * x)) for x in np.linspace(0, 1, 20)]
        self.canvas.polygon([(0, 1.01)] + edge + [(1, 1.01)], np.clip(colour, 0, 255).astype(int))


def houses(rng):
    sky = Sky(rng)
    sky.meadow(0.76)
    canvas, x, w = sky.canvas, 0.5 + rng.normal(0, 0.03), rng.uniform(0.24, 0.28)
    roof = pick(rng, ["red", "red", "blue", "green", "brown", "purple", "orange"])
    wall = pick(rng, ["", "", "white", "yellow", "pink", "blue", "red"])
    if wall == roof:
        wall = ""
    canvas.rectangle(x + w * 0.42, 0.3, x + w * 0.64, 0.5, sky.lit((120, 90, 80)))
    canvas.rectangle(x - w, 0.5, x + w, 0.84, sky.lit(tint(rng, wall) if wall else (236, 214, 176)))
    canvas.polygon([(x - w * 1.25, 0.51), (x, 0.24), (x + w * 1.25, 0.51)], sky.lit(tint(rng, roof)))
    canvas.rectangle(x - 0.06, 0.65, x + 0.06, 0.84, sky.lit((112, 70, 40)))
    glass = (255, 226, 110) if sky.hour == "night" else (150, 205, 236)
    for side in (-1, 1):
        canvas.rectangle(x + side * w * 0.62 - 0.05, 0.58, x + side * w * 0.62 + 0.05, 0.68, glass)
    house = f"{wall} house".strip()
    words = article(house) if rng.random() < 0.25 and roof == "red" else f"{article(house)} with {article(roof + ' roof')}"
    return canvas, words + sky.words


def trees(rng):
    sky = Sky(rng)
    sky.meadow(0.78)
    canvas, x = sky.canvas, 0.5 + rng.normal(0, 0.03)
    kind = pick(rng, ["green", "orange", "pink", "pine"], [4, 2, 2, 3])
    if kind == "pine":
        leaf = sky.lit((34, 116, 70))
        canvas.rectangle(x - 0.04, 0.72, x + 0.04, 0.88, sky.lit((104, 70, 42)))
        for base, top, half in ((0.76, 0.44, 0.25), (0.58, 0.28, 0.2), (0.42, 0.13, 0.15)):
            canvas.polygon([(x - half, base), (x, top), (x + half, base)], leaf)
            if sky.hour == "snow":
                canvas.polygon([(x - half * 0.4, top + (base - top) * 0.4), (x, top), (x + half * 0.4, top + (base - top) * 0.4)], (250, 252, 255))
        words = pick(rng, ["a pine tree", "a green pine tree", "a christmas tree"])
    else:
        leaf = sky.lit(tint(rng, kind) if kind != "green" else (58, 150, 62))
        canvas.polygon([(x - 0.045, 0.5), (x + 0.045, 0.5), (x + 0.065, 0.88), (x - 0.065, 0.88)], sky.lit((110, 72, 42)))
        for dx, dy, r in ((-0.15, 0.42, 0.14), (0.15, 0.42, 0.14), (0, 0.30, 0.18), (0, 0.44, 0.15)):
            canvas.ellipse(x + dx, dy, r, r, leaf)
        words = {"green": ["a green tree", "a tree"], "orange": ["an orange tree", "an autumn tree"], "pink": ["a pink tree", "a cherry tree"]}[kind]
        words = pick(rng, words)
    return canvas, words + sky.words


def mountains(rng):
    sky = Sky(rng)
    canvas = sky.canvas
    rock = {"day": (104, 116, 140), "sunset": (98, 66, 104), "night": (44, 50, 84), "snow": (128, 140, 160)}[sky.hour]
    peaks = [(rng.uniform(0.2, 0.3), rng.uniform(0.36, 0.42), 0.34), (rng.uniform(0.7, 0.8), rng.uniform(0.36, 0.44), 0.34), (0.5 + rng.normal(0, 0.03), rng.uniform(0.22, 0.28), 0.4)]
    for index, (x, y, half) in enumerate(peaks):
        colour = shade(rock, 0.86) if index < 2 else rock
        canvas.polygon([(x - half, 0.82), (x, y), (x + half, 0.82)], colour)
        d = 0.3
        cap = [(x, y), (x + half * d, y + (0.82 - y) * d), (x + half * d * 0.35, y + (0.82 - y) * d * 0.75), (x, y + (0.82 - y) * d * 1.1),
               (x - half * d * 0.35, y + (0.82 - y) * d * 0.75), (x - half * d, y + (0.82 - y) * d)]
        canvas.polygon(cap, sky.lit((250, 250, 255)) if sky.hour != "night" else (176, 184, 214))
    if rng.random() < 0.35:
        sea(sky, 0.78)
        words = pick(rng, ["mountains by the sea", "mountains behind the sea"])
    else:
        sky.meadow(0.8, 0.03)
        words = pick(rng, ["mountains", "mountains", "high mountains"])
    return canvas, words + sky.words


def sea(sky, y):
    colour = {"day": (36, 120, 200), "sunset": (126, 72, 110), "night": (14, 30, 78), "snow": (96, 140, 176)}[sky.hour]
    sky.canvas.rectangle(0, y, 1, 1, colour)
    light = {"day": (110, 184, 236), "sunset": (250, 176, 110), "night": (80, 100, 160), "snow": (180, 210, 230)}[sky.hour]
    for _ in range(5):
        x, wy = sky.rng.uniform(0, 0.9), sky.rng.uniform(y + 0.04, 0.97)
        sky.canvas.rectangle(x, wy, x + sky.rng.uniform(0.08, 0.16), wy + 0.012, light)


def boats(rng):
    sky = Sky(rng, ("day", "sunset", "night"), (4, 3, 3), 0.62)
    sea(sky, 0.62)
    canvas, x = sky.canvas, 0.5 + rng.normal(0, 0.04)
    name = pick(rng, ["white", "white", "red", "yellow", "orange", "green", "blue", "pink"])
    sail = sky.lit(tint(rng, name))
    canvas.rectangle(x - 0.012, 0.2, x + 0.012, 0.68, sky.lit((96, 62, 40)))
    canvas.polygon([(x + 0.025, 0.2), (x + 0.025, 0.6), (x + 0.25, 0.6)], sail)
    canvas.polygon([(x - 0.025, 0.28), (x - 0.025, 0.6), (x - 0.2, 0.6)], shade(sail, 0.85))
    canvas.polygon([(x - 0.28, 0.66), (x + 0.28, 0.66), (x + 0.2, 0.8), (x - 0.2, 0.8)], sky.lit((140, 78, 44)))
    words = "a boat" if name == "white" and rng.random() < 0.6 else f"a boat with {article(name + ' sail')}"
    return canvas, words + pick(rng, [" on the sea", " on the sea", " at sea", ""]) + sky.words


def seas(rng):
    sky = Sky(rng, ("day", "sunset", "night"), (3, 4, 3), 0.58)
    sea(sky, 0.58)
    words = pick(rng, ["the sea", "the sea", "a calm sea"])
    return sky.canvas, words + sky.words


def castles(rng):
    sky = Sky(rng)
    sky.meadow(0.8, 0.1)
    canvas, x = sky.canvas, 0.5 + rng.normal(0, 0.02)
    stone = sky.lit(tuple(int(c + rng.normal(0, 6)) for c in (160, 158, 164)))
    roof_name = pick(rng, ["red", "blue", "purple"])
    roof = sky.lit(tint(rng, roof_name))
    canvas.rectangle(x - 0.26, 0.5, x + 0.26, 0.82, stone)
    for i in range(5):
        canvas.rectangle(x - 0.26 + i * 0.116, 0.46, x - 0.20 + i * 0.116, 0.51, stone)
    for side in (-1, 1):
        canvas.rectangle(x + side * 0.28 - 0.075, 0.38, x + side * 0.28 + 0.075, 0.84, shade(stone, 0.88))
        canvas.polygon([(x + side * 0.28 - 0.11, 0.39), (x + side * 0.28, 0.18), (x + side * 0.28 + 0.11, 0.39)], roof)
        canvas.rectangle(x + side * 0.28 - 0.02, 0.48, x + side * 0.28 + 0.02, 0.56, (255, 222, 110) if sky.hour == "night" else (60, 60, 72))
    canvas.rectangle(x - 0.075, 0.68, x + 0.075, 0.84, sky.lit((88, 56, 34)))
    canvas.ellipse(x, 0.68, 0.075, 0.075, sky.lit((88, 56, 34)))
    words = "a castle" if rng.random() < 0.5 else f"a castle with {pick(rng, [f'{roof_name} roofs', f'a {roof_name} roof'])}"
    return canvas, words + pick(rng, ["", "", " on a hill"]) + sky.words


def cities(rng):
    sky = Sky(rng, ("day", "sunset", "night"), (3, 3, 4))
    canvas, x = sky.canvas, -0.03
    base = {"day": (120, 136, 160), "sunset": (74, 48, 84), "night": (24, 26, 46)}[sky.hour]
    while x < 1:
        w, top = rng.uniform(0.13, 0.2), rng.uniform(0.34, 0.66)
        canvas.rectangle(x, top, x + w - 0.012, 1, shade(base, rng.uniform(0.8, 1.0)))
        for wy in np.arange(top + 0.05, 0.94, 0.09):
            for wx in np.arange(x + 0.03, x + w - 0.05, 0.055):
                if rng.random() < 0.7:
                    canvas.rectangle(wx, wy, wx + 0.026, wy + 0.042, (255, 222, 110) if sky.hour != "day" else (204, 226, 244))
        x += w
    return canvas, pick(rng, ["a city", "a city", "a big city"]) + sky.words


def beaches(rng):
    sky = Sky(rng, ("day", "sunset", "night"), (4, 3, 2), 0.56)
    sea(sky, 0.56)
    canvas = sky.canvas
    canvas.polygon([(0, 1.01), (0, 0.84), (0.3, 0.78), (0.7, 0.76), (1, 0.8), (1, 1.01)], sky.lit((240, 214, 148)))
    x = rng.uniform(0.34, 0.62)
    trunk = [(x, 0.86), (x + 0.03, 0.66), (x + 0.08, 0.48), (x + 0.14, 0.36)]
    canvas.line(trunk, sky.lit((130, 88, 50)), 0.045)
    tx, ty = trunk[-1]
    for angle in (-165, -125, -70, -25, 10, 165):
        a = math.radians(angle)
        ex, ey = tx + 0.26 * math.cos(a), ty + 0.2 * math.sin(a) + 0.06
        mx, my = (tx + ex) / 2, min(ty, ey) - 0.035
        canvas.polygon([(tx, ty), (mx, my - 0.02), (ex, ey), (mx, my + 0.05)], sky.lit((40, 140, 66)))
    return canvas, pick(rng, ["a palm tree on the beach", "a beach with a palm tree", "a beach"]) + sky.words


def balloons(rng):
    sky = Sky(rng, ("day", "sunset", "night"), (5, 3, 2))
    sky.meadow(0.9, 0.04)
    name = pick(rng, ["red", "red", "orange", "yellow", "green", "blue", "purple", "pink"])
    canvas, colour = sky.canvas, sky.lit(tint(rng, name))
    x, y, r = 0.5 + rng.normal(0, 0.03), 0.36 + rng.normal(0, 0.02), rng.uniform(0.21, 0.24)
    canvas.polygon([(x - r * 0.9, y + r * 0.42), (x + r * 0.9, y + r * 0.42), (x + r * 0.24, y + r * 1.36), (x - r * 0.24, y + r * 1.36)], colour)
    canvas.ellipse(x, y, r, r, colour)
    canvas.ellipse(x, y + r * 0.05, r * 0.4, r * 1.04, shade(colour, 1.7))
    for side in (-1, 1):
        canvas.line([(x + side * r * 0.22, y + r * 1.34), (x + side * r * 0.22, y + r * 1.72)], sky.lit((90, 70, 50)), 0.014)
    canvas.rectangle(x - r * 0.3, y + r * 1.68, x + r * 0.3, y + r * 2.02, sky.lit((150, 98, 50)))
    kind = pick(rng, ["hot air balloon", "balloon"], [3, 2])
    return canvas, article(f"{name} {kind}") + pick(rng, ["", " in the sky"]) + sky.words


def cars(rng):
    sky = Sky(rng)
    sky.meadow(0.66, 0.03)
    canvas = sky.canvas
    canvas.rectangle(0, 0.72, 1, 0.94, sky.lit((104, 104, 112)))
    for x in np.arange(0.04, 1, 0.22):
        canvas.rectangle(x, 0.865, x + 0.1, 0.88, sky.lit((236, 232, 220)))
    name = pick(rng, ["red", "red", "blue", "green", "yellow", "orange", "black", "white", "purple", "pink"])
    colour, x = sky.lit(tint(rng, name)), 0.5 + rng.normal(0, 0.03)
    canvas.polygon([(x - 0.22, 0.6), (x - 0.14, 0.43), (x + 0.11, 0.43), (x + 0.22, 0.6)], colour)
    canvas.polygon([(x - 0.17, 0.58), (x - 0.115, 0.465), (x - 0.02, 0.465), (x - 0.02, 0.58)], sky.lit((190, 224, 242)))
    canvas.polygon([(x + 0.02, 0.58), (x + 0.02, 0.465), (x + 0.09, 0.465), (x + 0.165, 0.58)], sky.lit((190, 224, 242)))
    canvas.rectangle(x - 0.34, 0.58, x + 0.36, 0.75, colour)
    for side in (-0.2, 0.21):
        canvas.ellipse(x + side, 0.76, 0.085, 0.085, (24, 24, 28))
        canvas.ellipse(x + side, 0.76, 0.04, 0.04, (170, 170, 176))
    return canvas, article(f"{name} car") + pick(rng, ["", "", " on a road", " on the road"]) + sky.words


# --- space ----------------------------------------------------------------------------------------------------------

def space(rng):
    canvas = Canvas((12, 8, 32), (28, 14, 56))
    for _ in range(int(rng.integers(14, 22))):
        size = rng.uniform(0.007, 0.014)
        canvas.ellipse(rng.uniform(0, 1), rng.uniform(0, 1), size, size, (246, 244, 226))
    return canvas


def planets(rng):
    canvas, name = space(rng), pick(rng, ["red", "orange", "yellow", "green", "blue", "purple", "pink"])
    colour, x, y, r = tint(rng, name), 0.5 + rng.normal(0, 0.02), 0.5 + rng.normal(0, 0.02), rng.uniform(0.24, 0.28)
    ringed = rng.random() < 0.5
    band = (226, 200, 150)
    def half_ring(start, end):
        points = [(x + k * r * math.cos(a), y + k * r * 0.3 * math.sin(a) - 0.12 * k * r * math.cos(a)) for k in (1.75, 1.3)
                  for a in (np.linspace(start, end, 30) if k == 1.75 else np.linspace(end, start, 30))]
        canvas.polygon(points, band)
    if ringed:
        half_ring(math.pi, 2 * math.pi)
    canvas.ellipse(x, y, r, r, shade(colour, 0.7))
    canvas.ellipse(x - r * 0.09, y - r * 0.09, r * 0.88, r * 0.88, colour)
    canvas.ellipse(x - r * 0.3, y - r * 0.32, r * 0.2, r * 0.15, shade(colour, 1.5))
    if ringed:
        half_ring(0, math.pi)
    words = article(f"{name} planet") + (pick(rng, [" with a ring", " with rings"]) if ringed else "")
    return canvas, words + pick(rng, ["", " in space", " in space"])


def rockets(rng):
    canvas, name = space(rng), pick(rng, ["red", "red", "blue", "green", "orange", "purple"])
    colour, x = tint(rng, name), 0.5 + rng.normal(0, 0.02)
    body = (236, 238, 244)
    canvas.polygon([(x - 0.075, 0.72), (x, 0.97), (x + 0.075, 0.72)], (252, 150, 40))
    canvas.polygon([(x - 0.04, 0.72), (x, 0.87), (x + 0.04, 0.72)], (255, 228, 110))
    canvas.polygon([(x - 0.11, 0.5), (x - 0.24, 0.76), (x - 0.1, 0.7)], colour)
    canvas.polygon([(x + 0.11, 0.5), (x + 0.24, 0.76), (x + 0.1, 0.7)], colour)
    canvas.polygon([(x - 0.12, 0.34), (x + 0.12, 0.34), (x + 0.13, 0.54), (x + 0.09, 0.73), (x - 0.09, 0.73), (x - 0.13, 0.54)], body)
    canvas.polygon([(x - 0.12, 0.345), (x - 0.07, 0.18), (x, 0.08), (x + 0.07, 0.18), (x + 0.12, 0.345)], colour)
    canvas.ellipse(x, 0.46, 0.062, 0.062, shade(colour, 0.8))
    canvas.ellipse(x, 0.46, 0.042, 0.042, (140, 210, 244))
    words = "a rocket" if rng.random() < 0.3 and name == "red" else article(f"{name} rocket")
    return canvas, words + pick(rng, ["", " in space", " in space", " flying in space"])


KINDS = [(shapes, 8), (faces, 1.6), (cats, 1.4), (flowers, 1.4), (mushrooms, 1.0), (fishes, 1.2), (potions, 1.1), (gems, 1.1),
         (houses, 2.0), (trees, 1.8), (mountains, 1.4), (boats, 1.4), (seas, 0.8), (castles, 1.3), (cities, 1.2), (beaches, 1.2),
         (balloons, 1.3), (cars, 1.6), (planets, 1.4), (rockets, 1.1)]
PREFIXES = ["", "a picture of ", "picture of "]


def scene(rng):
    """One picture and what it shows."""
    kind = pick(rng, [k for k, _ in KINDS], [w for _, w in KINDS])
    canvas, words = kind(rng)
    return canvas.pixels(), pick(rng, PREFIXES, [8, 1, 1]) + words
