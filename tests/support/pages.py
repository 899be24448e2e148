"""README, CONTRIBUTING and the pages under docs/, as tests read them."""

import dataclasses
import pathlib
import re

ROOT = next(
    folder
    for folder in pathlib.Path(__file__).resolve().parents
    if (folder / "pyproject.toml").exists()
)

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Page:
    """One page: `name` is its path in the repository."""

    name: str
    text: str

    def fenced(self, language: str) -> list[str]:
        """Blocks of code in a language, in their order."""
        return [body for kind, body in _FENCED.findall(self.text) if kind == language]

    @property
    def modules(self) -> dict[str, str]:
        """Python blocks that are files: the first line is a comment with the name."""
        named = re.compile(r"# (\w+\.py)\n")
        blocks = self.fenced("python")
        return {m[1]: block for block in blocks if (m := named.match(block))}

    @property
    def prose(self) -> str:
        """The text without its blocks."""
        return _FENCED.sub("", self.text)

    @property
    def spans(self) -> list[str]:
        """Code within the text, on one line each."""
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    @property
    def commands(self) -> list[str]:
        """Code that a shell may get: spans, indented lines, lines of `sh` blocks.

        A line that ends in a backslash goes on in the next; comments are cut off.
        """
        indented = re.findall(r"^    (\S.*)$", self.prose, re.MULTILINE)
        blocks = "\n".join(self.fenced("sh")).replace("\\\n", " ").splitlines()
        lines = [line.split("  #")[0].strip() for line in (*indented, *blocks)]
        return [*self.spans, *lines]

    @property
    def anchors(self) -> set[str]:
        """What a link may name after `#`: the headings, as Markdown spells them."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        plain = [re.sub(r"[^\w\s-]", "", h).strip().lower() for h in headings]
        return {re.sub(r"[\s-]+", "-", h) for h in plain}


def read(name: str) -> Page:
    """The page of a path in the repository."""
    return Page(name, (ROOT / name).read_text(encoding="utf-8"))


DOCS = [read(f"docs/{p.name}") for p in sorted((ROOT / "docs").glob("*.md"))]
PAGES = [read("README.md"), read("CONTRIBUTING.md"), read("benchmarks/README.md")]
PAGES += DOCS
