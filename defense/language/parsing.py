"""The spaCy pipeline that parses captions: a trained one by name, or one of ours that needs nothing but the lexicon.

spaCy is imported on first use only: it takes seconds, and only sub-captions need it. Nothing is ever downloaded.
"""

from functools import cache
from typing import TYPE_CHECKING

from defense.language.attachment import attach
from defense.language.tagging import tags
from infra.log import say

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

COMPONENT = "lexicon_parser"
NEEDED_LABELS = ("nsubj", "dobj", "prep", "pobj")
LONGEST_CAPTION = 2_000  # characters; more is no caption, and a parser's time grows with it


@cache
def pipeline(name: str = "") -> "Language":
    """name: an installed spaCy pipeline (en_core_web_sm) or a folder that holds one; "": ours.

    Raises ValueError where there is no such pipeline or it cannot parse English in the labels that
    defense.language.statements reads, and where spaCy is not installed.
    """
    try:
        import spacy
    except ModuleNotFoundError as error:
        raise ValueError("sub-captions need spaCy: pip install 'clip-antidote[text]'") from error
    if not name:
        return _ours()
    try:
        found = spacy.load(name, exclude=["ner", "textcat"])
    except OSError as error:
        raise ValueError(
            f"no spaCy pipeline {name!r} is installed, and nothing is downloaded: install it, give its folder, or ''"
        ) from error
    labels = found.pipe_labels.get("parser", [])
    if missing := [label for label in NEEDED_LABELS if label not in labels]:
        raise ValueError(
            f"the spaCy pipeline {name!r} has no parser with the labels {', '.join(missing)}:"
            " give an English one such as en_core_web_sm, or ''"
        )
    say(f"sub-captions: parsed by the spaCy pipeline {name}", pipeline=name)
    return found


def parse(caption: str, nlp: "Language") -> "Doc":
    """Words, parts of speech and dependencies. Of an endless caption the first 2,000 characters.

    Lone surrogates, which spaCy refuses, become "?".
    """
    text = " ".join(caption[:LONGEST_CAPTION].encode("utf-8", "replace").decode("utf-8").split())
    return nlp(text)


def _ours() -> "Language":
    import spacy
    from spacy.language import Language
    from spacy.tokens import Doc

    if not Language.has_factory(COMPONENT):

        @Language.component(COMPONENT)
        def lexicon_parser(doc: Doc) -> Doc:
            words = [token.text for token in doc]
            spaces = [bool(token.whitespace_) for token in doc]
            is_dash = [word == "-" and (i == 0 or spaces[i - 1] or spaces[i]) for i, word in enumerate(words)]
            marked = ["--" if dash else word for word, dash in zip(words, is_dash, strict=True)]
            pos = tags(marked)
            heads, deps = attach(marked, pos)
            return Doc(doc.vocab, words=words, spaces=spaces, pos=pos, heads=heads, deps=deps)

    nlp = spacy.blank("en")
    nlp.add_pipe(COMPONENT)
    return nlp
