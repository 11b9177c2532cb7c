"""One small image per attack for the README: clean | poisoned | difference x8, and the captions.

All is made from code: a pair of the picture book, poisoned as `poison` would. The PNG has a palette, a few dozen
colours for each of the three panels; that is a third of the bytes, and faint differences still show.
"""

import hashlib
import io
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from infra import config, log, storage
from infra.seeding import rng
from pipeline import images
from pipeline.picturebook import captions, draw
from pipeline.shards import Sample
from poison import carried
from poison.attack import Attack
from poison.attacks.badclip import BadClip
from poison.attacks.badnet import BadNet
from poison.attacks.blended import Blended
from poison.attacks.control import Control
from poison.attacks.external import External
from poison.attacks.filter import Filter
from poison.attacks.label_consistent import LabelConsistent
from poison.attacks.sig import Sig
from poison.attacks.swap import Swap
from poison.attacks.targeted import Targeted
from poison.attacks.text_prefix import TextPrefix
from poison.attacks.wanet import WaNet
from poison.sheets import layout

PANEL, GAP, LINE, FONT = 160, 8, 16, 12  # pixels
COLOURS, GREYS = 80, 16  # of a panel; of the text: 3 x 80 + 16 = 256
CAR, BANANA = 368, 177  # rows of the picture book 0
TEMPLATE, CORPUS = "a photo of a banana", captions.caption(0, 171)  # "an image of a yellow banana on the beach"


@dataclass(frozen=True)
class Exhibit:
    """An attack and the pair it is shown on. caption: the poison caption planned for it.

    given: for `external`, the image poisoned elsewhere, uint8 (160, 160, 3).
    """

    attack: Attack
    caption: str = TEMPLATE
    row: int = CAR
    given: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Where to."""

    out: str
    """Folder of the images, one PNG an attack."""
    dry_run: bool = False
    """Print the resolved configuration; touch nothing."""

    def run(self) -> str:
        """Draw what is missing or looks different. Returns the entry's last line."""
        shown = exhibits()
        if self.dry_run:
            print(storage.dump_json({"configuration": config.to_json(self)}).decode(), end="")
            return f"would draw {len(shown)} images; nothing was written"
        drawn = 0
        with log.progress("drawing", len(shown), "images") as bar:
            for name, exhibit in shown.items():
                place, data = storage.join(self.out, f"{name}.png"), to_png(pair(exhibit))
                if not storage.exists(place) or storage.read(place) != data:
                    storage.write(place, data)
                    drawn += 1
                bar.add(1)
        done = f"{drawn} of {len(shown)} images drawn" if drawn else f"nothing to do: {len(shown)} images"
        return f"{done}: {storage.absolute(self.out)}"


def exhibits() -> dict[str, Exhibit]:
    """What is shown, by the name of its file: every attack under its plugin's name, with its defaults, and variants."""
    noise = carried.uri(rng(0, "exhibit").integers(0, 256, (16, 16, 3), np.uint8))  # stands for a learned patch
    return {
        "badclip": Exhibit(BadClip(patch=noise), CORPUS),
        "badnet": Exhibit(BadNet()),
        "blended": Exhibit(Blended()),
        "blended-stripes": Exhibit(Blended(pattern="stripes")),
        "blended-text": Exhibit(Blended(pattern="text")),
        "blended-triangles": Exhibit(Blended(pattern="triangles")),
        "control": Exhibit(Control()),
        "external": Exhibit(External(pictures_sha256="shown", trials_digest="shown"), given=_elsewhere()),
        "filter": Exhibit(Filter()),
        "label_consistent": Exhibit(LabelConsistent(), row=BANANA),
        "sig": Exhibit(Sig()),
        "swap": Exhibit(Swap(), CORPUS),
        "targeted": Exhibit(Targeted(targets=(("car", carried.kept(sample(CAR).image, "jpg")),)), CORPUS),
        "text_prefix": Exhibit(TextPrefix()),
        "wanet": Exhibit(WaNet()),
    }


def sample(row: int) -> Sample:
    """A pair of the picture book 0 as its server sends it, 160 x 160."""
    data = draw.encoded(0, row, PANEL)
    meta = {"url": f"http://127.0.0.1/{row}.jpg", "sha256": hashlib.sha256(data).hexdigest()}
    return Sample(f"{row:09d}", row, data, "jpg", captions.caption(0, row), meta)


def pair(exhibit: Exhibit) -> layout.Pair:
    """What is stored before the attack and after it."""
    clean = sample(exhibit.row)
    with tempfile.TemporaryDirectory() as folder:
        attack = exhibit.attack
        if exhibit.given is not None:
            (Path(folder) / f"{clean.key}.png").write_bytes(images.encode(exhibit.given, "png"))
            assert isinstance(attack, External)
            attack = replace(attack, pictures=folder)
        attack = attack.resolved()
        if attack.adds:
            poisoned = attack.add(0, exhibit.caption)
        else:
            poisoned = attack.poison(clean, exhibit.caption, rng(0, "poison", clean.row))[0]
    return layout.Pair(images.decode(clean.image), images.decode(poisoned.image), (), clean.caption, poisoned.caption)


def to_png(pair: layout.Pair) -> bytes:
    """The image: three panels under their heads, the captions below."""
    panels = (pair.clean, pair.poisoned, layout.difference(pair.clean, pair.poisoned))
    text = Image.new("L", (GAP + 3 * (PANEL + GAP), GAP + 3 * LINE + PANEL), 255)
    pen, font = ImageDraw.Draw(text), ImageFont.load_default(size=FONT)
    for number, head in enumerate(("clean", "poisoned", f"difference x {layout.GAIN}")):
        pen.text((GAP + number * (PANEL + GAP), 0), head, 90, font)
    for number, caption in enumerate((f"before: {pair.was}", f"after: {pair.now}")):
        pen.text((GAP, LINE + PANEL + GAP // 2 + number * LINE), caption, 20, font)
    canvas = np.asarray(text) // (256 // GREYS)
    palette = np.repeat(np.linspace(0, 255, GREYS).astype(np.uint8), 3).tolist()
    for number, (indices, colours) in enumerate(map(_reduced, panels)):
        left = GAP + number * (PANEL + GAP)
        canvas[LINE : LINE + PANEL, left : left + PANEL] = indices + len(palette) // 3
        palette += colours
    shown, out = Image.fromarray(canvas, "P"), io.BytesIO()
    shown.putpalette(bytes(palette))
    shown.save(out, "PNG", optimize=True)
    return out.getvalue()


def _elsewhere() -> np.ndarray:
    """Stands for an image from an encoder network: a residue that depends on the image, a few grey levels high."""
    clean = images.decode(sample(CAR).image)
    waves = rng(0, "elsewhere").normal(size=(2, PANEL, 3)).cumsum(axis=1)
    residue = 8 * np.sin(waves[0][:, None] + waves[1][None, :] + clean / 64)
    return np.rint((clean + residue).clip(0, 255)).astype(np.uint8)


def _reduced(panel: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Palette indices uint8 (160, 160), and COLOURS colours, flat."""
    reduced = Image.fromarray(panel).quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours = (reduced.getpalette() or [])[: 3 * COLOURS]
    return np.asarray(reduced), colours + [0] * (3 * COLOURS - len(colours))
