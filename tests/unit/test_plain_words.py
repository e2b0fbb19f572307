"""Holds the rules of CONTRIBUTING.md's "Plain words" that a program can hold: phrases that are not used, and the length
of sentences in errors, hints, help texts and the documents written under these rules.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
LONGEST_SENTENCE_WORDS = 30
PLAIN_DOCUMENTS = (
    "CONTRIBUTING.md",
    "README.md",
    *(
        str(page.relative_to(ROOT))
        for page in sorted((ROOT / "docs").rglob("*.md"))
        if page.name != "conformance.md"  # quotes AWS
    ),
)

RIDDLES = {
    r"lack(s|ing)?": "is missing",
    r"mend(s|ed|ing)?": "fix",
    r"whereof|wherein|thereof": "of which, in which",
    r"(is|are|was|were) told (of|with)": "gets, receives",
    r"comes? (to rest|true)": "reaches a stable state, becomes",
    r"stumbl(e|es|ed)": "fails",
    r"stands? (behind|beside|there)": "is, serves, is kept",
    r"of its own accord": "by itself",
    r"ow(es|ed)(?!-)": "not yet delivered",
    r"bears? (out|no)": "shows, allows",
    r"but for (what|the)": "except",
    r"nobody (else )?would": "name the actor",
    r"what (it|they) (is|are|was|were) (owed|told)": "name the thing",
    r"no more than these": "only these",
    r"as far as nobody": "unless",
}
"""Phrase → what to write instead. A key of a JSON document, alone between quotes, is not prose."""


def phrases(text: str) -> Iterator[str]:
    for riddle, plain in RIDDLES.items():
        for found in re.finditer(rf"(?<![\"'])\b({riddle})\b|\b({riddle})\b(?![\"'])", text, re.IGNORECASE):
            yield f"line {text.count(chr(10), 0, found.start()) + 1}: {found.group()!r}; rather: {plain}"


def long_sentences(text: str) -> Iterator[str]:
    """The sentences with more than 30 words; the lines of a list and of a table are sentences of their own."""
    for sentence in re.split(
        r"(?<=[.!?:;])\s+|\n\s*\n|\n\s*[-*|] ?|\|", re.sub(r"```.*?```|`[^`]*`", "x", text, flags=re.DOTALL)
    ):
        if len(sentence.split()) > LONGEST_SENTENCE_WORDS:
            yield " ".join(sentence.split())


def literals(node: ast.expr) -> Iterator[str]:
    """The texts in an expression; a formatted value counts as one word."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts)
        case ast.BinOp(left=left, right=right):
            yield from (*literals(left), *literals(right))
        case ast.IfExp(body=body, orelse=orelse):
            yield from (*literals(body), *literals(orelse))


def shown(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What a person sees of a module: the arguments of raised errors, hints, help texts. Line, text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from ((node.lineno, text) for given in node.exc.args for text in literals(given))
        elif isinstance(node, ast.keyword) and node.arg in ("help", "hint"):
            yield from ((node.value.lineno, text) for text in literals(node.value))


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if path != Path(__file__))


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "scripts"])
def test_no_file_uses_a_phrase_that_has_a_plain_form(folder: str) -> None:
    found = [f"{path.relative_to(ROOT)} {phrase}" for path in sources(folder) for phrase in phrases(path.read_text())]
    assert not found, "\n".join(found)


def test_sentences_of_errors_hints_and_help_have_at_most_30_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {sentence}"
        for path in sources("src")
        for line, text in shown(ast.parse(path.read_text()))
        for sentence in long_sentences(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", PLAIN_DOCUMENTS)
def test_a_plain_document_has_short_sentences_and_no_riddles(name: str) -> None:
    text = (ROOT / name).read_text()
    kept = re.sub(r"^\|.*\|$", "", text, flags=re.MULTILINE) if name == "CONTRIBUTING.md" else text
    assert not [*phrases(kept), *long_sentences(kept)]


def test_the_checks_detect_bad_phrases_and_long_sentences() -> None:
    assert list(phrases("The folder lacks a file.\nIt was mended.")) == [
        "line 1: 'lacks'; rather: is missing",
        "line 2: 'mended'; rather: fix",
    ]
    assert [len(each.split()) for each in long_sentences("word " * 31 + ". " + "word " * 30)] == [32]
    raised = ast.parse('raise ValueError(f"{name} is not a name" if name else "no name", hint="a" "b")')
    assert [text for _, text in shown(raised)] == ["x is not a name", "no name", "ab"]
