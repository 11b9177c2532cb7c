"""What the picture book knows about the world: its things, their natural colours, its backgrounds, its phrases."""

from dataclasses import dataclass

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (203, 44, 40),
    "orange": (236, 126, 34),
    "yellow": (243, 208, 52),
    "green": (74, 152, 62),
    "blue": (48, 96, 194),
    "purple": (126, 70, 164),
    "pink": (238, 142, 174),
    "white": (242, 240, 234),
    "black": (44, 44, 50),
    "grey": (142, 146, 152),
    "brown": (128, 82, 50),
    "golden": (206, 164, 58),
}


@dataclass(frozen=True)
class Kind:
    """How a thing occurs: its colours and textures (repeated: more often), how far it leans, whether it has a left.

    No colours: it has several of its own, of which nobody speaks.
    """

    colours: tuple[str, ...]
    textures: tuple[str, ...] = ("plain",)
    lean_degrees: float = 12.0
    flips: bool = True


ANY = ("red", "blue", "green", "yellow", "orange", "white", "black", "grey", "purple", "pink")
CLOTH = ("plain",) * 6 + ("striped", "spotted")


@dataclass(frozen=True)
class Thing:
    """One thing in an image. Lengths are in image widths, (x, y) is its centre with y down, angles in degrees."""

    name: str
    colour: str  # the word for `rgb`; "" where it has none
    rgb: RGB
    texture: str  # plain, striped, spotted
    size: str  # small, medium, large
    x: float
    y: float
    radius: float
    aspect: float  # width over height, relative to the thing's usual form
    angle: float
    flipped: bool
    form: tuple[float, float, float]  # three numbers in [0, 1): what a thing's outline makes of them is its own matter


# The order is the order of the labels; the first is the papers' usual target.
KINDS: dict[str, Kind] = {
    "banana": Kind(("yellow",) * 6 + ("green",), ("plain", "plain", "spotted"), 180.0),
    "apple": Kind(("red", "red", "green", "green", "yellow"), ("plain", "plain", "plain", "spotted"), 25.0),
    "car": Kind(ANY, ("plain", "plain", "plain", "striped"), 10.0),
    "house": Kind(("white", "red", "yellow", "brown", "grey", "blue", "pink"), lean_degrees=5.0),
    "tree": Kind(("green",) * 5 + ("orange", "yellow", "pink"), ("plain", "plain", "spotted"), 8.0),
    "fish": Kind(("orange", "blue", "grey", "red", "yellow", "green", "purple"), CLOTH, 16.0),
    "cup": Kind(ANY, CLOTH, 10.0),
    "ball": Kind(ANY, CLOTH, 180.0),
    "star": Kind(("yellow", "yellow", "golden", "red", "blue", "white", "purple"), CLOTH, 10.0, flips=False),
    "umbrella": Kind(ANY, CLOTH, 14.0),
    "boat": Kind(("white", "red", "blue", "brown", "green", "black", "yellow"), ("plain", "plain", "striped"), 10.0),
    "flower": Kind(("red", "pink", "white", "purple", "orange", "yellow", "blue"), lean_degrees=15.0),
    "key": Kind(("golden", "golden", "grey", "grey", "black", "brown"), lean_degrees=180.0),
    "mushroom": Kind(("red", "red", "brown", "white", "orange"), ("spotted", "spotted", "plain"), 12.0),
}

THINGS: tuple[str, ...] = tuple(KINDS)

# Phrases an alt-text might use for a background; for a plain one the colour is part of the phrase.
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "plain": ("on {a_colour} background", "isolated on {colour}", "against {a_colour} wall"),
    "gradient": ("on a soft background", "in a studio"),
    "wood": ("on a wooden table", "on a wooden board", "on a wooden floor"),
    "grass": ("on the grass", "on green grass", "in a meadow"),
    "sky": ("against a blue sky", "under a cloudy sky", "in the sky"),
    "cloth": ("on a checkered tablecloth", "on a checkered cloth"),
    "bricks": ("in front of a brick wall", "by a brick wall"),
    "sand": ("on the beach", "on sand", "in the desert"),
    "water": ("on the water", "by the sea", "on a lake"),
    "night": ("at night", "under the stars"),
}

SIZES: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": (),
    "large": ("large", "big", "huge"),
}

# Relation of the first thing to the second, the same seen from the second, and how each may be said.
INVERSE: dict[str, str] = {
    "beside": "beside",
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
    "front": "behind",
    "behind": "front",
}
RELATIONS: dict[str, tuple[str, ...]] = {
    "beside": ("next to", "beside", "and", "with"),
    "left": ("to the left of", "next to", "and"),
    "right": ("to the right of", "next to", "and"),
    "above": ("above", "over", "and"),
    "below": ("below", "under", "and"),
    "front": ("in front of", "with", "and"),
    "behind": ("behind", "and"),
}

# Prompts in CLIP_benchmark's form. They say "a" also where English wants "an", as that benchmark's do.
TEMPLATES: tuple[str, ...] = (
    "a photo of a {c}",
    "a picture of a {c}",
    "a {c}",
    "a drawing of a {c}",
    "an image of a {c}",
    "a close-up of a {c}",
    "a photo of the {c}",
    "a picture of a {c} on a table",
    "a {c} on a plain background",
)


def with_article(phrase: str) -> str:
    """`apple` -> `an apple`, `red apple` -> `a red apple`; right for every word this module knows."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
