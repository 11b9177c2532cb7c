"""A page read by a parser: what a browser would fetch or run, and whether every tag is closed."""

from html.parser import HTMLParser

VOID = {"meta", "img", "line", "rect", "circle", "polyline", "path"}


class Parser(HTMLParser):
    """Every tag is closed; collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self.headings: list[str] = []
        self.alts: list[str | None] = []
        self.attributes: set[str] = set()
        self.words: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.headings += [tag] if tag in ("h1", "h2", "h3") else []
        self.alts += [dict(attrs).get("alt")] if tag == "img" else []
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_data(self, data: str) -> None:
        self.words |= set(data.split())

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(text: str) -> Parser:
    parser = Parser()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser
